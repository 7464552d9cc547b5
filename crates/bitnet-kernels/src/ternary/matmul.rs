//! The product of a packed matrix with quantized activations, over the threads of a pool.

use super::{ActivationRule, MAX_COLS, PANEL, Segments, TILE, TILE_COLS, TernaryKernel, packed_len};
use crate::activation::sums_of;
use crate::lengths::elements;
use crate::threads::{Parts, ThreadPool};

/// Panels that a task of a prompt works on: as many bytes as stay in the second-level cache while the tokens pass.
const GROUP_BYTES: usize = 256 << 10;
/// Weights that a task of a decode step reads.
const STREAM_BYTES: usize = 128 << 10;
/// Tokens that a prompt passes to the kernel at once.
const TOKENS: usize = 8;
/// Accumulators on the stack, `[tokens, panels * 16]`.
const ACC: usize = 1024;

/// A packed ternary matrix: see [`super::layout`].
#[derive(Clone, Copy, Debug)]
pub struct TernaryMatrix<'a> {
    tiles: &'a [u8],
    rows: usize,
    cols: usize,
}

impl<'a> TernaryMatrix<'a> {
    /// `tiles` `[packed_len(rows, cols)]`, at best aligned to 64 bytes. Packed matrices of equal `cols` one after the
    /// other are one matrix, in which each begins at a multiple of 16 rows.
    ///
    /// # Panics
    /// When the length is not that of the shape, or `cols` exceeds [`MAX_COLS`].
    pub fn new(tiles: &'a [u8], rows: usize, cols: usize) -> TernaryMatrix<'a> {
        assert!(cols <= MAX_COLS, "{cols} columns; at most {MAX_COLS} are exact");
        assert_eq!(Some(tiles.len()), packed_len(rows, cols), "packed {rows} x {cols} matrix");
        TernaryMatrix { tiles, rows, cols }
    }

    /// Panels of 16 rows, the last of them perhaps padded.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }
}

/// Rows of quantized activations, as [`crate::activation::quantize_rows`] writes them.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// How they were rounded.
    pub rule: ActivationRule,
    /// `[T, D, padded(cols)]`, the padding 0.
    pub q: &'a [i8],
    /// `[T, blocks]`
    pub scales: &'a [f32],
    /// `[T, D, ceil(cols / 32)]`, the sums of every 32 columns of `q`.
    pub sums: &'a [i32],
}

impl Activations<'_> {
    /// Tokens, with `blocks` scales each.
    pub(super) fn tokens(&self, blocks: usize) -> usize {
        self.scales.len() / blocks.max(1)
    }

    /// Some of the tokens.
    fn part(&self, first: usize, count: usize, tokens: usize) -> Self {
        let per = |len: usize| len / tokens.max(1);
        Activations {
            q: &self.q[first * per(self.q.len())..][..count * per(self.q.len())],
            scales: &self.scales[first * per(self.scales.len())..][..count * per(self.scales.len())],
            sums: &self.sums[first * per(self.sums.len())..][..count * per(self.sums.len())],
            ..*self
        }
    }
}

/// `out[t][r] = x[t] . w[r]`, with the scales of both.
///
/// `weight_scales` is `[panels]`, one for every 16 rows, or `[panels, groups, 16]`, one for each row and group of columns; `out`
/// `[T, out_stride]`, of which the first `rows` of each row are written. Where one scale serves each whole row of both, a result is
/// `integer product * (weight scale / activation scale)`; else see [`super::segments`].
///
/// # Panics
/// When the lengths contradict each other.
pub fn matmul(
    kernel: &dyn TernaryKernel,
    pool: &ThreadPool,
    w: &TernaryMatrix,
    x: &Activations,
    weight_scales: &[f32],
    out: &mut [f32],
    out_stride: usize,
) {
    let by_panel = weight_scales.len() == w.panels();
    let groups = if by_panel { 1 } else { weight_scales.len() / (w.panels() * PANEL).max(1) };
    assert!(by_panel || weight_scales.len() == w.panels() * groups * PANEL && groups > 0, "weight scales");
    let token = x.rule == ActivationRule::Token;
    let row_scale = |row: usize| if by_panel { &weight_scales[row / PANEL..] } else { &weight_scales[row..] };
    let Some(segments) = Segments::new(x.rule, w.cols, groups) else {
        assert_eq!(x.scales.len() * sums_of(w.cols), x.sums.len(), "activation scales");
        let out = Rows::new(out, out_stride, x.scales.len(), w.rows);
        return products(kernel, pool, w, x.q, x.sums, x.scales.len(), &|token, row, acc| {
            // SAFETY: `products` gives each element to one task.
            let out = unsafe { out.part(token, row, acc.len()) };
            let (scales, divisor) = (row_scale(row), x.scales[token]);
            if by_panel {
                for ((out, acc), scale) in out.chunks_mut(PANEL).zip(acc.chunks(PANEL)).zip(scales) {
                    let scale = scale / divisor;
                    for (out, &acc) in out.iter_mut().zip(acc) {
                        *out = acc as f32 * scale;
                    }
                }
                return;
            }
            for ((out, &acc), scale) in out.iter_mut().zip(acc).zip(scales) {
                *out = acc as f32 * (scale / divisor);
            }
        });
    };
    let tokens = x.tokens(segments.blocks);
    let out = Rows::new(out, out_stride, tokens, w.rows);
    let panel_len = w.cols.div_ceil(TILE_COLS) * TILE;
    let panel_scales = if groups > 1 { groups * PANEL } else { 0 };
    walk(
        pool,
        w,
        tokens,
        0f32,
        |panel, count, first, tokens_now, sums| {
            let scales = &weight_scales[panel * panel_scales..][..count * panel_scales];
            let x = x.part(first, tokens_now, tokens);
            kernel.dot_segments(&segments, &w.tiles[panel * panel_len..][..count * panel_len], scales, &x, sums);
        },
        &|at, row, sums| {
            // SAFETY: `walk` gives each element to one task.
            let out = unsafe { out.part(at, row, sums.len()) };
            let divisor = if token { x.scales[at] } else { 1.0 };
            for (i, (out, &sum)) in out.iter_mut().zip(sums).enumerate() {
                let scale = if groups > 1 {
                    1.0
                } else if by_panel {
                    row_scale(row)[i / PANEL]
                } else {
                    row_scale(row)[i]
                };
                *out = sum * scale / divisor;
            }
        },
    );
}

