//! Derivatives of norms.

use super::pair;
use crate::BitNetDType::F32;
use crate::autograd;
use crate::neural::shape_error;
use crate::{BitNetTensor, Result};

/// Gradients of the operands of a norm.
#[derive(Debug, Clone)]
pub struct NormGradients {
    /// Of `x`.
    pub x: BitNetTensor,
    /// Of the weight; without a weight, of a weight of ones.
    pub weight: BitNetTensor,
    /// Of the bias; `None` without one.
    pub bias: Option<BitNetTensor>,
}

/// Of [`BitNetTensor::layer_norm`]. With `z` the normalised `x`, `g = grad weight` and means over the normalised
/// dimensions: `(g - mean(g) - z mean(g z)) / sqrt(var + eps)`; `sum(grad z)` and `sum(grad)` over the rows.
pub fn layer_norm_backward(
    grad: &BitNetTensor,
    x: &BitNetTensor,
    normalized: &[usize],
    weight: Option<&BitNetTensor>,
    eps: f64,
) -> Result<NormGradients> {
    const OP: &str = "layer_norm_backward";
    if normalized.is_empty() || !x.dims().ends_with(normalized) {
        return Err(shape_error(OP, "the tensor", x, format!("at least one dimension, the last {normalized:?}")));
    }
    let (grad, wide) = pair(OP, grad, x)?;
    let axes: Vec<isize> = (1..=normalized.len() as isize).map(|axis| -axis).collect();
    let mean = |t: &BitNetTensor| t.mean(&axes[..], true);
    let centred = wide.sub(&mean(&wide)?)?;
    let factor = mean(&centred.square()?)?.add(eps)?.rsqrt()?;
    let z = centred.mul(&factor)?;
    let product = grad.mul(&z)?;
    let weight_dtype = weight.map_or(x.dtype(), BitNetTensor::dtype);
    let g = match weight {
        Some(weight) => grad.mul(&weight.to_dtype(grad.dtype())?)?,
        None => grad.clone(),
    };
    let tilt = z.mul(&mean(&g.mul(&z)?)?)?;
    let dx = g.sub(&mean(&g)?)?.sub(&tilt)?.mul(&factor)?;
    Ok(NormGradients {
        x: dx.to_dtype(x.dtype())?,
        weight: product.sum_to_shape(normalized)?.to_dtype(weight_dtype)?,
        bias: Some(grad.sum_to_shape(normalized)?.to_dtype(weight_dtype)?),
    })
}

/// Of [`BitNetTensor::rms_norm`]. With `r = 1 / sqrt(mean(x^2) + eps)` and `g = grad weight`:
/// `r (g - x r^2 mean(g x))`; `sum(grad x r)` over the rows.
pub fn rms_norm_backward(
    grad: &BitNetTensor,
    x: &BitNetTensor,
    weight: &BitNetTensor,
    eps: f64,
) -> Result<NormGradients> {
    const OP: &str = "rms_norm_backward";
    if weight.dims() != [x.shape().last()] || x.rank() == 0 {
        return Err(shape_error(OP, "the weight", weight, "[H], the last dimension of the tensor"));
    }
    let (grad, wide) = pair(OP, grad, x)?;
    if wide.dtype() == F32
        && weight.dtype() == F32
        && x.elements() > 0
        && !autograd::is_recorded(&[&grad, &wide, weight])
    {
        let (grad, wide) = (grad.contiguous()?, wide.contiguous()?);
        let mut dx = BitNetTensor::empty(x.dims(), F32, x.device())?;
        let mut dw = BitNetTensor::empty(weight.dims(), F32, x.device())?;
        let operands = (grad.as_ref(), wide.as_ref(), weight.as_ref());
        x.device().rms_norm_backward(operands.0, operands.1, operands.2, eps as f32, dx.as_mut()?, dw.as_mut()?)?;
        return Ok(NormGradients { x: dx.to_dtype(x.dtype())?, weight: dw, bias: None });
    }
    let factor = wide.square()?.mean(-1, true)?.add(eps)?.rsqrt()?;
    let g = grad.mul(&weight.to_dtype(grad.dtype())?)?;
    let along = g.mul(&wide)?.mean(-1, true)?.mul(&factor.square()?)?;
    let dx = g.sub(&wide.mul(&along)?)?.mul(&factor)?;
    let dw = grad.mul(&wide)?.mul(&factor)?.sum_to_shape(weight.dims())?;
    Ok(NormGradients { x: dx.to_dtype(x.dtype())?, weight: dw.to_dtype(weight.dtype())?, bias: None })
}
