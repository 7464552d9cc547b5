//! Ternary types with an f16 scale in every block: TQ1_0, PTQ1_0, TQ2_0, Q2_0; Q1_0, which has no zeros, and STQ1_0, where one of
//! four weights is zero.

use half::f16;

use super::planes::{self, First};
use super::{TERNARY, check_length, check_row, count, stq1_0, tq1_0};
use crate::{QuantError, TernaryCodes, TernaryScales};

/// A block type of 2-bit or base-3 codes with one f16 scale per block.
#[derive(Debug)]
pub struct ScaledFormat {
    /// Name of the type.
    pub name: &'static str,
    /// Weights in a block; rows are whole blocks.
    pub block: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Byte offset of the scale; the codes fill the rest.
    scale_at: usize,
    /// Decodes the stored codes of a block to canonical codes, `[block / 4]`.
    unpack: fn(&[u8], &mut [u8]),
    /// The inverse; the output must be zero.
    pack: fn(&[u8], &mut [u8]),
    /// What weights it holds, if not any ternary ones.
    holds: Option<&'static str>,
}

/// GGUF type 34: 1.6875 bits a weight.
pub static TQ1_0: ScaledFormat = ScaledFormat {
    name: "TQ1_0",
    block: 256,
    bytes: 54,
    scale_at: 52,
    unpack: |stored, codes| tq1_0::unpack(tq1_0::TQ1_0, stored, codes),
    pack: |codes, stored| tq1_0::pack(tq1_0::TQ1_0, codes, stored),
    holds: None,
};

/// GGUF type 143, PrismML's: 1.75 bits a weight.
pub static PTQ1_0: ScaledFormat = ScaledFormat {
    name: "PTQ1_0",
    block: 128,
    bytes: 28,
    scale_at: 26,
    unpack: |stored, codes| tq1_0::unpack(tq1_0::PTQ1_0, stored, codes),
    pack: |codes, stored| tq1_0::pack(tq1_0::PTQ1_0, codes, stored),
    holds: None,
};

/// GGUF type 41: 1.125 bits a weight, one of them its sign, the first in the lowest bit. It has no zeros.
pub static Q1_0: ScaledFormat = ScaledFormat {
    name: "Q1_0",
    block: 128,
    bytes: 18,
    scale_at: 0,
    unpack: |stored, codes| {
        // A sign is the upper bit of a code: 0 or 2.
        let four = |bits: u8| (0..4).map(|i| (bits >> i & 1) << (2 * i + 1)).sum();
        for (signs, codes) in stored.iter().zip(codes.as_chunks_mut::<2>().0) {
            *codes = [four(*signs), four(*signs >> 4)];
        }
    },
    pack: |codes, stored| {
        let four = |codes: u8| (0..4).map(|i| (codes >> (2 * i + 1) & 1) << i).sum::<u8>();
        for (codes, signs) in codes.as_chunks::<2>().0.iter().zip(stored) {
            *signs = four(codes[0]) | four(codes[1]) << 4;
        }
    },
    holds: Some("weights of -1 and +1 only"),
};

/// GGUF type 43, and 42 in early files: 1.3125 bits a weight, of every four one is zero.
pub static STQ1_0: ScaledFormat = ScaledFormat {
    name: "STQ1_0",
    block: 256,
    bytes: 42,
    scale_at: 40,
    unpack: stq1_0::unpack,
    pack: stq1_0::pack,
    holds: Some("exactly one zero among four weights that are 16 apart"),
};

/// GGUF type 35: 2.0625 bits a weight.
pub static TQ2_0: ScaledFormat = ScaledFormat {
    name: "TQ2_0",
    block: 256,
    bytes: 66,
    scale_at: 64,
    unpack: |stored, codes| {
        for (half, out) in stored.chunks_exact(32).zip(codes.chunks_exact_mut(32)) {
            planes::unpack(half, First::Low, out);
        }
    },
    pack: |codes, stored| {
        for (half, out) in codes.chunks_exact(32).zip(stored.chunks_exact_mut(32)) {
            planes::pack(half, First::Low, out);
        }
    },
    holds: None,
};

/// GGUF type 42 with groups of 64: 2.25 bits a weight. Code 3 is +2.
pub static Q2_0_G64: ScaledFormat = q2_0("Q2_0 (groups of 64)", 64);

/// GGUF type 42 with groups of 128, and PrismML's PQ2_0 (142): 2.125 bits a weight. Code 3 is +2.
pub static Q2_0_G128: ScaledFormat = q2_0("Q2_0 (groups of 128)", 128);

const fn q2_0(name: &'static str, block: usize) -> ScaledFormat {
    ScaledFormat {
        name,
        block,
        bytes: block / 4 + 2,
        scale_at: 0,
        unpack: |stored, codes| codes.copy_from_slice(stored),
        pack: |codes, stored| stored.copy_from_slice(codes),
        holds: None,
    }
}

/// A decoded tensor: ternary codes and the scale of each block.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaledCodes {
    /// The codes, `[rows, cols]`.
    pub codes: TernaryCodes,
    /// Scales, `[rows, cols / block]`; each is an f16 value.
    pub scales: Vec<f32>,
    /// Weights that share a scale.
    pub block: usize,
}

