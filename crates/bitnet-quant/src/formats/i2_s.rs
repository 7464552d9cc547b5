//! I2_S, the type of Microsoft's bitnet.cpp (GGUF type number 36).
//!
//! The codes are flat over the tensor, in blocks of [`I2sOrder::block`] weights of which each byte
//! holds four that are a quarter of the block apart, the first in the highest bits. One f32 scale
//! follows at byte `n / 4`, in a tail of 32 bytes: `n / 4 + 32` in all.
//!
//! The order depends on the machine that wrote the file, and the file does not record it.
//! Microsoft's Python converters and every x86 build in its default configuration write
//! [`I2sOrder::X86`]; a quantizer built for ARM writes [`I2sOrder::Arm`]. When rows are a multiple
//! of 128 the two differ by one permutation of the columns, the same in every row, so no statistic
//! of a tensor alone distinguishes them; [`OrderHint`](super::i2s_order::OrderHint) also uses the
//! preceding norm. (An x86 build with `ACT_PARALLEL` switched off writes a third order,
//! four rows in a byte, with the same size; it is not read here.)

use super::planes::{self, First};
use super::{TERNARY, check_length, check_row, count};
use crate::{QuantError, TernaryCodes, codes};

/// The order of weights in the blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum I2sOrder {
    /// Blocks of 128 weights in 32 bytes, as x86 builds write them.
    X86,
    /// Blocks of 64 weights in 16 bytes, as ARM builds write them.
    Arm,
}

impl I2sOrder {
    /// Weights in a block.
    pub fn block(self) -> usize {
        match self {
            I2sOrder::X86 => 128,
            I2sOrder::Arm => 64,
        }
    }
}

const NAME: &str = "I2_S";
/// The tail that holds the scale.
const TAIL: usize = 32;

/// Bytes of an I2_S tensor of `weights` weights; `None` when they are not whole blocks of `order`.
pub fn byte_size(weights: usize, order: I2sOrder) -> Option<usize> {
    weights.is_multiple_of(order.block()).then(|| weights / 4 + TAIL)
}

/// Codes and the scale (to multiply by) of an I2_S tensor of shape `[rows, cols]`.
///
/// # Errors
/// When `rows * cols` are not whole blocks, the length is not `rows * cols / 4 + 32`, a code is 3,
/// or the scale is not finite.
pub fn decode(data: &[u8], rows: usize, cols: usize, order: I2sOrder) -> Result<(TernaryCodes, f32), QuantError> {
    let n = count(rows, cols)?;
    check_row(NAME, order.block(), n, &TERNARY)?;
    check_length(NAME, rows, cols, n / 4 + TAIL, data.len())?;
    let (packed, tail) = data.split_at(n / 4);
    let scale = f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    if !scale.is_finite() {
        return Err(QuantError::ScaleNotFinite { format: NAME, index: 0, value: scale });
    }
    let bytes = order.block() / 4;
    let mut flat = vec![0; n / 4];
    for (block, out) in packed.chunks_exact(bytes).zip(flat.chunks_exact_mut(bytes)) {
        planes::unpack(block, First::High, out);
    }
    let rows_of_codes = if cols.is_multiple_of(4) { flat } else { split_rows(&flat, rows, cols) };
    Ok((TernaryCodes::checked(rows, cols, rows_of_codes, NAME)?, scale))
}

/// Flat codes to rows that each start at a byte boundary.
fn split_rows(flat: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let stride = codes::row_bytes(cols);
    let mut out = vec![0; rows * stride];
    for r in 0..rows {
        for c in 0..cols {
            let i = r * cols + c;
            let code = (flat[i / 4] >> (2 * (i % 4))) & 3;
            out[r * stride + c / 4] |= code << (2 * (c % 4));
        }
    }
    out
}

/// An I2_S tensor, `rows * cols / 4 + 32` bytes; the tail after the scale is zero.
///
/// # Errors
/// If a row is not whole blocks: bitnet.cpp's kernels would drop the rest of each row.
pub fn encode(codes: &TernaryCodes, scale: f32, order: I2sOrder) -> Result<Vec<u8>, QuantError> {
    check_row(NAME, order.block(), codes.cols(), &TERNARY)?;
    let bytes = order.block() / 4;
    let n4 = codes.as_bytes().len();
    let mut data = vec![0; n4 + TAIL];
    for (block, out) in codes.as_bytes().chunks_exact(bytes).zip(data.chunks_exact_mut(bytes)) {
        planes::pack(block, First::High, out);
    }
    data[n4..n4 + 4].copy_from_slice(&scale.to_le_bytes());
    Ok(data)
}

/// Weights times the scale, `[rows, cols]`.
///
/// # Errors
/// As [`decode`].
pub fn dequantize(data: &[u8], rows: usize, cols: usize, order: I2sOrder) -> Result<Vec<f32>, QuantError> {
    let (codes, scale) = decode(data, rows, cols, order)?;
    Ok(codes.to_weights().into_iter().map(|w| scale * f32::from(w)).collect())
}
