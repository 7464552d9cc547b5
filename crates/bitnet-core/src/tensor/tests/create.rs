//! Creation.

use crate::BitNetDType::*;
use crate::{BitNetTensor, Device, HybridMemoryPool, Scalar, TensorMetadata};
use half::bf16;

#[test]
fn values_by_rule() {
    let cpu = &Device::cpu();
    assert_eq!(BitNetTensor::zeros(&[2, 0], I64, cpu).unwrap().dims(), [2, 0]);
    assert_eq!(BitNetTensor::full(&[3], 300, U8, cpu).unwrap().to_vec::<u8>().unwrap(), [44; 3]);
    assert_eq!(BitNetTensor::ones(&[2], BF16, cpu).unwrap().to_vec::<bf16>().unwrap(), [bf16::ONE; 2]);
    assert_eq!(BitNetTensor::full(&[2], true, Bool, cpu).unwrap().to_bools().unwrap(), [true; 2]);
    assert_eq!(BitNetTensor::eye(2, F64, cpu).unwrap().to_vec::<f64>().unwrap(), [1., 0., 0., 1.]);
    let count = |a: i64, b: i64, s: i64| BitNetTensor::arange(a, b, s, I64, cpu).map(|t| t.to_vec::<i64>().unwrap());
    assert_eq!(count(2, 11, 3).unwrap(), [2, 5, 8]);
    assert_eq!(count(5, 0, -2).unwrap(), [5, 3, 1]);
    assert_eq!(count(0, 0, 1).unwrap(), [0; 0]);
    assert_eq!(count(i64::MIN, i64::MAX, i64::MAX).unwrap(), [i64::MIN, -1, i64::MAX - 1]);
    assert!(count(0, 5, 0).is_err() && count(0, 5, -1).is_err() && count(i64::MIN, i64::MAX, 1).is_err());
    let float = |a, b, s| BitNetTensor::arange(a, b, s, F64, cpu).map(|t| t.to_vec::<f64>().unwrap());
    assert_eq!(float(1., -1., -0.5).unwrap(), [1., 0.5, 0., -0.5]);
    assert!(float(0., f64::INFINITY, 1.).is_err() && float(0., f64::NAN, 1.).is_err() && float(0., 1., 0.).is_err());
    assert!(float(0., 1., -1.).is_err() && float(0., 1e300, 1.).is_err());
    let line = |steps| BitNetTensor::linspace(0., 1., steps, F64, cpu).unwrap().to_vec::<f64>().unwrap();
    assert_eq!(line(5), [0., 0.25, 0.5, 0.75, 1.]);
    assert_eq!((line(1), line(0)), (vec![0.], vec![]));
}

#[test]
fn triangles_of_matrices() {
    let x = BitNetTensor::from_slice(&[1f32; 12], &[2, 2, 3], &Device::cpu()).unwrap();
    assert_eq!(x.tril(0).unwrap().to_vec::<f32>().unwrap(), [1., 0., 0., 1., 1., 0.].repeat(2));
    assert_eq!(x.triu(1).unwrap().to_vec::<f32>().unwrap(), [0., 1., 1., 0., 0., 1.].repeat(2));
    assert_eq!(x.tril(isize::MIN).unwrap().to_vec::<f32>().unwrap(), [0.; 12]);
    assert!(x.flatten(0, 2).unwrap().tril(0).is_err());
}

#[test]
fn values_go_in_and_out() {
    let cpu = &Device::cpu();
    let b = BitNetTensor::from_bools(&[true, false], &[2], cpu).unwrap();
    assert_eq!(b.to_bools().unwrap(), [true, false]);
    assert_eq!(b.select(0, 0).unwrap().to_scalar().unwrap(), Scalar::Bool(true));
    let x = BitNetTensor::from_vec(vec![1.5f32, -2.], &[2], cpu).unwrap();
    assert_eq!(x.select(0, -1).unwrap().item::<f32>().unwrap(), -2.);
    assert_eq!(x.select(0, 0).unwrap().to_scalar().unwrap(), Scalar::Float(1.5));
    assert!(x.item::<f32>().is_err() && x.to_scalar().is_err() && x.to_bools().is_err() && x.to_vec::<f64>().is_err());
}

