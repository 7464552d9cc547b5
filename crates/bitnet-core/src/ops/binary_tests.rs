//! Values from PyTorch 2.15, the expression beside each.

use crate::BitNetDType::*;
use crate::{BitNetTensor, Device, Element};

fn tensor<T: Element>(data: &[T]) -> BitNetTensor {
    BitNetTensor::from_slice(data, &[data.len()], &Device::cpu()).unwrap()
}

fn values<T: Element>(x: BitNetTensor) -> Vec<T> {
    x.to_vec().unwrap()
}

fn bools(data: &[u8]) -> BitNetTensor {
    BitNetTensor::from_bytes(data, &[data.len()], Bool, &Device::cpu()).unwrap()
}

#[test]
fn integers_divide_towards_minus_infinity_and_wrap() {
    let (i, j) = (tensor(&[7i8, -7, 5]), tensor(&[3i8, 3, -2]));
    assert_eq!(values::<i8>(i.floor_div(&j).unwrap()), [2, -3, -3]);
    assert_eq!(values::<i8>(i.remainder(&j).unwrap()), [1, 2, -1]);
    assert_eq!(values::<f32>(i.div(&j).unwrap()), [2.3333333, -2.3333333, -2.5]);
    assert_eq!(values::<i8>(i.mul(&tensor(&[100i8, 1, -128])).unwrap()), [-68, -7, -128]);
    assert_eq!(values::<i64>(tensor(&[2i64, -3, 3, 1]).pow(&tensor(&[3i64, 3, -1, -5])).unwrap()), [8, -27, 0, 1]);
    assert_eq!(values::<i8>(tensor(&[7i8, -128]).pow(2).unwrap()), [49, 0]);
    assert!(i.floor_div(0).unwrap_err().to_string().contains("division by zero"));
    assert!(i.pow(-1).unwrap_err().to_string().contains("powers"));
}

#[test]
fn floats_divide_as_in_pytorch() {
    let inf = f32::INFINITY;
    let quotient = values::<f32>(tensor(&[1., -1., 0., inf]).floor_div(&tensor(&[0., 0., 0., 2f32])).unwrap());
    assert_eq!(quotient[..2], [inf, -inf]);
    assert!(quotient[2..].iter().all(|x| x.is_nan()));
    let rest = tensor(&[1., -1., 5.5, -5.5f32]).remainder(&tensor(&[inf, inf, -2., 2.])).unwrap();
    assert_eq!(values::<f32>(rest), [1., inf, -0.5, 0.5]);
    assert_eq!(values::<f32>(tensor(&[1i32, -1]).atan2(&tensor(&[-1i32, 0])).unwrap()), [2.3561945, -1.5707964]);
}

#[test]
fn shifts_beyond_the_width_leave_the_sign() {
    let left = tensor(&[1i8, -1, 5]).bitwise_left_shift(&tensor(&[7i8, 1, 9])).unwrap();
    assert_eq!(values::<i8>(left), [-128, -2, 0]);
    let right = tensor(&[-128i8, -1, 5]).bitwise_right_shift(&tensor(&[1i8, 9, -1])).unwrap();
    assert_eq!(values::<i8>(right), [-64, -1, 0]);
    assert!(tensor(&[1f32]).bitwise_left_shift(1).unwrap_err().to_string().contains("not defined for f32"));
}

#[test]
fn bool_arithmetic_is_logical() {
    let (a, b) = (bools(&[1, 1, 0]), bools(&[1, 0, 0]));
    let u8s = |x: BitNetTensor| (x.dtype(), values::<u8>(x.to_dtype(U8).unwrap()));
    assert_eq!(u8s(a.add(&b).unwrap()), (Bool, vec![1, 1, 0]));
    assert_eq!(u8s(a.mul(&b).unwrap()), (Bool, vec![1, 0, 0]));
    assert_eq!(u8s(a.maximum(&b).unwrap()), (Bool, vec![1, 1, 0]));
    assert_eq!(u8s(a.bitwise_xor(&b).unwrap()), (Bool, vec![0, 1, 0]));
    assert!(a.sub(&b).is_err() && a.pow(&b).is_err() && a.remainder(&b).is_err());
    assert_eq!(a.add(1).unwrap().dtype(), I64);
}

