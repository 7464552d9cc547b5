//! Gradients through rounding.

use bitnet_core::{BitNetTensor, Result, autograd};

/// Gradient estimators of a quantizer `Q`, whose rounding has no useful derivative.
///
/// With the warm-up `lambda` the value is `x + lambda (Q(x) - x)`, where `lambda` grows from 0 to 1 during training;
/// the gradient by `x` is that of the estimator at every `lambda`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum StraightThroughEstimator {
    /// Straight-through: the gradient passes unchanged (Bengio et al. 2013; used by BitNet b1.58 and transformers).
    #[default]
    Standard,
    /// It passes where `|x| <= limit`, in units of the quantizer's scale, and is 0 outside, where `Q` saturates (Hubara
    /// et al. 2016).
    Clipped {
        /// In units of the scale; 1 is the edge of a ternary quantizer.
        limit: f64,
    },
    /// It is multiplied by `1 - tanh(x)^2`, the derivative of a smooth step, `x` in units of the scale times
    /// `steepness` (Gong et al. 2019).
    Soft {
        /// Larger is steeper.
        steepness: f64,
    },
}

impl StraightThroughEstimator {
    /// `x + lambda (quantized - x)` with the gradient by `x` of this estimator. `quantized` is `Q(x)`; `scale` is the
    /// divisor of `x` before rounding, of any shape that broadcasts.
    pub fn apply(
        self,
        x: &BitNetTensor,
        quantized: &BitNetTensor,
        scale: &BitNetTensor,
        lambda: f64,
    ) -> Result<BitNetTensor> {
        let forward = || match lambda {
            1. => Ok(quantized.detach()),
            0. => Ok(x.detach()),
            _ => x.lerp(quantized, lambda),
        };
        let (x_saved, scale) = (x.clone(), scale.detach());
        autograd::differentiable("straight_through", &[x], forward, move |_| {
            move |grad: &BitNetTensor| {
                let surrogate = match self {
                    Self::Standard => grad.clone(),
                    Self::Clipped { limit } => {
                        let inside = x_saved.detach().div(&scale)?.abs()?.le(limit)?;
                        BitNetTensor::where_(&inside, grad, &grad.zeros_like()?)?
                    }
                    Self::Soft { steepness } => {
                        let slope = x_saved.div(&scale)?.mul(steepness)?.tanh()?.square()?.neg()?.add(1)?;
                        grad.mul(&slope)?
                    }
                };
                Ok(vec![Some(surrogate)])
            }
        })
    }
}
