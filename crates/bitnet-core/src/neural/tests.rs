//! Cases that the conformance suite does not cover; expected values printed by PyTorch 2.15.

use crate::{AttentionOptions, BitNetTensor, Device, Result};

fn tensor(data: &[f32], dims: &[usize]) -> BitNetTensor {
    BitNetTensor::from_slice(data, dims, &Device::cpu()).unwrap()
}

fn close(got: &BitNetTensor, expected: &[f32]) {
    let got = got.to_vec::<f32>().unwrap();
    assert_eq!(got.len(), expected.len());
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= 1e-5 * e.abs().max(1.), "{got:?} is not {expected:?}");
    }
}

#[test]
fn a_query_that_sees_nothing_gives_zero() -> Result<()> {
    let (q, k, v) = (tensor(&[1., 2.], &[1, 2, 1]), tensor(&[1., 2.], &[1, 2, 1]), tensor(&[3., 4.], &[1, 2, 1]));
    let mask = BitNetTensor::from_bools(&[false, false, true, false], &[2, 2], &Device::cpu())?;
    let out = q.scaled_dot_product_attention(&k, &v, &AttentionOptions { mask: Some(&mask), ..Default::default() })?;
    close(&out, &[0., 3.]);
    assert!(q.scaled_dot_product_attention(&tensor(&[1.; 6], &[3, 2, 1]), &v, &AttentionOptions::default()).is_err());
    Ok(())
}

#[test]
fn attention_of_width_0_weighs_all_alike() -> Result<()> {
    let (q, k) = (tensor(&[], &[1, 2, 0]), tensor(&[], &[1, 3, 0]));
    let v = tensor(&[0., 1., 2., 3., 4., 5.], &[1, 3, 2]);
    close(&q.scaled_dot_product_attention(&k, &v, &AttentionOptions::default())?, &[2., 3., 2., 3.]);
    let causal = AttentionOptions { causal: true, ..Default::default() };
    close(&q.scaled_dot_product_attention(&k, &v, &causal)?, &[0., 1., 1., 2.]);
    Ok(())
}

#[test]
fn attention_of_8_dimensions_is_that_of_4() -> Result<()> {
    let numbers = |n: usize| (0..n).map(|i| (i * 7 % 11) as f32 / 5. - 1.).collect::<Vec<_>>();
    let [full, plain] = [[2, 1, 3, 1, 1, 2, 2, 4].to_vec(), [6, 2, 2, 4].to_vec()];
    let data = numbers(96);
    let of = |dims: &[usize]| tensor(&data, dims);
    let mask = BitNetTensor::from_bools(&[true, false, true, true], &[2, 2], &Device::cpu())?;
    let options = AttentionOptions { mask: Some(&mask), ..Default::default() };
    let mut leaf = of(&full);
    leaf.requires_grad_(true)?;
    let got = leaf.scaled_dot_product_attention(&leaf, &leaf, &options)?;
    let expected = of(&plain).scaled_dot_product_attention(&of(&plain), &of(&plain), &options)?;
    assert_eq!(got.dims(), full);
    close(&got, &expected.to_vec::<f32>()?);
    got.sum(.., false)?.backward()?;
    let mut flat = of(&plain);
    flat.requires_grad_(true)?;
    flat.scaled_dot_product_attention(&flat, &flat, &options)?.sum(.., false)?.backward()?;
    close(&leaf.grad().unwrap(), &flat.grad().unwrap().to_vec::<f32>()?);
    assert_eq!(leaf.grad().unwrap().dims(), full);
    Ok(())
}
