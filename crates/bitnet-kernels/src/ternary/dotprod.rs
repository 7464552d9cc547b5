//! NEON with 8-bit dot products: one instruction multiplies 4 columns of 4 rows.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{ActivationRule, Activations, PANEL, Segments, TILE, TILE_COLS, dot_of_panels, kernel};

kernel!(NeonDotprod);
dot_of_panels!("neon,dotprod", 4, 1, 2, 3);

/// `T` tokens, one panel.
///
/// # Safety
/// `panel` `[tiles, 64]`, `q` `tiles * 16` every `q_stride`, `T` times, `sums` `[T]` or more, `acc` 16 every `stride`, `T` times.
#[inline]
#[target_feature(enable = "neon,dotprod")]
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
    let mut dots = [[vdupq_n_s32(0); 4]; T];
    for tile in 0..tiles {
        // SAFETY: 16 activations of each token in this tile.
        let x: [int8x16_t; T] = std::array::from_fn(|t| unsafe { vld1q_s8(q.add(t * q_stride + tile * TILE_COLS)) });
        for quarter in 0..4 {
            // SAFETY: a quarter of a tile of the panel.
            let codes = unsafe { vld1q_u8(panel.add(tile * TILE + 16 * quarter)) };
            let planes = [
                vandq_u8(codes, mask),
                vandq_u8(vshrq_n_u8::<2>(codes), mask),
                vandq_u8(vshrq_n_u8::<4>(codes), mask),
                vshrq_n_u8::<6>(codes),
            ];
            for t in 0..T {
                let mut dot = dots[t][quarter];
                dot = sdot::<0>(dot, planes[0], x[t]);
                dot = sdot::<1>(dot, planes[1], x[t]);
                dot = sdot::<2>(dot, planes[2], x[t]);
                dot = sdot::<3>(dot, planes[3], x[t]);
                dots[t][quarter] = dot;
            }
        }
    }
    for t in 0..T {
        let sum = vdupq_n_s32(sums[t]);
        for quarter in 0..4 {
            // SAFETY: 4 of the 16 rows of token t.
            unsafe { vst1q_s32(acc.add(t * stride + 4 * quarter), vsubq_s32(dots[t][quarter], sum)) };
        }
    }
}

/// `dot[i] += sum over j of codes[4 i + j] * x[4 K + j]`: the intrinsic is not yet stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const K: usize>(mut dot: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the function has the instruction.
    unsafe {
        asm!(
            "sdot {dot:v}.4s, {codes:v}.16b, {x:v}.4b[{k}]",
            dot = inout(vreg) dot,
            codes = in(vreg) codes,
            x = in(vreg) x,
            k = const K,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    dot
}
