//! Indexing; every expected shape and value was printed by PyTorch.

use crate::{BitNetDType, BitNetTensor, Device, Index, idx};

fn x() -> BitNetTensor {
    BitNetTensor::from_vec((0..24i32).collect(), &[2, 3, 4], &Device::cpu()).unwrap()
}

fn ids(values: &[i64], dims: &[usize]) -> BitNetTensor {
    BitNetTensor::from_slice(values, dims, &Device::cpu()).unwrap()
}

fn mask(values: &[bool]) -> BitNetTensor {
    BitNetTensor::from_bools(values, &[values.len()], &Device::cpu()).unwrap()
}

/// `x % step == 0` of `x`.
fn every(step: i32) -> BitNetTensor {
    let bools: Vec<bool> = (0..24).map(|i| i % step == 0).collect();
    BitNetTensor::from_bools(&bools, &[2, 3, 4], &Device::cpu()).unwrap()
}

#[track_caller]
fn check(x: &BitNetTensor, index: &[Index], dims: &[usize], values: &[i32]) {
    let y = x.index(index).unwrap();
    assert_eq!((y.dims(), y.to_vec::<i32>().unwrap()), (dims, values.to_vec()));
    let view = !index.iter().any(|i| matches!(i, Index::Tensor(t) if t.rank() > 0 || t.dtype() == BitNetDType::Bool));
    assert_eq!(y.shares_storage(x), view);
}

#[test]
#[allow(clippy::reversed_empty_ranges)] // with a negative step it is not empty
fn positions_and_slices_are_views() {
    check(&x(), &idx![1, 0, 2], &[], &[14]);
    check(&x(), &idx![-1, .., -2..], &[3, 2], &[14, 15, 18, 19, 22, 23]);
    check(&x(), &idx![.., 1.., ..; 2, NewAxis], &[2, 2, 2, 1], &[4, 6, 8, 10, 16, 18, 20, 22]);
    check(&x(), &idx![Ellipsis, 0..=1; -1], &[2, 3, 0], &[]);
    check(&x(), &idx![0, Ellipsis, 3..0; -2], &[3, 2], &[3, 1, 7, 5, 11, 9]);
    check(&x(), &idx![0, ..=-2, ..=1], &[2, 2], &[0, 1, 4, 5]);
    check(&x(), &[], &[2, 3, 4], &(0..24).collect::<Vec<_>>());
    check(&x(), &idx![&ids(&[1], &[]), &ids(&[-1], &[])], &[4], &[20, 21, 22, 23]);
}

#[test]
fn index_tensors_stand_where_they_stood_or_in_front() {
    let (a, neg, one_two) = (&ids(&[0, 2], &[2]), &ids(&[-1, 0], &[2]), &ids(&[1, 2], &[2]));
    check(&x(), &idx![.., a], &[2, 2, 4], &[0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23]);
    check(&x(), &idx![&ids(&[0, 1], &[2]), .., neg], &[2, 3], &[3, 7, 11, 12, 16, 20]);
    let column = &ids(&[1, 0], &[2, 1]);
    check(&x(), &idx![column, a], &[2, 2, 4], &[12, 13, 14, 15, 20, 21, 22, 23, 0, 1, 2, 3, 8, 9, 10, 11]);
    check(&x(), &idx![NewAxis, 1, .., neg], &[1, 3, 2], &[15, 12, 19, 16, 23, 20]);
    check(&x(), &idx![neg, NewAxis, a], &[2, 1, 4], &[12, 13, 14, 15, 8, 9, 10, 11]);
    check(&x().permute(&[2, 0, 1]).unwrap(), &idx![a, .., one_two], &[2, 2], &[4, 16, 10, 22]);
    check(&x().permute(&[1, 2, 0]).unwrap(), &idx![.., a, neg], &[3, 2], &[12, 2, 16, 6, 20, 10]);
}

#[test]
fn masks_choose_from_the_dimensions_they_span() {
    let part = every(5).select(0, 0).unwrap();
    check(&x(), &idx![.., &part], &[2, 3], &[0, 5, 10, 12, 17, 22]);
    check(&x(), &idx![.., &mask(&[true, false, true]), 1], &[2, 2], &[1, 9, 13, 21]);
    check(&x(), &idx![&every(7)], &[4], &[0, 7, 14, 21]);
    let truth = |b| BitNetTensor::from_bools(&[b], &[], &Device::cpu()).unwrap();
    check(&x(), &idx![&truth(true), 1, 2], &[1, 4], &[20, 21, 22, 23]);
    check(&x(), &idx![&truth(false)], &[0, 2, 3, 4], &[]);
}

