//! Every operation, run on every device: the CPU with each instruction set, the CPU with every fused operation
//! composed of primitives, a device with a queue, and the reference device, with which all are compared.

use BitNetDType::F32;
use bitnet_core::backend::{BinaryOp, Distribution, Op, ReduceOp, TensorRef, UnaryOp};
use bitnet_core::registry::{self, DeviceKind};
use bitnet_core::selftest::{self, cases, difference};
use bitnet_core::{Backend, BitNetDType, BitNetError, BitNetTensor, Device, Generator, Profiler, auto_select_device};
use bitnet_kernels::Isa;
use bitnet_testkit::{ReferenceBackend, composed_device, queue_device, reference_device};
use std::sync::Arc;

fn devices() -> Vec<(String, Device)> {
    let cpus = Isa::available().into_iter().map(|isa| (format!("cpu {isa}"), Device::cpu_with_isa(isa, 2).unwrap()));
    let others = [reference_device(), queue_device(), composed_device(Device::cpu())];
    let others = others.map(|device| (device.name(), device));
    cpus.chain(others).collect()
}

/// Values of both signs, distinct for distinct seeds.
fn tensor(device: &Device, dims: &[usize], seed: u64) -> BitNetTensor {
    BitNetTensor::randn(dims, F32, &Device::cpu(), &mut Generator::new(seed)).unwrap().to_device(device).unwrap()
}

fn out(device: &Device, dims: &[usize]) -> BitNetTensor {
    BitNetTensor::empty(dims, F32, device).unwrap()
}

#[test]
fn every_case_agrees_on_every_device() {
    selftest::require().unwrap();
    for case in cases() {
        let expected = case.run(&reference_device()).unwrap_or_else(|e| panic!("{case:?} on reference: {e}"));
        for (name, device) in devices() {
            match case.run(&device) {
                Ok(got) => {
                    let difference = difference(&got, &expected);
                    assert!(difference <= case.bound, "{case:?} on {name} differs by {difference:e}");
                }
                // A device may lack a dtype, if it says so.
                Err(BitNetError::Unsupported { dtype, .. }) if !device.has(dtype) => {}
                Err(error) => panic!("{case:?} on {name}: {error}"),
            }
        }
    }
}

