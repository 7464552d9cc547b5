//! Order; expected values are PyTorch's.

use crate::{BitNetDType, BitNetTensor, Device};
use half::bf16;

fn floats(values: &[f32], dims: &[usize]) -> BitNetTensor {
    BitNetTensor::from_slice(values, dims, &Device::cpu()).unwrap()
}

#[track_caller]
fn check((values, indices): (BitNetTensor, BitNetTensor), want: &[f32], places: &[i64]) {
    let got = values.to_vec::<f32>().unwrap();
    assert!(got.iter().zip(want).all(|(a, b)| a == b || a.is_nan() && b.is_nan()), "{got:?}");
    assert_eq!((got.len(), indices.to_vec::<i64>().unwrap()), (want.len(), places.to_vec()));
}

#[test]
fn sorting_is_stable_with_nan_as_the_largest() {
    let nan = f32::NAN;
    let x = floats(&[2., nan, -1., 2., 0., -0., f32::INFINITY, nan, 0.], &[9]);
    let up = [-1., 0., -0., 0., 2., 2., f32::INFINITY, nan, nan];
    check(x.sort(0, false).unwrap(), &up, &[2, 4, 5, 8, 0, 3, 6, 1, 7]);
    let down = [nan, nan, f32::INFINITY, 2., 2., 0., -0., 0., -1.];
    check(x.sort(-1, true).unwrap(), &down, &[1, 7, 6, 0, 3, 4, 5, 8, 2]);
    assert!(x.sort(0, false).unwrap().0.to_vec::<f32>().unwrap()[2].is_sign_negative());
    check(x.topk(2, 0, false).unwrap(), &[-1., 0.], &[2, 4]);
    check(floats(&[3.], &[]).sort(0, false).unwrap(), &[3.], &[0]);
    assert!(x.topk(10, 0, true).is_err() && x.sort(1, false).is_err());
}

#[test]
fn any_axis_and_any_strides() {
    let x = floats(&[3., 1., 2., 0., 5., 4.], &[2, 3]);
    check(x.sort(0, false).unwrap(), &[0., 1., 2., 3., 5., 4.], &[1, 0, 0, 0, 1, 1]);
    check(x.sort(1, true).unwrap(), &[3., 2., 1., 5., 4., 0.], &[0, 2, 1, 1, 2, 0]);
    check(x.t().unwrap().sort(1, false).unwrap(), &[0., 3., 1., 5., 2., 4.], &[1, 0, 0, 1, 0, 1]);
    check(x.flip(&[1]).unwrap().sort(-1, false).unwrap(), &[1., 2., 3., 0., 4., 5.], &[1, 0, 2, 2, 0, 1]);
    check(floats(&[], &[2, 0]).sort(0, false).unwrap(), &[], &[]);
    check(floats(&[], &[2, 0]).sort(1, false).unwrap(), &[], &[]);
}

#[test]
fn every_type_sorts() {
    let ints = [3i64, -1, i64::MIN, i64::MAX, 0];
    let x = BitNetTensor::from_slice(&ints, &[5], &Device::cpu()).unwrap();
    assert_eq!(x.argsort(0, false).unwrap().to_vec::<i64>().unwrap(), [2, 1, 4, 0, 3]);
    let halves: Vec<bf16> = [1., -1., 0.5].map(bf16::from_f32).to_vec();
    let x = BitNetTensor::from_slice(&halves, &[3], &Device::cpu()).unwrap();
    assert_eq!(x.argsort(0, true).unwrap().to_vec::<i64>().unwrap(), [0, 2, 1]);
    let x = BitNetTensor::from_slice(&[-1i8, 1, -128], &[3], &Device::cpu()).unwrap();
    assert_eq!(x.sort(0, false).unwrap().0.to_vec::<i8>().unwrap(), [-128, -1, 1]);
    let x = BitNetTensor::from_bools(&[true, false, true], &[3], &Device::cpu()).unwrap();
    assert_eq!(x.sort(0, false).unwrap().0.to_bools().unwrap(), [false, true, true]);
    let x = BitNetTensor::from_slice(&[1u64, u64::MAX, 0], &[3], &Device::cpu()).unwrap();
    assert_eq!(x.argsort(0, false).unwrap().to_vec::<i64>().unwrap(), [2, 0, 1]);
}

#[test]
fn many_rows_take_all_threads() {
    let device = Device::cpu_with_threads(3);
    let data: Vec<i32> = (0..40_000i64).map(|i| (i * 7919 % 10_007) as i32).collect();
    let x = BitNetTensor::from_slice(&data, &[200, 200], &device).unwrap();
    for axis in [0, 1] {
        let (values, indices) = x.sort(axis, false).unwrap();
        assert_eq!(x.gather(axis, &indices).unwrap().to_vec::<i32>().unwrap(), values.to_vec::<i32>().unwrap());
        let lanes = values.movedim(axis, 1).unwrap().to_vec::<i32>().unwrap();
        assert!(lanes.chunks(200).all(|lane| lane.is_sorted()));
    }
}

#[test]
fn different_elements_and_places_among_them() {
    let x = floats(&[2., 1., 2., 3., 1., 2.], &[2, 3]);
    let (values, inverse, counts) = x.unique().unwrap();
    assert_eq!(values.to_vec::<f32>().unwrap(), [1., 2., 3.]);
    assert_eq!((inverse.dims(), inverse.to_vec::<i64>().unwrap()), (&[2, 3][..], vec![1, 0, 1, 2, 0, 1]));
    assert_eq!(counts.to_vec::<i64>().unwrap(), [2, 3, 1]);
    assert_eq!(floats(&[], &[0]).unique().unwrap().0.dims(), [0]);
    let search = |row: &BitNetTensor, x: &BitNetTensor, right| {
        BitNetTensor::searchsorted(row, x, right).unwrap().to_vec::<i64>().unwrap()
    };
    let (row, needles) = (floats(&[1., 2., 2., 4.], &[4]), floats(&[2., 0., 5., f32::NAN], &[2, 2]));
    assert_eq!(search(&row, &needles, false), [1, 0, 4, 4]);
    assert_eq!(search(&row, &needles, true), [3, 0, 4, 4]);
    let rows = floats(&[1., 2., 3., 10., 20., 30.], &[2, 3]);
    assert_eq!(search(&rows, &floats(&[2., 2.], &[2, 1]), true), [2, 0]);
    assert!(BitNetTensor::searchsorted(&rows, &needles.flatten(0, 1).unwrap(), true).is_err());
    let x = BitNetTensor::from_slice(&[1i64, 3, 1], &[3], &Device::cpu()).unwrap();
    assert_eq!(x.bincount().unwrap().to_vec::<i64>().unwrap(), [0, 2, 0, 1]);
    let none = BitNetTensor::zeros(&[0], BitNetDType::I64, &Device::cpu()).unwrap();
    assert_eq!(none.bincount().unwrap().dims(), [0]);
    let negative = BitNetTensor::from_slice(&[-1i64], &[1], &Device::cpu()).unwrap();
    assert!(negative.bincount().is_err() && floats(&[1.], &[1]).bincount().is_err());
}
