//! `clamp`.

use crate::autograd::differentiable;
use crate::{BitNetTensor, Result, Scalar};

/// `x` limited, computed by `forward`: the gradient passes between the limits, both included, and is 0 outside.
pub fn clamp(
    x: &BitNetTensor,
    low: Option<Scalar>,
    high: Option<Scalar>,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable("clamp", &[x], forward, |_| {
        let x = x.clone();
        move |grad: &BitNetTensor| {
            let mut grad = grad.clone();
            if let Some(low) = low {
                grad = grad.masked_fill(&x.lt(low)?, 0)?;
            }
            if let Some(high) = high {
                grad = grad.masked_fill(&x.gt(high)?, 0)?;
            }
            Ok(vec![Some(grad.to_dtype(x.dtype())?)])
        }
    })
}
