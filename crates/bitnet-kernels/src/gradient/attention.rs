//! Causal attention over whole texts and its derivative, for training; the scores of a layer are never stored.
//!
//! A task is a text and a head of keys. It takes the queries in blocks (Dao et al. 2022), whose scores stay in the cache;
//! keys after a block are not looked at.

use super::entered;
use crate::dense::matmul::{MatmulShape, Matrix, MatrixMut, matmul_f32};
use crate::float::simd::inlined;
use crate::lengths::elements;
use crate::threads::Parts;
use crate::{Isa, Kernels, ThreadPool};
use bitnet_device::backend::CausalShape;
use std::sync::OnceLock;

/// Queries of a block.
const BLOCK: usize = 64;
/// Rows of zeros after those of a head, so that the rows of its transpose do not fall on the same lines of the cache.
const PAD: usize = 16;

fn check(shape: &CausalShape, qkv: &[f32], cos: &[f32], sin: &[f32], out: &[f32]) {
    let CausalShape { batch, tokens, heads, kv_heads, head_dim } = *shape;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && head_dim.is_multiple_of(2), "{shape:?}");
    let all_heads = kv_heads.checked_mul(2).and_then(|both| both.checked_add(heads)).expect("heads can be counted");
    let (read, written) = (elements([batch, tokens, all_heads, head_dim]), elements([batch, tokens, heads, head_dim]));
    assert!(read == Some(qkv.len()) && written == Some(out.len()), "{shape:?}");
    let angles = elements([tokens, head_dim / 2]);
    assert!(angles == Some(cos.len()) && sin.len() == cos.len(), "angles of {tokens} tokens");
}
/// What a task reads: one text, one head of keys.
struct Task<'a> {
    kernels: Kernels,
    shape: CausalShape,
    qkv: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    text: usize,
    kv_head: usize,
    scale: f32,
}

impl<'a> Task<'a> {
    /// Where head `head` of the row of token `t` begins: queries first, then keys, then values.
    fn at(&self, t: usize, head: usize) -> usize {
        (self.text * self.shape.tokens + t) * self.shape.row() + head * self.shape.head_dim
    }

    /// A head of all tokens, `[tokens + PAD, head_dim]`.
    fn head(&self, head: usize) -> Vec<f32> {
        let CausalShape { tokens, head_dim, .. } = self.shape;
        let mut x = Vec::with_capacity((tokens + PAD) * head_dim);
        for t in 0..tokens {
            x.extend_from_slice(&self.qkv[self.at(t, head)..][..head_dim]);
        }
        x.resize((tokens + PAD) * head_dim, 0.);
        x
    }

    /// The same, rotated.
    fn rotated(&self, head: usize) -> Vec<f32> {
        let CausalShape { tokens, head_dim, .. } = self.shape;
        let mut x = self.head(head);
        self.kernels.float.rope(&mut x[..tokens * head_dim], 1, head_dim / 2, self.cos, self.sin);
        x
    }

    fn keys(&self) -> Vec<f32> {
        self.rotated(self.shape.heads + self.kv_head)
    }

    fn values(&self) -> Vec<f32> {
        self.head(self.shape.heads + self.shape.kv_heads + self.kv_head)
    }

    /// A head as columns, `[head_dim, tokens + PAD]`.
    fn transposed(&self, head: &[f32]) -> Vec<f32> {
        let width = self.shape.head_dim;
        let mut x = vec![0.; head.len()];
        self.kernels.dense.transpose(head, width, head.len() / width, 0, false, &mut x);
        x
    }

