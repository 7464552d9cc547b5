//! Type promotion: the common dtype of operands.

use super::Operand;
use crate::{BitNetDType, DTypeCategory, Result, TensorOpError};
use BitNetDType::*;

/// The smallest dtype that both `a` and `b` are cast to (`torch.promote_types`): a float with an integer gives the
/// float, f16 with bf16 f32, unsigned with signed integers the next larger signed one.
///
/// PyTorch promotes `U16`, `U32` and `U64` with floats only; here they promote with integers as in NumPy, where a
/// signed type exists: `U64` with a signed integer is an error. So is a packed type with anything.
///
/// ```
/// use bitnet_core::{BitNetDType::*, promote_types};
/// assert_eq!(promote_types(F16, I64)?, F16);
/// assert_eq!(promote_types(U8, I8)?, I16);
/// assert!(promote_types(U64, I8).is_err());
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
pub fn promote_types(a: BitNetDType, b: BitNetDType) -> Result<BitNetDType> {
    common(a, b).ok_or_else(|| {
        let message = format!("{a} and {b} have no common type: cast one with to_dtype()");
        TensorOpError::Argument { op: "promote_types", message }.into()
    })
}

fn common(a: BitNetDType, b: BitNetDType) -> Option<BitNetDType> {
    use DTypeCategory::*;
    if a == b {
        return Some(a);
    }
    let (low, high) = if a.category() <= b.category() { (a, b) } else { (b, a) };
    match (low.category(), high.category()) {
        (_, Packed) => None,
        (Float, Float) => Some(match (low, high) {
            (F64, _) | (_, F64) => F64,
            // Neither of F16 and BF16 can represent all values of the other.
            _ => F32,
        }),
        (Integer, Integer) => match (low.is_signed(), high.is_signed()) {
            (true, false) => signed_above(low, high),
            (false, true) => signed_above(high, low),
            _ => Some(if low.size() > high.size() { low } else { high }),
        },
        _ => Some(high),
    }
}

/// The smallest signed type that holds all of `signed` and `unsigned`.
fn signed_above(signed: BitNetDType, unsigned: BitNetDType) -> Option<BitNetDType> {
    [I16, I32, I64].into_iter().find(|t| t.size() > unsigned.size() && t.size() >= signed.size())
}

/// The dtype in which an operation on these operands is computed (`torch.result_type`). Tensors with dimensions decide;
/// a 0-d tensor, and below it a [`Scalar`](crate::Scalar), only counts if it is of a higher category (bool, integer,
/// float), and a scalar then counts as `I64` or `F32`.
///
/// ```
/// use bitnet_core::{BitNetDType::*, BitNetTensor, Device, result_type};
/// let bytes = BitNetTensor::zeros(&[3], U8, &Device::cpu())?;
/// assert_eq!(result_type(&[(&bytes).into(), 1000.into()])?, U8);
/// assert_eq!(result_type(&[(&bytes).into(), 1.5.into()])?, F32);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
pub fn result_type(operands: &[Operand]) -> Result<BitNetDType> {
    if let [Operand::Tensor(a), Operand::Tensor(b)] = operands
        && a.dtype() == b.dtype()
    {
        return Ok(a.dtype());
    }
    // By priority: tensors with dimensions, 0-d tensors, scalars.
    let mut found: [Option<BitNetDType>; 3] = [None; 3];
    for operand in operands {
        let (level, dtype) = match operand {
            Operand::Tensor(tensor) => ((tensor.shape().rank() == 0) as usize, tensor.dtype()),
            Operand::Scalar(value) => (2, value.dtype()),
        };
        found[level] = Some(found[level].map_or(Ok(dtype), |other| promote_types(other, dtype))?);
    }
    let result = found.into_iter().flatten().map(Ok).reduce(|higher, lower| match (higher?, lower?) {
        (higher, lower) if lower.category() > higher.category() => promote_types(higher, lower),
        (higher, _) => Ok(higher),
    });
    result.unwrap_or_else(|| {
        Err(TensorOpError::Argument { op: "result_type", message: "no operands given".into() }.into())
    })
}

/// Whether a result of dtype `from` may be written to a tensor of dtype `to` (`torch.can_cast`): not from floats to
/// integers, nor from other types to `Bool`.
pub(crate) fn can_cast(from: BitNetDType, to: BitNetDType) -> bool {
    from == to || (from.category() <= to.category() && to.category() != DTypeCategory::Packed)
}

#[cfg(test)]
#[path = "promote_tests.rs"]
mod tests;
