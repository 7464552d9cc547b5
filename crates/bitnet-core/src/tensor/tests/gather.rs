//! Reading and writing along one dimension; expected values are PyTorch's.

use crate::{BitNetTensor, Device};
use half::f16;

fn x() -> BitNetTensor {
    BitNetTensor::from_vec((0..12i32).collect(), &[3, 4], &Device::cpu()).unwrap()
}

fn ids(values: &[i64], dims: &[usize]) -> BitNetTensor {
    BitNetTensor::from_slice(values, dims, &Device::cpu()).unwrap()
}

fn ints(t: &BitNetTensor) -> Vec<i32> {
    t.to_vec().unwrap()
}

#[test]
fn gather_along_both_axes_and_through_strides() {
    let index = ids(&[0, 2, 1, 1, 2, 0], &[2, 3]);
    assert_eq!(ints(&x().gather(0, &index).unwrap()), [0, 9, 6, 4, 9, 2]);
    assert_eq!(ints(&x().gather(1, &index).unwrap()), [0, 2, 1, 5, 6, 4]);
    assert_eq!(ints(&x().t().unwrap().gather(1, &index).unwrap()), [0, 8, 4, 5, 9, 1]);
    assert_eq!(ints(&x().flip(&[1]).unwrap().gather(-1, &index).unwrap()), [3, 1, 2, 6, 5, 7]);
    assert_eq!(ints(&x().gather(0, &index.t().unwrap()).unwrap()), [0, 5, 8, 9, 4, 1]);
    assert_eq!(x().gather(0, &ids(&[], &[0, 4])).unwrap().dims(), [0, 4]);
    let scalar = x().select(0, 1).unwrap().select(0, 1).unwrap();
    assert_eq!(scalar.gather(0, &ids(&[0], &[])).unwrap().item::<i32>().unwrap(), 5);
}

