//! Products of rows of quantized blocks with one vector of activations.
//!
//! The activations are rounded to 16 bits with a scale for each 256 of them, so that the products are exact 32-bit
//! integers over a group of weights with one scale; from there on all is f32. The rounding changes a product by at most
//! `max|x| / 65534 * sum|w|` over each 256, near 1e-6 of `|x| |w|` for what networks hold.

use super::simd::{Simd, inlined, interleave, prefetch};
use std::ops::Range;

use crate::ThreadPool;
use crate::blocks::{BlockType, q4_k_scales};
use crate::threads::Parts;

/// Columns that are multiplied together, a multiple of every block.
pub(crate) const CHUNK: usize = 4096;
/// How far ahead of their use weights are asked for, in bytes: with several tokens the hardware does not foresee enough.
const AHEAD: usize = 4096;
/// Activations with one scale.
const GROUP: usize = 256;

/// Rows of activations, `x = scales[i / 256] * q[interleave(i)]`, each padded with zeros to whole groups.
#[derive(Default)]
pub(crate) struct Quantized {
    /// `[T, groups]` of 256
    q: Vec<Group>,
    /// `[T, groups]`
    scales: Vec<f32>,
    /// Sums of 32, as the f32 that they stand for, `[T, groups * 8]`.
    sums: Vec<f32>,
    groups: usize,
}

/// Aligned to the widest vector.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Group([i16; GROUP]);

/// Some columns of a row of [`Quantized`].
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    q: &'a [Group],
    scales: &'a [f32],
    sums: &'a [f32],
}

impl Quantized {
    /// Quantizes x `[T, k]`, `k` a multiple of 32. A number that is not finite makes every product with its group so.
    pub(crate) fn fill<S: Simd>(&mut self, s: S, pool: &ThreadPool, x: &[f32], k: usize) {
        let (tokens, groups) = (x.len() / k, k.div_ceil(GROUP));
        self.groups = groups;
        self.q.resize(tokens * groups, Group([0; GROUP]));
        self.scales.resize(tokens * groups, 0.0);
        self.sums.resize(tokens * groups * 8, 0.0);
        let (q, scales) = (Parts::new(&mut self.q), Parts::new(&mut self.scales));
        let sums = Parts::new(&mut self.sums);
        pool.run(tokens, &|t| {
            // SAFETY: each task has its own row.
            let (q, scales, sums) = unsafe {
                (q.part(t * groups, groups), scales.part(t * groups, groups), sums.part(t * groups * 8, groups * 8))
            };
            s.enter(inlined!(|| {
                let groups = q.iter_mut().zip(sums.as_chunks_mut().0).zip(scales);
                for (((q, sums), scale), x) in groups.zip(x[t * k..][..k].chunks(GROUP)) {
                    *scale = group::<S>(x, &mut q.0, sums);
                }
            }));
        });
    }

    /// Up to [`CHUNK`] columns from `column` on of row `t`.
    #[inline(always)]
    pub(crate) fn row(&self, t: usize, column: usize) -> Row<'_> {
        let (first, end) = (column / GROUP, (column + CHUNK).div_ceil(GROUP).min(self.groups));
        let (first, end) = (t * self.groups + first, t * self.groups + end);
        Row { q: &self.q[first..end], scales: &self.scales[first..end], sums: &self.sums[first * 8..end * 8] }
    }
}

/// Quantizes a group of at most 256; gives its scale.
#[inline(always)]
fn group<S: Simd>(x: &[f32], q: &mut [i16; GROUP], sums: &mut [f32; GROUP / 32]) -> f32 {
    // As bits, so that "not a number" is the largest.
    let bits = x.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    let scale = f32::from_bits(bits) / 32767.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut rounded = [0i16; GROUP];
    for (r, v) in rounded.iter_mut().zip(x) {
        *r = (v * inverse).round_ties_even() as i16;
    }
    for i in 0..GROUP {
        q[interleave(i, S::BYTES)] = rounded[i];
    }
    for (sum, q) in sums.iter_mut().zip(rounded.as_chunks::<32>().0) {
        *sum = q.iter().map(|&q| q as i32).sum::<i32>() as f32 * scale;
    }
    scale
}