#[test]
fn every_operation_has_a_case() {
    let profiler = Profiler::start();
    for case in cases() {
        case.run(&reference_device()).unwrap();
    }
    let profile = profiler.stop();
    let ran = |name: &str| profile.operations().iter().any(|o| o.operation.split(' ').next() == Some(name));
    let missing: Vec<_> = Op::NAMES.iter().filter(|name| !ran(name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

/// The reference itself, by hand.
#[test]
fn small_results_are_those_computed_by_hand() {
    for (name, device) in devices() {
        let a = BitNetTensor::from_slice(&[1f32, 2., 3., 4., 5., 6.], &[2, 3], &device).unwrap();
        let mut sums = out(&device, &[1, 3]);
        device.reduce(ReduceOp::Sum, a.as_ref(), 0, sums.as_mut().unwrap()).unwrap();
        assert_eq!(sums.to_vec::<f32>().unwrap(), [5., 7., 9.], "{name}");
        let mut largest = out(&device, &[2, 1]);
        device.reduce(ReduceOp::Max, a.as_ref(), 1, largest.as_mut().unwrap()).unwrap();
        assert_eq!(largest.to_vec::<f32>().unwrap(), [3., 6.], "{name}");
        let mut square = out(&device, &[2, 2]);
        device.matmul(a.as_ref(), a.transpose(0, 1).unwrap().as_ref(), square.as_mut().unwrap()).unwrap();
        assert_eq!(square.to_vec::<f32>().unwrap(), [14., 32., 32., 77.], "{name}");
        let ids = BitNetTensor::from_slice(&[1u32, 0, 1], &[3], &device).unwrap();
        let mut rows = out(&device, &[3, 3]);
        device.gather(a.as_ref(), 0, every_column(&ids, &[3, 3]), rows.as_mut().unwrap()).unwrap();
        assert_eq!(rows.to_vec::<f32>().unwrap(), [4., 5., 6., 1., 2., 3., 4., 5., 6.], "{name}");
        let beyond = BitNetTensor::from_slice(&[2u32], &[1], &device).unwrap();
        let mut row = out(&device, &[1, 3]);
        let index = every_column(&beyond, &[1, 3]);
        let result = device.gather(a.as_ref(), 0, index, row.as_mut().unwrap());
        assert!(result.and_then(|()| device.synchronize()).is_err(), "{name}");
    }
}

/// An index of rows that all columns share.
fn every_column<'a>(ids: &'a BitNetTensor, dims: &[usize]) -> TensorRef<'a> {
    let layout = ids.layout().unsqueeze(1).unwrap().broadcast_to(dims).unwrap();
    TensorRef { layout, ..ids.as_ref() }
}

/// Words, uniform numbers, masks, integers and permutations have the same bits everywhere; normal numbers are near.
#[test]
fn random_numbers_are_the_same_on_every_device() {
    let start = || Generator::at(0, u64::from(u32::MAX) - 40);
    let draw = |device: &Device, dtype, distribution| {
        BitNetTensor::random(distribution, &[301], dtype, device, &mut start()).unwrap().to_bytes().unwrap()
    };
    let cpu = Device::cpu();
    let unit = Distribution::Uniform { low: 0., high: 1. };
    for (name, device) in devices() {
        for dtype in [F32, BitNetDType::F16, BitNetDType::BF16] {
            for distribution in
                [unit, Distribution::Uniform { low: -0.3, high: 0.7 }, Distribution::Bernoulli { p: 0.1 }]
            {
                assert!(draw(&device, dtype, distribution) == draw(&cpu, dtype, distribution), "{name} {dtype}");
            }
        }
        for (dtype, high) in [(BitNetDType::U32, 1 << 32), (BitNetDType::I32, 10), (BitNetDType::U8, 256)] {
            let integers = Distribution::Integer { low: 0, high };
            assert!(draw(&device, dtype, integers) == draw(&cpu, dtype, integers), "{name} {dtype}");
        }
        let permutation = |device: &Device| {
            let order = BitNetTensor::randperm(1000, device, &mut start()).unwrap();
            order.to_cpu().unwrap().to_dtype(BitNetDType::U32).unwrap().to_vec::<u32>().unwrap()
        };
        assert_eq!(permutation(&device), permutation(&cpu), "{name}");
        let normal = |device: &Device| {
            BitNetTensor::randn(&[10_001], F32, device, &mut start()).unwrap().to_vec::<f32>().unwrap()
        };
        for (x, y) in normal(&device).iter().zip(normal(&cpu)) {
            assert!((x - y).abs() < 2e-6, "{name}: {x} {y}");
        }
        // The first known answer of Random123: counter and key 0.
        let first = BitNetTensor::rand(&[4], F32, &device, &mut Generator::new(0)).unwrap().to_vec::<f32>().unwrap();
        let words = first.iter().map(|x| (x * 16_777_216.) as u32).collect::<Vec<_>>();
        assert_eq!(words, [0x66_27e8, 0xe1_69c5, 0xbc_57ac, 0x9b_00db], "{name}");
    }
}

/// A step that was recorded is replayed with what its operands hold then.
#[test]
fn recorded_steps_are_replayed() {
    let device = queue_device();
    let (x, mut y) = (tensor(&device, &[3, 8], 1), out(&device, &[3, 8]));
    let mut ids = BitNetTensor::from_slice(&[2u32, 0], &[2], &device).unwrap();
    let mut rows = out(&device, &[2, 8]);
    let mut step = || {
        device.softmax(x.as_ref(), y.as_mut()?)?;
        device.embedding(ids.as_ref(), y.as_ref(), rows.as_mut()?)
    };
    let graph = device.record(&mut step).unwrap().expect("this device records");
    let first = rows.to_vec::<f32>().unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap()[16..], first[..8]);
    device.write(ids.as_mut().unwrap().storage, 0, &[1u32, 2].map(u32::to_ne_bytes).concat()).unwrap();
    graph.replay().unwrap();
    let second = rows.to_vec::<f32>().unwrap();
    assert_eq!((&y.to_vec::<f32>().unwrap()[8..16], &second[8..]), (&second[..8], &first[..8]));
    // Nothing can be read while a step is recorded: the host would see it once only.
    let waits = device.record(&mut || y.to_vec::<f32>().map(drop)).unwrap_err().to_string();
    assert!(waits.contains("must not wait"), "{waits}");
    // The CPU has nothing to record: the step is run each time.
    assert!(Device::cpu().record(&mut || Ok(())).unwrap().is_none());
}

