//! The packed layout, the same for every instruction set.
//!
//! Rows and columns are padded to multiples of 16 with code 1 (weight 0). 16 rows are a panel; the panels follow one
//! another, and in each its tiles of 16 x 16 codes, left to right, 64 bytes each. In a tile, byte `4 r + j` holds in its
//! bits `2k` and `2k + 1` the code of row `r`, column `4 k + j` (`j` and `k` 0 to 3): one mask on the whole tile gives
//! for each row the four codes that go with four neighbouring activations, the operand of a 4-way byte dot product.

use super::{PANEL, TILE, TILE_COLS};
use crate::threads::{Parts, ThreadPool};

/// Four codes of weight 0.
const ZEROS: u8 = 0b01_01_01_01;

/// Bytes of the packed form of a `rows` x `cols` matrix, or `None` when it has more than `usize` can count.
pub const fn packed_len(rows: usize, cols: usize) -> Option<usize> {
    match cols.div_ceil(TILE_COLS).checked_mul(TILE) {
        Some(panel) => rows.div_ceil(PANEL).checked_mul(panel),
        None => None,
    }
}

/// Packs `codes` `[rows, ceil(cols / 4)]` into `out` `[packed_len(rows, cols)]`.
///
/// In `codes` a byte holds four neighbouring columns, the first in the lowest bits; what is past the last column is
/// ignored. Codes are 0, 1 or 2: the kernels are exact for these alone.
///
/// # Panics
/// When the lengths are not those of the shape.
pub fn pack(codes: &[u8], rows: usize, cols: usize, out: &mut [u8], pool: &ThreadPool) {
    let stride = cols.div_ceil(4);
    assert_eq!(Some(codes.len()), rows.checked_mul(stride), "codes");
    assert_eq!(Some(out.len()), packed_len(rows, cols), "packed matrix");
    let panel_len = cols.div_ceil(TILE_COLS) * TILE;
    let out = Parts::new(out);
    pool.run(rows.div_ceil(PANEL), &|panel| {
        // SAFETY: each task takes its own panel.
        let out = unsafe { out.part(panel * panel_len, panel_len) };
        for r in 0..PANEL {
            let row = panel * PANEL + r;
            let codes = if row < rows { &codes[row * stride..][..stride] } else { &[] };
            for (tile, out) in out.chunks_exact_mut(TILE).enumerate() {
                let four = if row < rows { sixteen(codes, cols, tile) } else { [ZEROS; 4] };
                out[4 * r..][..4].copy_from_slice(&swap(four));
            }
        }
    });
}

/// The inverse of [`pack`]: `tiles` `[packed_len(rows, cols)]` to `codes` `[rows, ceil(cols / 4)]`; past the last column
/// it writes code 1.
///
/// # Panics
/// When the lengths are not those of the shape.
pub fn unpack(tiles: &[u8], rows: usize, cols: usize, codes: &mut [u8], pool: &ThreadPool) {
    let stride = cols.div_ceil(4);
    assert_eq!(Some(codes.len()), rows.checked_mul(stride), "codes");
    assert_eq!(Some(tiles.len()), packed_len(rows, cols), "packed matrix");
    let panel_len = cols.div_ceil(TILE_COLS) * TILE;
    let codes = Parts::new(codes);
    pool.run(rows, &|row| {
        // SAFETY: each task takes its own row.
        let codes = unsafe { codes.part(row * stride, stride) };
        let panel = &tiles[row / PANEL * panel_len..][..panel_len];
        for (tile, out) in panel.chunks_exact(TILE).zip(codes.chunks_mut(4)) {
            let four = swap(tile[row % PANEL * 4..][..4].try_into().expect("four bytes"));
            out.copy_from_slice(&four[..out.len()]);
        }
    });
}

/// The 16 codes of `tile` in a row of `codes`, past the last column code 1.
fn sixteen(codes: &[u8], cols: usize, tile: usize) -> [u8; 4] {
    let codes = &codes[4 * tile..];
    if let (true, Some(four)) = ((tile + 1) * TILE_COLS <= cols, codes.first_chunk()) {
        return *four;
    }
    let mut four = [ZEROS; 4];
    four[..codes.len()].copy_from_slice(codes);
    if !cols.is_multiple_of(4) {
        let used = (1u8 << (2 * (cols % 4))) - 1;
        let last = &mut four[codes.len() - 1];
        *last = *last & used | ZEROS & !used;
    }
    four
}

/// Turns byte `k`, bits `2j` into byte `j`, bits `2k`: the transpose of 4 x 4 codes, its own inverse.
fn swap(four: [u8; 4]) -> [u8; 4] {
    let mut v = u32::from_le_bytes(four);
    // Code 4k + j is to go to 4j + k: exchange the low bits of k and j, then the high ones.
    for (mask, distance) in [(0x00cc_00cc, 6), (0x0000_f0f0, 12)] {
        let t = (v >> distance ^ v) & mask;
        v ^= t ^ t << distance;
    }
    v.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_where_the_layout_says() {
        let (rows, cols, pool) = (19usize, 37usize, ThreadPool::new(2));
        for (row, col) in [(0, 0), (3, 7), (15, 15), (16, 16), (18, 36), (5, 31)] {
            let stride = cols.div_ceil(4);
            let mut codes = vec![ZEROS; rows * stride];
            codes[row * stride + col / 4] ^= 0b11 << (2 * (col % 4)); // code 1 becomes 2
            let mut tiles = vec![0xff; packed_len(rows, cols).unwrap()];
            pack(&codes, rows, cols, &mut tiles, &pool);
            let (k, j) = (col % 16 / 4, col % 4);
            let at = (row / 16 * 3 + col / 16) * 64 + row % 16 * 4 + j;
            for (i, &byte) in tiles.iter().enumerate() {
                assert_eq!(byte, if i == at { ZEROS ^ 0b11 << (2 * k) } else { ZEROS }, "byte {i}");
            }
            let mut back = vec![0xff; codes.len()];
            unpack(&tiles, rows, cols, &mut back, &pool);
            assert_eq!(back, codes);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(packed_len(2560, 6912), Some(2560 * 6912 / 4));
        assert_eq!(packed_len(1, 1), Some(64));
        assert_eq!(packed_len(0, 5), Some(0));
        assert_eq!(packed_len(usize::MAX, 1 << 18), None);
        assert_eq!(packed_len(1, usize::MAX), None);
    }
}
