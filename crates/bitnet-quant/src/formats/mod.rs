//! Packed weight formats: conversions between the bytes of files and
//! [`TernaryCodes`](crate::TernaryCodes), and from f32 to the block types of embeddings.
//!
//! | format | weights | bytes | scale |
//! |---|---|---|---|
//! | [`i2_s`] | 128 (x86 order), 64 (ARM order) | 32, 16 | one f32 a tensor, after the codes |
//! | [`TQ1_0`] | 256 | 54 | f16 a block, last |
//! | [`PTQ1_0`] | 128 | 28 | f16 a block, last |
//! | [`Q1_0`] | 128 | 18 | f16 a block, first |
//! | [`TQ2_0`] | 256 | 66 | f16 a block, last |
//! | [`Q2_0_G64`], [`Q2_0_G128`] | 64, 128 | 18, 34 | f16 a block, first |
//! | [`STQ1_0`] | 256, one of four zero | 42 | f16 a block, last |
//! | [`IQ1_BN`], [`IQ2_BN`] | 64 | 13, 16 | f16, f32 a row, first |
//! | [`hf`] | `[ceil(out / 4), in]` bytes | | beside the tensor |
//! | [`q8_0`] | 32 | 34 | f16 a block, first |
//! | [`q6_k`] | 256 | 210 | f16 a block, last, and 16 i8 |

pub mod float16;
pub mod hf;
pub mod i2_s;
pub mod i2s_order;
mod iq_bn;
mod planes;
pub mod q6_k;
pub mod q8_0;
mod scaled;
mod stq1_0;
mod tq1_0;

pub use iq_bn::{IQ1_BN, IQ2_BN, RowScaledFormat};
pub use scaled::{PTQ1_0, Q1_0, Q2_0_G64, Q2_0_G128, STQ1_0, ScaledCodes, ScaledFormat, TQ1_0, TQ2_0, f16_exact};

use crate::QuantError;

/// Output types of ternary matrices, and the block size of each.
const TERNARY: [(&str, usize); 4] = [("TQ1_0", 256), ("TQ2_0", 256), ("I2_S", 128), ("HF packed", 1)];

/// Output types of embeddings, and the block size of each.
const EMBEDDING: [(&str, usize); 3] = [("Q6_K", 256), ("Q8_0", 32), ("F16", 1)];

/// An error naming the types of `candidates` that fit, unless rows of `cols` are whole blocks.
fn check_row(format: &'static str, block: usize, cols: usize, candidates: &[(&str, usize)]) -> Result<(), QuantError> {
    if cols.is_multiple_of(block) {
        return Ok(());
    }
    let fits = candidates.iter().filter(|(_, b)| cols.is_multiple_of(*b));
    let fitting = fits.map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    Err(QuantError::RowNotBlocks { format, block, cols, fitting })
}

/// `rows * cols`, checked.
fn count(rows: usize, cols: usize) -> Result<usize, QuantError> {
    rows.checked_mul(cols).ok_or(QuantError::TooLarge { rows, cols })
}

/// An error unless `actual` bytes are the `expected` ones.
fn check_length(
    format: &'static str,
    rows: usize,
    cols: usize,
    expected: usize,
    actual: usize,
) -> Result<(), QuantError> {
    if actual == expected {
        return Ok(());
    }
    Err(QuantError::Length { format, rows, cols, expected, actual })
}