/// Gives `emit` the products of T tokens with each of `rows` in each [`CHUNK`] of `columns`: `part` has the blocks and the
/// activations of one. Each product has the same order of sums for any T.
#[inline(always)]
pub(crate) fn dots<'a, S: Simd, const T: usize>(
    s: S,
    kind: BlockType,
    (rows, columns): (Range<usize>, Range<usize>),
    part: impl Fn(usize, usize) -> (&'a [u8], [Row<'a>; T]),
    mut emit: impl FnMut(usize, usize, [f32; T]),
) {
    // Each in a function of its own: together they are too much for the compiler's allocation of registers.
    macro_rules! each {
        (|$blocks:ident, $x:ident| $product:expr) => {
            s.enter(inlined!(|| {
                for row in rows {
                    for column in columns.clone().step_by(CHUNK) {
                        let ($blocks, $x) = part(row, column);
                        emit(row, column, $product);
                    }
                }
            }))
        };
    }
    match kind {
        BlockType::Q6_K => each!(|row, x| q6_k(s, row, x)),
        BlockType::Q4_K => each!(|row, x| q4_k(s, row, x)),
        BlockType::Q8_0 => each!(|row, x| small::<S, 34, T>(
            s,
            row,
            x,
            0.0,
            inlined!(|b, c| {
                // SAFETY: `small` gives whole units of blocks.
                unsafe { s.q8_0(b, c) }
            })
        )),
        BlockType::Q4_0 => each!(|row, x| small::<S, 18, T>(
            s,
            row,
            x,
            8.0,
            inlined!(|b, c| {
                // SAFETY: `small` gives whole units of blocks.
                unsafe { s.q4_0(b, c) }
            })
        )),
        _ => unreachable!("not multiplied in 16 bits"),
    }
}

/// Panics unless there are activations of all `blocks` of `LEN` weights.
#[inline(always)]
fn check<const LEN: usize>(blocks: usize, x: &[Row]) {
    for x in x {
        let groups = x.q.len();
        assert!(blocks * LEN <= groups * GROUP && x.scales.len() == groups && x.sums.len() == groups * 8);
    }
}

#[inline(always)]
fn half_at<S: Simd>(s: S, bytes: &[u8], at: usize) -> f32 {
    let half: &[u8; 2] = bytes[at..].first_chunk().expect("a block");
    // SAFETY: two bytes.
    unsafe { s.half_at(half.as_ptr()) }
}

/// `sum over blocks of d * sum(scale * (code - 32) * x)`, the products of scales with codes in 16 bits. The inner sum of four
/// vectors of codes is exact: 16 products in a lane are at most `16 * 4096 * 32767`, below 2^31.
#[inline(always)]
fn q6_k<S: Simd, const T: usize>(s: S, row: &[u8], x: [Row; T]) -> [f32; T] {
    check::<256>(row.len() / 210, &x);
    let mut acc = [s.splat(0.0); T];
    for (i, b) in row.as_chunks::<210>().0.iter().enumerate() {
        let d = half_at(s, b, 208);
        for first in (0..256).step_by(4 * S::BYTES) {
            let mut sums = [s.zero_i(); T];
            // Written out, so that the shifts are constants.
            q6_k_vector(s, b, x, i, first, &mut sums);
            q6_k_vector(s, b, x, i, first + S::BYTES, &mut sums);
            q6_k_vector(s, b, x, i, first + 2 * S::BYTES, &mut sums);
            q6_k_vector(s, b, x, i, first + 3 * S::BYTES, &mut sums);
            for t in 0..T {
                acc[t] = s.fma(s.to_f32(sums[t]), s.splat(d * x[t].scales[i]), acc[t]);
            }
        }
    }
    acc.map(|acc| s.sum(acc))
}

/// Adds the products of the vector of codes from weight `at` of block `i` on.
#[inline(always)]
fn q6_k_vector<S: Simd, const T: usize>(s: S, b: &[u8; 210], x: [Row; T], i: usize, at: usize, sums: &mut [S::I; T]) {
    let (part, within) = (at / 128, at % 128 / S::BYTES);
    prefetch(b.as_ptr().wrapping_add(at * 210 / 256 + AHEAD));
    // SAFETY: part and within address the block's own bytes, `at` its own 256 activations and 16 scales.
    unsafe {
        let codes = s.q6_k(b.as_ptr().add(64 * part), b.as_ptr().add(128 + 32 * part), within);
        let weights = s.scaled_16(codes, 32, b.as_ptr().add(192 + at / 16).cast());
        for t in 0..T {
            sums[t] = s.dot_i16(sums[t], weights, x[t].q.as_ptr().cast::<i16>().add(256 * i + at));
        }
    }
}

