//! Element types, from f64 to packed ternary and block-quantized weights.

use bitnet_kernels::blocks::BlockType;
use std::fmt;

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// Ternary weights, four a byte: code `w + 1` of column `4b + i` in bits `2i..2i+1` of byte `b`; a row starts at a byte.
    Ternary2,
    /// 32 weights: f16 scale, 32 × i8 (ggml).
    Q8_0,
    /// 256 weights of 6 bits, 16 sub-scales of 8 bits, f16 scale (ggml).
    Q6K,
    /// 32 weights of 4 bits, f16 scale (ggml).
    Q4_0,
    /// 256 weights of 4 bits, 8 sub-scales and minima of 6 bits, two f16 scales (ggml).
    Q4K,
}

use BitNetDType::*;

impl BitNetDType {
    /// Elements that are stored together, and the bytes they take.
    pub const fn block(self) -> (usize, usize) {
        match self {
            F64 | I64 | U64 => (1, 8),
            F32 | I32 | U32 => (1, 4),
            F16 | BF16 | I16 | U16 => (1, 2),
            I8 | U8 | Bool => (1, 1),
            Ternary2 => (4, 1),
            Q8_0 => (32, 34),
            Q6K => (256, 210),
            Q4_0 => (32, 18),
            Q4K => (256, 144),
        }
    }

    /// Bytes of a row of `columns` elements. A last block that is not full takes a whole block.
    pub const fn row_bytes(self, columns: usize) -> usize {
        let (elements, bytes) = self.block();
        columns.div_ceil(elements) * bytes
    }

    /// Whether elements are packed, so that only whole rows have an address.
    pub const fn is_packed(self) -> bool {
        self.block().0 > 1
    }

    /// The weight type that the linear and embedding kernels read, if they read this one.
    pub const fn weight_type(self) -> Option<BlockType> {
        Some(match self {
            F32 => BlockType::F32,
            F16 => BlockType::F16,
            BF16 => BlockType::BF16,
            Q8_0 => BlockType::Q8_0,
            Q6K => BlockType::Q6_K,
            Q4_0 => BlockType::Q4_0,
            Q4K => BlockType::Q4_K,
            _ => return None,
        })
    }
}

impl fmt::Display for BitNetDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
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
        };
        f.pad(name)
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