    /// Weights of the keys `0..n`, which come transposed, for the queries `first..first + m`, `[m, n]`, `n = first + m`.
    fn weights(&self, first: usize, m: usize, queries: &[f32], keys: &[f32], scores: &mut [f32]) {
        let (isa, width, n) = (self.kernels.isa, self.shape.head_dim, first + m);
        let q = Matrix { start: first * width, ..Matrix::row_major(queries, width) };
        product(isa, [m, n, width], q, Matrix::row_major(keys, keys.len() / width), scores);
        let scale = self.scale;
        entered!(
            isa,
            for (i, row) in scores.chunks_exact_mut(n).enumerate() {
                let (seen, later) = row.split_at_mut(first + i + 1);
                for x in seen {
                    *x *= scale;
                }
                later.fill(f32::NEG_INFINITY);
            }
        );
        let mut copy = vec![0.; n];
        for row in scores.chunks_exact_mut(n) {
            copy.copy_from_slice(row);
            self.kernels.dense.softmax(&copy, n, false, row);
        }
    }

    /// The blocks: first query and how many.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let tokens = self.shape.tokens;
        (0..tokens).step_by(BLOCK).map(move |first| (first, BLOCK.min(tokens - first)))
    }

    /// The heads of queries that read this head of keys.
    fn heads(&self) -> std::ops::Range<usize> {
        let group = self.shape.heads / self.shape.kv_heads;
        self.kv_head * group..(self.kv_head + 1) * group
    }
}

/// `out = a b` `[m, n]` on this thread; `sizes` are m, n, k.
fn product(isa: Isa, [m, n, k]: [usize; 3], a: Matrix<f32>, b: Matrix<f32>, out: &mut [f32]) {
    static ALONE: OnceLock<ThreadPool> = OnceLock::new();
    let pool = ALONE.get_or_init(|| ThreadPool::new(1));
    matmul_f32(isa, pool, MatmulShape { m, n, k }, a, b, MatrixMut::row_major(out, n));
}

/// Runs `f` for every text and head of keys.
fn tasks(
    kernels: Kernels,
    pool: &ThreadPool,
    shape: CausalShape,
    qkv: &[f32],
    cos: &[f32],
    sin: &[f32],
    f: impl Fn(Task) + Sync,
) {
    let scale = 1. / (shape.head_dim as f32).sqrt();
    pool.run(shape.batch * shape.kv_heads, &|i| {
        let (text, kv_head) = (i / shape.kv_heads, i % shape.kv_heads);
        f(Task { kernels, shape, qkv, cos, sin, text, kv_head, scale });
    });
}

/// Causal attention of rotated queries and keys: `qkv` `[batch * tokens, row]` as they come from a projection, `cos` and
/// `sin` `[tokens, head_dim / 2]`, `out` `[batch * tokens, heads * head_dim]`.
///
/// # Panics
/// When the lengths contradict each other.
pub fn causal_attention(
    kernels: Kernels,
    pool: &ThreadPool,
    shape: CausalShape,
    qkv: &[f32],
    cos: &[f32],
    sin: &[f32],
    out: &mut [f32],
) {
    check(&shape, qkv, cos, sin, out);
    if out.is_empty() {
        return;
    }
    let (width, to) = (shape.head_dim, Parts::new(out));
    tasks(kernels, pool, shape, qkv, cos, sin, |task| {
        let (isa, keys, values) = (kernels.isa, task.transposed(&task.keys()), task.values());
        let mut scores = vec![0.; BLOCK.min(shape.tokens) * shape.tokens];
        let mut mixed = vec![0.; BLOCK.min(shape.tokens) * width];
        for head in task.heads() {
            let queries = task.rotated(head);
            for (first, m) in task.blocks() {
                let (n, mixed) = (first + m, &mut mixed[..m * width]);
                let scores = &mut scores[..m * n];
                task.weights(first, m, &queries, &keys, scores);
                product(isa, [m, width, n], Matrix::row_major(scores, n), Matrix::row_major(&values, width), mixed);
                for (i, mixed) in mixed.chunks_exact(width).enumerate() {
                    let row = task.text * shape.tokens + first + i;
                    // SAFETY: each task writes its own heads of its own text.
                    let out = unsafe { to.part(row * shape.out_row() + head * width, width) };
                    out.copy_from_slice(mixed);
                }
            }
        }
    });
}

