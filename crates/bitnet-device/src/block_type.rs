//! Weight types of files: plain floats and the block-quantized types of GGUF.

/// How the weights of a head, an embedding or a dense layer are stored. All are little-endian.
#[allow(non_camel_case_types)] // the names of the format
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// 32-bit floats.
    F32,
    /// IEEE 16-bit floats.
    F16,
    /// The upper half of 32-bit floats.
    BF16,
    /// 32 weights in 34 bytes: f16 scale, 32 x i8.
    Q8_0,
    /// 256 weights in 210 bytes: low 4 bits (128), high 2 bits (64), 16 x i8 scale of 16 weights, f16 scale.
    Q6_K,
    /// 32 weights in 18 bytes: f16 scale, 32 x 4 bits less 8.
    Q4_0,
    /// 256 weights in 144 bytes: f16 scale and minimum, 8 x (6-bit scale, 6-bit minimum) of 32 weights, 256 x 4 bits.
    Q4_K,
    /// 32 weights in 20 bytes: f16 scale and minimum, 32 x 4 bits.
    Q4_1,
    /// 32 weights in 22 bytes: f16 scale, 32 x fifth bit, 32 x low 4 bits; less 16.
    Q5_0,
    /// 32 weights in 24 bytes: f16 scale and minimum, 32 x fifth bit, 32 x low 4 bits.
    Q5_1,
    /// 256 weights in 84 bytes: 16 x (4-bit scale, 4-bit minimum) of 16 weights, 256 x 2 bits, f16 scale and minimum.
    Q2_K,
    /// 256 weights in 110 bytes: 256 x third bit, 256 x low 2 bits, 16 x 6-bit scale of 16 weights, f16 scale.
    Q3_K,
    /// 256 weights in 176 bytes: as Q4_K, with 256 x fifth bit (32) before the low 4 bits.
    Q5_K,
    /// 32 weights in 18 bytes: f16 scale, 32 x 4 bits that index a table of 16 values.
    IQ4_NL,
    /// 32 weights in 17 bytes: exponent of a power of two, 32 x 4-bit floats (1 sign, 2 exponent, 1 mantissa).
    MXFP4,
}

use BlockType::*;

impl BlockType {
    /// All of them.
    pub const ALL: [BlockType; 15] =
        [F32, F16, BF16, Q8_0, Q6_K, Q4_0, Q4_K, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q5_K, IQ4_NL, MXFP4];

    /// Name, weights and bytes of a block.
    const fn facts(self) -> (&'static str, usize, usize) {
        match self {
            F32 => ("F32", 1, 4),
            F16 => ("F16", 1, 2),
            BF16 => ("BF16", 1, 2),
            Q8_0 => ("Q8_0", 32, 34),
            Q6_K => ("Q6_K", 256, 210),
            Q4_0 => ("Q4_0", 32, 18),
            Q4_K => ("Q4_K", 256, 144),
            Q4_1 => ("Q4_1", 32, 20),
            Q5_0 => ("Q5_0", 32, 22),
            Q5_1 => ("Q5_1", 32, 24),
            Q2_K => ("Q2_K", 256, 84),
            Q3_K => ("Q3_K", 256, 110),
            Q5_K => ("Q5_K", 256, 176),
            IQ4_NL => ("IQ4_NL", 32, 18),
            MXFP4 => ("MXFP4", 32, 17),
        }
    }

    /// Weights and bytes of a block.
    pub const fn block(self) -> (usize, usize) {
        (self.block_len(), self.block_bytes())
    }

    /// Weights of a block: 1, 32 or 256.
    pub const fn block_len(self) -> usize {
        self.facts().1
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        self.facts().2
    }

    /// Bytes of a row of `columns` weights, or `None` when the row is not whole blocks (or too long to count).
    pub const fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_len()) {
            return None;
        }
        (columns / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The name that GGUF tools use.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
