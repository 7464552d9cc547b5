//! Products of rows of quantized blocks with one vector of activations.
//!
//! The activations are rounded to 16 bits with a scale for each 256 of them, so that the products are exact 32-bit
//! integers over a group of weights with one scale; from there on all is f32. The rounding changes a product by at most
//! `max|x| / 65534 * sum|w|` over each 256, near 1e-6 of `|x| |w|` for what networks hold.

use super::simd::{Simd, inlined, interleave};
use crate::blocks::{BlockType, q4_k_scales};

/// Activations that are quantized together, as many as fit the first-level cache with their weights.
pub(crate) const CHUNK: usize = 4096;

/// One chunk of activations, `x = scales[i / 256] * q[interleave(i)]`.
pub(crate) struct Quantized {
    q: [i16; CHUNK],
    scales: [f32; CHUNK / 256],
    /// Sums of 16, as the f32 that they stand for.
    sums_16: [f32; CHUNK / 16],
    /// Sums of 32.
    sums_32: [f32; CHUNK / 32],
}

impl Quantized {
    pub(crate) const fn new() -> Quantized {
        Quantized { q: [0; CHUNK], scales: [0.0; CHUNK / 256], sums_16: [0.0; CHUNK / 16], sums_32: [0.0; CHUNK / 32] }
    }

    /// Quantizes x `[up to CHUNK]`, a multiple of 32, padding with zeros to 256. A number that is not finite makes every
    /// product with its 256 so.
    #[inline(always)]
    pub(crate) fn fill<S: Simd>(&mut self, x: &[f32]) {
        assert!(x.len() <= CHUNK && x.len().is_multiple_of(32));
        for (block, x) in x.chunks(256).enumerate() {
            // As bits, so that "not a number" is the largest.
            let bits = x.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
            let scale = f32::from_bits(bits) / 32767.0;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            self.scales[block] = scale;
            let mut rounded = [0i16; 256];
            for (r, v) in rounded.iter_mut().zip(x) {
                *r = (v * inverse).round_ties_even() as i16;
            }
            for i in 0..256 {
                self.q[256 * block + interleave(i, S::BYTES)] = rounded[i];
            }
            for (i, group) in rounded.as_chunks::<16>().0.iter().enumerate() {
                let sum: i32 = group.iter().map(|&q| q as i32).sum();
                self.sums_16[16 * block + i] = sum as f32 * scale;
            }
            for i in 8 * block..8 * block + 8 {
                self.sums_32[i] = self.sums_16[2 * i] + self.sums_16[2 * i + 1];
            }
        }
    }
}

/// The products of a row's blocks with the activations of T tokens, of which there are as many. Each product has the same
/// order of sums for any T.
#[inline(always)]
pub(crate) fn dot<S: Simd, const T: usize>(s: S, kind: BlockType, row: &[u8], x: [&Quantized; T]) -> [f32; T] {
    let blocks = row.len() / kind.block_bytes();
    assert!(row.len().is_multiple_of(kind.block_bytes()) && blocks * kind.block_len() <= CHUNK);
    match kind {
        BlockType::Q6_K => q6_k(s, row, x),
        BlockType::Q4_K => q4_k(s, row, x),
        BlockType::Q8_0 => small::<S, 34, T>(
            s,
            row,
            x,
            0.0,
            inlined!(|b, c| {
                // SAFETY: `small` gives whole units of blocks.
                unsafe { s.q8_0(b, c) }
            }),
        ),
        BlockType::Q4_0 => small::<S, 18, T>(
            s,
            row,
            x,
            8.0,
            inlined!(|b, c| {
                // SAFETY: as above.
                unsafe { s.q4_0(b, c) }
            }),
        ),
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => unreachable!("not quantized"),
    }
}