/// Derivative of [`causal_attention`] by `qkv`: `grad` `[batch * tokens, heads * head_dim]`, `out` as `qkv`. With `p` the
/// weights, computed again: `dv = p^T grad`, `dp = grad v^T`, `ds = p (dp - sum(p dp))`, `dq = ds k`, `dk = ds^T q`, the last
/// two scaled and rotated back.
///
/// # Panics
/// When the lengths contradict each other.
pub fn causal_attention_backward(
    kernels: Kernels,
    pool: &ThreadPool,
    shape: CausalShape,
    grad: &[f32],
    qkv: &[f32],
    cos: &[f32],
    sin: &[f32],
    out: &mut [f32],
) {
    check(&shape, qkv, cos, sin, grad);
    assert_eq!(qkv.len(), out.len(), "length of out");
    if out.is_empty() {
        return;
    }
    let (width, tokens, to) = (shape.head_dim, shape.tokens, Parts::new(out));
    let back: Vec<f32> = sin.iter().map(|x| -x).collect();
    tasks(kernels, pool, shape, qkv, cos, sin, |task| {
        let (isa, keys) = (kernels.isa, task.keys());
        let (key_columns, value_columns) = (task.transposed(&keys), task.transposed(&task.values()));
        let block = BLOCK.min(tokens);
        let (mut weights, mut slopes) = (vec![0.; block * tokens], vec![0.; block * tokens]);
        let (mut d_queries, mut part) = (vec![0.; tokens * width], vec![0.; tokens * width]);
        let (mut d_keys, mut d_values) = (vec![0.; tokens * width], vec![0.; tokens * width]);
        let write = |head: usize, x: &[f32]| {
            for (t, x) in x.chunks_exact(width).enumerate() {
                // SAFETY: each task writes its own heads of its own text.
                unsafe { to.part(task.at(t, head), width) }.copy_from_slice(x);
            }
        };
        for head in task.heads() {
            let queries = task.rotated(head);
            for (first, m) in task.blocks() {
                let n = first + m;
                let (weights, slopes, part) = (&mut weights[..m * n], &mut slopes[..m * n], &mut part[..n * width]);
                let start = (task.text * tokens + first) * shape.out_row() + head * width;
                let grad = Matrix { data: grad, start, row_stride: shape.out_row() as isize, col_stride: 1 };
                task.weights(first, m, &queries, &key_columns, weights);
                product(isa, [n, width, m], Matrix::row_major(weights, n).t(), grad, part);
                add(isa, &mut d_values[..n * width], part);
                let values = Matrix::row_major(&value_columns, tokens + PAD);
                product(isa, [m, n, width], grad, values, slopes);
                let scale = task.scale;
                entered!(
                    isa,
                    for (p, dp) in weights.chunks_exact(n).zip(slopes.chunks_exact_mut(n)) {
                        let [along] = super::sums(n, inlined!(|i| [p[i] * dp[i]]));
                        for i in 0..n {
                            dp[i] = p[i] * (dp[i] - along) * scale;
                        }
                    }
                );
                let ds = Matrix::row_major(slopes, n);
                let dq = &mut d_queries[first * width..][..m * width];
                product(isa, [m, width, n], ds, Matrix::row_major(&keys, width), dq);
                let q = Matrix { start: first * width, ..Matrix::row_major(&queries, width) };
                product(isa, [n, width, m], ds.t(), q, part);
                add(isa, &mut d_keys[..n * width], part);
            }
            kernels.float.rope(&mut d_queries, 1, width / 2, cos, &back);
            write(head, &d_queries);
        }
        kernels.float.rope(&mut d_keys, 1, width / 2, cos, &back);
        write(shape.heads + task.kv_head, &d_keys);
        write(shape.heads + shape.kv_heads + task.kv_head, &d_values);
    });
}

