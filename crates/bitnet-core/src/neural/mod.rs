//! Neural network functions with PyTorch's semantics, made of tensor and [`Backend`](crate::Backend) operations, so
//! that every device has them. f16 and bf16 are computed in f32 and rounded once. Their derivatives are in
//! [`derivative`].

mod activation;
mod attention;
pub mod derivative;
mod dropout;
mod embedding;
mod loss;
mod norm;
mod softmax;
#[cfg(test)]
mod tests;

pub use activation::Gelu;
pub use attention::AttentionOptions;
pub use loss::{CrossEntropyOptions, Reduction};

use crate::{BitNetDType, BitNetTensor, Result, TensorOpError};
use BitNetDType::{F32, F64};

impl BitNetTensor {
    /// An error unless it holds floats.
    pub(crate) fn is_float(&self, op: &'static str) -> Result<()> {
        if self.dtype().is_float() {
            return Ok(());
        }
        let message = format!("takes floats, not {}: cast with to_dtype()", self.dtype());
        Err(TensorOpError::Argument { op, message }.into())
    }

    /// A float tensor in its compute dtype: f64 unchanged, all others as f32.
    pub(crate) fn wide(&self, op: &'static str) -> Result<Self> {
        self.is_float(op)?;
        self.to_dtype(if self.dtype() == F64 { F64 } else { F32 })
    }

    /// Computes with f16 and bf16 widened to f32, and rounds once at the end.
    fn widened(&self, op: &'static str, f: impl FnOnce(&Self) -> Result<Self>) -> Result<Self> {
        f(&self.wide(op)?)?.to_dtype(self.dtype())
    }
}

/// The error for an operand of the wrong shape.
fn shape_error(
    op: &'static str,
    what: &'static str,
    got: &BitNetTensor,
    needed: impl Into<String>,
) -> crate::BitNetError {
    TensorOpError::Shape { op, what, got: *got.shape(), needed: needed.into() }.into()
}
