//! Infers the block order of an I2_S file, which the file itself does not record.
//!
//! The input columns of a ternary matrix are scaled by the preceding norm (`attn_norm` for
//! `attn_q`, `attn_sub_norm` for `attn_output`, `ffn_norm` for `ffn_gate`, `ffn_sub_norm` for
//! `ffn_down`), and in a trained model the columns that the norm makes large differ in their
//! share of nonzero weights. Read in the wrong order, columns are permuted and that correlation
//! is lost. In the trained model that this was measured on (6 layers, 256 and 768 columns) the
//! squared correlation is 0.03 to 0.7 in the right order and a tenth of that in the wrong one.

use super::i2_s::{self, I2sOrder};
use crate::{QuantError, TernaryCodes};

/// Collects evidence from tensors of a file; a few layers are enough.
#[derive(Debug, Clone, Default)]
pub struct OrderHint {
    tensors: usize,
    /// Sums of squared correlations.
    x86: f64,
    arm: f64,
}

/// The mean squared correlation below which there is no evidence.
const LEAST: f64 = 0.02;
/// The ratio by which one order must explain more than the other.
const CLEARLY: f64 = 2.0;

impl OrderHint {
    /// Adds the I2_S tensor `data` `[rows, cols]` and the weight `[cols]` of the norm before it.
    ///
    /// # Errors
    /// If the tensor cannot be decoded in x86 order or the norm has another length. One that
    /// cannot be decoded in ARM order counts for x86. Where rows are whole blocks only the length is checked.
    pub fn add(&mut self, data: &[u8], rows: usize, cols: usize, norm: &[f32]) -> Result<(), QuantError> {
        if norm.len() != cols {
            let (format, expected, actual) = ("norm", cols * 4, norm.len() * 4);
            return Err(QuantError::Length { format, rows: 1, cols, expected, actual });
        }
        let packed = rows.checked_mul(cols).and_then(|weights| data.get(..weights / 4));
        if let Some(packed) = packed.filter(|_| cols > 0 && cols.is_multiple_of(I2sOrder::X86.block())) {
            let zeros = zeros(packed, cols);
            self.x86 += correlation(&in_order(&zeros, I2sOrder::X86), norm).powi(2);
            self.arm += correlation(&in_order(&zeros, I2sOrder::Arm), norm).powi(2);
        } else {
            let zeros = |order| Ok::<_, QuantError>(decoded_zeros(&i2_s::decode(data, rows, cols, order)?.0));
            self.x86 += correlation(&zeros(I2sOrder::X86)?, norm).powi(2);
            if let Ok(zeros) = zeros(I2sOrder::Arm) {
                self.arm += correlation(&zeros, norm).powi(2);
            }
        }
        self.tensors += 1;
        Ok(())
    }

    /// The order that the evidence clearly favours. If `None`, as for random weights or constant
    /// norms, use [`I2sOrder::X86`], the order of almost all files.
    pub fn order(&self) -> Option<I2sOrder> {
        let least = LEAST * self.tensors as f64;
        let found = |ours: f64, other: f64| ours > least && ours > CLEARLY * other;
        match (found(self.x86, self.arm), found(self.arm, self.x86)) {
            (true, _) => Some(I2sOrder::X86),
            (_, true) => Some(I2sOrder::Arm),
            _ => None,
        }
    }
}

/// Zeros of each column, in the order of the bits of a row: `[4][cols / 4]`, of each byte the highest bits first.
fn zeros(packed: &[u8], cols: usize) -> Vec<u32> {
    let bytes = cols / 4;
    let mut total = vec![0u32; cols];
    let mut some = vec![0u16; cols];
    for rows in packed.chunks(bytes << 15) {
        some.fill(0);
        let (high, low) = some.split_at_mut(2 * bytes);
        let ((a, b), (c, d)) = (high.split_at_mut(bytes), low.split_at_mut(bytes));
        for row in rows.chunks_exact(bytes) {
            // Code 1 is weight 0; only it has the low bit set.
            for (i, &byte) in row.iter().enumerate() {
                a[i] += u16::from(byte >> 6 & 1);
                b[i] += u16::from(byte >> 4 & 1);
                c[i] += u16::from(byte >> 2 & 1);
                d[i] += u16::from(byte & 1);
            }
        }
        total.iter_mut().zip(&some).for_each(|(total, &some)| *total += u32::from(some));
    }
    total
}

/// The counts of [`zeros`] by column, for a block order.
fn in_order(zeros: &[u32], order: I2sOrder) -> Vec<f64> {
    let (block, quarter) = (order.block(), order.block() / 4);
    let column = |c: usize| zeros[c % block / quarter * (zeros.len() / 4) + c / block * quarter + c % quarter];
    (0..zeros.len()).map(|c| f64::from(column(c))).collect()
}

/// Zeros of each column.
fn decoded_zeros(codes: &TernaryCodes) -> Vec<f64> {
    let mut counts = vec![0f64; codes.cols()];
    for row in 0..codes.rows() {
        let bytes = codes.row(row);
        for (c, count) in counts.iter_mut().enumerate() {
            *count += f64::from(bytes[c / 4] >> (2 * (c % 4)) & 1);
        }
    }
    counts
}

/// Correlation of counts of each column with `norm`; 0 when either does not vary.
fn correlation(counts: &[f64], norm: &[f32]) -> f64 {
    let cols = norm.len();
    let mean_count = counts.iter().sum::<f64>() / cols as f64;
    let mean_norm = norm.iter().map(|&v| f64::from(v)).sum::<f64>() / cols as f64;
    let (mut both, mut count_square, mut norm_square) = (0.0, 0.0, 0.0);
    for (count, &v) in counts.iter().zip(norm) {
        let (a, b) = (count - mean_count, f64::from(v) - mean_norm);
        both += a * b;
        count_square += a * a;
        norm_square += b * b;
    }
    let r = both / (count_square * norm_square).sqrt();
    if r.is_finite() { r } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_bits_are_those_of_decoded_columns() {
        let (rows, cols) = (37, 256);
        let weights: Vec<i8> = (0..rows * cols).map(|i| (i * i / 7 % 3) as i8 - 1).collect();
        let codes = TernaryCodes::from_weights(rows, cols, &weights).unwrap();
        for order in [I2sOrder::X86, I2sOrder::Arm] {
            let data = i2_s::encode(&codes, 1., order).unwrap();
            assert_eq!(in_order(&zeros(&data[..rows * cols / 4], cols), order), decoded_zeros(&codes));
        }
    }
}
