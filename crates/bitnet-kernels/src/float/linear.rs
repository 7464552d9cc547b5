//! Dense products `out = x W^T` with weights in blocks.
//!
//! Each output has one order of sums, whatever the number of tokens. Floats: a row is summed over the lanes of a vector, in
//! pieces of [`PANEL_COLUMNS`] columns. A few tokens read the rows as they are; for more, 16 rows at a time are decoded to f32
//! and multiplied with every token in register tiles of 4 rows by 4 tokens. The quantized types that are common as heads (Q8_0,
//! Q6_K, Q4_0, Q4_K) are multiplied with activations in 16 bits, see [`super::dot`]; the others are decoded for any number of
//! tokens.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::dot::{CHUNK, Quantized, dots};
use super::simd::{BF16, Element, F16, Simd, inlined, prefetch};
use super::whole_rows;
use crate::ThreadPool;
use crate::blocks::{BlockMatrix, BlockType, dequantize};
use crate::lengths::elements;
use crate::threads::Parts;

/// Rows that are decoded together.
const PANEL_ROWS: usize = 16;
/// Columns that are decoded together, a multiple of every block.
const PANEL_COLUMNS: usize = 1024;
/// Up to this many tokens, converting rows again for each four is cheaper than decoding them.
const FEW_TOKENS: usize = 8;
/// Bytes of quantized rows that stay in the second-level cache while all tokens are multiplied with them.
const CACHED: usize = 1 << 19;
thread_local! {
    /// The activations of a product, kept so that the next allocates nothing.
    static ACTIVATIONS: RefCell<Quantized> = RefCell::default();
}

/// See [`super::FloatKernel::linear`].
pub(super) fn linear<S: Simd>(s: S, pool: &ThreadPool, weights: &BlockMatrix<'_>, x: &[f32], out: &mut [f32]) {
    let (n, k) = (weights.rows(), weights.columns());
    let tokens = whole_rows(x, k);
    assert_eq!(Some(out.len()), elements([tokens, n]), "out is [T, N]");
    // Some tasks for each thread, so that a late one does not hold up the rest; whole panels.
    let rows = n.div_ceil(8 * pool.threads()).next_multiple_of(PANEL_ROWS);
    let out = Parts::new(out);
    let mut activations = ACTIVATIONS.take();
    let in_16_bits = matches!(weights.kind(), BlockType::Q8_0 | BlockType::Q6_K | BlockType::Q4_0 | BlockType::Q4_K);
    if in_16_bits {
        activations.fill(s, pool, x, k);
    }
    pool.run(n.div_ceil(rows), &|task| {
        let first = task * rows;
        let rows = rows.min(n - first);
        s.enter(inlined!(|| match weights.kind() {
            BlockType::F32 => direct::<S, f32>(s, weights, first, rows, x, &out),
            BlockType::F16 if tokens <= FEW_TOKENS => direct::<S, F16>(s, weights, first, rows, x, &out),
            BlockType::BF16 if tokens <= FEW_TOKENS => direct::<S, BF16>(s, weights, first, rows, x, &out),
            _ if in_16_bits => quantized(s, weights, first, rows, &activations, tokens, &out),
            _ => panels(s, weights, first, rows, x, &out),
        }));
    });
    ACTIVATIONS.set(activations);
}

