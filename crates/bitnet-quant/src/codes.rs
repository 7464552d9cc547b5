//! The canonical in-memory form of a ternary matrix, which every format is decoded to and encoded from.

use crate::QuantError;

/// A ternary matrix: 2-bit codes (weight + 1), four per byte.
///
/// Row-major; in a byte the first column is in the lowest two bits; every row starts at a byte
/// boundary, so a row takes [`row_bytes`](Self::row_bytes)` = ceil(cols / 4)` bytes. Codes past the
/// last column of a row are 1 (weight 0). Code 3 does not occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TernaryCodes {
    rows: usize,
    cols: usize,
    codes: Vec<u8>,
}

/// Four codes of weight 0.
const ZEROS: u8 = 0b01_01_01_01;

impl TernaryCodes {
    /// Takes `rows * ceil(cols / 4)` bytes of codes; what is past the last column is overwritten.
    ///
    /// # Errors
    /// If the length is not that of the shape, or a code is 3.
    pub fn new(rows: usize, cols: usize, codes: Vec<u8>) -> Result<Self, QuantError> {
        Self::checked(rows, cols, codes, "ternary codes")
    }

    /// As [`new`](Self::new), with the name of the format for errors.
    pub(crate) fn checked(
        rows: usize,
        cols: usize,
        mut codes: Vec<u8>,
        format: &'static str,
    ) -> Result<Self, QuantError> {
        let stride = row_bytes(cols);
        let expected = rows.checked_mul(stride).ok_or(QuantError::TooLarge { rows, cols })?;
        if codes.len() != expected {
            return Err(QuantError::Length { format, rows, cols, expected, actual: codes.len() });
        }
        if !cols.is_multiple_of(4) {
            let used = (1u8 << (2 * (cols % 4))) - 1;
            for row in codes.chunks_exact_mut(stride) {
                let last = &mut row[stride - 1];
                *last = (*last & used) | (ZEROS & !used);
            }
        }
        // A code is 3 when both its bits are set.
        if let Some(byte) = codes.iter().position(|&c| c & (c >> 1) & ZEROS != 0) {
            let both = codes[byte] & (codes[byte] >> 1) & ZEROS;
            let col = (byte % stride) * 4 + both.trailing_zeros() as usize / 2;
            return Err(QuantError::NotTernary { format, row: byte / stride, col });
        }
        Ok(Self { rows, cols, codes })
    }

    /// Packs weights -1, 0, +1, `[rows, cols]` row-major.
    ///
    /// # Errors
    /// If the length is not `rows * cols`, or a weight is none of the three.
    pub fn from_weights(rows: usize, cols: usize, weights: &[i8]) -> Result<Self, QuantError> {
        let expected = rows.checked_mul(cols).ok_or(QuantError::TooLarge { rows, cols })?;
        if weights.len() != expected {
            let (format, actual) = ("ternary weights", weights.len());
            return Err(QuantError::Length { format, rows, cols, expected, actual });
        }
        if let Some(i) = weights.iter().position(|w| !(-1..=1).contains(w)) {
            return Err(QuantError::WeightOutOfRange { row: i / cols, col: i % cols, value: weights[i] });
        }
        let mut codes = Vec::with_capacity(rows * row_bytes(cols));
        if cols > 0 {
            for row in weights.chunks_exact(cols) {
                codes.extend(row.chunks(4).map(|four| {
                    four.iter()
                        .enumerate()
                        .fold(ZEROS, |byte, (i, &w)| (byte & !(3 << (2 * i))) | (((w + 1) as u8) << (2 * i)))
                }));
            }
        }
        Ok(Self { rows, cols, codes })
    }

    /// Number of rows (output features).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (input features).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes from one row to the next: `ceil(cols / 4)`.
    pub fn row_bytes(&self) -> usize {
        row_bytes(self.cols)
    }

