//! The product of a packed matrix with quantized activations, over the threads of a pool.

use super::{MAX_COLS, PANEL, TILE, TILE_COLS, TernaryKernel, packed_len};
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
    /// `[T, padded(cols)]`, the padding 0.
    pub q: &'a [i8],
    /// `[T]`
    pub scales: &'a [f32],
    /// `[T]`, the sum of each row of `q`.
    pub sums: &'a [i32],
}

/// `out[t][r] = (sum over k of w[r][k] * q[t][k]) * weight_scales[r / 16] / scales[t]`.
///
/// `weight_scales` `[panels]`; `out` `[T, out_stride]`, of which the first `rows` of each row are written.
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
    assert_eq!(weight_scales.len(), w.panels(), "weight scales");
    assert_eq!(x.scales.len(), x.sums.len(), "activation scales");
    let out = Rows::new(out, out_stride, x.sums.len(), w.rows);
    products(kernel, pool, w, x.q, x.sums, &|token, row, acc| {
        // SAFETY: `products` gives each element to one task.
        let out = unsafe { out.part(token, row, acc.len()) };
        let scales = &weight_scales[row / PANEL..];
        for ((out, acc), scale) in out.chunks_mut(PANEL).zip(acc.chunks(PANEL)).zip(scales) {
            let scale = scale / x.scales[token];
            for (out, &acc) in out.iter_mut().zip(acc) {
                *out = acc as f32 * scale;
            }
        }
    });
}

/// As [`matmul`], the integers before any scale: for tests and for exact arithmetic.
///
/// # Panics
/// When the lengths contradict each other.
pub fn matmul_i32(
    kernel: &dyn TernaryKernel,
    pool: &ThreadPool,
    w: &TernaryMatrix,
    q: &[i8],
    sums: &[i32],
    out: &mut [i32],
    out_stride: usize,
) {
    let out = Rows::new(out, out_stride, sums.len(), w.rows);
    products(kernel, pool, w, q, sums, &|token, row, acc| {
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
    emit: &(dyn Fn(usize, usize, &[i32]) + Sync),
) {
    let (tokens, tiles) = (sums.len(), w.cols.div_ceil(TILE_COLS));
    let (panel_len, q_len) = (tiles * TILE, tiles * TILE_COLS);
    assert_eq!(Some(q.len()), elements([tokens, q_len]), "activations");
    // A task owns a group of panels and takes all tokens through it, a few at a time: the weights come from memory
    // once, and the few tokens stay in the first-level cache while the group passes.
    let bytes = if tokens == 1 { STREAM_BYTES } else { GROUP_BYTES };
    let fair = w.panels().div_ceil(4 * pool.threads());
    let group = (bytes / panel_len.max(1)).min(fair).next_multiple_of(4).max(4);
    let block = (ACC / PANEL / tokens.clamp(1, TOKENS)).min(group);
    pool.run(w.panels().div_ceil(group), &|task| {
        let first = task * group;
        let last = (first + group).min(w.panels());
        let mut acc = [0; ACC];
        for token in (0..tokens).step_by(TOKENS) {
            let sums = &sums[token..tokens.min(token + TOKENS)];
            let q = &q[token * q_len..][..sums.len() * q_len];
            for panel in (first..last).step_by(block) {
                let count = block.min(last - panel);
                let acc = &mut acc[..sums.len() * count * PANEL];
                kernel.dot(tiles, &w.tiles[panel * panel_len..][..count * panel_len], q, sums, acc);
                let row = panel * PANEL;
                let rows = (count * PANEL).min(w.rows - row);
                for (t, acc) in acc.chunks_exact(count * PANEL).enumerate() {
                    emit(token + t, row, &acc[..rows]);
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
