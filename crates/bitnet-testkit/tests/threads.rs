//! Tensors shared by threads: read concurrently, each written as a private copy, created and dropped many times. The
//! README says how to run this under ThreadSanitizer.

use bitnet_core::{BitNetDType, BitNetTensor, Device};
use bitnet_testkit::{queue_device, reference_device};
use std::sync::Barrier;
use std::thread;

const THREADS: usize = 8;

/// Runs `body` on all threads, which start together.
fn together<T: Send>(body: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS);
    let run = |i: usize| {
        start.wait();
        body(i)
    };
    thread::scope(|scope| {
        let handles: Vec<_> = (0..THREADS).map(|i| scope.spawn(move || run(i))).collect();
        handles.into_iter().map(|h| h.join().expect("no thread panics")).collect()
    })
}

fn devices() -> [Device; 4] {
    [Device::cpu(), Device::cpu_with_threads(3), reference_device(), queue_device()]
}

#[test]
fn tensors_and_devices_can_be_sent_and_shared() {
    fn both<T: Send + Sync>() {}
    both::<BitNetTensor>();
    both::<Device>();
    both::<bitnet_core::TensorStorage>();
    both::<bitnet_core::BitNetError>();
}

#[test]
fn writers_of_a_shared_tensor_get_copies() {
    for device in devices() {
        let values: Vec<f32> = (0..6000).map(|i| i as f32).collect();
        let shared = BitNetTensor::from_slice(&values, &[60, 100], &device).unwrap();
        for _ in 0..20 {
            let sums = together(|i| {
                let mut mine = shared.clone();
                mine.add_(i as f32).unwrap();
                // A view of it written again, while others read the original.
                let mut part = mine.transpose(0, 1).unwrap();
                part.mul_(2.).unwrap();
                assert_eq!(mine.to_vec::<f32>().unwrap()[10], 10. + i as f32);
                assert_eq!(shared.to_vec::<f32>().unwrap(), values);
                part.to_vec::<f32>().unwrap()
            });
            for (i, sum) in sums.iter().enumerate() {
                let expected = |at: usize| 2. * ((at % 60 * 100 + at / 60) as f32 + i as f32);
                assert!(sum.iter().enumerate().all(|(at, &v)| v == expected(at)));
            }
        }
        assert_eq!(shared.to_vec::<f32>().unwrap(), values);
    }
}

#[test]
fn the_last_holder_writes_in_place_whoever_it_is() {
    let device = Device::cpu();
    for round in 0..200 {
        let shared = BitNetTensor::full(&[64], round as f32, BitNetDType::F32, &device).unwrap();
        let holders: Vec<_> = (0..THREADS).map(|_| std::sync::Mutex::new(Some(shared.clone()))).collect();
        drop(shared);
        // Each takes its clone, writes and drops it, so that the count of holders falls while others look at it.
        let results = together(|i| {
            let mut mine = holders[i].lock().unwrap().take().unwrap();
            mine.add_(i as f32 + 1.).unwrap();
            mine.to_vec::<f32>().unwrap()
        });
        for (i, result) in results.iter().enumerate() {
            assert_eq!(*result, vec![round as f32 + i as f32 + 1.; 64]);
        }
    }
}

#[test]
fn one_device_serves_many_threads() {
    for device in devices() {
        let a = BitNetTensor::from_slice(&[1f32; 48 * 40], &[48, 40], &device).unwrap();
        let b = BitNetTensor::from_slice(&[2f32; 40 * 24], &[40, 24], &device).unwrap();
        together(|i| {
            for _ in 0..10 {
                let mut product = BitNetTensor::empty(&[48, 24], BitNetDType::F32, &device).unwrap();
                device.matmul(a.as_ref(), b.as_ref(), product.as_mut().unwrap()).unwrap();
                product.mul_(i as f32).unwrap();
                assert_eq!(product.to_vec::<f32>().unwrap(), vec![80. * i as f32; 48 * 24]);
                assert_eq!(product.sum(.., false).unwrap().to_vec::<f32>().unwrap(), [80. * i as f32 * 48. * 24.]);
            }
        });
    }
}

#[test]
fn tensors_made_by_one_thread_are_dropped_by_another() {
    let device = Device::cpu();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<BitNetTensor>(16);
    let receiver = std::sync::Mutex::new(receiver);
    thread::scope(|scope| {
        for i in 0..THREADS / 2 {
            let (sender, device) = (sender.clone(), device.clone());
            scope.spawn(move || {
                for n in 0..300 {
                    // From a few bytes to a few pages, and some beyond every small block.
                    let size = [1, 7, 100, 5000, 400_000][(n + i) % 5];
                    sender.send(BitNetTensor::full(&[size], n as i32, BitNetDType::I32, &device).unwrap()).unwrap();
                }
            });
            let receiver = &receiver;
            scope.spawn(move || {
                for _ in 0..300 {
                    let x = receiver.lock().unwrap().recv().unwrap();
                    let values = x.to_vec::<i32>().unwrap();
                    assert!(values.iter().all(|&v| v == values[0]));
                }
            });
        }
    });
}
