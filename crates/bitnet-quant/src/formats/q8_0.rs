//! Q8_0 (GGUF type 8), for embeddings and heads: 32 values in 34 bytes, f16 scale first.

use half::f16;

use super::{EMBEDDING, check_row, count};
use crate::QuantError;

const NAME: &str = "Q8_0";
const BLOCK: usize = 32;

/// `values [rows, cols]` as Q8_0, `rows * cols / 32 * 34` bytes.
///
/// A block's scale is `max |x| / 127`; values are divided by it before it is rounded to f16, and
/// rounded half away from zero, so that the bytes equal those of gguf-py and llama.cpp.
///
/// # Errors
/// If a row is not whole blocks, the length is wrong, or a value is not finite or too large.
pub fn encode(values: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    check_row(NAME, BLOCK, cols, &EMBEDDING)?;
    check_values(NAME, values, rows, cols)?;
    let mut data = Vec::with_capacity(values.len() / BLOCK * 34);
    for block in values.chunks_exact(BLOCK) {
        let scale = block.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        data.extend(f16::from_f32(scale).to_le_bytes());
        data.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
    }
    Ok(data)
}

/// An error unless there are `rows * cols` values, all finite and with scales that fit in f16.
pub(super) fn check_values(format: &'static str, values: &[f32], rows: usize, cols: usize) -> Result<(), QuantError> {
    let expected = count(rows, cols)?;
    if values.len() != expected {
        let actual = values.len() * 4;
        return Err(QuantError::Length { format, rows, cols, expected: expected * 4, actual });
    }
    // 65504 is the largest f16; a scale is at most max |x| / 32.
    match values.iter().position(|v| !v.is_finite() || v.abs() > 65504.0 * 32.0) {
        None => Ok(()),
        Some(i) => {
            let (row, col) = (i / cols, i % cols);
            Err(QuantError::ValueOutOfRange { format, row, col, value: values[i] })
        }
    }
}
