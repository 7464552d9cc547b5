//! NEON: a quarter of a tile (4 rows) is one register; products of bytes add up in 16 bits and are widened before they
//! overflow.

use std::arch::aarch64::*;

use super::{PANEL, TILE, TILE_COLS, TernaryKernel, check_dot, scalar};
use crate::Isa;
use crate::activation::{INFINITY_BITS, scale_of};

/// NEON without dot products.
pub struct Neon(());

impl Neon {
    /// `None` on a CPU without the instructions.
    pub fn new() -> Option<Neon> {
        Isa::Neon.is_available().then_some(Neon(()))
    }
}

impl TernaryKernel for Neon {
    fn isa(&self) -> Isa {
        Isa::Neon
    }

    fn quantize(&self, x: &[f32], q: &mut [i8]) -> (f32, i32) {
        assert_eq!(q.len(), x.len().next_multiple_of(TILE_COLS), "quantized row");
        // SAFETY: the instructions are there (`new`), the lengths agree.
        unsafe { quantize(x, q) }
    }

    fn dot(&self, tiles: usize, panels: &[u8], q: &[i8], sums: &[i32], acc: &mut [i32]) {
        let count = check_dot(tiles, panels, q, sums, acc);
        // SAFETY: the instructions are there (`new`), the lengths agree (`check_dot`).
        unsafe { dot(tiles, count, panels.as_ptr(), q.as_ptr(), sums, acc.as_mut_ptr()) }
    }
}

/// # Safety
/// `q` has `x`'s length rounded up to 16.
#[target_feature(enable = "neon")]
pub(super) unsafe fn quantize(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    let (eights, rest) = x.as_chunks::<8>();
    // SAFETY: eight floats.
    let load = |v: &[f32; 8]| unsafe { [vld1q_f32(v.as_ptr()), vld1q_f32(v.as_ptr().add(4))] };
    let mut max = vdupq_n_u32(0);
    for v in eights {
        for part in load(v) {
            max = vmaxq_u32(max, vreinterpretq_u32_f32(vabsq_f32(part)));
        }
    }
    let max = vmaxvq_u32(max).max(scalar::max_bits(rest));
    let scale = scale_of(max);
    if max >= INFINITY_BITS {
        q.fill(0);
        return (scale, 0);
    }
    let mut sum = vdupq_n_s32(0);
    let (main, tail) = q.split_at_mut(eights.len() * 8);
    for (v, q) in eights.iter().zip(main.as_chunks_mut::<8>().0) {
        // To the nearest, ties to even. |x * scale| is below 128.
        let [low, high] = load(v).map(|part| vcvtnq_s32_f32(vmulq_n_f32(part, scale)));
        sum = vaddq_s32(sum, vaddq_s32(low, high));
        let words = vcombine_s16(vqmovn_s32(low), vqmovn_s32(high));
        // SAFETY: eight bytes.
        unsafe { vst1_s8(q.as_mut_ptr(), vqmovn_s16(words)) };
    }
    let (last, padding) = tail.split_at_mut(rest.len());
    padding.fill(0);
    (scale, vaddvq_s32(sum) + scalar::round(rest, scale, last))
}

/// `panels` `[count, tiles, 64]`, `q` `[T, tiles * 16]`, `sums` `[T]`, `acc` `[T, count * 16]`.
///
/// # Safety
/// The pointers are valid for these sizes.
#[target_feature(enable = "neon")]
unsafe fn dot(tiles: usize, count: usize, panels: *const u8, q: *const i8, sums: &[i32], acc: *mut i32) {
    for p in 0..count {
        let mut token = 0;
        while token < sums.len() {
            let tokens = (sums.len() - token).min(2);
            let kernel = if tokens == 2 { panel::<2> } else { panel::<1> };
            let stride = count * PANEL;
            // SAFETY: parts of the buffers, within them.
            unsafe {
                let (x, to) = (q.add(token * tiles * TILE_COLS), acc.add(token * stride + p * PANEL));
                kernel(tiles, panels.add(p * tiles * TILE), x, &sums[token..], to, stride);
            }
            token += tokens;
        }
    }
}

/// Tiles whose sums fit 16 bits: each adds 4 products of at most `2 * 128`, and `32 * 4 * -256 = -32768`.
const NARROW: usize = 32;

/// `T` tokens, one panel.
///
/// # Safety
/// `panel` `[tiles, 64]`, `q` `[T, tiles * 16]`, `sums` `[T]` or more, `acc` 16 every `stride`, `T` times.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn panel<const T: usize>(
    tiles: usize,
    panel: *const u8,
    q: *const i8,
    sums: &[i32],
    acc: *mut i32,
    stride: usize,
) {
    let mask = vdupq_n_u8(3);
    let mut wide = [[vdupq_n_s32(0); 4]; T];
    let mut begin = 0;
    while begin < tiles {
        let end = (begin + NARROW).min(tiles);
        // Of each quarter the sums of its first two rows (4 a row) and of its last two.
        let mut narrow = [[[vdupq_n_s16(0); 2]; 4]; T];
        for tile in begin..end {
            let at = panel.wrapping_add(tile * TILE);
            // SAFETY: the four quarters of a tile of the panel.
            let mut codes = [0, 16, 32, 48].map(|quarter| unsafe { vld1q_u8(at.add(quarter)) });
            for k in 0..4 {
                let plane = codes.map(|c| vreinterpretq_s8_u8(vandq_u8(c, mask)));
                for t in 0..T {
                    // SAFETY: four activations of token t in this tile.
                    let x = unsafe { q.add((t * tiles + tile) * TILE_COLS + 4 * k).cast::<i32>().read_unaligned() };
                    let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
                    for quarter in 0..4 {
                        let [low, high] = &mut narrow[t][quarter];
                        *low = vmlal_s8(*low, vget_low_s8(plane[quarter]), vget_low_s8(x));
                        *high = vmlal_high_s8(*high, plane[quarter], x);
                    }
                }
                codes = codes.map(|c| vshrq_n_u8::<2>(c));
            }
        }
        for t in 0..T {
            for quarter in 0..4 {
                let [low, high] = narrow[t][quarter].map(|n| vpaddlq_s16(n));
                wide[t][quarter] = vaddq_s32(wide[t][quarter], vpaddq_s32(low, high));
            }
        }
        begin = end;
    }
    for t in 0..T {
        let sum = vdupq_n_s32(sums[t]);
        for quarter in 0..4 {
            // SAFETY: 4 of the 16 rows of token t.
            unsafe { vst1q_s32(acc.add(t * stride + 4 * quarter), vsubq_s32(wide[t][quarter], sum)) };
        }
    }
}
