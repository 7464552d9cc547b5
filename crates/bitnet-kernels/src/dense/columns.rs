//! Reductions over the columns of a strided matrix: eight rows at a time, each read as a stream.

use super::rows::further;
use crate::float::simd::{Simd, inlined};
use crate::lengths::check_rows;

/// Columns of a strip, whose accumulators stay in the nearest cache.
const STRIP: usize = 512;
/// Rows whose moments are taken in two passes, the second from the cache.
const BLOCK: usize = 64;

/// The sum of `f` of eight vectors, rows `stride` apart.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn eight<S: Simd>(s: S, x: *const f32, stride: usize, f: impl Fn(S::F) -> S::F) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        let pair = |i: usize| s.add(f(s.load(x.add(i * stride))), f(s.load(x.add((i + 1) * stride))));
        s.add(s.add(pair(0), pair(2)), s.add(pair(4), pair(6)))
    }
}

/// See [`super::DenseKernel::column_sums`]: in f32 with the rounding errors summed beside (Knuth's TwoSum).
#[inline(always)]
pub(super) fn sums<S: Simd>(s: S, x: &[f32], stride: usize, rows: usize, sums: &mut [f64]) {
    if rows == 0 {
        return;
    }
    check_rows(x.len(), stride, rows, 0, sums.len());
    let groups = rows / 8 * 8;
    for (strip, sums) in sums.chunks_mut(STRIP).enumerate() {
        let x = &x[strip * STRIP..];
        let whole = sums.len() / S::LANES * S::LANES;
        let (mut high, mut low) = ([0.0f32; STRIP], [0.0f32; STRIP]);
        let mut row = 0;
        while row < rows {
            for i in (0..whole).step_by(S::LANES) {
                // SAFETY: i + LANES <= whole <= STRIP; rows row.. are within x, as checked.
                unsafe {
                    let from = x.as_ptr().add(row * stride + i);
                    let v = if row < groups { eight(s, from, stride, inlined!(|v| v)) } else { s.load(from) };
                    let before = s.load(high.as_ptr().add(i));
                    let sum = s.add(before, v);
                    let added = s.sub(sum, before);
                    let error = s.add(s.sub(before, s.sub(sum, added)), s.sub(v, added));
                    s.store(sum, high.as_mut_ptr().add(i));
                    s.store(s.add(s.load(low.as_ptr().add(i)), error), low.as_mut_ptr().add(i));
                }
            }
            row += if row < groups { 8 } else { 1 };
        }
        for i in 0..whole {
            // Of an infinite sum the error is not a number.
            sums[i] += high[i] as f64 + if high[i].is_finite() { low[i] as f64 } else { 0.0 };
        }
        for i in whole..sums.len() {
            sums[i] += (0..rows).map(|row| x[row * stride + i] as f64).sum::<f64>();
        }
    }
}

/// See [`super::DenseKernel::column_extremes`].
#[inline(always)]
pub(super) fn extremes<S: Simd>(s: S, largest: bool, x: &[f32], stride: usize, rows: usize, out: &mut [f32]) {
    if rows == 0 {
        return;
    }
    check_rows(x.len(), stride, rows, 0, out.len());
    for (strip, out) in out.chunks_mut(STRIP).enumerate() {
        let x = &x[strip * STRIP..];
        let whole = out.len() / S::LANES * S::LANES;
        for first in (0..rows).step_by(4) {
            for i in (0..whole).step_by(S::LANES) {
                // SAFETY: i + LANES <= whole; rows first.. are within x, as checked.
                unsafe {
                    let at = out.as_mut_ptr().add(i);
                    let mut acc = s.load(at);
                    for row in first..(first + 4).min(rows) {
                        let v = s.load(x.as_ptr().add(row * stride + i));
                        acc = if largest { s.maximum(v, acc) } else { s.minimum(v, acc) };
                    }
                    s.store(acc, at);
                }
            }
        }
        for i in whole..out.len() {
            out[i] = (0..rows).fold(out[i], |a, row| further(largest, a, x[row * stride + i]));
        }
    }
}

/// See [`super::DenseKernel::column_moments`].
#[inline(always)]
pub(super) fn moments<S: Simd>(
    s: S,
    x: &[f32],
    stride: usize,
    rows: usize,
    before: f64,
    sums: &mut [f64],
    squares: &mut [f64],
) {
    if rows == 0 {
        return;
    }
    check_rows(x.len(), stride, rows, 0, sums.len());
    assert_eq!(sums.len(), squares.len(), "sums and squares of the same columns");
    for (strip, (sums, squares)) in sums.chunks_mut(STRIP).zip(squares.chunks_mut(STRIP)).enumerate() {
        let x = &x[strip * STRIP..];
        let (width, whole) = (sums.len(), sums.len() / S::LANES * S::LANES);
        for first in (0..rows).step_by(BLOCK) {
            let block = BLOCK.min(rows - first);
            let x = &x[first * stride..];
            let (count, count_before) = (block as f64, before + first as f64);
            let (mut mean, mut off, mut square) = ([0.0f32; STRIP], [0.0f32; STRIP], [0.0f32; STRIP]);
            let groups = block / 8 * 8;
            let mut row = 0;
            while row < block {
                for i in (0..whole).step_by(S::LANES) {
                    // SAFETY: as in `sums`.
                    unsafe {
                        let from = x.as_ptr().add(row * stride + i);
                        let v = if row < groups { eight(s, from, stride, inlined!(|v| v)) } else { s.load(from) };
                        s.store(s.add(s.load(mean.as_ptr().add(i)), v), mean.as_mut_ptr().add(i));
                    }
                }
                for i in whole..width {
                    mean[i] += (row..row + if row < groups { 8 } else { 1 }).map(|r| x[r * stride + i]).sum::<f32>();
                }
                row += if row < groups { 8 } else { 1 };
            }
            let total = mean;
            mean.iter_mut().for_each(|sum| *sum /= block as f32);
            for row in (0..block).step_by(8) {
                let rows = 8.min(block - row);
                for i in (0..whole).step_by(S::LANES) {
                    // SAFETY: as in `sums`.
                    unsafe {
                        let mean = s.load(mean.as_ptr().add(i));
                        let (mut sum, mut acc) = (s.load(off.as_ptr().add(i)), s.load(square.as_ptr().add(i)));
                        for r in row..row + rows {
                            let d = s.sub(s.load(x.as_ptr().add(r * stride + i)), mean);
                            (sum, acc) = (s.add(sum, d), s.fma(d, d, acc));
                        }
                        s.store(sum, off.as_mut_ptr().add(i));
                        s.store(acc, square.as_mut_ptr().add(i));
                    }
                }
                for i in whole..width {
                    for r in row..row + rows {
                        let d = x[r * stride + i] - mean[i];
                        (off[i], square[i]) = (off[i] + d, square[i] + d * d);
                    }
                }
            }
            // As `Moments::join`, for columns of equal counts.
            let (per, per_before) = (1.0 / count, if count_before > 0.0 { 1.0 / count_before } else { 0.0 });
            let between = count * count_before / (count + count_before);
            for i in 0..width {
                let within = square[i] as f64 - off[i] as f64 * off[i] as f64 * per;
                let apart = total[i] as f64 * per - sums[i] * per_before;
                squares[i] += within + if between > 0.0 { apart * apart * between } else { 0.0 };
                sums[i] += total[i] as f64;
            }
        }
    }
}
