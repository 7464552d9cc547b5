//! NEON: a quarter of a tile (4 rows) is one register; products of bytes add up in 16 bits and are widened before they
//! overflow.

use std::arch::aarch64::*;

use super::{ActivationRule, Activations, PANEL, Segments, TILE, TILE_COLS, dot_of_panels, kernel};

kernel!(Neon);
dot_of_panels!("neon", 2, 1);

/// Tiles whose sums fit 16 bits: each adds 4 products of at most `2 * 128`, and `32 * 4 * -256 = -32768`.
const NARROW: usize = 32;

/// `T` tokens, one panel.
///
/// # Safety
/// `panel` `[tiles, 64]`, `q` `tiles * 16` every `q_stride`, `T` times, `sums` `[T]` or more, `acc` 16 every `stride`, `T` times.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn panel<const T: usize>(
    tiles: usize,
    panel: *const u8,
    q: *const i8,
    q_stride: usize,
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
                    let x = unsafe { q.add(t * q_stride + tile * TILE_COLS + 4 * k).cast::<i32>().read_unaligned() };
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