#[inline(always)]
fn half_at<S: Simd>(s: S, bytes: &[u8], at: usize) -> f32 {
    s.half(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// `sum over groups of scale_g * (sum(code * x) - 32 * sum(x))`, groups of 16.
#[inline(always)]
fn q6_k<S: Simd, const T: usize>(s: S, row: &[u8], x: [&Quantized; T]) -> [f32; T] {
    let mut acc = [[s.splat(0.0); 2]; T];
    let mut offset = [s.splat(0.0); T];
    for (i, b) in row.as_chunks::<210>().0.iter().enumerate() {
        let d = half_at(s, b, 208);
        let mut scales = [0.0f32; 16];
        for g in 0..16 {
            scales[g] = b[192 + g] as i8 as f32;
        }
        let unit = s.splat(d * 32.0);
        for g in (0..16).step_by(S::LANES) {
            // SAFETY: 16 scales and 16 sums of a block, LANES at a time.
            unsafe {
                let scale = s.mul(s.load(scales.as_ptr().add(g)), unit);
                for t in 0..T {
                    offset[t] = s.fma(scale, s.load(x[t].sums_16.as_ptr().add(16 * i + g)), offset[t]);
                }
            }
        }
        for chunk in 0..256 / S::BYTES {
            let at = chunk * S::BYTES;
            let (part, within) = (at / 128, at % 128 / S::BYTES);
            // SAFETY: part and within address the block's own bytes, `at` its own 256 activations and 16 scales.
            unsafe {
                let codes = s.q6_k(b.as_ptr().add(64 * part), b.as_ptr().add(128 + 32 * part), within);
                let spread = s.spread_16(scales.as_ptr().add(at / 16));
                for t in 0..T {
                    let sums = s.dot_u8(s.zero_i(), codes, x[t].q.as_ptr().add(256 * i + at));
                    let scale = s.mul(s.splat(d * x[t].scales[i]), spread);
                    acc[t][chunk % 2] = s.fma(s.to_f32(sums), scale, acc[t][chunk % 2]);
                }
            }
        }
    }
    std::array::from_fn(|t| s.sum(s.sub(s.add(acc[t][0], acc[t][1]), offset[t])))
}

/// `sum over sub-blocks of scale * sum(code * x) - min * sum(x)`, sub-blocks of 32.
#[inline(always)]
fn q4_k<S: Simd, const T: usize>(s: S, row: &[u8], x: [&Quantized; T]) -> [f32; T] {
    let mut acc = [[s.splat(0.0); 2]; T];
    let mut offset = [0.0; T];
    for (i, b) in row.as_chunks::<144>().0.iter().enumerate() {
        let (d, dmin) = (half_at(s, b, 0), half_at(s, b, 2));
        let (scales, mins) = q4_k_scales(b[4..16].try_into().expect("12 bytes"));
        let scales = scales.map(|v| v as f32);
        for t in 0..T {
            let mut sum = 0.0;
            for j in 0..8 {
                sum += mins[j] as f32 * x[t].sums_32[8 * i + j];
            }
            offset[t] += dmin * sum;
        }
        let span = S::BYTES.max(32); // weights that share what `spread_32` gives
        for at in (0..256).step_by(span) {
            let mut sums = [s.zero_i(); T];
            for at in (at..at + span).step_by(S::BYTES) {
                // SAFETY: 64 weights in 32 bytes; the block's own 256 activations.
                unsafe {
                    let codes = s.q4_k(b.as_ptr().add(16 + at / 64 * 32), at % 64 / S::BYTES);
                    for t in 0..T {
                        sums[t] = s.dot_u8(sums[t], codes, x[t].q.as_ptr().add(256 * i + at));
                    }
                }
            }
            // SAFETY: the block's own 8 scales.
            let spread = unsafe { s.spread_32(scales.as_ptr().add(at / 32)) };
            for t in 0..T {
                let scale = s.mul(s.splat(d * x[t].scales[i]), spread);
                acc[t][at / span % 2] = s.fma(s.to_f32(sums[t]), scale, acc[t][at / span % 2]);
            }
        }
    }
    std::array::from_fn(|t| s.sum(s.add(acc[t][0], acc[t][1])) - offset[t])
}

/// Blocks of 32 weights with one scale: `sum over blocks of scale * (sum(code * x) - offset * sum(x))`.
#[inline(always)]
fn small<S: Simd, const BYTES: usize, const T: usize>(
    s: S,
    row: &[u8],
    x: [&Quantized; T],
    offset: f32,
    codes: impl Fn(*const u8, usize) -> S::I,
) -> [f32; T] {
    let unit = (S::BYTES / 32).max(1); // blocks in a vector
    let mut acc = [s.splat(0.0); T];
    let mut below = [[0.0; 2]; T];
    let whole = row.len() / BYTES / unit;
    let mut first = 0; // block
    while first * BYTES < row.len() {
        // One block where a vector holds two: the other is of zeros.
        let mut padded = [0; 2 * 34];
        let blocks = if first / unit < whole {
            &row[first * BYTES..][..unit * BYTES]
        } else {
            padded[..BYTES].copy_from_slice(&row[first * BYTES..]);
            &padded[..unit * BYTES]
        };
        let mut scales = [[0.0f32; 2]; T];
        for j in 0..unit {
            let d = half_at(s, blocks, BYTES * j);
            for t in 0..T {
                scales[t][j] = d * x[t].scales[(first + j) / 8];
                if offset != 0.0 {
                    below[t][j] += d * x[t].sums_32[first + j];
                }
            }
        }
        let mut sums = [s.zero_i(); T];
        for chunk in 0..(32 / S::BYTES).max(1) {
            let codes = codes(blocks.as_ptr(), chunk);
            for t in 0..T {
                // SAFETY: x has activations for every block (asserted in `dot`), rounded up to 256.
                unsafe {
                    let x = x[t].q.as_ptr().add(32 * first + chunk * S::BYTES);
                    sums[t] = if offset == 0.0 { s.dot_i8(sums[t], codes, x) } else { s.dot_u8(sums[t], codes, x) };
                }
            }
        }
        for t in 0..T {
            // SAFETY: there are two scales.
            acc[t] = s.fma(s.to_f32(sums[t]), unsafe { s.spread_32(scales[t].as_ptr()) }, acc[t]);
        }
        first += unit;
    }
    std::array::from_fn(|t| s.sum(acc[t]) - offset * (below[t][0] + below[t][1]))
}