#[test]
fn fill_leaves_other_owners() {
    let x = BitNetTensor::from_vec(vec![1i32, 2, 3, 4], &[4], &Device::cpu()).unwrap();
    let mut part = x.narrow(0, 1, 2).unwrap();
    part.fill_(7).unwrap();
    assert_eq!(part.to_vec::<i32>().unwrap(), [7, 7]);
    assert_eq!(x.to_vec::<i32>().unwrap(), [1, 2, 3, 4]);
    let mut alone = x.copy().unwrap().slice(0, None, None, 2).unwrap();
    alone.fill_(9).unwrap();
    assert_eq!(alone.to_vec::<i32>().unwrap(), [9, 9]);
}

#[test]
fn a_tensor_from_its_metadata_counts_in_its_pool_and_holds_zeros() {
    let pool = HybridMemoryPool::new().unwrap();
    pool.allocate_bytes(64).unwrap().bytes_mut().fill(7); // what the block held before
    let metadata = BitNetTensor::zeros(&[4, 8], F16, &Device::cpu()).unwrap().metadata();
    let x = BitNetTensor::new(metadata, &pool).unwrap();
    assert_eq!((x.dims(), x.dtype(), x.device()), (&[4, 8][..], F16, &Device::cpu()));
    assert_eq!((x.to_bytes().unwrap(), pool.get_metrics().total_allocated), (vec![0; 64], 64));
    drop(x);
    assert_eq!(pool.get_metrics().total_allocated, 0);
    let wrong = TensorMetadata::new(vec![1; 9], F32, Device::cpu());
    assert!(BitNetTensor::new(wrong, &pool).unwrap_err().to_string().contains("at most 8 dimensions"));
}

#[test]
fn without_a_gpu_the_best_device_is_the_cpu() {
    let x = BitNetTensor::zeros(&[2], F32, &Device::cpu_with_threads(1)).unwrap();
    assert_eq!(*x.auto_device().unwrap().device(), crate::auto_select_device());
    assert_eq!(*x.to_cpu().unwrap().device(), Device::cpu());
    match Device::gpu() {
        Ok(gpu) => assert_eq!(*x.to_gpu().unwrap().device(), gpu),
        Err(e) => assert_eq!(x.to_gpu().unwrap_err().to_string(), e.to_string()),
    }
}

#[test]
fn counts_of_integers_reach_their_end() {
    let cpu = &Device::cpu();
    let count = |start: Scalar, end: Scalar, step: Scalar, dtype| BitNetTensor::arange(start, end, step, dtype, cpu);
    let ints = |start: Scalar, end: Scalar, step: Scalar| {
        let wide = count(start, end, step, I64).unwrap().to_vec::<i64>().unwrap();
        let narrow = count(start, end, step, I32).unwrap().to_dtype(I64).unwrap().to_vec::<i64>().unwrap();
        assert_eq!(wide, narrow);
        wide
    };
    // torch.arange(0, 2.5, dtype=torch.int64), (0.5, 3), (0, -2.5, -1), (0, 3, 1.5)
    assert_eq!(ints(0.into(), 2.5.into(), 1.into()), [0, 1, 2]);
    assert_eq!(ints(0.5.into(), 3.into(), 1.into()), [0, 1, 2]);
    assert_eq!(ints(0.into(), (-2.5).into(), (-1).into()), [0, -1, -2]);
    assert_eq!(ints(0.into(), 3.into(), 1.5.into()), [0, 1]);
    let end = u64::MAX;
    let last = count((end - 3).into(), end.into(), 1.into(), U64).unwrap().to_vec::<u64>().unwrap();
    assert_eq!(last, [end - 3, end - 2, end - 1]);
    let middle = i64::MAX as u64;
    let across = count((middle - 1).into(), (middle + 3).into(), 2.into(), U64).unwrap().to_vec::<u64>().unwrap();
    assert_eq!(across, [middle - 1, middle + 1]);
    let down = count(end.into(), (end - 2).into(), (-1).into(), U64).unwrap().to_vec::<u64>().unwrap();
    assert_eq!(down, [end, end - 1]);
    for wrong in
        [(0.into(), f64::NAN.into(), 1.into()), (0.into(), 1.into(), 0.0.into()), (3.into(), 0.5.into(), 1.into())]
    {
        assert!(count(wrong.0, wrong.1, wrong.2, I64).is_err());
    }
}

