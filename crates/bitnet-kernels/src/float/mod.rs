//! Operations on f32 around the ternary products: norms, gates, rotary embeddings, attention, dense linear layers.
//!
//! `scalar` is the specification; the kernels of the other instruction sets agree with it within f32 rounding.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dot;
pub mod half;
mod kv_pages;
mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
mod rope;
mod scalar;
pub(crate) mod simd;
#[cfg(target_arch = "x86_64")]
mod sse41;
mod vector;

pub use kv_pages::{KEY_BLOCK, KvPages, KvPagesMut, KvRows, PagedShape, store_kv};
pub use rope::{inverse_frequencies, rope_tables};

use crate::blocks::BlockMatrix;
use crate::lengths::elements;
use crate::{Isa, ThreadPool};
use bitnet_device::backend::GateActivation;

/// The largest head dimension that [`FloatKernel::paged_attention`] takes.
pub const MAX_HEAD_DIM: usize = 256;

/// The f32 operations of one instruction set.
///
/// All of them panic when the lengths of slices do not fit together; none allocates.
pub trait FloatKernel: Send + Sync {
    /// The instruction set.
    fn isa(&self) -> Isa;

    /// `out[t] = weight * (x[t] / sqrt(mean(x[t]^2) + eps))`; x, out `[T, H]`, weight `[H]`.
    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);

    /// `gate = act(gate) * up`, where `relu2(g) = max(g, 0)^2` `silu(g) = g / (1 + e^-g)` and `gelu(g)` as
    /// [`GateActivation`] has them; NaN stays.
    fn gated(&self, act: GateActivation, gate: &mut [f32], up: &[f32]);

    /// Rotates the heads of x `[T, heads, 2 * pairs]` in place by the angles of each token: cos, sin `[T, pairs]`.
    ///
    /// The two numbers of a pair are half a head apart (rotate-half, as in NeoX and Hugging Face).
    fn rope(&self, x: &mut [f32], heads: usize, pairs: usize, cos: &[f32], sin: &[f32]);

    /// Causal attention with grouped queries over the pages of sequences: q, out `[T, heads, head_dim]`.
    ///
    /// Query head `h` of a row attends to the positions up to its own, within the window, of key/value head
    /// `h / (heads / kv_heads)` of its sequence.
    ///
    /// # Panics
    /// When `head_dim` is over [`MAX_HEAD_DIM`], or sizes, pages and slices do not fit together.
    fn paged_attention(
        &self,
        pool: &ThreadPool,
        shape: &PagedShape,
        q: &[f32],
        pages: &KvPages<'_>,
        rows: &KvRows<'_>,
        out: &mut [f32],
    );

    /// `out = x W^T`: weights `[N, K]`, x `[T, K]`, out `[T, N]`.
    ///
    /// Weights are taken as [`crate::blocks::dequantize_row`] gives them; for quantized weights the activations may be
    /// rounded to 16 bits per 256 (an error near 1e-5 of `|x| |w|` at most).
    fn linear(&self, pool: &ThreadPool, weights: &BlockMatrix<'_>, x: &[f32], out: &mut [f32]);
}

/// `1 / sqrt(mean(x^2) + eps)`: in f64 and in one order, so that every kernel norms alike to the last bit. Activations are
/// rounded to 8 bits next, where the last bit can decide.
#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let mut sums = [0.0f64; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for chunk in whole {
        for (sum, &v) in sums.iter_mut().zip(chunk) {
            *sum += v as f64 * v as f64;
        }
    }
    let squares: f64 = rest.iter().map(|&v| v as f64 * v as f64).sum::<f64>() + sums.iter().sum::<f64>();
    1.0 / ((squares / x.len() as f64) as f32 + eps).sqrt()
}

/// Numbers of a token of `heads` heads of `pairs` pairs; panics when they cannot be counted.
fn rope_row(heads: usize, pairs: usize) -> usize {
    elements([heads, 2, pairs]).unwrap_or_else(|| panic!("{heads} heads of {pairs} pairs are too many"))
}

/// Rows of x `[rows, columns]`; panics when it is not whole rows.
fn whole_rows(x: &[f32], columns: usize) -> usize {
    assert!(columns > 0 && x.len().is_multiple_of(columns), "{} values in rows of {columns}", x.len());
    x.len() / columns
}
