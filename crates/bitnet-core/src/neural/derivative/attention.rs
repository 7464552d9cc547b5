//! Derivatives of attention and rotary position embedding.

use super::softmax_backward;
use crate::BitNetDType::Bool;
use crate::neural::attention::{Attention, product};
use crate::neural::{AttentionOptions, shape_error};
use crate::{BitNetTensor, Result};

/// Of [`BitNetTensor::rope`]: the inverse rotation.
pub fn rope_backward(grad: &BitNetTensor, cos: &BitNetTensor, sin: &BitNetTensor) -> Result<BitNetTensor> {
    grad.rope(cos, &sin.neg()?)
}

/// Gradients of the operands of attention.
#[allow(missing_docs)]
#[derive(Debug, Clone)]
pub struct AttentionGradients {
    pub q: BitNetTensor,
    pub k: BitNetTensor,
    pub v: BitNetTensor,
    /// Of a mask of floats.
    pub mask: Option<BitNetTensor>,
}

/// Of [`BitNetTensor::scaled_dot_product_attention`]. With `p` the recomputed softmax of the scores:
/// `dv = p^T grad`, `ds = softmax_backward(grad v^T, p)`, `dq = ds k * scale`, `dk = ds^T q * scale`; keys and values
/// shared by several heads get the sum.
pub fn scaled_dot_product_attention_backward(
    grad: &BitNetTensor,
    q: &BitNetTensor,
    k: &BitNetTensor,
    v: &BitNetTensor,
    options: &AttentionOptions,
) -> Result<AttentionGradients> {
    const OP: &str = "scaled_dot_product_attention_backward";
    let wide = Attention::new(OP, q, k, v, options)?;
    let result = [&q.dims()[..q.rank() - 1], &[v.shape().last()]].concat();
    if grad.dims() != result {
        return Err(shape_error(OP, "the gradient", grad, format!("{result:?}, that of the result")));
    }
    let rank = wide.q.rank();
    let grad = grad.to_dtype(wide.q.dtype())?.reshape(&[&wide.q.dims()[..rank - 1], &[v.shape().last()]].concat())?;
    let turned = |x: &BitNetTensor| x.transpose(-2, -1);
    let dv = product(&turned(&wide.weights)?, &grad)?;
    let ds = softmax_backward(&product(&grad, &turned(&wide.v)?)?, &wide.weights, -1)?;
    let dq = product(&ds, &wide.k)?.mul(wide.scale)?;
    let dk = product(&turned(&ds)?, &wide.q)?.mul(wide.scale)?;
    let mask = match options.mask {
        Some(mask) if mask.dtype() != Bool => {
            let full = [&q.dims()[..q.rank() - 1], &[k.dims()[k.rank() - 2]]].concat();
            Some(ds.reshape(&full)?.sum_to_shape(mask.dims())?.to_dtype(mask.dtype())?)
        }
        _ => None,
    };
    Ok(AttentionGradients {
        q: dq.reshape(q.dims())?.to_dtype(q.dtype())?,
        k: dk.sum(-3, false)?.reshape(k.dims())?.to_dtype(k.dtype())?,
        v: dv.sum(-3, false)?.reshape(v.dims())?.to_dtype(v.dtype())?,
        mask,
    })
}
