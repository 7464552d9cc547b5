//! Causal attention over a cache, with the softmax computed as the keys go by (as in FlashAttention, arXiv 2205.14135).
//!
//! A task has some query heads of one key head, for some tokens: at most [`QUERIES`] queries. Both paths go over the
//! keys in blocks and keep, for each query, the largest score so far, the sum of the exponentials below it and the
//! weighted sum of the values.
//! - Prompt: scores of a block are a product K Q^T with the queries along the lanes, so that their softmax needs no
//!   reduction over lanes; the values are a product P V. Both are register tiles.
//! - One token: each key is read once, as it lies in the cache, and the context is split over the threads.

use std::mem::MaybeUninit;

use super::simd::{Element, F16, MAX_LANES, Simd, inlined};
use super::{AttentionShape, KvCache, MAX_HEAD_DIM};
use crate::ThreadPool;
use crate::threads::Parts;

/// Queries of a task: a multiple of two vectors.
const QUERIES: usize = 64;
/// Query heads of a task.
const HEADS: usize = 16;
/// Keys of a block.
const KEYS: usize = 64;
/// Numbers of partial results when a context is split.
const PARTIAL: usize = 1 << 16;
/// Splitting pays from this many keys.
const SPLIT: usize = 128;
/// What the scores of keys in the future are lowered by, for each position that they are ahead.
const MASK: f32 = 1e30;

/// See [`super::FloatKernel::attention`].
pub(super) fn attention<S: Simd>(
    s: S,
    pool: &ThreadPool,
    shape: &AttentionShape,
    q: &[f32],
    cache: KvCache<'_>,
    out: &mut [f32],
) {
    shape.check(q, &cache, out);
    match cache {
        KvCache::F32 { keys, values } => typed(s, pool, shape, q, keys, values, out),
        KvCache::F16 { keys, values } => typed(s, pool, shape, q, F16::slice(keys), F16::slice(values), out),
    }
}

fn typed<S: Simd, T: Element>(
    s: S,
    pool: &ThreadPool,
    shape: &AttentionShape,
    q: &[f32],
    keys: &[T],
    values: &[T],
    out: &mut [f32],
) {
    let head_len = shape.capacity * shape.head_dim;
    // The heads of a group, in parts of at most HEADS.
    let parts = shape.group().div_ceil(HEADS);
    let heads_of = |task: usize| {
        let (kv_head, part) = (task / parts, task % parts);
        let first = kv_head * shape.group() + part * HEADS;
        let cached = kv_head * head_len..(kv_head + 1) * head_len;
        (first, (shape.group() - part * HEADS).min(HEADS), &keys[cached.clone()], &values[cached])
    };
    let tasks = shape.kv_heads * parts;
    if shape.tokens == 1 && shape.head_dim.is_multiple_of(S::LANES) {
        decode(s, pool, shape, q, tasks, &heads_of, out);
        return;
    }
    let block = QUERIES / shape.group().min(HEADS); // tokens of a task
    let blocks = shape.tokens.div_ceil(block);
    let out = Parts::new(out);
    pool.run(blocks * tasks, &|task| {
        let (heads, count, keys, values) = heads_of(task % tasks);
        // The last tokens have the most keys: they come first.
        let token = (blocks - 1 - task / tasks) * block;
        let tokens = block.min(shape.tokens - token);
        s.enter(inlined!(|| prompt(s, shape, q, token..token + tokens, heads..heads + count, keys, values, &out)));
    });
}

/// Scratch of a prompt task, uninitialized; `[rows][columns]` with the columns padded to vectors.
#[repr(C, align(64))]
struct Scratch {
    /// Queries, scaled: `[head_dim][QUERIES]`.
    q: [f32; MAX_HEAD_DIM * QUERIES],
    /// `[KEYS][head_dim]`.
    keys: [f32; KEYS * MAX_HEAD_DIM],
    /// `[KEYS][head_dim]`.
    values: [f32; KEYS * MAX_HEAD_DIM],
    /// Scores, then their exponentials: `[KEYS][QUERIES]`.
    scores: [f32; KEYS * QUERIES],
    /// Weighted sums of values: `[QUERIES][head_dim]`.
    sums: [f32; QUERIES * MAX_HEAD_DIM],
}

