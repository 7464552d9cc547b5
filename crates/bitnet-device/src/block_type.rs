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
}

impl BlockType {
    /// All of them.
    pub const ALL: [BlockType; 7] = [
        BlockType::F32,
        BlockType::F16,
        BlockType::BF16,
        BlockType::Q8_0,
        BlockType::Q6_K,
        BlockType::Q4_0,
        BlockType::Q4_K,
    ];

    /// Weights and bytes of a block.
    pub const fn block(self) -> (usize, usize) {
        (self.block_len(), self.block_bytes())
    }

    /// Weights of a block: 1, 32 or 256.
    pub const fn block_len(self) -> usize {
        match self {
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => 1,
            BlockType::Q8_0 | BlockType::Q4_0 => 32,
            BlockType::Q6_K | BlockType::Q4_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            BlockType::F32 => 4,
            BlockType::F16 | BlockType::BF16 => 2,
            BlockType::Q8_0 => 34,
            BlockType::Q6_K => 210,
            BlockType::Q4_0 => 18,
            BlockType::Q4_K => 144,
        }
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
        match self {
            BlockType::F32 => "F32",
            BlockType::F16 => "F16",
            BlockType::BF16 => "BF16",
            BlockType::Q8_0 => "Q8_0",
            BlockType::Q6_K => "Q6_K",
            BlockType::Q4_0 => "Q4_0",
            BlockType::Q4_K => "Q4_K",
        }
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
