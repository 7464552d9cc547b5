//! Ternary weights with a learned step.

use super::product::first_derivative;
use crate::quantizers::{self, Granularity};
use bitnet_core::{BitNetTensor, Result, autograd};

/// The values of [`quantizers::learned_step`] for all `weights` with one `step`, f32 `[]`, and gradients of both (LSQ,
/// Esser et al. 2020, section 2, with codes from -1 to 1).
///
/// With `v = w / step`, `|v| < 1` inside: `dQ/dw` is 1 inside and 0 beyond; `dQ/dstep` is `round(v) - v` inside and the
/// sign of `v` beyond. The gradient of the step is multiplied by `1 / sqrt(number of weights)`.
///
/// ```
/// use bitnet_core::{BitNetTensor, Device};
/// let w = BitNetTensor::from_slice(&[0.75f32, 3.0, -0.25, 0.0], &[2, 2], &Device::cpu())?;
/// let mut step = BitNetTensor::from_slice(&[1f32], &[], &Device::cpu())?;
/// step.requires_grad_(true)?;
/// let q = bitnet_quant::linear::learned_step(&w, &step)?;
/// assert_eq!(q.to_vec::<f32>()?, [1., 1., 0., 0.]);
/// q.sum(.., false)?.backward()?;
/// assert_eq!(step.grad().unwrap().item::<f32>()?, (0.25 + 1. + 0.25 + 0.) / 2.);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
///
/// # Errors
/// As [`quantizers::learned_step`].
pub fn learned_step(weights: &BitNetTensor, step: &BitNetTensor) -> Result<BitNetTensor> {
    const OP: &str = "learned_step";
    let forward = || quantizers::learned_step(weights, step, Granularity::Tensor)?.dequantize();
    autograd::differentiable(OP, &[weights, step], forward, |_| {
        let (weights, step) = (weights.detach(), step.detach());
        move |grad: &BitNetTensor| {
            first_derivative(OP)?;
            let v = weights.div(&step)?;
            let inside = v.abs()?.lt(1.)?;
            let zero = grad.zeros_like()?;
            let codes = v.round()?.clamp(Some((-1.).into()), Some(1.0.into()))?;
            let slope = codes.sub(&BitNetTensor::where_(&inside, &v, &zero)?)?;
            let scale = (weights.elements() as f64).sqrt().recip();
            let of_step = grad.mul(&slope)?.sum(.., false)?.mul(scale)?.reshape(step.dims())?;
            Ok(vec![Some(BitNetTensor::where_(&inside, grad, &zero)?), Some(of_step)])
        }
    })
}
