use super::*;
use crate::{BitNetDType::F32, BitNetTensor, Device};

fn ones(dims: &[usize]) -> BitNetTensor {
    BitNetTensor::ones(dims, F32, &Device::cpu()).unwrap()
}

#[test]
fn calls_and_bytes_are_counted() {
    let (x, row) = (ones(&[8, 4]), ones(&[4]));
    let profiler = Profiler::start();
    x.add(&row).unwrap();
    x.add(&row).unwrap();
    let profile = profiler.stop();
    let add = profile.operations().iter().find(|o| o.operation == "binary add").unwrap();
    // Broadcast elements count once.
    assert_eq!((add.calls, add.bytes_read, add.bytes_written), (2, 2 * (32 + 4) * 4, 2 * 32 * 4));
    assert_eq!(add.operations, 2 * 32);
    assert!(add.kernel.starts_with("cpu"), "{}", add.kernel);
    assert_eq!(add.dtypes, "f32");
}

#[test]
fn copies_for_a_shape_are_told_from_views() {
    let x = ones(&[8, 4]);
    let profiler = Profiler::start();
    let t = x.transpose(0, 1).unwrap();
    x.reshape(&[32]).unwrap();
    t.reshape(&[32]).unwrap();
    t.contiguous().unwrap();
    x.contiguous().unwrap();
    x.copy().unwrap();
    let profile = profiler.stop();
    assert_eq!(profile.shape_only_share(), Some(3. / 5.));
    assert_eq!((profile.calls("reshape"), profile.calls("contiguous"), profile.calls("copy")), (2, 2, 1));
    let text = profile.to_string();
    assert!(text.contains("shape only: 3 of 5 calls moved no bytes (60.0 %)"), "{text}");
    assert!(text.contains("copies that `contiguous` makes"), "{text}");
}

#[test]
fn overlapping_profilers_see_everything_and_other_threads_nothing() {
    let x = ones(&[4]);
    let outer = Profiler::start();
    let inner = Profiler::start();
    x.exp().unwrap();
    std::thread::scope(|s| s.spawn(|| x.exp().unwrap()).join().map(drop)).unwrap();
    drop(outer);
    x.exp().unwrap();
    assert_eq!(inner.stop().calls("unary exp"), 2);
    assert!(!is_active());
}

#[test]
fn small_operations_are_advised_on() {
    let x = ones(&[4]);
    let profiler = Profiler::start();
    for _ in 0..100 {
        x.sqrt().unwrap();
    }
    let advice = profiler.stop().advice().join("\n");
    assert!(advice.contains("100 of 100 operations move less than 16 KiB"), "{advice}");
}

#[test]
fn products_count_a_multiply_add_as_two() {
    let (a, b) = (ones(&[3, 5]), ones(&[5, 7]));
    let profiler = Profiler::start();
    a.matmul(&b).unwrap();
    let profile = profiler.stop();
    let product = profile.operations().iter().find(|o| o.operation == "matmul").unwrap();
    assert_eq!(product.operations, 2 * 3 * 5 * 7);
    assert_eq!((product.bytes_read, product.bytes_written), ((15 + 35) * 4, 21 * 4));
}
