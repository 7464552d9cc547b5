//! Reductions and norms of contiguous rows.

use super::Moments;
use super::elementwise::vectors;
use crate::float::simd::{MAX_LANES, Simd, inlined};

/// Numbers that are joined in f32 before f64 takes over: few enough that no lane adds more than 64 of them, and that a
/// second pass finds them in the nearest cache.
const BLOCK: usize = 4096;

/// Joins `f` of the vectors of x in eight accumulators; `neutral` changes nothing, `padding` fills the last vector.
#[inline(always)]
fn fold<S: Simd>(
    s: S,
    x: &[f32],
    neutral: f32,
    padding: f32,
    f: impl Fn(S::F) -> S::F,
    join: impl Fn(S::F, S::F) -> S::F,
) -> S::F {
    let mut acc = [s.splat(neutral); 8];
    let step = 8 * S::LANES;
    let whole = x.len() / step * step;
    for i in (0..whole).step_by(step) {
        for (j, acc) in acc.iter_mut().enumerate() {
            // SAFETY: i + 8 LANES <= whole.
            *acc = join(f(unsafe { s.load(x.as_ptr().add(i + j * S::LANES)) }), *acc);
        }
    }
    for (chunk, acc) in x[whole..].chunks(S::LANES).zip(&mut acc) {
        let mut lanes = [padding; MAX_LANES];
        lanes[..chunk.len()].copy_from_slice(chunk);
        // SAFETY: the array has LANES elements.
        *acc = join(f(unsafe { s.load(lanes.as_ptr()) }), *acc);
    }
    let four = [join(acc[0], acc[4]), join(acc[1], acc[5]), join(acc[2], acc[6]), join(acc[3], acc[7])];
    join(join(four[0], four[2]), join(four[1], four[3]))
}

/// See [`super::DenseKernel::sum`].
#[inline(always)]
pub(super) fn sum<S: Simd>(s: S, x: &[f32]) -> f64 {
    sum_of_blocks(s, x, BLOCK)
}

/// The sum of sums of `block` numbers, which are in f32.
#[inline(always)]
fn sum_of_blocks<S: Simd>(s: S, x: &[f32], block: usize) -> f64 {
    let mut total = 0.0;
    // No closure here: one that is not `inlined!` would be compiled without the wider instructions.
    for x in x.chunks(block) {
        total += s.sum(add_up(s, x)) as f64;
    }
    total
}

#[inline(always)]
fn add_up<S: Simd>(s: S, x: &[f32]) -> S::F {
    fold(s, x, 0.0, 0.0, inlined!(|v| v), inlined!(|a, b| s.add(a, b)))
}

/// See [`super::DenseKernel::extreme`].
#[inline(always)]
pub(super) fn extreme<S: Simd>(s: S, largest: bool, x: &[f32]) -> f32 {
    let mut lanes = [0.0; MAX_LANES];
    let found = if largest {
        fold(s, x, f32::NEG_INFINITY, f32::NEG_INFINITY, inlined!(|v| v), inlined!(|a, b| s.maximum(a, b)))
    } else {
        fold(s, x, f32::INFINITY, f32::INFINITY, inlined!(|v| v), inlined!(|a, b| s.minimum(a, b)))
    };
    // SAFETY: the array has LANES elements.
    unsafe { s.store(found, lanes.as_mut_ptr()) };
    lanes[1..S::LANES].iter().fold(lanes[0], |a, &b| further(largest, a, b))
}

/// The larger (or smaller), NaN where one is.
#[inline(always)]
pub(super) fn further(largest: bool, a: f32, b: f32) -> f32 {
    let first = if largest { a > b } else { a < b };
    if first || a.is_nan() { a } else { b }
}

