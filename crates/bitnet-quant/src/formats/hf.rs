//! Hugging Face packed weights: `uint8 [ceil(out / 4), in]`.
//!
//! With `r = ceil(out / 4)`, row `i * r + k` of the matrix is in bits `2i`, `2i + 1` of packed
//! row `k`, as weight + 1. The scale is a separate tensor; whether it multiplies or divides depends
//! on the model's configuration.

use super::{check_length, count};
use crate::codes::{gather4, row_bytes, spread4};
use crate::{QuantError, TernaryCodes};

const NAME: &str = "HF packed";

/// The matrix `[rows, cols]` of a packed tensor `[ceil(rows / 4), cols]`.
///
/// # Errors
/// If the length is not `ceil(rows / 4) * cols`, or a code is 3.
pub fn decode(data: &[u8], rows: usize, cols: usize) -> Result<TernaryCodes, QuantError> {
    let packed_rows = rows.div_ceil(4);
    check_length(NAME, rows, cols, count(packed_rows, cols)?, data.len())?;
    let stride = row_bytes(cols);
    let mut codes = vec![0; rows * stride];
    if cols > 0 {
        for (row, out) in codes.chunks_exact_mut(stride).enumerate() {
            let (i, k) = (row / packed_rows, row % packed_rows);
            for (four, out) in data[k * cols..(k + 1) * cols].chunks(4).zip(out) {
                let mut bytes = [0; 4];
                bytes[..four.len()].copy_from_slice(four);
                *out = gather4((u32::from_le_bytes(bytes) >> (2 * i)) & 0x0303_0303);
            }
        }
    }
    TernaryCodes::checked(rows, cols, codes, NAME)
}

/// The packed tensor `[ceil(rows / 4), cols]`; the bits of rows past the last are zero.
pub fn encode(codes: &TernaryCodes) -> Vec<u8> {
    let (rows, cols) = (codes.rows(), codes.cols());
    let packed_rows = rows.div_ceil(4);
    let mut data = vec![0; packed_rows * cols];
    for row in 0..rows {
        let (i, k) = (row / packed_rows, row % packed_rows);
        let out = data[k * cols..(k + 1) * cols].chunks_mut(4);
        for (&c, four) in codes.row(row).iter().zip(out) {
            for (byte, add) in four.iter_mut().zip((spread4(c) << (2 * i)).to_le_bytes()) {
                *byte |= add;
            }
        }
    }
    data
}
