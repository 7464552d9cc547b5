//! Values from PyTorch 2.15, the expression beside each.

use crate::{BitNetTensor, Device, Element};

fn tensor<T: Element>(data: &[T]) -> BitNetTensor {
    BitNetTensor::from_slice(data, &[data.len()], &Device::cpu()).unwrap()
}

#[test]
fn limits_beyond_an_integer_type_are_its_own() {
    let clamp = |x: BitNetTensor, low: i64, high: i64| x.clamp(Some(low.into()), Some(high.into())).unwrap();
    // torch.tensor([-300, 5, 300]).clamp(0, 255)
    assert_eq!(clamp(tensor(&[-300i64, 5, 300]), 0, 255).to_vec::<i64>().unwrap(), [0, 5, 255]);
    // torch.tensor([-128, 5, 127], dtype=torch.int8).clamp(-1000, 100)
    assert_eq!(clamp(tensor(&[-128i8, 5, 127]), -1000, 100).to_vec::<i8>().unwrap(), [-128, 5, 100]);
    // torch.tensor([1, 5]).clamp(1.5, 4.5)
    let floats = tensor(&[1i64, 5]).clamp(Some(1.5.into()), Some(4.5.into())).unwrap();
    assert_eq!(floats.to_vec::<f32>().unwrap(), [1.5, 4.5]);
    // torch.tensor([nan, 0.5]).clamp(1, 0)
    let crossed = clamp(tensor(&[f32::NAN, 0.5]), 1, 0).to_vec::<f32>().unwrap();
    assert!(crossed[0].is_nan() && crossed[1] == 0.);
    assert!(tensor(&[1f32]).clamp(None, None).is_err());
    let mut x = tensor(&[-2f32, 2.]);
    x.clamp_(None, Some(1.into())).unwrap();
    assert_eq!(x.to_vec::<f32>().unwrap(), [-2., 1.]);
    assert!(tensor(&[1i32]).clamp_(Some(0.5.into()), None).is_err());
}

#[test]
fn interpolation_meets_both_ends() {
    let (x, y) = (tensor(&[1.5f32, -2., 0.25]), tensor(&[4f32, -0.5, 3.]));
    // torch.lerp(x, y, 0.25), torch.lerp(x, y, 0.75)
    assert_eq!(x.lerp(&y, 0.25).unwrap().to_vec::<f32>().unwrap(), [2.125, -1.625, 0.9375]);
    assert_eq!(x.lerp(&y, 0.75).unwrap().to_vec::<f32>().unwrap(), [3.375, -0.875, 2.3125]);
    // torch.lerp(x, y, torch.tensor([0., 1., 0.4]))
    assert_eq!(x.lerp(&y, &tensor(&[0f32, 1., 0.4])).unwrap().to_vec::<f32>().unwrap(), [1.5, -0.5, 1.35]);
    let mut z = x.clone();
    z.lerp_(&y, 1).unwrap();
    assert_eq!(z.to_vec::<f32>().unwrap(), y.to_vec::<f32>().unwrap());
    assert!(tensor(&[1i32]).lerp(&tensor(&[2i32]), 1).is_err());
}

#[test]
fn products_are_added() {
    let (x, y) = (tensor(&[1.5f32, -2., 0.25]), tensor(&[4f32, -0.5, 3.]));
    // torch.addcmul(x, y, torch.stack([x, y]), value=0.5)
    let both = BitNetTensor::from_slice(&[1.5f32, -2., 0.25, 4., -0.5, 3.], &[2, 3], &Device::cpu()).unwrap();
    let sum = x.addcmul(&y, &both, 0.5).unwrap();
    assert_eq!(sum.to_vec::<f32>().unwrap(), [4.5, -1.5, 0.625, 9.5, -1.875, 4.75]);
    assert!(x.clone().addcmul_(&y, &both, 0.5).is_err());
    // torch.addcdiv(x, y, torch.tensor([2., 4., -8.]), value=2)
    let mut z = x.clone();
    z.addcdiv_(&y, &tensor(&[2f32, 4., -8.]), 2).unwrap();
    assert_eq!(z.to_vec::<f32>().unwrap(), [5.5, -2.25, -0.5]);
    // torch.addcmul(torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5, 6]), value=2)
    let whole = tensor(&[1i64, 2]).addcmul(&tensor(&[3i64, 4]), &tensor(&[5i64, 6]), 2).unwrap();
    assert_eq!(whole.to_vec::<i64>().unwrap(), [31, 50]);
    assert!(tensor(&[1i64]).addcdiv(&tensor(&[1i64]), &tensor(&[1i64]), 1).is_err());
}

#[test]
fn one_float_limit_makes_integers_floats() {
    let x = tensor(&[1i64, 5]);
    let clamp = |x: &BitNetTensor, low: Option<crate::Scalar>, high: Option<crate::Scalar>| {
        let out = x.clamp(low, high).unwrap();
        assert_eq!(out.dtype(), crate::BitNetDType::F32);
        out.to_vec::<f32>().unwrap()
    };
    // torch.tensor([1, 5]).clamp(0.5, 3), .clamp(2, 3.5); torch.tensor([1, 5], dtype=torch.uint8).clamp(min=2.5)
    assert_eq!(clamp(&x, Some(0.5.into()), Some(3.into())), [1., 3.]);
    assert_eq!(clamp(&x, Some(2.into()), Some(3.5.into())), [2., 3.5]);
    assert_eq!(clamp(&tensor(&[1u8, 5]), Some(2.5.into()), None), [2.5, 5.]);
    // In place it cannot, and nothing is changed.
    let mut x = x.copy().unwrap();
    assert!(x.clamp_(Some(2.into()), Some(3.5.into())).unwrap_err().to_string().contains("f32"));
    assert_eq!(x.to_vec::<i64>().unwrap(), [1, 5]);
}