/// See [`super::DenseKernel::moments`].
#[inline(always)]
pub(super) fn moments<S: Simd>(s: S, x: &[f32]) -> Moments {
    let mut all = Moments::default();
    for x in x.chunks(BLOCK) {
        let (count, sum) = (x.len() as f64, s.sum(add_up(s, x)) as f64);
        let near = (sum / count) as f32;
        let square = squares_from(s, x, near) as f64;
        // The mean is rounded: what it is off by, squared, is too much.
        let off = sum / count - near as f64;
        let squares = if square.is_nan() { square } else { (square - off * off * count).max(0.0) };
        all = all.join(Moments { count, sum, squares });
    }
    all
}

/// The sum of squared differences from `mean`.
#[inline(always)]
fn squares_from<S: Simd>(s: S, x: &[f32], mean: f32) -> f32 {
    let near = s.splat(mean);
    s.sum(fold(s, x, 0.0, mean, inlined!(|v| s.mul(s.sub(v, near), s.sub(v, near))), inlined!(|a, b| s.add(a, b))))
}

/// See [`super::DenseKernel::softmax`]; rows are not empty.
#[inline(always)]
pub(super) fn softmax<S: Simd>(s: S, x: &[f32], columns: usize, logarithm: bool, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        // A NaN may be lost here; it comes back through the sum.
        let top = fold(s, x, f32::NEG_INFINITY, f32::NEG_INFINITY, inlined!(|v| v), inlined!(|a, b| s.max(a, b)));
        let top = s.splat(s.largest(top));
        if logarithm {
            let (none, nothing) = (0.0, f32::NEG_INFINITY);
            let mut sum = 0.0;
            for x in x.chunks(BLOCK) {
                let part = fold(s, x, none, nothing, inlined!(|v| s.exp(s.sub(v, top))), inlined!(|a, b| s.add(a, b)));
                sum += s.sum(part) as f64;
            }
            let log = s.splat(sum.ln() as f32);
            vectors(s, x, out, inlined!(|v| s.sub(s.sub(v, top), log)));
        } else {
            vectors(s, x, out, inlined!(|v| s.exp(s.sub(v, top))));
            // Errors of the sum of numbers of one sign may have one sign too: f32 adds eight in a lane of an accumulator.
            let scale = s.splat((1.0 / sum_of_blocks(s, out, 64 * S::LANES)) as f32);
            scale_by(s, out, scale);
        }
    }
}

#[inline(always)]
fn scale_by<S: Simd>(s: S, x: &mut [f32], scale: S::F) {
    let (whole, rest) = x.split_at_mut(x.len() / S::LANES * S::LANES);
    for lanes in whole.chunks_exact_mut(S::LANES) {
        // SAFETY: LANES elements.
        unsafe { s.store(s.mul(s.load(lanes.as_ptr()), scale), lanes.as_mut_ptr()) };
    }
    let mut lanes = [0.0; MAX_LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    // SAFETY: the array has LANES elements.
    unsafe { s.store(s.mul(s.load(lanes.as_ptr()), scale), lanes.as_mut_ptr()) };
    rest.copy_from_slice(&lanes[..rest.len()]);
}

/// See [`super::DenseKernel::layer_norm`]; weight and bias have `columns` numbers or none.
#[inline(always)]
pub(super) fn layer_norm<S: Simd>(
    s: S,
    x: &[f32],
    columns: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f64,
    out: &mut [f32],
) {
    for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        let all = moments(s, x);
        let mean = (all.sum / all.count) as f32;
        let scale = (1.0 / (all.squares / all.count + eps).sqrt()) as f32;
        if weight.is_empty() && bias.is_empty() {
            for i in 0..columns {
                out[i] = (x[i] - mean) * scale;
            }
        } else if bias.is_empty() {
            for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *out = (x - mean) * scale * w;
            }
        } else if weight.is_empty() {
            for ((out, &x), &b) in out.iter_mut().zip(x).zip(bias) {
                *out = (x - mean) * scale + b;
            }
        } else {
            for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * scale * w + b;
            }
        }
    }
}
