//! Running sums and products.

use crate::autograd::differentiable;
use crate::backend::ScanOp;
use crate::{BitNetTensor, Result};

/// `op` of each element and those before it, computed by `forward`.
pub fn scan(
    name: &'static str,
    op: ScanOp,
    x: &BitNetTensor,
    axis: isize,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    let x = x.clone();
    differentiable(name, &[&x.clone()], forward, |_| {
        move |grad: &BitNetTensor| {
            let d = match op {
                ScanOp::Sum => behind(grad, axis)?,
                ScanOp::Prod => products(&x.wide(name)?, &grad.wide(name)?, axis)?,
            };
            Ok(vec![Some(d.to_dtype(x.dtype())?)])
        }
    })
}

/// The sum of each element and those behind it.
fn behind(x: &BitNetTensor, axis: isize) -> Result<BitNetTensor> {
    x.flip(&[axis])?.cumsum(axis)?.flip(&[axis])
}

/// `d_j = sum over i >= j of grad_i prod over k <= i, k != j of x_k`, element by element along the axis, so that zeros are no
/// exception.
fn products(x: &BitNetTensor, grad: &BitNetTensor, axis: isize) -> Result<BitNetTensor> {
    let extent = x.dims()[axis as usize];
    if x.elements() == 0 {
        return x.zeros_like();
    }
    let one = x.narrow(axis, 0, 1)?.detach().ones_like()?;
    let mut parts = Vec::with_capacity(extent);
    for j in 0..extent {
        let (low, high) = (x.narrow(axis, 0, j)?, x.narrow(axis, j + 1, extent - j - 1)?);
        let running = BitNetTensor::cat(&[&low, &one, &high], axis)?.cumprod(axis)?;
        let from = |t: &BitNetTensor| t.narrow(axis, j, extent - j);
        parts.push(from(&running)?.mul(&from(grad)?)?.sum(axis, true)?);
    }
    BitNetTensor::cat(&parts.iter().collect::<Vec<_>>(), axis)
}
