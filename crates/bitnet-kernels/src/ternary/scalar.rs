//! The specification: plain loops that every other kernel equals bit for bit.

use super::segments::by_segments;
use super::{ActivationRule, Activations, PANEL, Segments, TILE, TILE_COLS, TernaryKernel, check_dot};
use crate::activation::quantize_row;
use crate::isa::{Isa, Scalar};

impl TernaryKernel for Scalar {
    fn isa(&self) -> Isa {
        Isa::Scalar
    }

    fn quantize(&self, rule: ActivationRule, x: &[f32], q: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        quantize_row(rule, x, q, scales, sums);
    }

    fn dot(&self, tiles: usize, panels: &[u8], q: &[i8], sums: &[i32], acc: &mut [i32]) {
        let rows = check_dot(tiles, panels, q, sums, acc) * PANEL;
        for (token, sum) in sums.iter().enumerate() {
            let q = &q[token * tiles * TILE_COLS..][..tiles * TILE_COLS];
            for row in 0..rows {
                let panel = &panels[row / PANEL * tiles * TILE..][..tiles * TILE];
                acc[token * rows + row] = product(panel, row % PANEL, q) - sum;
            }
        }
    }

    fn dot_segments(&self, s: &Segments, panels: &[u8], scales: &[f32], x: &Activations, out: &mut [f32]) {
        by_segments(s, panels, scales, x, out, |tiles, q, q_stride, sums, acc| {
            for (row, (sum, acc)) in sums.iter().zip(acc).enumerate() {
                let q = &q[row * q_stride..][..tiles.len() / TILE * TILE_COLS];
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc = product(tiles, r, q) - sum;
                }
            }
        });
    }
}

/// The sum of the codes of row `row` of a panel times `q`.
fn product(panel: &[u8], row: usize, q: &[i8]) -> i32 {
    let mut dot = 0i32;
    for (tile, x) in panel.chunks_exact(TILE).zip(q.chunks_exact(TILE_COLS)) {
        // Byte j of a row of a tile holds the columns j, 4 + j, 8 + j and 12 + j.
        let codes = &tile[row * 4..][..4];
        for j in 0..4 {
            for k in 0..4 {
                dot += i32::from(codes[j] >> (2 * k) & 3) * i32::from(x[4 * k + j]);
            }
        }
    }
    dot
}
