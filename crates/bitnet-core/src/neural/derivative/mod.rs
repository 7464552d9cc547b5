//! Derivatives: the gradients of the operands from that of the result and saved values.
//!
//! Every function takes `grad`, the gradient of the result, first. All are tensor operations and run on every device;
//! f16 and bf16 are computed in f32 and rounded once. Gradients have the dtype of their operand.

mod activation;
mod attention;
mod loss;
mod norm;
mod softmax;
mod table;

pub use activation::{
    elu_backward, gelu_backward, leaky_relu_backward, relu_backward, relu2_backward, sigmoid_backward, silu_backward,
    softplus_backward, tanh_backward,
};
pub use attention::{AttentionGradients, rope_backward, scaled_dot_product_attention_backward};
pub use loss::{cross_entropy_backward, kl_div_backward, mse_loss_backward};
pub use norm::{NormGradients, layer_norm_backward, rms_norm_backward};
pub use softmax::{log_softmax_backward, softmax_backward};
pub use table::{dropout_backward, embedding_backward};

use crate::neural::shape_error;
use crate::{BitNetTensor, Result};

/// Gradient and operand in the compute dtype; an error unless their shapes are equal.
fn pair(op: &'static str, grad: &BitNetTensor, x: &BitNetTensor) -> Result<(BitNetTensor, BitNetTensor)> {
    grad.same_device(op, x)?;
    if grad.dims() != x.dims() {
        return Err(shape_error(op, "the gradient", grad, format!("{}, that of the tensor", x.shape())));
    }
    let x = x.wide(op)?;
    Ok((grad.to_dtype(x.dtype())?, x))
}