fn add(isa: Isa, sum: &mut [f32], x: &[f32]) {
    entered!(isa, sum.iter_mut().zip(x).for_each(inlined!(|(sum, x)| *sum += x)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.
        };
        (0..n).map(|_| next()).collect()
    }

    /// The formula, in f64.
    fn plain(shape: CausalShape, qkv: &[f64], cos: &[f32], sin: &[f32]) -> Vec<f64> {
        let CausalShape { batch, tokens, heads, kv_heads, head_dim: width } = shape;
        let half = width / 2;
        let turned = |text: usize, t: usize, head: usize| -> Vec<f64> {
            let x = &qkv[(text * tokens + t) * shape.row() + head * width..][..width];
            let angle = |i: usize| (f64::from(cos[t * half + i]), f64::from(sin[t * half + i]));
            let low = (0..half).map(|i| x[i] * angle(i).0 - x[half + i] * angle(i).1);
            let high = (0..half).map(|i| x[half + i] * angle(i).0 + x[i] * angle(i).1);
            low.chain(high).collect()
        };
        let mut out = vec![0.; batch * tokens * heads * width];
        for (text, head, t) in
            (0..batch * heads * tokens).map(|i| (i / (heads * tokens), i / tokens % heads, i % tokens))
        {
            let kv = head / (heads / kv_heads);
            let q = turned(text, t, head);
            let scores: Vec<f64> = (0..=t)
                .map(|s| {
                    let k = turned(text, s, heads + kv);
                    (q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (width as f64).sqrt()).exp()
                })
                .collect();
            let sum: f64 = scores.iter().sum();
            for (s, score) in scores.iter().enumerate() {
                let value = (text * tokens + s) * shape.row() + (heads + kv_heads + kv) * width;
                for i in 0..width {
                    out[(text * tokens + t) * heads * width + head * width + i] += score / sum * qkv[value + i];
                }
            }
        }
        out
    }

    #[test]
    fn equals_the_formula_and_its_finite_differences() {
        for (batch, tokens, heads, kv_heads, head_dim) in [(1, 1, 1, 1, 2), (2, 70, 4, 2, 8), (1, 5, 3, 1, 6)] {
            let shape = CausalShape { batch, tokens, heads, kv_heads, head_dim };
            let qkv = numbers(batch * tokens * shape.row(), 1);
            let angles = numbers(tokens * head_dim / 2, 2);
            let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
            let grad = numbers(batch * tokens * shape.out_row(), 3);
            let wide: Vec<f64> = qkv.iter().map(|&x| x.into()).collect();
            let expected = plain(shape, &wide, &cos, &sin);
            let value = |qkv: &[f64]| -> f64 {
                plain(shape, qkv, &cos, &sin).iter().zip(&grad).map(|(x, &g)| x * f64::from(g)).sum()
            };
            for isa in Isa::available() {
                let kernels = Kernels::for_isa(isa).unwrap();
                for threads in [1, 3] {
                    let pool = ThreadPool::new(threads);
                    let (mut out, mut d) = (vec![0.; expected.len()], vec![0.; qkv.len()]);
                    causal_attention(kernels, &pool, shape, &qkv, &cos, &sin, &mut out);
                    for (x, y) in out.iter().zip(&expected) {
                        assert!((f64::from(*x) - y).abs() < 1e-5, "{isa} {shape:?}: {x} {y}");
                    }
                    causal_attention_backward(kernels, &pool, shape, &grad, &qkv, &cos, &sin, &mut d);
                    for at in (0..qkv.len()).step_by((qkv.len() / 60).max(1)) {
                        let (mut low, mut high) = (wide.clone(), wide.clone());
                        low[at] -= 1e-5;
                        high[at] += 1e-5;
                        let slope = (value(&high) - value(&low)) / 2e-5;
                        assert!((f64::from(d[at]) - slope).abs() < 2e-5, "{isa} {shape:?} {at}: {} {slope}", d[at]);
                    }
                }
            }
        }
    }
}
