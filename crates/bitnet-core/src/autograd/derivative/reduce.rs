//! Reductions.

use crate::autograd::{differentiable, differentiable_by_result};
use crate::backend::ReduceOp;
use crate::{BitNetTensor, Result, TensorOpError, TensorShape};

/// `op` over `axes`, which have extent 1 in `kept`, computed by `forward`.
///
/// The gradient of a sum passes to every element; that of a product times the other elements; that of a maximum or
/// minimum in equal parts to the elements equal to it.
pub fn reduce(
    name: &'static str,
    op: ReduceOp,
    x: &BitNetTensor,
    axes: Vec<isize>,
    kept: TensorShape,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    let dims = x.dims().to_vec();
    match op {
        ReduceOp::Sum => differentiable(name, &[x], forward, |_| {
            move |grad: &BitNetTensor| Ok(vec![Some(grad.reshape(kept.dims())?.expand(&dims)?)])
        }),
        ReduceOp::Prod => differentiable(name, &[x], forward, |_| {
            let x = x.clone();
            move |grad: &BitNetTensor| {
                let grad = grad.reshape(kept.dims())?;
                Ok(vec![Some(others(&x, &axes)?.mul(&grad)?.to_dtype(x.dtype())?)])
            }
        }),
        ReduceOp::Max | ReduceOp::Min => differentiable_by_result(name, &[x], forward, || {
            let x = x.clone();
            move |grad: &BitNetTensor, y: &BitNetTensor| {
                let found = x.eq(&y.reshape(kept.dims())?)?.to_dtype(grad.dtype())?;
                let share = found.div(&found.sum(&axes[..], true)?)?;
                Ok(vec![Some(share.mul(&grad.reshape(kept.dims())?)?)])
            }
        }),
        _ => Err(TensorOpError::Argument { op: name, message: "not differentiable".into() }.into()),
    }
}

/// For each element the product of the others over `axes`, without division, which fails at zeros.
pub fn others(x: &BitNetTensor, axes: &[isize]) -> Result<BitNetTensor> {
    if x.elements() == 0 {
        return x.zeros_like();
    }
    let rank = x.rank() as isize;
    let kept: Vec<isize> = (0..rank).filter(|axis| !axes.contains(axis)).collect();
    let order: Vec<isize> = kept.iter().chain(axes).copied().collect();
    let turned = x.permute(&order)?;
    let count: usize = axes.iter().map(|&axis| x.dims()[axis as usize]).product();
    let rows = turned.reshape(&[x.elements() / count.max(1), count])?;
    // The product of the elements before, times that of the elements after.
    let one = BitNetTensor::ones(&[rows.dims()[0], 1], x.dtype(), x.device())?;
    let before = |rows: &BitNetTensor| -> Result<BitNetTensor> {
        let running = rows.narrow(1, 0, count.saturating_sub(1))?.cumprod(1)?;
        BitNetTensor::cat(&[&one, &running], 1)
    };
    let behind = before(&rows.flip(&[1])?)?.flip(&[1])?;
    let product = before(&rows)?.mul(&behind)?.reshape(turned.dims())?;
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, &axis)| back[axis as usize] = place as isize);
    product.permute(&back)
}

/// Variance over `axes` of `count` elements each: `2 (x - mean) grad / (count - correction)`.
pub fn var(
    x: &BitNetTensor,
    axes: Vec<isize>,
    kept: TensorShape,
    count: usize,
    correction: f64,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable("var", &[x], forward, |_| {
        let x = x.clone();
        move |grad: &BitNetTensor| {
            let (grad, wide) = (grad.wide("var")?.reshape(kept.dims())?, x.wide("var")?);
            let centred = wide.sub(&wide.mean(&axes[..], true)?)?;
            let factor = 2. / (count as f64 - correction).max(0.);
            Ok(vec![Some(centred.mul(factor)?.mul(&grad)?.to_dtype(x.dtype())?)])
        }
    })
}

/// The standard deviation over `axes`, computed by `forward`: `(x - mean) grad / (std (N - correction))`, 0 where it is 0.
pub fn std(
    x: &BitNetTensor,
    axes: Vec<isize>,
    kept: TensorShape,
    count: usize,
    correction: f64,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable_by_result("std", &[x], forward, || {
        let x = x.clone();
        move |grad: &BitNetTensor, y: &BitNetTensor| {
            let (grad, y) = (grad.reshape(kept.dims())?, y.reshape(kept.dims())?);
            // No division by zero, whose slopes are NaN even where they count nothing.
            let none = y.eq(0)?;
            let slope = grad.div(&y.masked_fill(&none, 1)?)?.masked_fill(&none, 0)?;
            let centred = x.sub(&x.mean(&axes[..], true)?)?;
            Ok(vec![Some(centred.mul(&slope)?.div((count as f64 - correction).max(0.))?)])
        }
    })
}

/// The p-norm over `axes`: `sign(x) |x|^(p-1) grad / norm^(p-1)`, 0 where the norm is 0. For the largest or smallest
/// magnitude the elements equal to it share the gradient; the count of non-zero elements has none.
pub fn norm(
    x: &BitNetTensor,
    p: f64,
    axes: Vec<isize>,
    kept: TensorShape,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable_by_result("norm", &[x], forward, || {
        let x = x.clone();
        move |grad: &BitNetTensor, y: &BitNetTensor| {
            let (grad, y) = (grad.reshape(kept.dims())?, y.reshape(kept.dims())?);
            // No division by zero, whose slopes are NaN even where they count nothing.
            let zero = y.eq(0)?;
            let none = |slope: BitNetTensor| slope.masked_fill(&zero.expand(x.dims())?, 0);
            let safe = y.masked_fill(&zero, 1)?;
            let direction = if p == 0. {
                x.zeros_like()?
            } else if p == 1. {
                x.sign()?
            } else if p == 2. {
                none(x.div(&safe)?)?
            } else if p.is_infinite() {
                let found = x.abs()?.eq(&y)?.to_dtype(x.dtype())?;
                found.div(&found.sum(&axes[..], true)?)?.mul(&x.sign()?)?
            } else {
                let none_of_x = x.eq(0)?;
                let share = x.abs()?.masked_fill(&none_of_x, 1)?.div(&safe)?;
                none(share.pow(p - 1.)?.mul(&x.sign()?)?.masked_fill(&none_of_x, 0)?)?
            };
            Ok(vec![Some(direction.mul(&grad)?)])
        }
    })
}

/// Logarithm of the sum of `e^x`, computed by `forward`: `e^(x - result) grad`, 0 where all are minus infinity.
pub fn logsumexp(
    x: &BitNetTensor,
    kept: TensorShape,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable_by_result("logsumexp", &[x], forward, || {
        let x = x.clone();
        move |grad: &BitNetTensor, y: &BitNetTensor| {
            let (grad, y) = (grad.wide("logsumexp")?.reshape(kept.dims())?, y.wide("logsumexp")?.reshape(kept.dims())?);
            let nothing = y.eq(f64::NEG_INFINITY)?;
            let share = x.wide("logsumexp")?.sub(&y.masked_fill(&nothing, 0)?)?.exp()?;
            Ok(vec![Some(share.mul(&grad)?.to_dtype(x.dtype())?)])
        }
    })
}