#[test]
fn writes_go_to_the_tensor_itself() {
    let (a, neg) = (&ids(&[0, 2], &[2]), &ids(&[-1, 0], &[2]));
    let values = BitNetTensor::from_slice(&[100i32, 200, 300, 400], &[2, 2], &Device::cpu()).unwrap();
    let (mut y, other) = (x(), x());
    y.index_put_(&idx![.., a, neg], &values).unwrap();
    assert_eq!(y.to_vec::<i32>().unwrap()[..12], [0, 1, 2, 100, 4, 5, 6, 7, 200, 9, 10, 11]);
    assert_eq!(y.to_vec::<i32>().unwrap()[12..], [12, 13, 14, 300, 16, 17, 18, 19, 400, 21, 22, 23]);
    let mut y = x();
    let row = BitNetTensor::from_slice(&[7i32, 8, 9], &[3], &Device::cpu()).unwrap();
    y.index_put_(&idx![neg, .., &ids(&[1, 2], &[2])], &row).unwrap();
    let want = [0, 1, 7, 3, 4, 5, 8, 7, 8, 9, 9, 11, 12, 7, 14, 15, 16, 8, 18, 19, 20, 9, 22, 23];
    assert_eq!(y.to_vec::<i32>().unwrap(), want);
    let mut y = x();
    y.index_put_accumulate_(&idx![&ids(&[0, 0, 1], &[3]), &ids(&[1, 1, 2], &[3])], 1000).unwrap();
    assert_eq!(y.index(&idx![0, 1]).unwrap().to_vec::<i32>().unwrap(), [2004, 2005, 2006, 2007]);
    assert_eq!(y.index(&idx![1, 2]).unwrap().to_vec::<i32>().unwrap(), [1020, 1021, 1022, 1023]);
    y.index_put_accumulate_(&idx![0, .., 0], -1).unwrap();
    assert_eq!(y.index(&idx![0, .., 0]).unwrap().to_vec::<i32>().unwrap(), [-1, 2003, 7]);
    let mut y = x().permute(&[2, 1, 0]).unwrap();
    let values = BitNetTensor::from_slice(&[-1i32, -2, -3, -4], &[2, 2], &Device::cpu()).unwrap();
    y.index_put_(&idx![&ids(&[3, 0], &[2]), &ids(&[1, 1], &[2])], &values).unwrap();
    let want = [0, 12, -3, -4, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15, -1, -2, 11, 23];
    assert_eq!(y.to_vec::<i32>().unwrap(), want);
    let mut y = other.clone();
    y.index_put_(&idx![&every(2)], -5).unwrap();
    assert_eq!(y.to_vec::<i32>().unwrap()[..5], [-5, 1, -5, 3, -5]);
    y.slice_assign(&idx![.., 0, ..; -1], &ids(&[1, 2, 3, 4], &[4]).to_dtype(BitNetDType::I64).unwrap()).unwrap_err();
    y.slice_assign(&idx![.., 2, ..; -1], &other.index(&idx![0, 0]).unwrap()).unwrap();
    assert_eq!(y.index(&idx![1, 2]).unwrap().to_vec::<i32>().unwrap(), [3, 2, 1, 0]);
    assert_eq!(other.to_vec::<i32>().unwrap(), (0..24).collect::<Vec<_>>());
}

#[test]
fn invalid_indices_are_errors_and_write_nothing() {
    let mut y = x();
    let message = |r: crate::Result<BitNetTensor>| r.unwrap_err().to_string();
    assert_eq!(message(y.index(&idx![0, 3])), "index: index 3 is outside dimension 1 of [2, 3, 4]");
    assert_eq!(
        message(y.index(&idx![.., .., &ids(&[0, -5], &[2])])),
        "index: index -5 is outside dimension 2 of [2, 3, 4]"
    );
    assert_eq!(message(y.index(&idx![0, 0, 0, 0])), "index: 4 indices for the 3 dimensions of [2, 3, 4]");
    assert!(y.index(&idx![Ellipsis, Ellipsis]).is_err() && y.index(&idx![..; 0]).is_err());
    assert!(y.index(&idx![&mask(&[true])]).is_err());
    assert!(y.index(&idx![&ids(&[0; 2], &[2]), &ids(&[0; 3], &[3])]).is_err());
    assert!(y.index(&idx![&x().to_dtype(BitNetDType::F32).unwrap()]).is_err());
    assert!(y.index(&idx![usize::MAX]).is_err() && y.index(&idx![isize::MIN]).is_err());
    assert!(y.index_put_(&idx![&ids(&[0, 2], &[2])], 1).is_err());
    assert!(y.index_put_(&idx![0], &ids(&[1], &[1])).is_err());
    assert!(y.index_put_(&idx![0], &x()).is_err());
    assert!(y.slice_assign(&idx![&ids(&[0], &[1])], 1).is_err());
    assert_eq!(y.to_vec::<i32>().unwrap(), (0..24).collect::<Vec<_>>());
    assert_eq!(y.index(&idx![5..usize::MAX]).unwrap().dims(), [0, 3, 4]);
}
