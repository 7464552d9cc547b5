//! Q6_K (GGUF type 14), for embeddings and heads: 256 values in 210 bytes.
//!
//! `ql[128]` low four bits, `qh[64]` high two bits, `scales[16]` i8, f16 `d` last. A value is
//! `d * scales[i / 16] * (q - 32)` with q in 0..64. In each half of 128 values, with m in 0..32:
//! byte `ql[m]` holds value m (low bits) and 64 + m (high), `ql[32 + m]` values 32 + m and 96 + m,
//! and `qh[m]` the two high bits of m, 32 + m, 64 + m, 96 + m from the lowest up.

use half::f16;

use super::q8_0::check_values;
use super::{EMBEDDING, check_row};
use crate::QuantError;

const NAME: &str = "Q6_K";
const BLOCK: usize = 256;
/// Values that share one of the 16 integer scales.
const GROUP: usize = 16;

/// `values [rows, cols]` as Q6_K, `rows * cols / 256 * 210` bytes.
///
/// # Errors
/// If a row is not whole blocks, the length is wrong, or a value is not finite or too large.
pub fn encode(values: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    check_row(NAME, BLOCK, cols, &EMBEDDING)?;
    check_values(NAME, values, rows, cols)?;
    let mut data = Vec::with_capacity(values.len() / BLOCK * 210);
    for block in values.chunks_exact(BLOCK) {
        encode_block(block, &mut data);
    }
    Ok(data)
}

fn encode_block(values: &[f32], data: &mut Vec<u8>) {
    let mut group_scales = [0f32; 16];
    for (scale, group) in group_scales.iter_mut().zip(values.chunks_exact(GROUP)) {
        *scale = best_scale(group);
    }
    // The largest group scale becomes -128: i8 has one more negative value.
    let largest = group_scales.iter().fold(0f32, |m, s| if s.abs() > m.abs() { *s } else { m });
    let d = f16::from_f32(largest / -128.0);
    let inverse = if d == f16::ZERO { 0.0 } else { 1.0 / d.to_f32() };
    let scales = group_scales.map(|s| (s * inverse).round() as i8); // saturates

    let mut q = [32u8; BLOCK];
    for (i, q) in q.iter_mut().enumerate() {
        let step = d.to_f32() * f32::from(scales[i / GROUP]);
        if step != 0.0 {
            *q = (nearest(values[i] / step).clamp(-32.0, 31.0) + 32.0) as u8;
        }
    }

    for half in q.chunks_exact(128) {
        data.extend((0..64).map(|m| (half[m] & 15) | ((half[64 + m] & 15) << 4)));
    }
    for half in q.chunks_exact(128) {
        data.extend((0..32).map(|m| (0..4).fold(0, |byte, plane| byte | ((half[32 * plane + m] >> 4) << (2 * plane)))));
    }
    data.extend(scales.map(|s| s as u8));
    data.extend(d.to_le_bytes());
}

/// The scale with the least squared error of rounding `group` to integers in -32..=31.
///
/// Tried are scales that put the value of largest magnitude near -32; for the integers that each
/// one gives, the best scale is the projection `sum(x q) / sum(q q)`.
fn best_scale(group: &[f32]) -> f32 {
    let extreme = group.iter().fold(0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    if extreme == 0.0 {
        return 0.0;
    }
    // Relative to the extreme, so that squares neither vanish nor overflow.
    let mut relative = [0f32; GROUP];
    relative.iter_mut().zip(group).for_each(|(r, x)| *r = x / extreme);
    let (mut best, mut most) = (extreme / -32.0, 0f32);
    for step in -9..=9 {
        let per_unit = -32.0 - 0.1 * step as f32;
        // Four partial sums each, which fit the registers of any CPU.
        let (mut xq, mut qq) = ([0f32; 4], [0f32; 4]);
        for four in relative.as_chunks::<4>().0 {
            for (lane, x) in four.iter().enumerate() {
                let q = nearest(x * per_unit).clamp(-32.0, 31.0);
                xq[lane] += x * q;
                qq[lane] += q * q;
            }
        }
        let (xq, qq) = (xq.iter().sum::<f32>(), qq.iter().sum::<f32>());
        // The squared error is sum(x x) - xq^2 / qq.
        if qq > 0.0 && xq * xq / qq > most {
            most = xq * xq / qq;
            best = xq / qq * extreme;
        }
    }
    best
}

/// `v` rounded to the nearest integer, for `|v| < 2^22`: adding 1.5 * 2^23 leaves no bits below 1.
/// (`round` is a call where the compiler may not assume SSE4.1, and this is the inner loop.)
fn nearest(v: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (v + SHIFT) - SHIFT
}