/// Queries of `tokens` and `heads` against the keys and values `[capacity, head_dim]` that they share.
#[inline(always)]
fn prompt<S: Simd, T: Element>(
    s: S,
    shape: &AttentionShape,
    q: &[f32],
    tokens: std::ops::Range<usize>,
    heads: std::ops::Range<usize>,
    keys: &[T],
    values: &[T],
    out: &Parts<'_, f32>,
) {
    let dim = shape.head_dim;
    let wide = dim.next_multiple_of(S::LANES);
    let count = tokens.len() * heads.len();
    let lanes = count.next_multiple_of(2 * S::LANES);
    let at = |i: usize| ((tokens.start + i / heads.len()) * shape.heads + heads.start + i % heads.len()) * dim;
    // The position of a query; the padding has that of the last.
    let mut position = [0.0f32; QUERIES];
    for (i, position) in position.iter_mut().enumerate() {
        *position = (shape.start + tokens.start + i.min(count - 1) / heads.len()) as f32;
    }
    let mut top = [f32::NEG_INFINITY; QUERIES];
    let mut total = [0.0f32; QUERIES];
    let mut keep = [0.0f32; QUERIES];
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let scratch = scratch.as_mut_ptr();
    // SAFETY: only addresses are taken.
    let (qt, k, v, scores, sums) = unsafe {
        let (qt, k, v) = (&raw mut (*scratch).q, &raw mut (*scratch).keys, &raw mut (*scratch).values);
        let (scores, sums) = (&raw mut (*scratch).scores, &raw mut (*scratch).sums);
        (qt.cast::<f32>(), k.cast::<f32>(), v.cast::<f32>(), scores.cast::<f32>(), sums.cast::<f32>())
    };
    let scale = 1.0 / (dim as f32).sqrt();
    for i in 0..lanes {
        let query = if i < count { &q[at(i)..][..dim] } else { &[] };
        for d in 0..dim {
            // SAFETY: d < dim <= MAX_HEAD_DIM, i < lanes <= QUERIES.
            unsafe { qt.add(d * QUERIES + i).write(query.get(d).map_or(0.0, |q| q * scale)) };
        }
    }
    // SAFETY: lanes * wide numbers of the array; zeros are f32.
    unsafe { sums.write_bytes(0, lanes * wide) };

    let positions = shape.start + tokens.end;
    for first in (0..positions).step_by(KEYS) {
        let height = KEYS.min(positions - first);
        // SAFETY: height <= KEYS rows of dim <= wide <= MAX_HEAD_DIM columns; all that is read has been written: q, keys
        // and values above and here, scores by the first product.
        unsafe {
            pack(s, &keys[first * dim..][..height * dim], dim, k, wide);
            pack(s, &values[first * dim..][..height * dim], dim, v, wide);
            // scores [height][lanes] = keys [height][dim] q [dim][lanes]
            product(s, (height, lanes, dim), (k, wide, 1), (qt, QUERIES), (scores, QUERIES), None);
        }
        for i in (0..lanes).step_by(S::LANES) {
            // SAFETY: i + LANES <= lanes <= QUERIES; height <= KEYS rows that were just written.
            unsafe {
                if first + height > shape.start + tokens.start + 1 {
                    let position = s.load(position.as_ptr().add(i));
                    for n in 0..height {
                        let at = scores.add(n * QUERIES + i);
                        let ahead = s.min(s.splat(0.0), s.sub(position, s.splat((first + n) as f32)));
                        s.store(s.fma(ahead, s.splat(MASK), s.load(at)), at);
                    }
                }
                let before = s.load(top.as_ptr().add(i));
                let mut max = before;
                for n in 0..height {
                    max = s.max(max, s.load(scores.add(n * QUERIES + i)));
                }
                let factor = s.exp(s.sub(before, max));
                let mut sum = s.mul(s.load(total.as_ptr().add(i)), factor);
                for n in 0..height {
                    let at = scores.add(n * QUERIES + i);
                    let p = s.exp(s.sub(s.load(at), max));
                    s.store(p, at);
                    sum = s.add(sum, p);
                }
                s.store(max, top.as_mut_ptr().add(i));
                s.store(sum, total.as_mut_ptr().add(i));
                s.store(factor, keep.as_mut_ptr().add(i));
            }
        }
        // SAFETY: as above. sums [lanes][wide] = keep sums + scores^T [lanes][height] values [height][wide]
        unsafe { product(s, (lanes, wide, height), (scores, 1, QUERIES), (v, wide), (sums, wide), Some(&keep)) };
    }
    for i in 0..count {
        // SAFETY: each task has its own tokens and heads; the row of `sums` was written.
        let (out, sums) = unsafe { (out.part(at(i), dim), std::slice::from_raw_parts(sums.add(i * wide), dim)) };
        let scale = 1.0 / total[i];
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum * scale;
        }
    }
}