/// The integer products of rows without digits, before any scale: for tests and for exact arithmetic. `sums` are those of every 32
/// columns of `q`.
///
/// # Panics
/// When the lengths contradict each other.
#[allow(clippy::too_many_arguments)]
pub fn matmul_i32(
    kernel: &dyn TernaryKernel,
    pool: &ThreadPool,
    w: &TernaryMatrix,
    q: &[i8],
    sums: &[i32],
    tokens: usize,
    out: &mut [i32],
    out_stride: usize,
) {
    let out = Rows::new(out, out_stride, tokens, w.rows);
    products(kernel, pool, w, q, sums, tokens, &|token, row, acc| {
        // SAFETY: `products` gives each element to one task.
        unsafe { out.part(token, row, acc.len()) }.copy_from_slice(acc);
    });
}

/// Calls `emit(token, first row, products of the rows from there)` for every token and row, each once.
fn products(
    kernel: &dyn TernaryKernel,
    pool: &ThreadPool,
    w: &TernaryMatrix,
    q: &[i8],
    sums: &[i32],
    tokens: usize,
    emit: &(dyn Fn(usize, usize, &[i32]) + Sync),
) {
    let tiles = w.cols.div_ceil(TILE_COLS);
    let (panel_len, q_len, units) = (tiles * TILE, tiles * TILE_COLS, sums_of(w.cols));
    assert_eq!(Some(q.len()), elements([tokens, q_len]), "activations");
    assert_eq!(Some(sums.len()), elements([tokens, units]), "sums");
    walk(
        pool,
        w,
        tokens,
        0,
        |panel, count, first, now, acc| {
            let mut totals = [0; TOKENS];
            for (t, total) in totals[..now].iter_mut().enumerate() {
                *total = sums[(first + t) * units..][..units].iter().sum();
            }
            let q = &q[first * q_len..][..now * q_len];
            kernel.dot(tiles, &w.tiles[panel * panel_len..][..count * panel_len], q, &totals[..now], acc);
        },
        emit,
    );
}

/// Goes through the matrix in tasks: `run(first panel, panels, first token, tokens, results [tokens, panels * 16])`, then
/// `emit(token, first row, results)` for every token and row, each once.
fn walk<A: Copy + Send + Sync>(
    pool: &ThreadPool,
    w: &TernaryMatrix,
    tokens: usize,
    zero: A,
    run: impl Fn(usize, usize, usize, usize, &mut [A]) + Sync,
    emit: &(dyn Fn(usize, usize, &[A]) + Sync),
) {
    let panel_len = w.cols.div_ceil(TILE_COLS) * TILE;
    // A task owns a group of panels and takes all tokens through it, a few at a time: the weights come from memory
    // once, and the few tokens stay in the first-level cache while the group passes.
    let bytes = if tokens == 1 { STREAM_BYTES } else { GROUP_BYTES };
    let fair = w.panels().div_ceil(4 * pool.threads());
    let group = (bytes / panel_len.max(1)).min(fair).next_multiple_of(4).max(4);
    let block = (ACC / PANEL / tokens.clamp(1, TOKENS)).min(group);
    pool.run(w.panels().div_ceil(group), &|task| {
        let first = task * group;
        let last = (first + group).min(w.panels());
        let mut results = [zero; ACC];
        for token in (0..tokens).step_by(TOKENS) {
            let now = TOKENS.min(tokens - token);
            for panel in (first..last).step_by(block) {
                let count = block.min(last - panel);
                let results = &mut results[..now * count * PANEL];
                run(panel, count, token, now, results);
                let row = panel * PANEL;
                let rows = (count * PANEL).min(w.rows - row);
                for (t, results) in results.chunks_exact(count * PANEL).enumerate() {
                    emit(token + t, row, &results[..rows]);
                }
            }
        }
    });
}

/// A `[T, stride]` output whose parts of rows are written by different tasks.
struct Rows<'a, T> {
    parts: Parts<'a, T>,
    stride: usize,
}

impl<'a, T> Rows<'a, T> {
    fn new(out: &'a mut [T], stride: usize, tokens: usize, rows: usize) -> Rows<'a, T> {
        assert!(rows <= stride || tokens <= 1, "{rows} rows in an output stride of {stride}");
        let needed = match tokens {
            0 => Some(0),
            _ => (tokens - 1).checked_mul(stride).and_then(|start| start.checked_add(rows)),
        };
        let enough = needed.is_some_and(|needed| needed <= out.len());
        assert!(enough, "output of {} numbers for {tokens} rows of {rows}, {stride} apart", out.len());
        Rows { parts: Parts::new(out), stride }
    }

    /// # Safety
    /// No two parts that are alive at once may overlap.
    #[allow(clippy::mut_from_ref)] // disjointness is the caller's promise
    unsafe fn part(&self, token: usize, row: usize, len: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.parts.part(token * self.stride + row, len) }
    }
}
