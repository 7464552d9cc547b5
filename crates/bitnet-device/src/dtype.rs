//! Element types, from f64 to packed ternary and block-quantized weights.

use crate::{BlockType, Scalar, TensorOpError};
use std::fmt;
use std::str::FromStr;

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum BitNetDType {
    F64,
    F32,
    F16,
    BF16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    /// Ternary weights, four per byte: code `w + 1` of column `4b + i` in bits `2i..2i+1` of byte `b`; a row starts at
    /// a byte.
    Ternary2,
    /// 32 weights: f16 scale, 32 × i8 (ggml).
    Q8_0,
    /// 256 weights of 6 bits, 16 sub-scales of 8 bits, f16 scale (ggml).
    Q6K,
    /// 32 weights of 4 bits, f16 scale (ggml).
    Q4_0,
    /// 256 weights of 4 bits, 8 sub-scales and minima of 6 bits, two f16 scales (ggml).
    Q4K,
    /// 32 weights of 4 bits, f16 scale and minimum (ggml).
    Q4_1,
    /// 32 weights of 5 bits, f16 scale (ggml).
    Q5_0,
    /// 32 weights of 5 bits, f16 scale and minimum (ggml).
    Q5_1,
    /// 256 weights of 2 bits, 16 sub-scales and minima of 4 bits, two f16 scales (ggml).
    Q2K,
    /// 256 weights of 3 bits, 16 sub-scales of 6 bits, f16 scale (ggml).
    Q3K,
    /// 256 weights of 5 bits, 8 sub-scales and minima of 6 bits, two f16 scales (ggml).
    Q5K,
    /// 32 weights of 16 uneven values, f16 scale (ggml).
    Iq4Nl,
    /// 32 weights of 4-bit floats (E2M1), scale a power of two (OCP, ggml).
    Mxfp4,
}

use BitNetDType::*;

/// Categories of element types, in the order of type promotion.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DTypeCategory {
    Bool,
    /// Signed and unsigned integers.
    Integer,
    Float,
    /// Packed weights: they do not promote.
    Packed,
}

impl BitNetDType {
    /// Every dtype.
    pub const ALL: [Self; 26] = [
        F64, F32, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Ternary2, Q8_0, Q6K, Q4_0, Q4K, Q4_1, Q5_0,
        Q5_1, Q2K, Q3K, Q5K, Iq4Nl, Mxfp4,
    ];

    /// Its category.
    pub const fn category(self) -> DTypeCategory {
        match self {
            F64 | F32 | F16 | BF16 => DTypeCategory::Float,
            I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 => DTypeCategory::Integer,
            Bool => DTypeCategory::Bool,
            _ => DTypeCategory::Packed,
        }
    }

    /// Whether it is a floating point type.
    pub const fn is_float(self) -> bool {
        matches!(self.category(), DTypeCategory::Float)
    }

    /// Whether it is an integer type; `Bool` is not.
    pub const fn is_integer(self) -> bool {
        matches!(self.category(), DTypeCategory::Integer)
    }

    /// Whether it is a float or a signed integer.
    pub const fn is_signed(self) -> bool {
        self.is_float() || matches!(self, I8 | I16 | I32 | I64)
    }

    /// Bytes of an element, or of a block of a packed type.
    pub const fn size(self) -> usize {
        self.block().1
    }

    /// The smallest finite value; `None` for packed types.
    pub fn min_value(self) -> Option<Scalar> {
        Some(match self {
            I8 => Scalar::Int(i8::MIN.into()),
            I16 => Scalar::Int(i16::MIN.into()),
            I32 => Scalar::Int(i32::MIN.into()),
            I64 => Scalar::Int(i64::MIN),
            U8 | U16 | U32 | U64 => Scalar::UInt(0),
            Bool => Scalar::Bool(false),
            _ => Scalar::Float(-self.max_value()?.to_f64()),
        })
    }

    /// The largest finite value; `None` for packed types.
    pub fn max_value(self) -> Option<Scalar> {
        Some(match self {
            F64 => Scalar::Float(f64::MAX),
            F32 => Scalar::Float(f32::MAX.into()),
            F16 => Scalar::Float(half::f16::MAX.into()),
            BF16 => Scalar::Float(half::bf16::MAX.into()),
            I8 => Scalar::Int(i8::MAX.into()),
            I16 => Scalar::Int(i16::MAX.into()),
            I32 => Scalar::Int(i32::MAX.into()),
            I64 => Scalar::Int(i64::MAX),
            U8 => Scalar::UInt(u8::MAX.into()),
            U16 => Scalar::UInt(u16::MAX.into()),
            U32 => Scalar::UInt(u32::MAX.into()),
            U64 => Scalar::UInt(u64::MAX),
            Bool => Scalar::Bool(true),
            _ => return None,
        })
    }

    /// Elements and bytes of a block.
    pub const fn block(self) -> (usize, usize) {
        match self {
            F64 | I64 | U64 => (1, 8),
            F32 | I32 | U32 => (1, 4),
            F16 | BF16 | I16 | U16 => (1, 2),
            I8 | U8 | Bool => (1, 1),
            Ternary2 => (4, 1),
            _ => match self.weight_type() {
                Some(kind) => kind.block(),
                None => unreachable!(),
            },
        }
    }