/// Rows of `dim` elements to rows of `wide` f32, padded with zeros.
///
/// # Safety
/// `to` must have room for the rows.
#[inline(always)]
unsafe fn pack<S: Simd, T: Element>(s: S, from: &[T], dim: usize, to: *mut f32, wide: usize) {
    for (n, row) in from.chunks_exact(dim).enumerate() {
        let whole = dim / S::LANES * S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            // SAFETY: i + LANES <= dim.
            unsafe { s.store(T::load(s, row.as_ptr().add(i)), to.add(n * wide + i)) };
        }
        for i in whole..wide {
            // SAFETY: i < wide.
            unsafe { to.add(n * wide + i).write(row.get(i).map_or(0.0, |v| v.widen())) };
        }
    }
}

/// `C [m, n] = A [m, k] B [k, n]`, or `keep[row] * C + A B`; n is a multiple of the lanes.
///
/// A is given with the strides of m and k, B and C with those of their rows.
///
/// # Safety
/// The matrices must be readable, C writable, `keep` `[m]`.
#[inline(always)]
unsafe fn product<S: Simd, T: Element>(
    s: S,
    (m, n, k): (usize, usize, usize),
    (a, a_m, a_k): (*const f32, usize, usize),
    (b, b_row): (*const T, usize),
    (c, c_row): (*mut f32, usize),
    keep: Option<&[f32]>,
) {
    let mut column = 0;
    while column < n {
        let two = n - column >= 2 * S::LANES;
        let mut row = 0;
        while row < m {
            // SAFETY: the tile is within the matrices.
            unsafe {
                let a = (a.add(row * a_m), a_m, a_k);
                let (b, c) = ((b.add(column), b_row), (c.add(row * c_row + column), c_row));
                let keep = keep.map(|keep| keep.as_ptr().add(row));
                row += match (two, m - row) {
                    (true, 8..) if S::MANY_REGISTERS => tile::<S, T, 8, 2>(s, k, a, b, c, keep),
                    (true, 4..) => tile::<S, T, 4, 2>(s, k, a, b, c, keep),
                    (true, _) => tile::<S, T, 1, 2>(s, k, a, b, c, keep),
                    (false, 4..) => tile::<S, T, 4, 1>(s, k, a, b, c, keep),
                    (false, _) => tile::<S, T, 1, 1>(s, k, a, b, c, keep),
                };
            }
        }
        column += if two { 2 * S::LANES } else { S::LANES };
    }
}

