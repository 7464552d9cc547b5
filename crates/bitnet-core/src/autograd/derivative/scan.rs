//! Cumulative sums and products.

use crate::autograd::differentiable;
use crate::backend::ScanOp;
use crate::{BitNetTensor, Result};

/// Cumulative `op`, computed by `forward`.
pub fn scan(
    name: &'static str,
    op: ScanOp,
    x: &BitNetTensor,
    axis: isize,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable(name, &[x], forward, |_| {
        let x = x.clone();
        move |grad: &BitNetTensor| {
            let d = match op {
                ScanOp::Sum => reverse_cumsum(grad, axis)?,
                ScanOp::Prod => products(&x.wide(name)?, &grad.wide(name)?, axis)?,
            };
            Ok(vec![Some(d.to_dtype(x.dtype())?)])
        }
    })
}

/// The sum of each element and those after it.
fn reverse_cumsum(x: &BitNetTensor, axis: isize) -> Result<BitNetTensor> {
    x.flip(&[axis])?.cumsum(axis)?.flip(&[axis])
}

/// `d_j = sum over i >= j of grad_i prod over k <= i, k != j of x_k`: what is before `x_j`, times
/// `r_j = grad_j + x_(j+1) r_(j+1)`. No division, which fails at zeros.
fn products(x: &BitNetTensor, grad: &BitNetTensor, axis: isize) -> Result<BitNetTensor> {
    let extent = x.dims()[axis as usize];
    if x.elements() == 0 {
        return x.zeros_like();
    }
    let one = x.narrow(axis, 0, 1)?.detach().ones_like()?;
    let before = BitNetTensor::cat(&[&one, &x.narrow(axis, 0, extent - 1)?.cumprod(axis)?], axis)?;
    let mut rest = vec![grad.narrow(axis, extent - 1, 1)?];
    for j in (0..extent - 1).rev() {
        let next = x.narrow(axis, j + 1, 1)?.mul(&rest[rest.len() - 1])?;
        rest.push(grad.narrow(axis, j, 1)?.add(&next)?);
    }
    before.mul(&BitNetTensor::cat(&rest.iter().rev().collect::<Vec<_>>(), axis)?)
}
