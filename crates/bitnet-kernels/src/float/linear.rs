//! Dense products `out = x W^T` with weights in blocks.
//!
//! One or a few tokens: each row is read once, converted on the fly. More: 16 rows at a time are decoded to f32, 1024
//! columns of them, and multiplied with every token in register tiles of 4 rows by 4 tokens.

use std::mem::MaybeUninit;

use super::dot::{CHUNK, Quantized, dot};
use super::simd::{BF16, Element, F16, Simd, inlined};
use super::whole_rows;
use crate::ThreadPool;
use crate::blocks::{BlockMatrix, BlockType, dequantize};
use crate::lengths::elements;
use crate::threads::Parts;

/// Rows that are decoded together.
const PANEL_ROWS: usize = 16;
/// Columns that are decoded together, a multiple of every block.
const PANEL_COLUMNS: usize = 1024;
/// Up to this many tokens, reading rows again for each is cheaper than decoding them.
const FEW_TOKENS: usize = 2;

/// See [`super::FloatKernel::linear`].
pub(super) fn linear<S: Simd>(s: S, pool: &ThreadPool, weights: &BlockMatrix<'_>, x: &[f32], out: &mut [f32]) {
    let (n, k) = (weights.rows(), weights.columns());
    let tokens = whole_rows(x, k);
    assert_eq!(Some(out.len()), elements([tokens, n]), "out is [T, N]");
    // Some tasks for each thread, so that a late one does not hold up the rest; whole panels.
    let rows = n.div_ceil(8 * pool.threads()).next_multiple_of(PANEL_ROWS);
    let out = Parts::new(out);
    pool.run(n.div_ceil(rows), &|task| {
        let first = task * rows;
        let rows = rows.min(n - first);
        if tokens > FEW_TOKENS {
            s.enter(inlined!(|| panels(s, weights, first, rows, x, &out)));
            return;
        }
        for (t, x) in x.chunks_exact(k).enumerate() {
            // SAFETY: each task has its own rows of the weights, and so its own columns of out.
            let out = unsafe { out.part(t * n + first, rows) };
            s.enter(inlined!(|| vector(s, weights, first, x, out)));
        }
    });
}

/// `out[r] = W[first + r] . x`, x `[K]`.
#[inline(always)]
fn vector<S: Simd>(s: S, weights: &BlockMatrix<'_>, first: usize, x: &[f32], out: &mut [f32]) {
    match weights.kind() {
        BlockType::F32 => floats::<S, f32>(s, weights, first, x, out),
        BlockType::F16 => floats::<S, F16>(s, weights, first, x, out),
        BlockType::BF16 => floats::<S, BF16>(s, weights, first, x, out),
        BlockType::Q8_0 => quantized(s, BlockType::Q8_0, weights, first, x, out),
        BlockType::Q6_K => quantized(s, BlockType::Q6_K, weights, first, x, out),
        BlockType::Q4_0 => quantized(s, BlockType::Q4_0, weights, first, x, out),
        BlockType::Q4_K => quantized(s, BlockType::Q4_K, weights, first, x, out),
    }
}

#[inline(always)]
fn quantized<S: Simd>(s: S, kind: BlockType, weights: &BlockMatrix<'_>, first: usize, x: &[f32], out: &mut [f32]) {
    let mut q = Quantized::new();
    out.fill(0.0);
    let chunk_bytes = CHUNK / kind.block_len() * kind.block_bytes();
    for (c, x) in x.chunks(CHUNK).enumerate() {
        q.fill::<S>(x);
        for (r, out) in out.iter_mut().enumerate() {
            let row = &weights.row(first + r)[c * chunk_bytes..];
            *out += dot(s, kind, &row[..row.len().min(chunk_bytes)], &q);
        }
    }
}

#[inline(always)]
fn floats<S: Simd, T: Element>(s: S, weights: &BlockMatrix<'_>, first: usize, x: &[f32], out: &mut [f32]) {
    for (r, out) in out.iter_mut().enumerate() {
        let row = weights.row(first + r);
        assert_eq!(row.len(), size_of_val(x) / 4 * size_of::<T>());
        let w = row.as_ptr().cast::<T>();
        let mut acc = [s.splat(0.0); 4];
        let step = 4 * S::LANES;
        let whole = x.len() / step * step;
        for i in (0..whole).step_by(step) {
            for (j, acc) in acc.iter_mut().enumerate() {
                let at = i + j * S::LANES;
                // SAFETY: at + LANES <= whole, within the row and x.
                *acc = unsafe { s.fma(T::load(s, w.add(at)), s.load(x.as_ptr().add(at)), *acc) };
            }
        }
        let mut sum = s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])));
        for i in whole..x.len() {
            // SAFETY: within the row, of any alignment.
            sum += unsafe { w.add(i).read_unaligned() }.widen() * x[i];
        }
        *out = sum;
    }
}