/// Quantized rows times tokens.
#[inline(always)]
fn quantized<S: Simd>(
    s: S,
    weights: &BlockMatrix<'_>,
    first: usize,
    rows: usize,
    x: &Quantized,
    tokens: usize,
    out: &Parts<'_, f32>,
) {
    let (kind, k) = (weights.kind(), weights.columns());
    let row_bytes = kind.row_bytes(k).expect("whole blocks");
    // One token reads rows as they follow each other; for more, some rows stay in the second-level cache while they pass.
    let (together, width) = if tokens == 1 { (rows, k) } else { ((CACHED / row_bytes.max(1)).clamp(1, rows), CHUNK) };
    for start in (first..first + rows).step_by(together) {
        let rows = start..(start + together).min(first + rows);
        let mut t = 0;
        while t < tokens {
            let (some, count): (fn(_, _, _, _, _, _, _), _) = match tokens - t {
                8.. if S::MANY_REGISTERS && kind == BlockType::Q6_K => (several::<S, 8>, 8),
                // The blocks of 32 have too many numbers on the side for more.
                4.. if matches!(kind, BlockType::Q6_K | BlockType::Q4_K) => (several::<S, 4>, 4),
                2.. => (several::<S, 2>, 2),
                _ => (several::<S, 1>, 1),
            };
            for column in (0..k).step_by(width) {
                some(s, weights, rows.clone(), column..(column + width).min(k), x, t, out);
            }
            t += count;
        }
    }
}

/// Adds the products of some columns, from a multiple of [`CHUNK`] on, of some rows with tokens `t..t + T`.
fn several<S: Simd, const T: usize>(
    s: S,
    weights: &BlockMatrix<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    x: &Quantized,
    t: usize,
    out: &Parts<'_, f32>,
) {
    let (kind, n, k) = (weights.kind(), weights.rows(), weights.columns());
    let (row_bytes, chunk_bytes) =
        (kind.row_bytes(k).expect("whole blocks"), kind.row_bytes(CHUNK).expect("whole blocks"));
    let (all, first) = (weights.rows_from(rows.start, rows.len()), rows.start);
    dots::<S, T>(
        s,
        kind,
        (rows, columns),
        inlined!(|row: usize, column: usize| {
            let row = &all[(row - first) * row_bytes..][..row_bytes];
            let part = &row[column / CHUNK * chunk_bytes..];
            (&part[..part.len().min(chunk_bytes)], std::array::from_fn(inlined!(|i| x.row(t + i, column))))
        }),
        inlined!(|row: usize, column: usize, sums: [f32; T]| {
            for (i, sum) in sums.into_iter().enumerate() {
                // SAFETY: each task has its own rows of the weights, and so its own columns of out.
                let out = unsafe { out.part((t + i) * n + row, 1) };
                out[0] = if column == 0 { sum } else { out[0] + sum };
            }
        }),
    );
}

/// `out[t][first + r] = W[first + r] . x[t]` of all tokens, the rows converted as they are read.
#[inline(always)]
fn direct<S: Simd, E: Element>(
    s: S,
    weights: &BlockMatrix<'_>,
    first: usize,
    rows: usize,
    x: &[f32],
    out: &Parts<'_, f32>,
) {
    let k = weights.columns();
    // A few tokens: few rows at once, so that they are read from memory as they follow each other.
    let (together, ahead) = if x.len() <= FEW_TOKENS * k { (4, 4 * k) } else { (PANEL_ROWS, 0) };
    for row in (first..first + rows).step_by(together) {
        let height = together.min(first + rows - row);
        let bytes = weights.rows_from(row, height);
        for column in (0..k).step_by(PANEL_COLUMNS) {
            let width = PANEL_COLUMNS.min(k - column);
            // SAFETY: rows of the matrix follow each other; `height` of them from `row` on exist, with `k` columns.
            unsafe {
                block(
                    s,
                    (bytes.as_ptr().cast::<E>().add(column), k, ahead),
                    (row, height),
                    (column, width),
                    weights,
                    x,
                    out,
                )
            };
        }
    }
}

/// `out[t][first + r] = W[first + r] . x[t]` of all tokens.
#[inline(always)]
fn panels<S: Simd>(s: S, weights: &BlockMatrix<'_>, first: usize, rows: usize, x: &[f32], out: &Parts<'_, f32>) {
    let (kind, k) = (weights.kind(), weights.columns());
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
            // SAFETY: `height` rows of `width` columns of the panel were written.
            unsafe {
                block(s, (panel.cast_const(), PANEL_COLUMNS, 0), (row, height), (column, width), weights, x, out)
            };
        }
    }
}

