//! The specification of the float operations: plain loops, sums in f64.

use super::half::{bf16_to_f32, f16_to_f32};
use super::{FloatKernel, KvPages, KvRows, MAX_HEAD_DIM, PagedShape, inverse_rms, rope_row, whole_rows};
use crate::blocks::{BlockMatrix, dequantize_row};
use crate::isa::Scalar;
use crate::lengths::elements;
use crate::threads::Parts;
use crate::{Isa, ThreadPool};
use bitnet_device::backend::GateActivation;

impl FloatKernel for Scalar {
    fn isa(&self) -> Isa {
        Isa::Scalar
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let columns = weight.len();
        whole_rows(x, columns);
        assert_eq!(x.len(), out.len());
        for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
            let scale = inverse_rms(x, eps);
            for i in 0..columns {
                out[i] = weight[i] * (x[i] * scale);
            }
        }
    }

    fn gated(&self, act: GateActivation, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        for (g, u) in gate.iter_mut().zip(up) {
            let active = match act {
                GateActivation::Relu2 if *g < 0.0 => 0.0,
                GateActivation::Relu2 => *g * *g,
                GateActivation::Silu => *g / (1.0 + (-*g).exp()),
                GateActivation::GeluTanh => {
                    let z = GateActivation::GELU_SCALE * (*g * (1.0 + GateActivation::GELU_CUBE * (*g * *g)));
                    *g / (1.0 + (-z).exp())
                }
            };
            *g = active * u;
        }
    }

    fn rope(&self, x: &mut [f32], heads: usize, pairs: usize, cos: &[f32], sin: &[f32]) {
        let row = rope_row(heads, pairs);
        let tokens = whole_rows(x, row);
        assert!(cos.len() == tokens * pairs && sin.len() == cos.len(), "tables of {tokens} tokens");
        let angles = cos.chunks_exact(pairs).zip(sin.chunks_exact(pairs));
        for (token, (cos, sin)) in x.chunks_exact_mut(row).zip(angles) {
            for head in token.chunks_exact_mut(2 * pairs) {
                for i in 0..pairs {
                    let (a, b) = (head[i], head[pairs + i]);
                    head[i] = a * cos[i] - b * sin[i];
                    head[pairs + i] = b * cos[i] + a * sin[i];
                }
            }
        }
    }

    fn paged_attention(
        &self,
        pool: &ThreadPool,
        shape: &PagedShape,
        q: &[f32],
        pages: &KvPages<'_>,
        rows: &KvRows<'_>,
        out: &mut [f32],
    ) {
        shape.check_read(q, pages, rows, out);
        let PagedShape { heads, kv_heads, head_dim: dim, page_len, .. } = *shape;
        let out = Parts::new(out);
        pool.run(rows.positions.len() * heads, &|task| {
            let (row, head) = (task / heads, task % heads);
            let position = rows.positions[row] as usize;
            let table = &rows.table[rows.sequences[row] as usize * rows.table_width..];
            // The page of the head that has a position, and where in it.
            let at = |n: usize| (table[n / page_len] as usize * kv_heads + head / shape.group(), n % page_len);
            let key = |n: usize, d: usize| {
                let (page, at) = at(n);
                let (i, scale) = ((page * dim + d) * page_len + at, page * page_len + at);
                match *pages {
                    KvPages::F32 { keys, .. } => keys[i],
                    KvPages::F16 { keys, .. } => f16_to_f32(keys[i]),
                    KvPages::BF16 { keys, .. } => bf16_to_f32(keys[i]),
                    KvPages::I8 { keys, key_scales, .. } => keys[i] as f32 * key_scales[scale],
                }
            };
            let value = |n: usize, d: usize| {
                let (page, at) = at(n);
                let scale = page * page_len + at;
                let i = scale * dim + d;
                match *pages {
                    KvPages::F32 { values, .. } => values[i],
                    KvPages::F16 { values, .. } => f16_to_f32(values[i]),
                    KvPages::BF16 { values, .. } => bf16_to_f32(values[i]),
                    KvPages::I8 { values, value_scales, .. } => values[i] as f32 * value_scales[scale],
                }
            };
            // SAFETY: each task has its own head.
            let out = unsafe { out.part(task * dim, dim) };
            let seen = shape.first_seen(position)..position + 1;
            attend(&q[task * dim..][..dim], shape.scale, seen, key, value, out);
        });
    }

    fn linear(&self, pool: &ThreadPool, weights: &BlockMatrix<'_>, x: &[f32], out: &mut [f32]) {
        let (n, k) = (weights.rows(), weights.columns());
        let tokens = whole_rows(x, k);
        assert_eq!(Some(out.len()), elements([tokens, n]), "out is [T, N]");
        let out = Parts::new(out);
        pool.run(n, &|row| {
            for t in 0..tokens {
                let mut sum = 0.0f64;
                let mut decoded = [0.0; 256];
                let bytes_of_256 = 256 / weights.kind().block_len() * weights.kind().block_bytes();
                let pieces = weights.row(row).chunks(bytes_of_256);
                for (bytes, x) in pieces.zip(x[t * k..][..k].chunks(256)) {
                    let decoded = &mut decoded[..x.len()];
                    dequantize_row(weights.kind(), bytes, decoded);
                    sum += dot(decoded, x, |w| w);
                }
                // SAFETY: each task has its own row of the weights, and so its own column.
                let out = unsafe { out.part(t * n + row, 1) };
                out[0] = sum as f32;
            }
        });
    }
}

/// Attention of one query `[D]` to the keys and values that are seen; softmax without knowing the maximum beforehand.
fn attend(
    query: &[f32],
    scale: f32,
    seen: std::ops::Range<usize>,
    key: impl Fn(usize, usize) -> f32,
    value: impl Fn(usize, usize) -> f32,
    out: &mut [f32],
) {
    let mut max = f64::NEG_INFINITY;
    let mut sum = 0.0;
    let mut acc = [0.0f64; MAX_HEAD_DIM];
    for n in seen {
        let score = query.iter().enumerate().map(|(d, &q)| q as f64 * key(n, d) as f64).sum::<f64>() * scale as f64;
        let new_max = max.max(score);
        let keep = (max - new_max).exp();
        let p = (score - new_max).exp();
        sum = sum * keep + p;
        for (d, acc) in acc.iter_mut().enumerate().take(query.len()) {
            *acc = *acc * keep + p * value(n, d) as f64;
        }
        max = new_max;
    }
    for (out, acc) in out.iter_mut().zip(acc) {
        *out = (acc / sum) as f32;
    }
}

fn dot<T: Copy>(w: &[T], x: &[f32], to_f32: impl Fn(T) -> f32) -> f64 {
    w.iter().zip(x).map(|(&w, &x)| to_f32(w) as f64 * x as f64).sum()
}
