//! IQ1_BN and IQ2_BN, types of ik_llama.cpp (GGUF type numbers 134 and 135): a scale at the start of each row, then blocks of 64.
//!
//! A block of IQ1_BN is 13 bytes: of every 16 weights, 15 in three bytes of five base-3 digits, the first least significant, and
//! the last as a digit of the thirteenth byte. A byte is `ceil(v * 256 / 243)`, so that digit j is
//! `((q * 3^(4 - j) mod 256) * 3) >> 8`. A block of IQ2_BN is 16 bytes, which hold weights 16 apart, the first in the lowest bits.

use half::f16;

use super::planes::{self, First};
use super::{TERNARY, check_length, check_row, count, scaled::ScaledCodes};
use crate::codes::gather4;
use crate::{QuantError, TernaryCodes};

/// Weights in a block.
const BLOCK: usize = 64;

/// A type with a scale for each row.
#[derive(Debug)]
pub struct RowScaledFormat {
    /// Name of the type.
    pub name: &'static str,
    /// Bytes of a block of 64 weights.
    bytes: usize,
    /// Bytes of the scale of a row: an f16 or an f32.
    scale_bytes: usize,
    /// Decodes a block to canonical codes, `[16]`.
    unpack: fn(&[u8], &mut [u8]),
}

/// 1.625 bits a weight.
pub static IQ1_BN: RowScaledFormat =
    RowScaledFormat { name: "IQ1_BN", bytes: 13, scale_bytes: 2, unpack: unpack_base_3 };

/// 2 bits a weight.
pub static IQ2_BN: RowScaledFormat = RowScaledFormat {
    name: "IQ2_BN",
    bytes: 16,
    scale_bytes: 4,
    unpack: |block, codes| planes::unpack(block, First::Low, codes),
};

fn unpack_base_3(block: &[u8], codes: &mut [u8]) {
    let digit = |q: u8, j: usize| ((u16::from(q.wrapping_mul([81, 27, 9, 3, 1][j])) * 3) >> 8) as u8;
    let mut digits = [0; BLOCK];
    for (i, sixteen) in digits.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (fifteen, last) = sixteen.split_at_mut(15);
        for (five, &q) in fifteen.chunks_exact_mut(5).zip(&block[3 * i..]) {
            five.iter_mut().enumerate().for_each(|(j, out)| *out = digit(q, j));
        }
        last[0] = digit(block[12], i);
    }
    for (four, code) in digits.as_chunks().0.iter().zip(codes) {
        *code = gather4(u32::from_le_bytes(*four));
    }
}

impl RowScaledFormat {
    /// Codes and scales of a `[rows, cols]` tensor, a scale for each row.
    ///
    /// # Errors
    /// If a row is not whole blocks, the length is wrong, a scale is not finite, or a code is 3.
    pub fn decode(&self, data: &[u8], rows: usize, cols: usize) -> Result<ScaledCodes, QuantError> {
        check_row(self.name, BLOCK, cols, &TERNARY)?;
        let row_bytes = self.scale_bytes + cols / BLOCK * self.bytes;
        check_length(self.name, rows, cols, count(rows, row_bytes)?, data.len())?;
        let mut codes = vec![0; count(rows, cols)? / 4];
        let mut scales = Vec::with_capacity(rows);
        for (row, out) in data.chunks_exact(row_bytes).zip(codes.chunks_exact_mut(cols / 4)) {
            let (scale, blocks) = row.split_at(self.scale_bytes);
            scales.push(match *scale {
                [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                _ => f16::from_le_bytes([scale[0], scale[1]]).to_f32(),
            });
            for (block, out) in blocks.chunks_exact(self.bytes).zip(out.chunks_exact_mut(BLOCK / 4)) {
                (self.unpack)(block, out);
            }
        }
        if let Some(index) = scales.iter().position(|s| !s.is_finite()) {
            return Err(QuantError::ScaleNotFinite { format: self.name, index, value: scales[index] });
        }
        Ok(ScaledCodes { codes: TernaryCodes::checked(rows, cols, codes, self.name)?, scales, block: cols })
    }
}