#[test]
fn rows_by_index() {
    assert_eq!(ints(&x().index_select(0, &ids(&[2, 0, 2], &[3])).unwrap()), [8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
    assert_eq!(ints(&x().index_select(-1, &ids(&[3, 1], &[2])).unwrap()), [3, 1, 7, 5, 11, 9]);
    assert_eq!(x().index_select(1, &ids(&[], &[0])).unwrap().dims(), [3, 0]);
    assert_eq!(ints(&x().take_along_axis(1, &ids(&[3, 0, 2], &[3, 1])).unwrap()), [3, 4, 10]);
    assert_eq!(ints(&x().take_along_axis(0, &ids(&[2], &[1, 1])).unwrap()), [8, 9, 10, 11]);
}

#[test]
fn a_wide_gather_takes_all_threads() {
    let (rows, width) = (2000, 70);
    let device = Device::cpu_with_threads(3);
    let data: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
    let x = BitNetTensor::from_slice(&data, &[rows, width], &device).unwrap();
    let back: Vec<i64> = (0..rows as i64).rev().collect();
    let index = BitNetTensor::from_slice(&back, &[rows], &device).unwrap();
    assert_eq!(
        x.index_select(0, &index).unwrap().to_vec::<f32>().unwrap(),
        x.flip(&[0]).unwrap().to_vec::<f32>().unwrap()
    );
    let column = index.unsqueeze(1).unwrap().expand(&[rows, width]).unwrap().contiguous().unwrap();
    assert_eq!(x.gather(0, &column).unwrap().to_vec::<f32>().unwrap(), x.flip(&[0]).unwrap().to_vec::<f32>().unwrap());
}

#[test]
fn scatters_write_through_the_tensor_itself() {
    let mut y = x();
    let kept = y.clone();
    let source = BitNetTensor::from_slice(&[-1i32, -2, -3, -4, -5, -6], &[2, 3], &Device::cpu()).unwrap();
    let index = ids(&[0, 2, 1, 1, 1, 0], &[2, 3]);
    y.scatter_(0, &index, &source).unwrap();
    assert_eq!(ints(&y), [-1, 1, -6, 3, -4, -5, -3, 7, 8, -2, 10, 11]);
    assert_eq!(ints(&kept), (0..12).collect::<Vec<_>>());
    let mut y = x();
    y.scatter_add_(1, &ids(&[1, 1, 1, 0, 0, 3], &[2, 3]), &source).unwrap();
    assert_eq!(ints(&y), [0, -5, 2, 3, -5, 5, 6, 1, 8, 9, 10, 11]);
    y.scatter_(1, &ids(&[2], &[1, 1]), 100).unwrap();
    assert_eq!(ints(&y)[..4], [0, -5, 100, 3]);
    let mut t = x().t().unwrap();
    t.scatter_(0, &ids(&[3, 0, 1], &[1, 3]), &source.narrow(0, 0, 1).unwrap()).unwrap();
    assert_eq!(ints(&t), [0, -2, 8, 1, 5, -3, 2, 6, 10, -1, 7, 11]);
}

#[test]
fn rows_are_added_copied_and_filled() {
    let rows = BitNetTensor::from_slice(&[10i32, 20, 30, 40, 1, 2, 3, 4, 100, 100, 100, 100], &[3, 4], &Device::cpu())
        .unwrap();
    let mut y = x();
    y.index_add_(0, &ids(&[1, 1, 0], &[3]), &rows).unwrap();
    assert_eq!(ints(&y), [100, 101, 102, 103, 15, 27, 39, 51, 8, 9, 10, 11]);
    let mut y = x();
    y.index_copy_(1, &ids(&[3, 0], &[2]), &rows.narrow(1, 0, 2).unwrap()).unwrap();
    assert_eq!(ints(&y), [20, 1, 2, 10, 2, 5, 6, 1, 100, 9, 10, 100]);
    let mut y = x();
    y.index_fill_(-1, &ids(&[1, 3], &[2]), 7).unwrap();
    assert_eq!(ints(&y), [0, 7, 2, 7, 4, 7, 6, 7, 8, 7, 10, 7]);
    let mut y = x();
    y.put_along_axis_(1, &ids(&[3, 0, 2], &[3, 1]), -9).unwrap();
    assert_eq!(ints(&y), [0, 1, 2, -9, -9, 5, 6, 7, 8, 9, -9, 11]);
}

#[test]
fn halves_are_added_one_by_one_and_truth_is_or() {
    let cpu = &Device::cpu();
    let mut h = BitNetTensor::from_slice(&[f16::from_f32(2048.)], &[1], cpu).unwrap();
    h.index_add_(0, &ids(&[0, 0], &[2]), &BitNetTensor::ones(&[2], crate::BitNetDType::F16, cpu).unwrap()).unwrap();
    assert_eq!(h.item::<f16>().unwrap().to_f32(), 2048.);
    let mut b = BitNetTensor::from_bools(&[false, false], &[2], cpu).unwrap();
    b.index_add_(0, &ids(&[1, 1], &[2]), &BitNetTensor::from_bools(&[true, true], &[2], cpu).unwrap()).unwrap();
    assert_eq!(b.to_bools().unwrap(), [false, true]);
}

#[test]
fn an_index_outside_writes_nothing() {
    let mut y = x();
    let error = |r: crate::Result<BitNetTensor>| r.unwrap_err().to_string();
    assert_eq!(error(y.gather(0, &ids(&[3], &[1, 1]))), "gather: index 3 is outside dimension 0 of [3, 4]");
    assert_eq!(error(y.index_select(1, &ids(&[-1], &[1]))), "gather: index -1 is outside dimension 1 of [3, 4]");
    assert!(y.scatter_(0, &ids(&[0, 3], &[2, 1]), 5).is_err());
    assert!(y.scatter_(0, &ids(&[0, 3], &[2]), 5).is_err());
    assert!(y.index_add_(0, &ids(&[0], &[1]), &x()).is_err());
    assert!(y.index_fill_(0, &ids(&[0, i64::MIN], &[2]), 1).is_err());
    assert!(
        y.scatter_(0, &ids(&[0], &[1, 1]), &BitNetTensor::ones(&[1, 1], crate::BitNetDType::F32, y.device()).unwrap())
            .is_err()
    );
    assert!(y.gather(0, &x().to_dtype(crate::BitNetDType::F32).unwrap()).is_err());
    assert!(y.gather(0, &ids(&[0; 5], &[1, 5])).is_err());
    assert_eq!(ints(&y), (0..12).collect::<Vec<_>>());
}

#[test]
fn an_unsigned_index_beyond_i64_is_outside() {
    use crate::idx;
    let x = x();
    let last = BitNetTensor::from_slice(&[u64::MAX], &[1], &Device::cpu()).unwrap();
    assert!(x.index(&idx![&last]).is_err());
    assert!(x.index(&idx![&last.reshape(&[]).unwrap()]).is_err());
    assert!(x.clone().index_put_(&idx![&last], 1).is_err());
    assert!(x.index_select(0, &last).is_err());
    assert!(x.gather(0, &last.reshape(&[1, 1]).unwrap()).is_err());
    assert!(x.clone().index_fill_(0, &last, 1).is_err());
    assert!(last.bincount().is_err());
    let good = BitNetTensor::from_slice(&[2u64, 0], &[2], &Device::cpu()).unwrap();
    assert_eq!(x.index(&idx![&good, 1]).unwrap().to_vec::<i32>().unwrap(), [9, 1]);
}

#[test]
fn a_scalar_is_indexed_as_a_vector_of_one() {
    let five = BitNetTensor::from_slice(&[5i32], &[], &Device::cpu()).unwrap();
    let (zero, two) = (ids(&[0], &[1]), ids(&[0, 0], &[2]));
    // torch.tensor(5).index_select(0, torch.tensor([0])) and its like
    let selected = five.index_select(0, &zero).unwrap();
    assert_eq!((selected.dims(), ints(&selected)), (&[][..], vec![5]));
    assert_eq!(ints(five.clone().index_fill_(-1, &zero, 3).unwrap()), [3]);
    assert_eq!(ints(five.clone().index_add_(0, &zero, &five).unwrap()), [10]);
    let three = BitNetTensor::from_slice(&[3i32], &[], &Device::cpu()).unwrap();
    assert_eq!(ints(five.clone().index_copy_(0, &zero, &three).unwrap()), [3]);
    assert!(five.index_select(0, &two).is_err() && five.clone().index_fill_(0, &two, 1).is_err());
    assert!(five.clone().index_add_(0, &zero, &five.reshape(&[1]).unwrap()).is_err());
    assert!(five.index_select(0, &ids(&[1], &[1])).is_err());
}
