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
