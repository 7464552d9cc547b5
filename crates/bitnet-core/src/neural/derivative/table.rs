//! Derivatives of embedding and dropout.

use super::pair;
use crate::neural::shape_error;
use crate::{BitNetTensor, Result};

/// Of [`BitNetTensor::embedding`], for a table of `rows` rows: each row gets the sum of the gradients of its
/// occurrences.
pub fn embedding_backward(grad: &BitNetTensor, ids: &BitNetTensor, rows: usize) -> Result<BitNetTensor> {
    const OP: &str = "embedding_backward";
    let Some((&width, lead)) = grad.dims().split_last() else {
        return Err(shape_error(OP, "the gradient", grad, "the shape of the ids and H"));
    };
    if lead != ids.dims() {
        return Err(shape_error(OP, "the gradient", grad, format!("{} and H", ids.shape())));
    }
    let wide = grad.wide(OP)?.reshape(&[ids.elements(), width])?;
    let mut table = BitNetTensor::zeros(&[rows, width], wide.dtype(), grad.device())?;
    table.index_add_(0, &ids.reshape(&[ids.elements()])?, &wide)?;
    table.to_dtype(grad.dtype())
}

/// Of [`BitNetTensor::dropout_with_mask`]: `grad mask`.
pub fn dropout_backward(grad: &BitNetTensor, mask: &BitNetTensor) -> Result<BitNetTensor> {
    let (grad, wide) = pair("dropout_backward", grad, mask)?;
    grad.mul(&wide)?.to_dtype(mask.dtype())
}