#[test]
fn operands_of_different_types_meet_in_a_common_one() {
    let sum = tensor(&[200u8]).add(&tensor(&[-100i8])).unwrap();
    assert_eq!((sum.dtype(), values::<i16>(sum)), (I16, vec![100]));
    let nan = values::<f32>(tensor(&[1., f32::NAN, -0.]).minimum(&tensor(&[f32::NAN, 1., 0f32])).unwrap());
    assert!(nan[0].is_nan() && nan[1].is_nan() && nan[2] == 0.);
    // Each operand is cast to f32 before the division.
    let quotient = tensor(&[1u8]).div(&tensor(&[3i64])).unwrap();
    assert_eq!((quotient.dtype(), values::<f32>(quotient)), (F32, vec![1. / 3.]));
    assert!(tensor(&[1u64]).add(&tensor(&[1i8])).is_err());
}

#[test]
fn in_place_keeps_dtype_and_shape() {
    let mut x = tensor(&[half::f16::ONE, half::f16::from_f32(2.)]);
    x.add_(&tensor(&[0.1f64, 0.2])).unwrap();
    assert_eq!(x.dtype(), F16);
    assert_eq!(values::<f32>(x.to_dtype(F32).unwrap()), [1.0996094, 2.1992188]);
    let mut i = tensor(&[1i32, 2]);
    let refused = i.div_(2).unwrap_err().to_string();
    assert!(refused.contains("the result is f32, which a tensor of i32 cannot take"), "{refused}");
    assert!(i.add_(&BitNetTensor::zeros(&[3, 2], I32, &Device::cpu()).unwrap()).is_err());
    assert_eq!(values::<i32>(i.mul_(3).unwrap().clone()), [3, 6]);
}

#[test]
fn in_place_leaves_those_who_share_the_storage() {
    let original = tensor(&[1f32, 2., 3., 4.]);
    let mut part = original.narrow(0, 1, 2).unwrap();
    part.mul_(10.).unwrap();
    assert_eq!((values::<f32>(part), values::<f32>(original.clone())), (vec![20., 30.], vec![1., 2., 3., 4.]));
    // One element seen four times becomes four.
    let mut expanded = tensor(&[1f32]).broadcast_to(&[4]).unwrap();
    expanded.add_(&original).unwrap();
    assert_eq!(values::<f32>(expanded), [2., 3., 4., 5.]);
    // A tensor in itself.
    let mut x = original.clone();
    x.sub_(&original).unwrap();
    assert_eq!(values::<f32>(x), [0.; 4]);
}

#[test]
fn into_writes_where_it_is_told() {
    let (a, b) = (tensor(&[1f32, 2.]), tensor(&[10f32]));
    let mut out = BitNetTensor::zeros(&[3, 2], F32, &Device::cpu()).unwrap();
    assert!(a.add_into(&b, &mut out).unwrap_err().to_string().contains("out has shape [3, 2], needed [2]"));
    let mut out = out.narrow(0, 0, 1).unwrap().reshape(&[2]).unwrap();
    a.add_into(&b, &mut out).unwrap();
    assert_eq!(values::<f32>(out.clone()), [11., 12.]);
    // A view of the operand as the result: the operand stays.
    let mut view = a.clone();
    a.mul_into(5, &mut view).unwrap();
    assert_eq!((values::<f32>(view), values::<f32>(a.clone())), (vec![5., 10.], vec![1., 2.]));
    assert!(a.div_into(&b, &mut tensor(&[0f64, 0.])).is_err());
    a.exp_into(&mut out).unwrap();
    assert!((out.to_vec::<f32>().unwrap()[0] - std::f32::consts::E).abs() < 1e-6);
}

