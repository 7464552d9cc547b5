//! The specification: plain loops that every other kernel equals bit for bit.

use super::{PANEL, TILE, TILE_COLS, TernaryKernel, check_dot};
use crate::Isa;
use crate::activation::{INFINITY_BITS, scale_of};

/// Plain Rust.
pub struct Scalar;

impl TernaryKernel for Scalar {
    fn isa(&self) -> Isa {
        Isa::Scalar
    }

    fn quantize(&self, x: &[f32], q: &mut [i8]) -> (f32, i32) {
        assert_eq!(q.len(), x.len().next_multiple_of(TILE_COLS), "quantized row");
        let max = max_bits(x);
        let scale = scale_of(max);
        if max >= INFINITY_BITS {
            q.fill(0);
            return (scale, 0);
        }
        let (q, padding) = q.split_at_mut(x.len());
        padding.fill(0);
        (scale, round(x, scale, q))
    }

    fn dot(&self, tiles: usize, panels: &[u8], q: &[i8], sums: &[i32], acc: &mut [i32]) {
        let rows = check_dot(tiles, panels, q, sums, acc) * PANEL;
        acc.fill(0);
        for (token, sum) in sums.iter().enumerate() {
            for row in 0..rows {
                let panel = &panels[row / PANEL * tiles * TILE..][..tiles * TILE];
                let mut dot = 0i32;
                for tile in 0..tiles {
                    // Byte j of a row of a tile holds the columns j, 4 + j, 8 + j and 12 + j.
                    let codes = &panel[tile * TILE + row % PANEL * 4..][..4];
                    let x = &q[(token * tiles + tile) * TILE_COLS..][..TILE_COLS];
                    for j in 0..4 {
                        for k in 0..4 {
                            dot += i32::from(codes[j] >> (2 * k) & 3) * i32::from(x[4 * k + j]);
                        }
                    }
                }
                acc[token * rows + row] = dot - sum;
            }
        }
    }
}

/// The largest `|x|` as its bits: the magnitudes of floats are ordered as their bits are, infinity and then NaN last.
pub(super) fn max_bits(x: &[f32]) -> u32 {
    x.iter().fold(0, |max, v| max.max(v.to_bits() & 0x7fff_ffff))
}

/// `q = clamp(round(x * scale))`, half to even; gives the sum. `x` and `q` `[n]`.
pub(super) fn round(x: &[f32], scale: f32, q: &mut [i8]) -> i32 {
    let mut sum = 0;
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * scale).round_ties_even().clamp(-128.0, 127.0) as i8;
        sum += i32::from(*q);
    }
    sum
}
