//! Values from PyTorch 2.15, the expression beside each.

use crate::BitNetDType::{Bool, F16, U8};
use crate::{BitNetTensor, Device, Element};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

fn tensor<T: Element>(data: &[T]) -> BitNetTensor {
    BitNetTensor::from_slice(data, &[data.len()], &Device::cpu()).unwrap()
}

fn truth(x: BitNetTensor) -> Vec<u8> {
    assert_eq!(x.dtype(), Bool);
    x.to_dtype(U8).unwrap().to_vec().unwrap()
}

#[test]
fn comparisons_are_false_at_nan_but_for_ne() {
    let (a, b) = (tensor(&[1f32, 2., NAN, 3.]), tensor(&[1f32, 3., NAN, 2.]));
    assert_eq!(truth(a.eq(&b).unwrap()), [1, 0, 0, 0]);
    assert_eq!(truth(a.ne(&b).unwrap()), [0, 1, 1, 1]);
    assert_eq!(truth(a.lt(&b).unwrap()), [0, 1, 0, 0]);
    assert_eq!(truth(a.ge(&b).unwrap()), [1, 0, 0, 1]);
    assert_eq!(truth(a.gt(1.5).unwrap()), [0, 1, 0, 1]);
    let mut out = BitNetTensor::zeros(&[4], Bool, &Device::cpu()).unwrap();
    a.le_into(2, &mut out).unwrap();
    assert_eq!(truth(out), [1, 1, 0, 0]);
    // torch.tensor([1, 2]).eq(1.5): compared as floats.
    assert_eq!(truth(tensor(&[1i64, 2]).eq(1.5).unwrap()), [0, 0]);
    assert!(a.eq(&tensor(&[1f32, 2.])).is_err());
}

#[test]
fn logic_is_of_what_is_not_zero() {
    let (a, b) = (tensor(&[0f32, NAN, -0., 2.]), tensor(&[1i32, 1, 0, 0]));
    assert_eq!(truth(a.logical_and(&b).unwrap()), [0, 1, 0, 0]);
    assert_eq!(truth(a.logical_or(&b).unwrap()), [1, 1, 0, 1]);
    assert_eq!(truth(a.logical_xor(true).unwrap()), [1, 0, 1, 0]);
    assert_eq!(truth(a.logical_not().unwrap()), [1, 0, 1, 0]);
    assert_eq!(truth(a.logical_not().unwrap().logical_not().unwrap()), [0, 1, 0, 1]);
}

#[test]
fn numbers_are_finite_infinite_or_none() {
    let x = tensor(&[1f32, INF, -INF, NAN]);
    for x in [x.to_dtype(F16).unwrap(), x] {
        assert_eq!(truth(x.isnan().unwrap()), [0, 0, 0, 1]);
        assert_eq!(truth(x.isinf().unwrap()), [0, 1, 1, 0]);
        assert_eq!(truth(x.isfinite().unwrap()), [1, 0, 0, 0]);
    }
    let i = tensor(&[1i8, 2]);
    assert_eq!((truth(i.isnan().unwrap()), truth(i.isfinite().unwrap())), (vec![0, 0], vec![1, 1]));
}

#[test]
fn closeness_is_that_of_pytorch() {
    // torch.isclose(a, b, rtol=1e-4, equal_nan=True)
    let (a, b) = (tensor(&[1f32, INF, -INF, NAN, 1.]), tensor(&[1.00001f32, INF, INF, NAN, 1.1]));
    assert_eq!(truth(a.isclose(&b, 1e-4, 1e-8, true).unwrap()), [1, 1, 0, 1, 0]);
    assert_eq!(truth(a.isclose(&b, 1e-4, 1e-8, false).unwrap()), [1, 1, 0, 0, 0]);
    // No difference of unsigned integers wraps.
    assert_eq!(truth(tensor(&[3u8, 5]).isclose(&tensor(&[4u8, 7]), 0., 1., false).unwrap()), [1, 0]);
    assert!(a.allclose(&a, 0., 0., true).unwrap() && !a.allclose(&a, 0., 0., false).unwrap());
    assert!(tensor::<f32>(&[]).allclose(&tensor::<f32>(&[]), 0., 0., false).unwrap());
}

#[test]
fn equal_is_of_shape_and_elements() {
    let a = tensor(&[1f32, 2.]);
    assert!(a.equal(&a).unwrap());
    assert!(!a.equal(&tensor(&[1f32, 3.])).unwrap());
    assert!(!a.equal(&tensor(&[1f32])).unwrap());
    assert!(!tensor(&[NAN]).equal(&tensor(&[NAN])).unwrap());
}

#[test]
fn integers_are_close_exactly() {
    let close = |a: &[i64], b: &[i64], rtol, atol| truth(tensor(a).isclose(&tensor(b), rtol, atol, false).unwrap());
    let big = 1i64 << 53;
    // torch.isclose(torch.tensor([2**53, 5, 100]), torch.tensor([2**53 + 1, 5, 101]), rtol=0, atol=0)
    assert_eq!(close(&[big, 5, 100], &[big + 1, 5, 101], 0., 0.), [0, 1, 0]);
    // rtol=1e-2
    assert_eq!(close(&[big, 5, 100], &[big + 1, 5, 101], 1e-2, 0.), [1, 1, 1]);
    assert_eq!(close(&[big, 7, -7], &[big + 1, 9, -9], 0., 1.5), [1, 0, 0]);
    assert_eq!(close(&[i64::MIN, i64::MAX, -1], &[i64::MAX, i64::MIN, 1], 0., 1.), [0, 0, 0]);
    assert_eq!(close(&[i64::MIN], &[i64::MAX], 0., 2e19), [1]);
    assert_eq!(close(&[1, 1], &[1, 2], f64::NAN, 0.), [1, 0]);
    let unsigned = tensor(&[u64::MAX, 0, 3]).isclose(&tensor(&[u64::MAX - 1, u64::MAX, 4]), 0., 1., false).unwrap();
    assert_eq!(truth(unsigned), [1, 0, 1]);
    let bytes = tensor(&[250u8, 3]).isclose(&tensor(&[3u8, 250]), 0., 9., false).unwrap();
    assert_eq!(truth(bytes), [0, 0]);
}
