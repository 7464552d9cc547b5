//! The specification: plain loops that every other kernel equals bit for bit.

use super::{PANEL, TILE, TILE_COLS, TernaryKernel, check_dot};
use crate::activation::{INFINITY_BITS, scale_of};
use crate::isa::{Isa, Scalar};

impl TernaryKernel for Scalar {
    fn isa(&self) -> Isa {
        Isa::Scalar
    }

    fn quantize(&self, x: &[f32], q: &mut [i8]) -> (f32, i32) {
        quantize(x, q)
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

/// See [`TernaryKernel::quantize`]; plain loops, which the compiler turns into the vectors of whoever inlines them.
#[inline(always)]
pub(super) fn quantize(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    assert_eq!(q.len(), x.len().next_multiple_of(TILE_COLS), "quantized row");
    // The largest |x| as its bits: magnitudes are ordered as their bits are, infinity and then NaN last.
    let max = x.iter().fold(0, |max, v| max.max(v.to_bits() & 0x7fff_ffff));
    let scale = scale_of(max);
    if max >= INFINITY_BITS {
        q.fill(0);
        return (scale, 0);
    }
    let (q, padding) = q.split_at_mut(x.len());
    padding.fill(0);
    let mut sum = 0;
    for (q, x) in q.iter_mut().zip(x) {
        // SAFETY: a number below 128, as |x| is at most what the scale makes 127.
        let rounded: i32 = unsafe { (x * scale).round_ties_even().to_int_unchecked() };
        *q = rounded as i8;
        sum += rounded;
    }
    (scale, sum)
}