/// Adds the products of `width` columns from `column` on of `height` rows from `row` on with all tokens.
///
/// # Safety
/// `w` must point to the first of these columns of rows that are `w_row` elements apart; no other task may have these rows.
/// Weights `ahead` elements on are prefetched, unless it is 0.
#[inline(always)]
unsafe fn block<S: Simd, E: Element>(
    s: S,
    (w, w_row, ahead): (*const E, usize, usize),
    (row, height): (usize, usize),
    (column, width): (usize, usize),
    weights: &BlockMatrix<'_>,
    x: &[f32],
    out: &Parts<'_, f32>,
) {
    let (n, k) = (weights.rows(), weights.columns());
    let tokens = x.len() / k;
    for t in (0..tokens).step_by(4) {
        for r in (0..height).step_by(4) {
            // SAFETY: the caller's promise; the tile reads `width` columns of rows and of x that exist.
            unsafe {
                let w = (w.add(r * w_row), w_row, ahead);
                let x = (x.as_ptr().add(t * k + column), k);
                let after = |x: (*const f32, usize), t: usize| (x.0.add(t * k), k);
                let sums = match (height - r >= 4, tokens - t >= 4) {
                    (true, true) if S::MANY_REGISTERS => tile::<S, E, 4, 4>(s, width, w, x),
                    (true, true) => {
                        let [a, b, ..] = tile::<S, E, 4, 2>(s, width, w, x);
                        let [c, d, ..] = tile::<S, E, 4, 2>(s, width, w, after(x, 2));
                        [a, b, c, d]
                    }
                    (true, false) => edge::<S, E, 4>(s, width, w, x, tokens - t),
                    (false, _) => corner(s, width, w, height - r, x, tokens - t),
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

/// Products `[T][R]` of R rows `w_row` apart with T tokens `x_row` apart; see [`block`] for `ahead`.
///
/// # Safety
/// The rows and the tokens must have `width` readable columns.
#[inline(always)]
unsafe fn tile<S: Simd, E: Element, const R: usize, const T: usize>(
    s: S,
    width: usize,
    (w, w_row, ahead): (*const E, usize, usize),
    (x, x_row): (*const f32, usize),
) -> [[f32; 4]; 4] {
    let mut acc = [[s.splat(0.0); R]; T];
    let whole = width / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES <= width.
        unsafe {
            let mut rows = [s.splat(0.0); R];
            for r in 0..R {
                rows[r] = E::load(s, w.add(r * w_row + i));
                if ahead > 0 {
                    prefetch(w.wrapping_add(r * w_row + i + ahead));
                }
            }
            for t in 0..T {
                let x = s.load(x.add(t * x_row + i));
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
                // SAFETY: i < width; the weights may have any alignment.
                sums[t][r] += unsafe { w.add(r * w_row + i).read_unaligned().widen() * *x.add(t * x_row + i) };
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
unsafe fn edge<S: Simd, E: Element, const R: usize>(
    s: S,
    width: usize,
    w: (*const E, usize, usize),
    (x, x_row): (*const f32, usize),
    tokens: usize,
) -> [[f32; 4]; 4] {
    let mut sums = [[0.0; 4]; 4];
    for t in 0..tokens {
        // SAFETY: the caller's promise.
        sums[t] = unsafe { tile::<S, E, R, 1>(s, width, w, (x.add(t * x_row), x_row))[0] };
    }
    sums
}

/// Fewer than 4 rows.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn corner<S: Simd, E: Element>(
    s: S,
    width: usize,
    (w, w_row, ahead): (*const E, usize, usize),
    rows: usize,
    x: (*const f32, usize),
    tokens: usize,
) -> [[f32; 4]; 4] {
    let mut sums = [[0.0; 4]; 4];
    for r in 0..rows {
        // SAFETY: the caller's promise.
        let column = unsafe { edge::<S, E, 1>(s, width, (w.add(r * w_row), w_row, ahead), x, tokens.min(4)) };
        for t in 0..4 {
            sums[t][r] = column[t][0];
        }
    }
    sums
}