/// `sum over sub-blocks of scale * sum(code * x) - min * sum(x)`, sub-blocks of 32.
#[inline(always)]
fn q4_k<S: Simd, const T: usize>(s: S, row: &[u8], x: [Row; T]) -> [f32; T] {
    check::<256>(row.len() / 144, &x);
    let mut acc = [[s.splat(0.0); 2]; T];
    let mut offset = [0.0; T];
    for (i, b) in row.as_chunks::<144>().0.iter().enumerate() {
        (0..144).step_by(64).for_each(inlined!(|at| prefetch(b.as_ptr().wrapping_add(at + AHEAD))));
        let (d, dmin) = (half_at(s, b, 0), half_at(s, b, 2));
        let (scales, mins) = q4_k_scales(b[4..16].try_into().expect("12 bytes"));
        let scales = scales.map(|v| v as f32);
        for t in 0..T {
            let mut sum = 0.0;
            for j in 0..8 {
                sum += mins[j] as f32 * x[t].sums[8 * i + j];
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
                        sums[t] = s.dot_u8(sums[t], codes, x[t].q.as_ptr().cast::<i16>().add(256 * i + at));
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
    x: [Row; T],
    offset: f32,
    codes: impl Fn(*const u8, usize) -> S::I,
) -> [f32; T] {
    check::<32>(row.len() / BYTES, &x);
    let unit = (S::BYTES / 32).max(1); // blocks in a vector
    let mut sums = ([s.splat(0.0); T], [[0.0; 2]; T]);
    let units = row.chunks_exact(unit * BYTES);
    let rest = units.remainder();
    let mut first = 0; // block
    for blocks in units {
        small_unit::<S, BYTES, T>(s, blocks, first, x, offset, &codes, &mut sums);
        first += unit;
    }
    if !rest.is_empty() {
        // One block where a vector holds two: the other is of zeros.
        let mut padded = [0; 2 * 34];
        padded[..BYTES].copy_from_slice(rest);
        small_unit::<S, BYTES, T>(s, &padded[..unit * BYTES], first, x, offset, &codes, &mut sums);
    }
    std::array::from_fn(|t| s.sum(sums.0[t]) - offset * (sums.1[t][0] + sums.1[t][1]))
}

/// Adds the products of the blocks of one vector, from block `first` on, and what the offset is to be multiplied with.
#[inline(always)]
fn small_unit<S: Simd, const BYTES: usize, const T: usize>(
    s: S,
    blocks: &[u8],
    first: usize,
    x: [Row; T],
    offset: f32,
    codes: &impl Fn(*const u8, usize) -> S::I,
    (acc, below): &mut ([S::F; T], [[f32; 2]; T]),
) {
    prefetch(blocks.as_ptr().wrapping_add(AHEAD));
    let unit = (S::BYTES / 32).max(1);
    let mut scales = [[0.0f32; 2]; T];
    for j in 0..unit {
        let d = half_at(s, blocks, BYTES * j);
        for t in 0..T {
            scales[t][j] = d * x[t].scales[(first + j) / 8];
            if offset != 0.0 {
                below[t][j] += d * x[t].sums[first + j];
            }
        }
    }
    let mut sums = [s.zero_i(); T];
    for chunk in 0..(32 / S::BYTES).max(1) {
        let codes = codes(blocks.as_ptr(), chunk);
        for t in 0..T {
            // SAFETY: x has activations for every block (`check`), rounded up to 256.
            unsafe {
                let x = x[t].q.as_ptr().cast::<i16>().add(32 * first + chunk * S::BYTES);
                sums[t] = if offset == 0.0 { s.dot_i8(sums[t], codes, x) } else { s.dot_u8(sums[t], codes, x) };
            }
        }
    }
    for t in 0..T {
        // SAFETY: there are two scales.
        acc[t] = s.fma(s.to_f32(sums[t]), unsafe { s.spread_32(scales[t].as_ptr()) }, acc[t]);
    }
}
