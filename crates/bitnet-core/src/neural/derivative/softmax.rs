//! Derivatives of softmax and its logarithm.

use super::pair;
use crate::{BitNetTensor, Result};

/// Of [`BitNetTensor::softmax`], from its result `y`: `y (grad - sum(grad y))`, the sum over `axis`.
pub fn softmax_backward(grad: &BitNetTensor, y: &BitNetTensor, axis: isize) -> Result<BitNetTensor> {
    let (grad, wide) = pair("softmax_backward", grad, y)?;
    let sum = grad.mul(&wide)?.sum(axis, true)?;
    grad.sub(&sum)?.mul(&wide)?.to_dtype(y.dtype())
}

/// Of [`BitNetTensor::log_softmax`], from its result `y`: `grad - e^y sum(grad)`, the sum over `axis`.
pub fn log_softmax_backward(grad: &BitNetTensor, y: &BitNetTensor, axis: isize) -> Result<BitNetTensor> {
    let (grad, wide) = pair("log_softmax_backward", grad, y)?;
    let sum = grad.sum(axis, true)?;
    grad.sub(&wide.exp()?.mul(&sum)?)?.to_dtype(y.dtype())
}
