//! Derivatives of losses. `grad` has the shape of the loss: 0-d unless the reduction is `None`.

use crate::neural::loss::{CrossEntropy, class_axis};
use crate::neural::{CrossEntropyOptions, Reduction, shape_error};
use crate::{BitNetTensor, Result};

/// Of [`BitNetTensor::cross_entropy`] by the logits. With `share` the weight of each class in a sample's loss:
/// `(softmax(logits) sum(share) - share) grad`, divided by the count of the mean.
pub fn cross_entropy_backward(
    grad: &BitNetTensor,
    logits: &BitNetTensor,
    targets: &BitNetTensor,
    options: &CrossEntropyOptions,
) -> Result<BitNetTensor> {
    let CrossEntropy { logs, share, count } = CrossEntropy::new(logits, targets, options)?;
    let samples = match options.reduction {
        Reduction::None => &logs.dims()[..logs.rank() - 1],
        _ => &[],
    };
    let mut grad = checked("cross_entropy_backward", grad, samples)?.to_dtype(logs.dtype())?;
    if options.reduction == Reduction::Mean {
        grad = grad.div(&count)?;
    }
    let slope = logs.exp()?.mul(&share.sum(-1, true)?)?.sub(&share)?;
    // One gradient for each sample, or one for all.
    let grad = if samples.is_empty() { grad } else { grad.unsqueeze(-1)? };
    slope.mul(&grad)?.movedim(-1, class_axis(logits))?.contiguous()?.to_dtype(logits.dtype())
}

fn checked<'a>(op: &'static str, grad: &'a BitNetTensor, dims: &[usize]) -> Result<&'a BitNetTensor> {
    if grad.dims() == dims {
        Ok(grad)
    } else {
        Err(shape_error(op, "the gradient", grad, format!("{dims:?}, that of the loss")))
    }
}

/// The gradient of each element's loss from `grad`, that of the reduced loss: 0-d or of all `dims`.
fn element_gradient(
    op: &'static str,
    grad: &BitNetTensor,
    x: &BitNetTensor,
    reduction: Reduction,
) -> Result<BitNetTensor> {
    let dims = if reduction == Reduction::None { x.dims() } else { &[] };
    let grad = checked(op, grad, dims)?.to_dtype(x.dtype())?;
    if reduction == Reduction::Mean { grad.div(x.elements()) } else { Ok(grad) }
}

/// Of [`BitNetTensor::mse_loss`] by the tensor and by the target: `2 (x - target) grad` and its negative.
pub fn mse_loss_backward(
    grad: &BitNetTensor,
    x: &BitNetTensor,
    target: &BitNetTensor,
    reduction: Reduction,
) -> Result<(BitNetTensor, BitNetTensor)> {
    const OP: &str = "mse_loss_backward";
    let (wide, y, _) = x.with_target(OP, target)?;
    let slope = wide.sub(&y)?.mul(2)?.mul(&element_gradient(OP, grad, &wide, reduction)?)?;
    Ok((slope.to_dtype(x.dtype())?, slope.neg()?.to_dtype(target.dtype())?))
}

/// Of [`BitNetTensor::kl_div`] by the tensor and by the target: `-t grad` with `t` the target's probability, and
/// `(log(t) + 1 - x) grad`, or `t (log(t) + 1 - x) grad` for a target of logarithms.
pub fn kl_div_backward(
    grad: &BitNetTensor,
    x: &BitNetTensor,
    target: &BitNetTensor,
    log_target: bool,
    reduction: Reduction,
) -> Result<(BitNetTensor, BitNetTensor)> {
    const OP: &str = "kl_div_backward";
    let (wide, y, _) = x.with_target(OP, target)?;
    let grad = element_gradient(OP, grad, &wide, reduction)?;
    let (probability, log) = if log_target { (y.exp()?, y) } else { (y.clone(), y.log()?) };
    let dx = probability.mul(&grad)?.neg()?;
    let mut dy = log.add(1)?.sub(&wide)?.mul(&grad)?;
    if log_target {
        dy = dy.mul(&probability)?;
    }
    Ok((dx.to_dtype(x.dtype())?, dy.to_dtype(target.dtype())?))
}
