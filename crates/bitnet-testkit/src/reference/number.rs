//! Elements as numbers: floats as f64, integers exactly as i128.

use bitnet_core::BitNetDType::{self, *};
use bitnet_core::narrowed;

use half::{bf16, f16};

/// An element; `Bool` is the integer 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Float(f64),
    Int(i128),
}

use Number::{Float, Int};

impl Number {
    /// As f64; integers beyond 2^53 are rounded.
    pub(super) fn float(self) -> f64 {
        match self {
            Float(v) => v,
            Int(v) => v as f64,
        }
    }

    /// As an integer: floats truncated and saturated to i128, NaN gives 0.
    pub(super) fn int(self) -> i128 {
        match self {
            Float(v) => v as i128,
            Int(v) => v,
        }
    }

    pub(super) fn is_nan(self) -> bool {
        matches!(self, Float(v) if v.is_nan())
    }

    pub(super) fn is_zero(self) -> bool {
        match self {
            Float(v) => v == 0.,
            Int(v) => v == 0,
        }
    }

    /// Order of numbers of one kind; `None` with a NaN.
    pub(super) fn compare(self, other: Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Int(a), Int(b)) => Some(a.cmp(&b)),
            (a, b) => a.float().partial_cmp(&b.float()),
        }
    }
}

/// Reads an element; `None` for packed types.
pub(super) fn get(dtype: BitNetDType, b: &[u8]) -> Option<Number> {
    macro_rules! int {
        ($t:ty) => {
            Int(<$t>::from_le_bytes(b.try_into().ok()?).into())
        };
    }
    Some(match dtype {
        F64 => Float(f64::from_le_bytes(b.try_into().ok()?)),
        F32 => Float(f32::from_le_bytes(b.try_into().ok()?).into()),
        F16 => Float(f16::from_le_bytes(b.try_into().ok()?).into()),
        BF16 => Float(bf16::from_le_bytes(b.try_into().ok()?).into()),
        I8 => int!(i8),
        I16 => int!(i16),
        I32 => int!(i32),
        I64 => int!(i64),
        U8 => int!(u8),
        U16 => int!(u16),
        U32 => int!(u32),
        U64 => int!(u64),
        Bool => Int((b[0] != 0).into()),
        _ => return None,
    })
}

/// Writes an element: floats rounded to the nearest; to integers floats are truncated and saturated, integers wrap; to
/// `Bool` whether not zero. False for packed types.
pub(super) fn put(dtype: BitNetDType, b: &mut [u8], v: Number) -> bool {
    macro_rules! int {
        ($t:ty) => {
            b.copy_from_slice(
                &match v {
                    Float(v) => v as $t,
                    Int(v) => v as $t,
                }
                .to_le_bytes(),
            )
        };
    }
    // Integers go to f32 in one rounding, and through it to the narrow floats as in PyTorch.
    let single = match v {
        Float(v) => v as f32,
        Int(v) => v as f32,
    };
    match (dtype, v) {
        (F64, _) => b.copy_from_slice(&v.float().to_le_bytes()),
        (F32, _) => b.copy_from_slice(&single.to_le_bytes()),
        (F16, Float(v)) => b.copy_from_slice(&f16::from_f32(narrowed(v)).to_le_bytes()),
        (F16, Int(_)) => b.copy_from_slice(&f16::from_f32(single).to_le_bytes()),
        (BF16, Float(v)) => b.copy_from_slice(&bf16::from_f32(narrowed(v)).to_le_bytes()),
        (BF16, Int(_)) => b.copy_from_slice(&bf16::from_f32(single).to_le_bytes()),
        (I8, _) => int!(i8),
        (I16, _) => int!(i16),
        (I32, _) => int!(i32),
        (I64, _) => int!(i64),
        (U8, _) => int!(u8),
        (U16, _) => int!(u16),
        (U32, _) => int!(u32),
        (U64, _) => int!(u64),
        (Bool, _) => b[0] = u8::from(!v.is_zero()),
        _ => return false,
    }
    true
}

/// Rounds a result to its dtype, as if it were stored to memory.
pub(super) fn rounded(dtype: BitNetDType, v: Number) -> Number {
    let mut bytes = [0; 8];
    let bytes = &mut bytes[..dtype.block().1];
    if put(dtype, bytes, v) { get(dtype, bytes).unwrap_or(v) } else { v }
}