impl ScaledCodes {
    /// The scales as those of a ternary matrix.
    ///
    /// # Errors
    /// If they are not those of the shape.
    pub fn ternary_scales(&self) -> Result<TernaryScales, QuantError> {
        TernaryScales::groups(self.scales.clone(), self.block, &self.codes)
    }
}

/// `scale` as f16, if that is exact.
///
/// Block types hold their scale as f16. Another scale is rounded by up to one part in 2048; for an exact
/// scale, write 1 and store the f32 in a separate tensor.
pub fn f16_exact(scale: f32) -> Option<f16> {
    let rounded = f16::from_f32(scale);
    (rounded.to_f32() == scale).then_some(rounded)
}

impl ScaledFormat {
    /// Bytes of a `[rows, cols]` matrix.
    ///
    /// # Errors
    /// If a row is not whole blocks, or the size does not fit in `usize`.
    pub fn byte_size(&self, rows: usize, cols: usize) -> Result<usize, QuantError> {
        check_row(self.name, self.block, cols, &TERNARY)?;
        let blocks = count(rows, cols)? / self.block;
        blocks.checked_mul(self.bytes).ok_or(QuantError::TooLarge { rows, cols })
    }

    fn codes_at(&self) -> std::ops::Range<usize> {
        if self.scale_at == 0 { 2..self.bytes } else { 0..self.scale_at }
    }

    fn scale(&self, block: &[u8]) -> f32 {
        f16::from_le_bytes([block[self.scale_at], block[self.scale_at + 1]]).to_f32()
    }

    /// Codes and scales of a `[rows, cols]` tensor.
    ///
    /// # Errors
    /// If a row is not whole blocks, the length is wrong, a scale is not finite, or a code is 3
    /// (+2): such a tensor is not ternary, [`dequantize`](Self::dequantize) reads it.
    pub fn decode(&self, data: &[u8], rows: usize, cols: usize) -> Result<ScaledCodes, QuantError> {
        let expected = self.byte_size(rows, cols)?;
        check_length(self.name, rows, cols, expected, data.len())?;
        let mut codes = vec![0; rows * cols / 4];
        let mut scales = Vec::with_capacity(data.len() / self.bytes);
        let outs = codes.chunks_exact_mut(self.block / 4);
        for (block, out) in data.chunks_exact(self.bytes).zip(outs) {
            (self.unpack)(&block[self.codes_at()], out);
            scales.push(self.scale(block));
        }
        if let Some(index) = scales.iter().position(|s| !s.is_finite()) {
            let value = scales[index];
            return Err(QuantError::ScaleNotFinite { format: self.name, index, value });
        }
        let codes = TernaryCodes::checked(rows, cols, codes, self.name)?;
        Ok(ScaledCodes { codes, scales, block: self.block })
    }

    /// The tensor with its scale in every block that has a nonzero weight, and 0 in the others (as gguf-py writes it).
    ///
    /// # Errors
    /// If a row is not whole blocks, the type holds other weights only (Q1_0, STQ1_0), or a block has more than one scale, or one
    /// that f16 does not hold ([`f16_exact`]).
    pub fn encode(&self, codes: &TernaryCodes, scales: &TernaryScales) -> Result<Vec<u8>, QuantError> {
        let cols = codes.cols();
        let mut data = vec![0; self.byte_size(codes.rows(), cols)?];
        if scales.group().is_some_and(|group| !group.is_multiple_of(self.block)) {
            return Err(QuantError::BlockScales { format: self.name, block: self.block });
        }
        let ins = codes.as_bytes().chunks_exact(self.block / 4);
        for (index, (block, codes)) in data.chunks_exact_mut(self.bytes).zip(ins).enumerate() {
            let first = index * self.block;
            let value = scales.at(first / cols, first % cols, cols);
            let Some(scale) = f16_exact(value) else {
                return Err(QuantError::ScaleNotF16 { format: self.name, index, value });
            };
            (self.pack)(codes, &mut block[self.codes_at()]);
            let empty = codes.iter().all(|&c| c == 0b01_01_01_01);
            if let Some(holds) = self.holds.filter(|_| !empty) {
                let mut read = vec![0; codes.len()];
                (self.unpack)(&block[self.codes_at()], &mut read);
                if read != codes {
                    return Err(QuantError::NotHeld { format: self.name, holds });
                }
            }
            let d = if empty { f16::ZERO } else { scale };
            block[self.scale_at..self.scale_at + 2].copy_from_slice(&d.to_le_bytes());
        }
        Ok(data)
    }

    /// `scale * (code - 1)` for every weight, `[rows, cols]`; code 3 is +2.
    ///
    /// # Errors
    /// If a row is not whole blocks or the length is wrong.
    pub fn dequantize(&self, data: &[u8], rows: usize, cols: usize) -> Result<Vec<f32>, QuantError> {
        let expected = self.byte_size(rows, cols)?;
        check_length(self.name, rows, cols, expected, data.len())?;
        let mut out = Vec::with_capacity(rows * cols);
        let mut codes = vec![0; self.block / 4];
        for block in data.chunks_exact(self.bytes) {
            (self.unpack)(&block[self.codes_at()], &mut codes);
            let scale = self.scale(block);
            let four = |c: &u8| [*c & 3, (*c >> 2) & 3, (*c >> 4) & 3, *c >> 6];
            out.extend(codes.iter().flat_map(four).map(|c| scale * (f32::from(c) - 1.0)));
        }
        Ok(out)
    }
}