/// A tile of M rows and N vectors of [`product`]; gives M.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn tile<S: Simd, T: Element, const M: usize, const N: usize>(
    s: S,
    k: usize,
    (a, a_m, a_k): (*const f32, usize, usize),
    (b, b_row): (*const T, usize),
    (c, c_row): (*mut f32, usize),
    keep: Option<*const f32>,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[s.splat(0.0); N]; M];
        for i in 0..k {
            let mut row = [s.splat(0.0); N];
            for j in 0..N {
                row[j] = T::load(s, b.add(i * b_row + j * S::LANES));
            }
            for r in 0..M {
                let a = s.splat(*a.add(r * a_m + i * a_k));
                for j in 0..N {
                    acc[r][j] = s.fma(a, row[j], acc[r][j]);
                }
            }
        }
        for r in 0..M {
            for j in 0..N {
                let c = c.add(r * c_row + j * S::LANES);
                let sum = match keep {
                    Some(keep) => s.fma(s.splat(*keep.add(r)), s.load(c), acc[r][j]),
                    None => acc[r][j],
                };
                s.store(sum, c);
            }
        }
    }
    M
}

/// One token: head_dim is a multiple of the lanes.
fn decode<'a, S: Simd, T: Element + 'a>(
    s: S,
    pool: &ThreadPool,
    shape: &AttentionShape,
    q: &[f32],
    tasks: usize,
    heads_of: &(impl Fn(usize) -> (usize, usize, &'a [T], &'a [T]) + Sync),
    out: &mut [f32],
) {
    let (dim, positions) = (shape.head_dim, shape.start + 1);
    // Enough parts of the context for two tasks a thread, as far as they are long and their results fit.
    let wanted = (4 * pool.threads()).div_ceil(tasks).min(positions.div_ceil(SPLIT));
    let splits = wanted.min(PARTIAL / (shape.heads * (dim + 2)));
    if splits <= 1 {
        let out = Parts::new(out);
        pool.run(tasks, &|task| {
            let (first, count, keys, values) = heads_of(task);
            // SAFETY: each task has its own heads.
            let out = unsafe { out.part(first * dim, count * dim) };
            let (keys, values) = (&keys[..positions * dim], &values[..positions * dim]);
            let (_, totals) =
                s.enter(inlined!(|| one_token(s, &q[first * dim..][..count * dim], dim, keys, values, out)));
            for (head, total) in out.chunks_exact_mut(dim).zip(totals) {
                head.iter_mut().for_each(|v| *v /= total);
            }
        });
        return;
    }
    let length = positions.div_ceil(splits);
    let splits = positions.div_ceil(length);
    // Of each split and head: the sums of values [dim], the largest score, the sum of exponentials.
    let record = dim + 2;
    let mut partial = MaybeUninit::<[f32; PARTIAL]>::uninit();
    let (start, len) = (partial.as_mut_ptr().cast::<f32>(), splits * shape.heads * record);
    // SAFETY: len <= PARTIAL (by the choice of `splits`), and zeros are f32.
    let partial = unsafe {
        start.write_bytes(0, len);
        std::slice::from_raw_parts_mut(start, len)
    };
    let parts = Parts::new(partial);
    pool.run(tasks * splits, &|task| {
        let (split, (first, count, keys, values)) = (task % splits, heads_of(task / splits));
        let used = split * length * dim..((split + 1) * length).min(positions) * dim;
        let mut sums = [0.0f32; HEADS * MAX_HEAD_DIM];
        let sums = &mut sums[..count * dim];
        let (keys, values) = (&keys[used.clone()], &values[used]);
        let (tops, totals) =
            s.enter(inlined!(|| one_token(s, &q[first * dim..][..count * dim], dim, keys, values, sums)));
        for (head, sums) in sums.chunks_exact(dim).enumerate() {
            // SAFETY: each task has its own split and heads.
            let part = unsafe { parts.part((split * shape.heads + first + head) * record, record) };
            part[..dim].copy_from_slice(sums);
            (part[dim], part[dim + 1]) = (tops[head], totals[head]);
        }
    });
    for (head, out) in out.chunks_exact_mut(dim).enumerate() {
        let parts = || (0..splits).map(|split| &partial[(split * shape.heads + head) * record..][..record]);
        let top = parts().map(|part| part[dim]).fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = parts().map(|part| part[dim + 1] * (part[dim] - top).exp()).sum();
        out.fill(0.0);
        for part in parts() {
            let share = (part[dim] - top).exp() / total;
            for (out, sum) in out.iter_mut().zip(part) {
                *out += share * sum;
            }
        }
    }
}