#[test]
fn tensors_without_elements_or_dimensions_are_legal() {
    let cpu = Device::cpu();
    let none = BitNetTensor::zeros(&[0, 3], F32, &cpu).unwrap();
    assert_eq!(none.add(&tensor(&[1f32, 2., 3.])).unwrap().dims(), [0, 3]);
    let one = BitNetTensor::scalar(2, F32, &cpu).unwrap();
    let product = one.mul(&one).unwrap();
    assert_eq!((product.dims(), values::<f32>(product.clone())), (&[][..], vec![4.]));
    assert!(none.add(&tensor(&[1f32, 2.])).unwrap_err().to_string().contains("[0, 3] and [2] do not broadcast"));
    assert!(one.add(&BitNetTensor::scalar(1, F32, &Device::cpu_with_threads(1)).unwrap()).is_err());
}

#[test]
fn a_number_beside_a_half_is_not_rounded_first() {
    let of = |x: f64, dtype| BitNetTensor::scalar(x, dtype, &Device::cpu()).unwrap();
    let half = |x: f64| of(x, F16).reshape(&[1]).unwrap();
    let value = |x: BitNetTensor| {
        assert_eq!(x.dtype(), F16);
        values::<f32>(x.to_dtype(F32).unwrap())[0]
    };
    let x = half(60000.);
    // h(60000.) / 70000, h(1e-3) * 1e5; 70000 and 1e5 are infinite in f16. Of 70000 / h(60000.) PyTorch rounds the reciprocal.
    assert_eq!(value(x.div(70000).unwrap()), 0.856_933_6);
    assert_eq!(value(70000 / &x), 1.166_992_2);
    assert_eq!(value(half(1e-3).mul(1e5).unwrap()), 100.0625);
    assert_eq!(value(half(-60000.).add(70000.).unwrap()), 10000.);
    assert_eq!(value(70000. - &x), 10000.);
    for number in [of(70000., F32), of(70000., F64), of(70000., I64)] {
        assert_eq!(value(x.div(&number).unwrap()), 0.856_933_6);
        assert_eq!(value(number.div(&x).unwrap()), 1.166_992_2);
        assert_eq!(value(x.clone().div_(&number).unwrap().clone()), 0.856_933_6);
    }
    assert_eq!(value(x.clone().div_(70000).unwrap().clone()), 0.856_933_6);
    assert_eq!(value(x.copy().unwrap() / 70000), 0.856_933_6);
    let mut out = half(0.);
    x.div_into(70000, &mut out).unwrap();
    assert_eq!(value(out), 0.856_933_6);
    let matrix = half(60000.).expand(&[3, 5]).unwrap();
    assert_eq!(value(matrix.t().unwrap().div(70000).unwrap()), 0.856_933_6);
    // torch.addcmul(h(0.), h(1e-3), h(1.), value=1e5)
    assert_eq!(value(half(0.).addcmul(&half(1e-3), &half(1.), 1e5).unwrap()), 100.0625);
    // bf16: 1 + 2^-8 is between two numbers, and 256 times it is not.
    let b = of(256., BF16).reshape(&[1]).unwrap();
    assert_eq!(values::<f32>(b.mul(1.00390625).unwrap().to_dtype(F32).unwrap()), [256.]);
    assert_eq!(values::<f32>(b.div(1.00390625).unwrap().to_dtype(F32).unwrap()), [255.]);
    // Where PyTorch rounds the number, so do comparisons and the other functions: h(0.1) == 0.1, b(1000.) ** 0.1
    assert_eq!(half(0.1).eq(0.1).unwrap().to_bools().unwrap(), [true]);
    let power = of(1000., BF16).reshape(&[1]).unwrap().pow(0.1).unwrap();
    assert_eq!(values::<f32>(power.to_dtype(F32).unwrap()), [2.]);
    // Two tensors are as they were.
    assert_eq!(value(x.div(&half(70000.)).unwrap()), 0.);
}