#[test]
fn what_no_memory_holds_is_an_error() {
    let cpu = &Device::cpu();
    // Elsewhere than on Linux memory is promised that is not there.
    let first = if cfg!(target_os = "linux") { 40 } else { 50 };
    for n in [1usize << first, 1 << 50, 1 << 58, 1 << 59, 1 << 62, usize::MAX] {
        assert!(BitNetTensor::linspace(0., 1., n, F32, cpu).is_err());
        assert!(BitNetTensor::arange(0, n, 1, U8, cpu).is_err());
        assert!(BitNetTensor::arange(0, n, 1, F64, cpu).is_err());
        assert!(BitNetTensor::arange(0., n as f64, 1, I32, cpu).is_err());
        assert!(BitNetTensor::from_slice(&[0i64], &[1], cpu).unwrap().one_hot(n).is_err());
        let empty = BitNetTensor::zeros(&[0], F32, cpu).unwrap();
        assert!(empty.chunk(n, 0).is_err());
        for dims in [[0, n, 1], [n, 1, 0], [0, 1, n]] {
            // A shape that cannot be is an error before.
            let Ok(x) = BitNetTensor::zeros(&dims, F32, cpu) else { continue };
            assert_eq!(x.tril(0).unwrap().dims(), dims);
            assert_eq!(x.triu(isize::MIN).unwrap().dims(), dims);
            assert!(x.to_vec::<f32>().unwrap().is_empty());
        }
        if n == crate::INFER {
            continue;
        }
        let Ok(all) = BitNetTensor::zeros(&[1], F32, cpu).unwrap().expand(&[n]) else { continue };
        assert!(all.to_vec::<f32>().is_err() && all.to_bytes().is_err());
        assert!(all.split(1, 0).is_err() && all.chunk(n, 0).is_err());
    }
}

#[test]
fn triangles_of_every_diagonal() {
    let x = BitNetTensor::from_vec((1..=6i32).collect(), &[2, 3], &Device::cpu()).unwrap();
    let lower = |d| x.tril(d).unwrap().to_vec::<i32>().unwrap();
    let upper = |d| x.triu(d).unwrap().to_vec::<i32>().unwrap();
    assert_eq!([lower(0), lower(-1), lower(1)], [[1, 0, 0, 4, 5, 0], [0, 0, 0, 4, 0, 0], [1, 2, 0, 4, 5, 6]]);
    assert_eq!([upper(0), upper(-1), upper(2)], [[1, 2, 3, 0, 5, 6], [1, 2, 3, 4, 5, 6], [0, 0, 3, 0, 0, 0]]);
    assert_eq!([lower(isize::MIN), upper(isize::MAX)], [[0; 6]; 2]);
    assert_eq!([lower(isize::MAX), upper(isize::MIN)], [[1, 2, 3, 4, 5, 6]; 2]);
}

#[test]
fn one_hot_of_narrow_types_and_many_classes() {
    let classes = BitNetTensor::from_slice(&[5u8], &[1], &Device::cpu()).unwrap().one_hot(300).unwrap();
    let found = classes.to_vec::<i64>().unwrap();
    assert_eq!((found.iter().sum::<i64>(), found[5]), (1, 1));
    assert!(BitNetTensor::from_slice(&[u64::MAX], &[1], &Device::cpu()).unwrap().one_hot(3).is_err());
}