    /// Bytes of a row of `columns` elements; a partial last block counts as a whole one.
    pub const fn row_bytes(self, columns: usize) -> usize {
        let (elements, bytes) = self.block();
        columns.div_ceil(elements) * bytes
    }

    /// Whether elements are packed, so that only whole rows have an address.
    pub const fn is_packed(self) -> bool {
        self.block().0 > 1
    }

    /// The corresponding weight type of the linear and embedding kernels, if there is one.
    pub const fn weight_type(self) -> Option<BlockType> {
        Some(match self {
            F32 => BlockType::F32,
            F16 => BlockType::F16,
            BF16 => BlockType::BF16,
            Q8_0 => BlockType::Q8_0,
            Q6K => BlockType::Q6_K,
            Q4_0 => BlockType::Q4_0,
            Q4K => BlockType::Q4_K,
            Q4_1 => BlockType::Q4_1,
            Q5_0 => BlockType::Q5_0,
            Q5_1 => BlockType::Q5_1,
            Q2K => BlockType::Q2_K,
            Q3K => BlockType::Q3_K,
            Q5K => BlockType::Q5_K,
            Iq4Nl => BlockType::IQ4_NL,
            Mxfp4 => BlockType::MXFP4,
            _ => return None,
        })
    }
}

impl BitNetDType {
    /// Its name, which [`FromStr`] reads: `f32`, `bool`, `q4_k`.
    pub const fn name(self) -> &'static str {
        match self {
            F64 => "f64",
            F32 => "f32",
            F16 => "f16",
            BF16 => "bf16",
            I8 => "i8",
            I16 => "i16",
            I32 => "i32",
            I64 => "i64",
            U8 => "u8",
            U16 => "u16",
            U32 => "u32",
            U64 => "u64",
            Bool => "bool",
            Ternary2 => "ternary2",
            Q8_0 => "q8_0",
            Q6K => "q6_k",
            Q4_0 => "q4_0",
            Q4K => "q4_k",
            Q4_1 => "q4_1",
            Q5_0 => "q5_0",
            Q5_1 => "q5_1",
            Q2K => "q2_k",
            Q3K => "q3_k",
            Q5K => "q5_k",
            Iq4Nl => "iq4_nl",
            Mxfp4 => "mxfp4",
        }
    }
}

impl fmt::Display for BitNetDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for BitNetDType {
    type Err = TensorOpError;

    fn from_str(name: &str) -> Result<Self, TensorOpError> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|dtype| dtype.name()).collect();
            TensorOpError::Argument {
                op: "dtype",
                message: format!("no type `{name}`; there are {}", known.join(", ")),
            }
        })
    }
}

/// A Rust type that is an element of an unpacked dtype.
pub trait Element: bytemuck::Pod + Send + Sync + PartialEq + fmt::Debug {
    /// Its dtype.
    const DTYPE: BitNetDType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => { $(impl Element for $rust { const DTYPE: BitNetDType = $dtype; })* };
}
elements! {
    f64 => F64, f32 => F32, half::f16 => F16, half::bf16 => BF16,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
}

/// `$body` with `$T` as the Rust type of the elements; `Bool` and packed types (unreachable where checked before) by
/// `$bool`.
#[macro_export]
macro_rules! by_dtype {
    ($dtype:expr, $T:ident => $body:expr, bool => $bool:expr) => {{
        macro_rules! with {
            ($t:ty) => {{
                type $T = $t;
                $body
            }};
        }
        match $dtype {
            $crate::BitNetDType::F64 => with!(f64),
            $crate::BitNetDType::F32 => with!(f32),
            $crate::BitNetDType::F16 => with!(::half::f16),
            $crate::BitNetDType::BF16 => with!(::half::bf16),
            $crate::BitNetDType::I8 => with!(i8),
            $crate::BitNetDType::I16 => with!(i16),
            $crate::BitNetDType::I32 => with!(i32),
            $crate::BitNetDType::I64 => with!(i64),
            $crate::BitNetDType::U8 => with!(u8),
            $crate::BitNetDType::U16 => with!(u16),
            $crate::BitNetDType::U32 => with!(u32),
            $crate::BitNetDType::U64 => with!(u64),
            _ => $bool,
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for dtype in BitNetDType::ALL {
            assert_eq!(dtype.name().parse::<BitNetDType>().unwrap(), dtype);
        }
        assert!("f31".parse::<BitNetDType>().unwrap_err().to_string().contains("bf16"));
    }

    #[test]
    fn limits_are_those_of_the_type() {
        assert_eq!(F16.max_value(), Some(Scalar::Float(65504.)));
        assert_eq!(F16.min_value(), Some(Scalar::Float(-65504.)));
        assert_eq!(BF16.max_value(), Some(Scalar::Float(3.3895313892515355e38)));
        assert_eq!(I64.min_value(), Some(Scalar::Int(i64::MIN)));
        assert_eq!(U64.max_value(), Some(Scalar::UInt(u64::MAX)));
        assert_eq!(Ternary2.max_value(), None);
    }
}
