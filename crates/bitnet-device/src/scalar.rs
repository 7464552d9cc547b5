//! Single values.

use crate::{BitNetDType, DTypeCategory};
use BitNetDType::*;
use half::{bf16, f16};
use std::fmt;

/// A number. In type promotion only its category counts, as for a Python number in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// A floating point number.
    Float(f64),
    /// An integer.
    Int(i64),
    /// An integer beyond the range of `Int`; only `U64` and floats can represent it.
    UInt(u64),
    /// A truth value.
    Bool(bool),
}

impl Scalar {
    /// The dtype of a tensor made from it: `F32`, `I64` (`U64` if only that can represent it) or `Bool`.
    pub fn dtype(self) -> BitNetDType {
        match self {
            Self::Float(_) => F32,
            Self::UInt(value) if value > i64::MAX as u64 => U64,
            Self::Int(_) | Self::UInt(_) => I64,
            Self::Bool(_) => Bool,
        }
    }

    /// Its category.
    pub fn category(self) -> DTypeCategory {
        self.dtype().category()
    }

    /// As f64, rounded to nearest.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Float(value) => value,
            Self::Int(value) => value as f64,
            Self::UInt(value) => value as f64,
            Self::Bool(value) => value.into(),
        }
    }

    /// As i64: floats truncated and saturated (NaN gives 0), `UInt` wrapping.
    pub fn to_i64(self) -> i64 {
        match self {
            Self::Float(value) => value as i64,
            Self::Int(value) => value,
            Self::UInt(value) => value as i64,
            Self::Bool(value) => value.into(),
        }
    }

    /// Whether it is not zero.
    pub fn to_bool(self) -> bool {
        match self {
            Self::Float(value) => value != 0.,
            Self::Int(value) => value != 0,
            Self::UInt(value) => value != 0,
            Self::Bool(value) => value,
        }
    }

    /// The value after a cast to `dtype`, as for tensors: floats round to nearest; casts to integers truncate and
    /// saturate floats and wrap integers; casts to `Bool` give whether it is not zero. Packed types leave it unchanged.
    ///
    /// ```
    /// use bitnet_core::{BitNetDType, Scalar};
    /// assert_eq!(Scalar::from(1.7).cast(BitNetDType::I32), Scalar::Int(1));
    /// assert_eq!(Scalar::from(300).cast(BitNetDType::U8), Scalar::UInt(44));
    /// ```
    pub fn cast(self, dtype: BitNetDType) -> Self {
        /// Floats saturate at the bounds of the type, integers wrap.
        macro_rules! integer {
            ($t:ty) => {
                match self {
                    Self::Float(value) => value as $t,
                    _ => self.to_i64() as $t,
                }
            };
        }
        match dtype {
            F64 => Self::Float(self.to_f64()),
            // Integers are rounded to f32 once.
            F32 => Self::Float(match self {
                Self::Int(value) => value as f32,
                Self::UInt(value) => value as f32,
                _ => self.to_f64() as f32,
            } as f64),
            F16 => Self::Float(f16::from_f32(narrowed(self.to_f64())).into()),
            BF16 => Self::Float(bf16::from_f32(narrowed(self.to_f64())).into()),
            I8 => Self::Int(integer!(i8).into()),
            I16 => Self::Int(integer!(i16).into()),
            I32 => Self::Int(integer!(i32).into()),
            I64 => Self::Int(self.to_i64()),
            U8 => Self::UInt(integer!(u8).into()),
            U16 => Self::UInt(integer!(u16).into()),
            U32 => Self::UInt(integer!(u32).into()),
            U64 => Self::UInt(integer!(u64)),
            Bool => Self::Bool(self.to_bool()),
            _ => self,
        }
    }

    /// The nearest value of `dtype` if that is an integer type; else the value itself.
    pub fn saturate(self, dtype: BitNetDType) -> Self {
        let exact = |value| match value {
            Self::Int(value) => i128::from(value),
            Self::UInt(value) => i128::from(value),
            _ => i128::from(value.to_i64()),
        };
        match (dtype.min_value(), dtype.max_value()) {
            (Some(min), Some(max)) if dtype.is_integer() && self.category() != DTypeCategory::Float => {
                if exact(self) < exact(min) {
                    min
                } else if exact(self) > exact(max) {
                    max
                } else {
                    self
                }
            }
            _ => self,
        }
    }

    /// The bytes of an element of `dtype` after [`Scalar::cast`], the first [`BitNetDType::size`] of them; `None` for a
    /// packed type.
    pub fn to_bytes(self, dtype: BitNetDType) -> Option<[u8; 8]> {
        let mut bytes = [0; 8];
        macro_rules! put {
            ($value:expr) => {{
                let value = $value;
                bytes[..size_of_val(&value)].copy_from_slice(&value.to_ne_bytes());
            }};
        }
        let value = self.cast(dtype);
        let (float, int) = (value.to_f64(), value.to_i64());
        match dtype {
            F64 => put!(float),
            F32 => put!(float as f32),
            F16 => put!(f16::from_f32(narrowed(float))),
            BF16 => put!(bf16::from_f32(narrowed(float))),
            I8 | U8 | Bool => put!(int as u8),
            I16 | U16 => put!(int as u16),
            I32 | U32 => put!(int as u32),
            I64 | U64 => put!(int),
            _ => return None,
        }
        Some(bytes)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Int(value) => value.fmt(f),
            Self::UInt(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
        }
    }
}