    /// All codes, `[rows, ceil(cols / 4)]`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.codes
    }

    /// The codes, by value.
    pub fn into_bytes(self) -> Vec<u8> {
        self.codes
    }

    /// The codes of one row, `[ceil(cols / 4)]`. Panics when `row >= rows`.
    pub fn row(&self, row: usize) -> &[u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.codes[row * self.row_bytes()..][..self.row_bytes()]
    }

    /// One weight: -1, 0 or +1. Panics when out of range.
    pub fn get(&self, row: usize, col: usize) -> i8 {
        assert!(col < self.cols, "column {col} of {}", self.cols);
        ((self.row(row)[col / 4] >> (2 * (col % 4))) & 3) as i8 - 1
    }

    /// All weights -1, 0, +1, `[rows, cols]`.
    pub fn to_weights(&self) -> Vec<i8> {
        let mut out = Vec::with_capacity(self.rows * self.cols);
        for row in 0..self.rows {
            let codes = self.row(row);
            out.extend((0..self.cols).map(|c| ((codes[c / 4] >> (2 * (c % 4))) & 3) as i8 - 1));
        }
        out
    }

    /// Number of non-zero weights.
    pub fn count_nonzero(&self) -> usize {
        // 0 is code 01: the low bit is set for it alone, and padding is 0 as well.
        self.codes.iter().map(|c| (!c & ZEROS).count_ones() as usize).sum()
    }
}

/// Bytes of a row of `cols` codes.
pub(crate) fn row_bytes(cols: usize) -> usize {
    cols.div_ceil(4)
}

/// Gathers the 2-bit codes at bit 0 of four bytes (little-endian in `x`) into one byte.
#[inline]
pub(crate) fn gather4(x: u32) -> u8 {
    (x | (x >> 6) | (x >> 12) | (x >> 18)) as u8
}

/// Spreads four codes of a byte to bit 0 of four bytes; undoes [`gather4`].
#[inline]
pub(crate) fn spread4(c: u8) -> u32 {
    let c = u32::from(c);
    (c & 3) | ((c & 0xC) << 6) | ((c & 0x30) << 12) | ((c & 0xC0) << 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_come_back_and_padding_is_zero_weights() {
        let w = [-1, 0, 1, 1, -1, 0, 1, -1, 1, 0];
        let codes = TernaryCodes::from_weights(2, 5, &w).unwrap();
        assert_eq!(codes.as_bytes(), &[0b10_10_01_00, 0b01_01_01_00, 0b10_00_10_01, 0b01_01_01_01]);
        assert_eq!(codes.to_weights(), w);
        assert_eq!(codes.get(1, 3), 1);
        assert_eq!(codes.count_nonzero(), 7);
        // Any padding is accepted and normalised.
        let dirty = vec![0b10_10_01_00, 0b11_11_11_00, 0b10_00_10_01, 0b00_00_00_01];
        assert_eq!(TernaryCodes::new(2, 5, dirty).unwrap(), codes);
    }

    #[test]
    fn code_three_is_named_by_its_place() {
        let err = TernaryCodes::new(2, 8, vec![0, 0, 0, 0b00_11_00_00]).unwrap_err();
        assert!(matches!(err, QuantError::NotTernary { format: "ternary codes", row: 1, col: 6 }), "{err}");
    }

    #[test]
    fn gather_and_spread_are_inverse() {
        for c in 0..=255u8 {
            assert_eq!(gather4(spread4(c)), c);
        }
    }

    #[test]
    fn lengths_are_checked() {
        assert!(TernaryCodes::new(2, 5, vec![0; 3]).is_err());
        assert!(TernaryCodes::new(usize::MAX, 5, vec![]).is_err());
        assert!(TernaryCodes::from_weights(1, 2, &[0, 2]).is_err());
        assert_eq!(TernaryCodes::new(3, 0, vec![]).unwrap().to_weights(), Vec::<i8>::new());
    }
}
