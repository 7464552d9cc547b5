//! Mixed precision: dtypes for each layer, [`autocast`] scopes that apply them, and the error that they cause.

mod analysis;
mod autocast;
#[cfg(test)]
mod tests;

pub use analysis::{PrecisionLoss, analyse_precision};
pub use autocast::{PRODUCTS, SENSITIVE, autocast, compute_dtype, in_layer};
pub(crate) use autocast::{operand, operands};

use crate::{BitNetDType, BitNetTensor, Result, TensorOpError};

/// The dtypes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    /// Dtype of products: matmul, linear, attention.
    pub compute: BitNetDType,
    /// Dtype of stored parameters.
    pub storage: BitNetDType,
    /// Dtype in which reductions, softmax, norms and losses compute, and that they return.
    pub accumulation: BitNetDType,
}

/// Dtypes by layer name.
///
/// ```
/// use bitnet_core::mixed_precision::{Precision, PrecisionPolicy};
/// use bitnet_core::BitNetDType::{BF16, F32};
/// let full = Precision { compute: F32, storage: F32, accumulation: F32 };
/// let policy = PrecisionPolicy::mixed(BF16)?.with("*.norm", full)?.with("lm_head", full)?;
/// assert_eq!(policy.of("layers.3.norm").compute, F32);
/// assert_eq!(policy.of("layers.3.attention.q").compute, BF16);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrecisionPolicy {
    rules: Vec<(String, Precision)>,
    default: Precision,
}

impl PrecisionPolicy {
    /// One precision for all layers; an error unless its dtypes are floats.
    pub fn new(precision: Precision) -> Result<Self> {
        Ok(Self { rules: Vec::new(), default: floats(precision)? })
    }

    /// Products in `compute`, everything else in f32.
    pub fn mixed(compute: BitNetDType) -> Result<Self> {
        Self::new(Precision { compute, storage: BitNetDType::F32, accumulation: BitNetDType::F32 })
    }

    /// Sets the precision of layers whose name matches `pattern`, in which `*` matches any text. The last matching rule
    /// wins.
    pub fn with(mut self, pattern: &str, precision: Precision) -> Result<Self> {
        self.rules.push((pattern.into(), floats(precision)?));
        Ok(self)
    }

    /// The precision of a layer.
    pub fn of(&self, layer: &str) -> Precision {
        let rule = self.rules.iter().rev().find(|(pattern, _)| matches(pattern.as_bytes(), layer.as_bytes()));
        rule.map_or(self.default, |(_, precision)| *precision)
    }

    /// A parameter in the storage dtype of its layer; unchanged if it is not a float.
    pub fn store(&self, layer: &str, parameter: &BitNetTensor) -> Result<BitNetTensor> {
        if parameter.dtype().is_float() { parameter.to_dtype(self.of(layer).storage) } else { Ok(parameter.clone()) }
    }
}

fn floats(precision: Precision) -> Result<Precision> {
    for dtype in [precision.compute, precision.storage, precision.accumulation] {
        if !dtype.is_float() {
            let message = format!("{dtype} is not a float: take f64, f32, f16 or bf16");
            return Err(TensorOpError::Argument { op: "PrecisionPolicy", message }.into());
        }
    }
    Ok(precision)
}

/// Whether `name` matches `pattern`, in which `*` matches any text. Only the last `*` backtracks.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((star, start)) = retry {
            retry = Some((star, start + 1));
            (p, n) = (star + 1, start + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}
