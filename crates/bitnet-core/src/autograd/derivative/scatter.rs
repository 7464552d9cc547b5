//! Reading and writing by index tensors.

use crate::autograd::differentiable;
use crate::backend::ScatterOp;
use crate::tensor::gather::index_dtype;
use crate::{BitNetTensor, Result};

/// `x.gather(axis, indices)`, computed by `forward`: the gradient of an element is the sum over all reads of it.
pub fn gather(
    x: &BitNetTensor,
    axis: isize,
    indices: &BitNetTensor,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable("gather", &[x], forward, |_| {
        let (dims, indices) = (x.dims().to_vec(), indices.clone());
        move |grad: &BitNetTensor| {
            let mut sum = BitNetTensor::zeros(&dims, grad.dtype(), grad.device())?;
            sum.scatter_add_(axis, &indices, grad)?;
            Ok(vec![Some(sum)])
        }
    })
}

/// `x` with `source` written or added at `indices`, equal shapes: overwritten elements get no gradient, and each
/// element of the source gets that of the element it was written to.
pub fn scatter(
    name: &'static str,
    op: ScatterOp,
    x: &BitNetTensor,
    axis: isize,
    indices: &BitNetTensor,
    source: &BitNetTensor,
) -> Result<BitNetTensor> {
    let write = |x: &BitNetTensor, source: &BitNetTensor| {
        let mut out = x.copy()?;
        match op {
            ScatterOp::Assign => out.scatter_(axis, indices, source)?,
            ScatterOp::Add => out.scatter_add_(axis, indices, source)?,
        };
        Ok(out)
    };
    let forward = || write(x, source);
    differentiable(name, &[x, source], forward, |_| {
        let (indices, wanted) = (indices.clone(), (x.requires_grad(), source.requires_grad()));
        move |grad: &BitNetTensor| {
            let of_x = || -> Result<BitNetTensor> {
                let mut kept = grad.clone();
                if op == ScatterOp::Assign {
                    kept.scatter_(axis, &indices, 0.)?;
                }
                Ok(kept)
            };
            let of_source = || {
                let gradient = grad.gather(axis, &indices)?;
                if op == ScatterOp::Add {
                    return Ok(gradient);
                }
                // Of several writes to one element the last won.
                let dtype = index_dtype(grad.device());
                let own =
                    BitNetTensor::arange(0, indices.elements(), 1, dtype, grad.device())?.reshape(indices.dims())?;
                let mut last = BitNetTensor::zeros(grad.dims(), dtype, grad.device())?;
                last.scatter_(axis, &indices, &own)?;
                gradient.masked_fill(&last.gather(axis, &indices)?.ne(&own)?, 0.)
            };
            Ok(vec![wanted.0.then(of_x).transpose()?, wanted.1.then(of_source).transpose()?])
        }
    })
}
