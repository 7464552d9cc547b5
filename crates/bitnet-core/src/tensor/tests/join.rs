//! Joining and repeating.

use crate::{BitNetDType, BitNetTensor, Device};

fn x(dims: &[usize]) -> BitNetTensor {
    BitNetTensor::from_vec((0..dims.iter().product::<usize>() as i32).collect(), dims, &Device::cpu()).unwrap()
}

#[track_caller]
fn check(x: &BitNetTensor, dims: &[usize], values: &[i32]) {
    assert_eq!((x.dims(), x.to_vec::<i32>().unwrap()), (dims, values.to_vec()));
}

#[test]
fn joined_along_old_and_new_dimensions() {
    let (a, b) = (x(&[2, 2]), x(&[2, 2]).t().unwrap());
    check(&BitNetTensor::cat(&[&a, &b], 0).unwrap(), &[4, 2], &[0, 1, 2, 3, 0, 2, 1, 3]);
    check(&BitNetTensor::cat(&[&a, &b], -1).unwrap(), &[2, 4], &[0, 1, 0, 2, 2, 3, 1, 3]);
    check(&BitNetTensor::cat(&[&x(&[0]), &a, &x(&[0, 2])], 0).unwrap(), &[2, 2], &[0, 1, 2, 3]);
    check(&BitNetTensor::cat(&[&x(&[0]), &x(&[0])], 0).unwrap(), &[0], &[]);
    check(&BitNetTensor::stack(&[&a, &b], 0).unwrap(), &[2, 2, 2], &[0, 1, 2, 3, 0, 2, 1, 3]);
    check(&BitNetTensor::stack(&[&a, &b], -1).unwrap(), &[2, 2, 2], &[0, 0, 1, 2, 2, 1, 3, 3]);
    check(&BitNetTensor::stack(&[&x(&[]), &x(&[])], 0).unwrap(), &[2], &[0, 0]);
    for wrong in [&[][..], &[&a, &x(&[3, 3])], &[&a, &x(&[4])]] {
        assert!(BitNetTensor::cat(wrong, 0).is_err() && BitNetTensor::stack(wrong, 0).is_err());
    }
    assert!(BitNetTensor::cat(&[&x(&[])], 0).is_err() && BitNetTensor::cat(&[&a], 2).is_err());
}

#[test]
fn copies_of_one() {
    let m = x(&[1, 2]);
    check(&m.repeat(&[2, 2]).unwrap(), &[2, 4], &[0, 1, 0, 1, 0, 1, 0, 1]);
    check(&m.repeat(&[2, 1, 1]).unwrap(), &[2, 1, 2], &[0, 1, 0, 1]);
    check(&m.repeat(&[0, 1]).unwrap(), &[0, 2], &[]);
    check(&m.tile(&[3]).unwrap(), &[1, 6], &[0, 1, 0, 1, 0, 1]);
    check(&x(&[2, 2]).repeat_interleave(2, 0).unwrap(), &[4, 2], &[0, 1, 0, 1, 2, 3, 2, 3]);
    check(&x(&[2, 2]).repeat_interleave(2, -1).unwrap(), &[2, 4], &[0, 0, 1, 1, 2, 2, 3, 3]);
    assert!(m.repeat(&[2]).is_err() && m.repeat(&[usize::MAX, usize::MAX]).is_err());
    assert!(!m.repeat(&[1, 1]).unwrap().shares_storage(&m));
    check(&x(&[2, 3]).roll(&[1, -1], &[0, 1]).unwrap(), &[2, 3], &[4, 5, 3, 1, 2, 0]);
    check(&x(&[2, 3]).roll(&[isize::MIN], &[]).unwrap(), &[2, 3], &[2, 3, 4, 5, 0, 1]);
    check(&x(&[0]).roll(&[1], &[0]).unwrap(), &[0], &[]);
    assert!(m.roll(&[1], &[0, 1]).is_err() && m.roll(&[1], &[2]).is_err());
    let grid = BitNetTensor::meshgrid(&[&x(&[2]), &x(&[3])]).unwrap();
    check(&grid[0], &[2, 3], &[0, 0, 0, 1, 1, 1]);
    check(&grid[1], &[2, 3], &[0, 1, 2, 0, 1, 2]);
    assert_eq!(grid[0].dtype(), BitNetDType::I32);
}

#[test]
fn what_goes_with_any_shape_counts_for_the_dtype() {
    let (cpu, x) = (&Device::cpu(), x(&[2, 2]));
    let nothing = BitNetTensor::zeros(&[0], BitNetDType::F32, cpu).unwrap();
    // torch.cat([torch.zeros(2, 2, dtype=torch.int32), torch.zeros(0)]).dtype
    for tensors in [[&x, &nothing], [&nothing, &x]] {
        let joined = BitNetTensor::cat(&tensors, 0).unwrap();
        assert_eq!((joined.dtype(), joined.dims()), (BitNetDType::F32, &[2, 2][..]));
    }
    let mut leaf = nothing.clone();
    leaf.requires_grad_(true).unwrap();
    BitNetTensor::cat(&[&x, &leaf], 1).unwrap().sum(.., false).unwrap().backward().unwrap();
    assert_eq!(leaf.grad().unwrap().dims(), [0]);
}