macro_rules! scalars {
    ($($rust:ty => $kind:ident),* $(,)?) => { $(
        impl From<$rust> for Scalar {
            fn from(value: $rust) -> Self {
                Self::$kind(value as _)
            }
        }
    )* };
}
scalars! {
    f32 => Float, f64 => Float, i8 => Int, i16 => Int, i32 => Int, i64 => Int, isize => Int,
    u8 => UInt, u16 => UInt, u32 => UInt, u64 => UInt, usize => UInt, bool => Bool,
}

impl From<f16> for Scalar {
    fn from(value: f16) -> Self {
        Self::Float(value.into())
    }
}

impl From<bf16> for Scalar {
    fn from(value: bf16) -> Self {
        Self::Float(value.into())
    }
}

/// `v` as an f32 that rounds to the same 16-bit float: what f32 cannot hold sets its last bit ("round to odd", Boldo and
/// Melquiond 2008). (Rounding twice is wrong near ties, as is `half`'s `from_f64`, which drops 32 bits first.)
pub fn narrowed(v: f64) -> f32 {
    let nearest = v as f32;
    if f64::from(nearest) == v || !nearest.is_finite() {
        return nearest;
    }
    let beyond = f64::from(nearest).abs() > v.abs();
    f32::from_bits((nearest.to_bits() - u32::from(beyond)) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_casts_as_an_element_does() {
        assert_eq!(Scalar::from(1e10).cast(I32), Scalar::Int(i32::MAX.into()));
        assert_eq!(Scalar::from(f64::NAN).cast(I64), Scalar::Int(0));
        assert_eq!(Scalar::from(-1).cast(U64), Scalar::UInt(u64::MAX));
        assert_eq!(Scalar::from(u64::MAX).cast(F64), Scalar::Float(18446744073709551616.));
        assert_eq!(Scalar::from(0.1).cast(F32), Scalar::Float(0.1f32.into()));
        assert_eq!(Scalar::from(1e6).cast(F16), Scalar::Float(f64::INFINITY));
        assert_eq!(Scalar::from(0.1).cast(Bool), Scalar::Bool(true));
        // 2^24 + 1 plus half an ulp of f64: a direct cast to f32 rounds once.
        assert_eq!(Scalar::from((1i64 << 60) + (1 << 36) + 1).cast(F32), Scalar::Float(1152921642045800448.));
    }

    #[test]
    fn numbers_just_above_a_tie_are_rounded_up() {
        let bits = |n: i32| 2f64.powi(n);
        for beyond in [0., bits(-20), bits(-23), bits(-35), bits(-52)] {
            for sign in [1., -1.] {
                let up = if beyond > 0. { 1. } else { 0. };
                let half = Scalar::from(sign * (1. + bits(-11) + beyond)).cast(F16);
                assert_eq!(half, Scalar::Float(sign * (1. + up * bits(-10))), "{beyond}");
                let bfloat = Scalar::from(sign * (1. + bits(-8) + beyond)).cast(BF16);
                assert_eq!(bfloat, Scalar::Float(sign * (1. + up * bits(-7))), "{beyond}");
                let below = Scalar::from(sign * (1. + 3. * bits(-8) - beyond)).cast(BF16);
                assert_eq!(below, Scalar::Float(sign * (1. + (2. - up) * bits(-7))), "{beyond}");
            }
        }
        assert_eq!(Scalar::from(bits(-25) + bits(-60)).cast(F16), Scalar::Float(bits(-24)));
        assert_eq!(Scalar::from(-1e-60).cast(BF16), Scalar::Float(-0.));
    }
}