/// Heads q `[up to HEADS, dim]` of one token against keys and values `[positions, dim]`.
///
/// Writes the weighted sums of values, gives each head's largest score and sum of exponentials.
#[inline(always)]
fn one_token<S: Simd, T: Element>(
    s: S,
    q: &[f32],
    dim: usize,
    keys: &[T],
    values: &[T],
    sums: &mut [f32],
) -> ([f32; HEADS], [f32; HEADS]) {
    let heads = q.len() / dim;
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores = [0.0f32; HEADS * KEYS];
    let (mut top, mut total, mut keep) = ([f32::NEG_INFINITY; HEADS], [0.0f32; HEADS], [0.0f32; HEADS]);
    sums.fill(0.0);
    for (keys, values) in keys.chunks(KEYS * dim).zip(values.chunks(KEYS * dim)) {
        let height = keys.len() / dim;
        for n in 0..height {
            let key = &keys[n * dim..][..dim];
            let mut head = 0;
            while head < heads {
                let (query, scores) = (&q[head * dim..], &mut scores[head * KEYS + n..]);
                // SAFETY: the heads from here on have dim numbers each, a multiple of the lanes.
                head += unsafe {
                    match heads - head {
                        4.. => score::<S, T, 4>(s, query, key, scale, scores),
                        _ => score::<S, T, 1>(s, query, key, scale, scores),
                    }
                };
            }
        }
        for head in 0..heads {
            let scores = &mut scores[head * KEYS..][..KEYS];
            // Whole vectors: what is beyond the last key counts for nothing.
            scores[height..].fill(f32::NEG_INFINITY);
            // SAFETY: KEYS is a multiple of the lanes.
            unsafe {
                let mut max = s.splat(top[head]);
                for i in (0..KEYS).step_by(S::LANES) {
                    max = s.max(max, s.load(scores.as_ptr().add(i)));
                }
                let max = s.largest(max);
                let mut sum = s.splat(0.0);
                for i in (0..KEYS).step_by(S::LANES) {
                    let p = s.exp(s.sub(s.load(scores.as_ptr().add(i)), s.splat(max)));
                    s.store(p, scores.as_mut_ptr().add(i));
                    sum = s.add(sum, p);
                }
                let mut factor = [0.0; MAX_LANES];
                s.store(s.exp(s.splat(top[head] - max)), factor.as_mut_ptr());
                (top[head], keep[head]) = (max, factor[0]);
                total[head] = total[head] * factor[0] + s.sum(sum);
            }
        }
        // SAFETY: heads <= HEADS rows of `sums`, height <= KEYS; dim is a multiple of the lanes.
        // sums [heads][dim] = keep sums + scores [heads][height] values [height][dim]
        unsafe {
            let a = (scores.as_ptr(), KEYS, 1);
            product(s, (heads, dim, height), a, (values.as_ptr(), dim), (sums.as_mut_ptr(), dim), Some(&keep));
        }
    }
    (top, total)
}

/// `scores[h * KEYS] = scale * q[h] . key` of H heads; gives H.
///
/// # Safety
/// q must have H heads of the length of the key, a multiple of the lanes.
#[inline(always)]
unsafe fn score<S: Simd, T: Element, const H: usize>(
    s: S,
    q: &[f32],
    key: &[T],
    scale: f32,
    scores: &mut [f32],
) -> usize {
    let mut acc = [s.splat(0.0); H];
    for i in (0..key.len()).step_by(S::LANES) {
        // SAFETY: i + LANES <= dim.
        unsafe {
            let key_lanes = T::load(s, key.as_ptr().add(i));
            for h in 0..H {
                acc[h] = s.fma(s.load(q.as_ptr().add(h * key.len() + i)), key_lanes, acc[h]);
            }
        }
    }
    for h in 0..H {
        scores[h * KEYS] = s.sum(acc[h]) * scale;
    }
    H
}
