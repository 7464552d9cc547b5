//! Operations of neural networks, for every float dtype and device: PyTorch's meaning, f16 and bf16 computed in f32.

mod activation;
mod attention;
mod embedding;
mod loss;
mod norm;
mod softmax;

pub use activation::Gelu;
pub use attention::AttentionOptions;
pub use loss::{CrossEntropyOptions, Reduction};

use crate::tensor::views::argument;
use crate::{BitNetDType, BitNetTensor, Result};

/// The dtype that a function of a float dtype is computed in: halves in f32.
fn compute_dtype(op: &'static str, dtype: BitNetDType) -> Result<BitNetDType> {
    match dtype {
        BitNetDType::F64 | BitNetDType::F32 => Ok(dtype),
        BitNetDType::F16 | BitNetDType::BF16 => Ok(BitNetDType::F32),
        other => Err(argument(op, format!("takes floats, got {other}: cast with to_dtype()"))),
    }
}

impl BitNetTensor {
    /// Computes with halves widened to f32, and rounds once at the end.
    fn widened(&self, op: &'static str, f: impl FnOnce(&Self) -> Result<Self>) -> Result<Self> {
        f(&self.to_dtype(compute_dtype(op, self.dtype())?)?)?.to_dtype(self.dtype())
    }
}

#[cfg(test)]
mod tests;