/// An error of a device with a queue reaches the next call that waits, once.
#[test]
fn errors_of_a_queue_come_late_and_once() {
    let device = queue_device();
    let x = tensor(&device, &[3, 8], 1);
    let ids = BitNetTensor::from_slice(&[3u32], &[1], &device).unwrap();
    let mut row = out(&device, &[1, 8]);
    device.embedding(ids.as_ref(), x.as_ref(), row.as_mut().unwrap()).unwrap();
    let late = device.synchronize().unwrap_err().to_string();
    assert!(late.contains("index 3 is outside dimension 0"), "{late}");
    device.synchronize().unwrap();
    assert_eq!(x.add(0).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
}

/// A download that was started gives what was there at its place in the queue; only the one who waits for it waits.
#[test]
fn downloads_that_were_started_keep_their_order() {
    for (name, device) in devices() {
        let mut x = BitNetTensor::from_slice(&[1f32, 2., 3., 4.], &[2, 2], &device).unwrap();
        let floats = |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|x| f32::from_ne_bytes(*x)).collect::<Vec<_>>();
        let before = x.transpose(0, 1).unwrap().start_download().unwrap();
        x.mul_(10.).unwrap();
        let after = x.start_download().unwrap();
        drop(x);
        assert_eq!(floats(after.wait().unwrap()), [10., 20., 30., 40.], "{name}");
        assert_eq!(floats(before.wait().unwrap()), [1., 3., 2., 4.], "{name}");
    }
    // What fails before it on the queue is not known yet when it starts.
    let device = queue_device();
    let x = tensor(&device, &[3, 8], 1);
    let ids = BitNetTensor::from_slice(&[3u32], &[1], &device).unwrap();
    let mut row = out(&device, &[1, 8]);
    device.embedding(ids.as_ref(), x.as_ref(), row.as_mut().unwrap()).unwrap();
    let (failed, next) = (row.start_download().unwrap(), x.start_download().unwrap());
    assert!(failed.wait().unwrap_err().to_string().contains("index 3 is outside dimension 0"));
    assert_eq!(next.wait().unwrap(), x.to_bytes().unwrap());
    let waits = device.record(&mut || x.start_download().map(drop)).unwrap_err().to_string();
    assert!(waits.contains("must not wait"), "{waits}");
}

/// What a program registers is found by name, and two handles of one device are equal.
#[test]
fn registered_devices_are_found() {
    let missing = Device::vulkan(0).unwrap_err().to_string();
    assert_eq!(missing, "device vulkan:0 is not compiled into this build: use the cpu");
    let open = |index| match index {
        0 => Ok(Arc::new(ReferenceBackend) as Arc<dyn Backend>),
        _ => Err(BitNetError::NoDevice(format!("vulkan:{index}: there is one"))),
    };
    registry::register(DeviceKind { name: "vulkan", open });
    let (device, again) = (Device::vulkan(0).unwrap(), Device::gpu().unwrap());
    assert!(device == again && device == auto_select_device() && device != Device::cpu());
    assert_eq!(device.name(), "reference");
    assert_eq!(Device::vulkan(1).unwrap_err().to_string(), "vulkan:1: there is one");
    let x = tensor(&device, &[3], 1);
    assert_eq!(x.add(&tensor(&again, &[3], 1)).unwrap().to_cpu().unwrap().device(), &Device::cpu());
}

#[test]
fn wrong_shapes_are_errors_on_every_device() {
    for (name, device) in devices() {
        let a = tensor(&device, &[2, 3], 28);
        let bytes = BitNetTensor::from_slice(&[1i8, 2, 3, 4, 5, 6], &[2, 3], &device).unwrap();
        let (mut same, mut other) = (out(&device, &[2, 3]), out(&device, &[3, 2]));
        let results = [
            ("copy", device.copy(a.as_ref(), other.as_mut().unwrap())),
            ("copy of a dtype", device.copy(bytes.as_ref(), same.as_mut().unwrap())),
            ("unary", device.unary(UnaryOp::Abs, a.as_ref(), other.as_mut().unwrap())),
            ("binary", device.binary(BinaryOp::Add, a.as_ref(), a.as_ref(), other.as_mut().unwrap())),
            ("matmul", device.matmul(a.as_ref(), a.as_ref(), other.as_mut().unwrap())),
            ("rms_norm", device.rms_norm(a.as_ref(), a.as_ref(), 1e-5, same.as_mut().unwrap())),
            ("linear", device.linear(a.as_ref(), tensor(&device, &[4, 5], 29).as_ref(), other.as_mut().unwrap())),
            ("rope", device.rope(same.as_mut().unwrap(), a.as_ref(), a.as_ref(), a.as_ref())),
            ("add_assign", device.binary_assign(BinaryOp::Add, other.as_mut().unwrap(), a.as_ref())),
        ];
        for (operation, result) in results {
            let message = result.expect_err(&format!("{operation} on {name}")).to_string();
            assert!(!message.contains('\n') && message.len() > 10, "{operation} on {name}: {message}");
        }
    }
    // An operand of another device.
    let (cpu, reference) = (Device::cpu(), reference_device());
    let (here, there) = (tensor(&cpu, &[2, 3], 30), tensor(&reference, &[2, 3], 30));
    assert!(cpu.unary(UnaryOp::Abs, there.as_ref(), out(&cpu, &[2, 3]).as_mut().unwrap()).is_err());
    assert!(reference.unary(UnaryOp::Abs, here.as_ref(), out(&reference, &[2, 3]).as_mut().unwrap()).is_err());
    assert_eq!(there.to_device(&cpu).unwrap().to_vec::<f32>().unwrap(), here.to_vec::<f32>().unwrap());
}