/// `out[t][first + r] = W[first + r] . x[t]` of all tokens.
#[inline(always)]
fn panels<S: Simd>(s: S, weights: &BlockMatrix<'_>, first: usize, rows: usize, x: &[f32], out: &Parts<'_, f32>) {
    let (kind, n, k) = (weights.kind(), weights.rows(), weights.columns());
    let tokens = x.len() / k;
    let mut panel = MaybeUninit::<[f32; PANEL_ROWS * PANEL_COLUMNS]>::uninit();
    let panel: *mut f32 = panel.as_mut_ptr().cast();
    for row in (first..first + rows).step_by(PANEL_ROWS) {
        let height = PANEL_ROWS.min(first + rows - row);
        for column in (0..k).step_by(PANEL_COLUMNS) {
            let width = PANEL_COLUMNS.min(k - column);
            let bytes = |columns: usize| columns / kind.block_len() * kind.block_bytes();
            for r in 0..height {
                // SAFETY: row r of the panel, written before it is read below; any bits are an f32.
                let decoded = unsafe {
                    panel.add(r * PANEL_COLUMNS).write_bytes(0, width);
                    std::slice::from_raw_parts_mut(panel.add(r * PANEL_COLUMNS), width)
                };
                dequantize(kind, &weights.row(row + r)[bytes(column)..][..bytes(width)], decoded);
            }
            for t in (0..tokens).step_by(4) {
                for r in (0..height).step_by(4) {
                    // SAFETY: each task has its own rows of the weights, and so its own columns of out; the tile reads
                    // `width` columns of rows of the panel and of x that exist.
                    unsafe {
                        let w = panel.add(r * PANEL_COLUMNS);
                        let x = x.as_ptr().add(t * k + column);
                        let sums = match (height - r >= 4, tokens - t >= 4) {
                            (true, true) if S::MANY_REGISTERS => tile::<S, 4, 4>(s, width, w, x, k),
                            (true, true) => {
                                let [a, b, ..] = tile::<S, 4, 2>(s, width, w, x, k);
                                let [c, d, ..] = tile::<S, 4, 2>(s, width, w, x.add(2 * k), k);
                                [a, b, c, d]
                            }
                            (true, false) => edge::<S, 4>(s, width, w, x, k, tokens - t),
                            (false, _) => corner(s, width, w, height - r, x, k, tokens - t),
                        };
                        for (t, sums) in (t..tokens).zip(sums) {
                            let height = (height - r).min(4);
                            let out = out.part(t * n + row + r, height);
                            for (out, sum) in out.iter_mut().zip(sums) {
                                *out = if column == 0 { sum } else { *out + sum };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Products `[T][R]` of R rows of a panel with T tokens `stride` apart.
///
/// # Safety
/// The rows and the tokens must have `width` readable columns.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const T: usize>(
    s: S,
    width: usize,
    w: *const f32,
    x: *const f32,
    stride: usize,
) -> [[f32; 4]; 4] {
    let mut acc = [[s.splat(0.0); R]; T];
    let whole = width / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES <= width.
        unsafe {
            let mut rows = [s.splat(0.0); R];
            for r in 0..R {
                rows[r] = s.load(w.add(r * PANEL_COLUMNS + i));
            }
            for t in 0..T {
                let x = s.load(x.add(t * stride + i));
                for r in 0..R {
                    acc[t][r] = s.fma(rows[r], x, acc[t][r]);
                }
            }
        }
    }
    let mut sums = [[0.0; 4]; 4];
    for t in 0..T {
        for r in 0..R {
            sums[t][r] = s.sum(acc[t][r]);
            for i in whole..width {
                // SAFETY: i < width.
                sums[t][r] += unsafe { *w.add(r * PANEL_COLUMNS + i) * *x.add(t * stride + i) };
            }
        }
    }
    sums
}

/// Fewer than 4 tokens.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn edge<S: Simd, const R: usize>(
    s: S,
    width: usize,
    w: *const f32,
    x: *const f32,
    stride: usize,
    tokens: usize,
) -> [[f32; 4]; 4] {
    let mut sums = [[0.0; 4]; 4];
    for t in 0..tokens {
        // SAFETY: the caller's promise.
        sums[t] = unsafe { tile::<S, R, 1>(s, width, w, x.add(t * stride), stride)[0] };
    }
    sums
}

/// Fewer than 4 rows.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn corner<S: Simd>(
    s: S,
    width: usize,
    w: *const f32,
    rows: usize,
    x: *const f32,
    stride: usize,
    tokens: usize,
) -> [[f32; 4]; 4] {
    let mut sums = [[0.0; 4]; 4];
    for r in 0..rows {
        // SAFETY: the caller's promise.
        let column = unsafe { edge::<S, 1>(s, width, w.add(r * PANEL_COLUMNS), x, stride, tokens.min(4)) };
        for t in 0..4 {
            sums[t][r] = column[t][0];
        }
    }
    sums
}
