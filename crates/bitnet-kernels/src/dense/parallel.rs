//! Dense operations on whole tensors, over the threads of a pool.

use super::{Binary, DenseKernel, Half, Moments};
use crate::ThreadPool;
use crate::lengths::elements;
use crate::threads::Parts;
use bitnet_device::backend::UnaryOp;

/// Numbers that are worth a task of their own.
const TASK: usize = 32 << 10;
/// Rows of a part of a long reduction are a multiple of this.
const ROWS: usize = 64;
/// Columns of a part of one.
const COLUMNS: usize = 512;
/// Numbers of a part of one.
const PART: usize = 256 << 10;
/// Results larger than this are written past the caches, where that is possible.
const STREAM: usize = 24 << 20;

/// Calls `f(start, length)` for parts of `len` that are multiples of `unit`.
fn split(pool: &ThreadPool, len: usize, unit: usize, f: impl Fn(usize, usize) + Sync) {
    if len <= TASK || pool.threads() == 1 {
        return f(0, len);
    }
    let parts = (len / TASK).clamp(1, 4 * pool.threads());
    let part = len.div_ceil(parts).next_multiple_of(unit);
    pool.run(len.div_ceil(part), &|task| f(task * part, part.min(len - task * part)));
}

/// `out = op(x)`.
pub fn unary(kernel: &dyn DenseKernel, pool: &ThreadPool, op: UnaryOp, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    let to = Parts::new(out);
    // SAFETY: the parts are disjoint.
    split(pool, x.len(), 16, |start, len| kernel.unary(op, &x[start..start + len], unsafe { to.part(start, len) }));
}

/// `x = op(x)`.
pub fn unary_assign(kernel: &dyn DenseKernel, pool: &ThreadPool, op: UnaryOp, x: &mut [f32]) {
    let (len, x) = (x.len(), Parts::new(x));
    // SAFETY: the parts are disjoint.
    split(pool, len, 16, |start, len| kernel.unary_assign(op, unsafe { x.part(start, len) }));
}

/// `out = op(a, b)`; b is repeated as in [`DenseKernel::binary`].
pub fn binary(kernel: &dyn DenseKernel, pool: &ThreadPool, op: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert_eq!(a.len(), out.len());
    let to = Parts::new(out);
    let f = |start, len, b: &[f32]| {
        // SAFETY: the parts are disjoint.
        kernel.binary(op, &a[start..start + len], b, unsafe { to.part(start, len) });
    };
    repeated(pool, a.len(), b, f);
}

/// `a = op(a, b)`; b is repeated as in [`DenseKernel::binary`].
pub fn binary_assign(kernel: &dyn DenseKernel, pool: &ThreadPool, op: Binary, a: &mut [f32], b: &[f32]) {
    let (len, a) = (a.len(), Parts::new(a));
    // SAFETY: the parts are disjoint.
    repeated(pool, len, b, |start, len, b| kernel.binary_assign(op, unsafe { a.part(start, len) }, b));
}

/// Parts of `len` with what meets them of b, which is repeated.
fn repeated(pool: &ThreadPool, len: usize, b: &[f32], f: impl Fn(usize, usize, &[f32]) + Sync) {
    assert!(!b.is_empty() && len.is_multiple_of(b.len()), "{} numbers repeated to {len}", b.len());
    if b.len() == 1 {
        return split(pool, len, 16, |start, len| f(start, len, b));
    }
    if b.len() <= TASK && b.len() < len {
        return split(pool, len, b.len(), |start, len| f(start, len, b));
    }
    for first in (0..len).step_by(b.len()) {
        split(pool, b.len(), 16, |start, len| f(first + start, len, &b[start..start + len]));
    }
}

/// Reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The largest, NaN where there is one.
    Max,
    /// The smallest, NaN where there is one.
    Min,
}

/// Reduces the middle dimension, not empty, of x `[outer, n, inner]` to out `[outer, inner]`.
pub fn reduce(
    kernel: &dyn DenseKernel,
    pool: &ThreadPool,
    op: Reduction,
    x: &[f32],
    [outer, n, inner]: [usize; 3],
    out: &mut [f32],
) {
    let largest = op == Reduction::Max;
    let one = |x: &[f32]| match op {
        Reduction::Sum => kernel.sum(x),
        _ => kernel.extreme(largest, x) as f64,
    };
    let columns = |x: &[f32], rows: usize, acc: &mut [f64]| match op {
        Reduction::Sum => kernel.column_sums(x, inner, rows, acc),
        _ => {
            let mut found = [if largest { f32::NEG_INFINITY } else { f32::INFINITY }; COLUMNS];
            kernel.column_extremes(largest, x, inner, rows, &mut found[..acc.len()]);
            acc.iter_mut().zip(found).for_each(|(acc, v)| *acc = v as f64);
        }
    };
    let join = |a: f64, b: f64| match op {
        Reduction::Sum => a + b,
        _ if a.is_nan() || (largest && a > b) || (!largest && a < b) => a,
        _ => b,
    };
    let (all, results) = (elements([outer, n, inner]), elements([outer, inner]));
    assert!(all == Some(x.len()) && results == Some(out.len()) && n > 0, "a tensor of {outer} {n} {inner}");
    if out.is_empty() {
        return;
    }
    if inner == 1 && n <= PART {
        let to = Parts::new(out);
        return split(pool, x.len(), n, |start, len| {
            // SAFETY: the parts are disjoint.
            let out = unsafe { to.part(start / n, len / n) };
            for (x, out) in x[start..start + len].chunks_exact(n).zip(out) {
                *out = one(x) as f32;
            }
        });
    }
    let plan = Plan::new([outer, n, inner]);
    let mut parts = vec![0.0f64; plan.outer * plan.row_parts * plan.inner];
    let to = Parts::new(&mut parts);
    plan.run(pool, |part| {
        // SAFETY: the parts are disjoint.
        let acc = unsafe { to.part(part.result, part.columns) };
        let x = &x[part.start..];
        if inner == 1 { acc[0] = one(&x[..part.rows]) } else { columns(x, part.rows, acc) }
    });
    for (i, out) in out.iter_mut().enumerate() {
        *out = plan.parts(i).map(|(at, _)| parts[at]).reduce(join).unwrap_or(0.0) as f32;
    }
}

/// Moments of the middle dimension, not empty, of x `[outer, n, inner]`: `f(i, moments)` for each of `[outer, inner]`.
pub fn moments(
    kernel: &dyn DenseKernel,
    pool: &ThreadPool,
    x: &[f32],
    [outer, n, inner]: [usize; 3],
    mut f: impl FnMut(usize, Moments),
) {
    assert!(elements([outer, n, inner]) == Some(x.len()) && n > 0, "a tensor of {outer} {n} {inner}");
    if x.is_empty() {
        return;
    }
    let plan = Plan::new([outer, n, inner]);
    let len = plan.outer * plan.row_parts * plan.inner;
    let (mut sums, mut squares) = (vec![0.0f64; len], vec![0.0f64; len]);
    let (to_sums, to_squares) = (Parts::new(&mut sums), Parts::new(&mut squares));
    plan.run(pool, |part| {
        // SAFETY: the parts are disjoint.
        let (sums, squares) =
            unsafe { (to_sums.part(part.result, part.columns), to_squares.part(part.result, part.columns)) };
        let x = &x[part.start..];
        if inner == 1 {
            let all = kernel.moments(&x[..part.rows]);
            (sums[0], squares[0]) = (all.sum, all.squares);
        } else {
            kernel.column_moments(x, inner, part.rows, 0.0, sums, squares);
        }
    });
    for i in 0..outer * inner {
        let parts = plan.parts(i).map(|(at, rows)| Moments { count: rows as f64, sum: sums[at], squares: squares[at] });
        f(i, parts.fold(Moments::default(), Moments::join));
    }
}

/// How the reduction of the middle of `[outer, n, inner]` is divided: by columns and by rows, whatever the threads.
struct Plan {
    outer: usize,
    n: usize,
    inner: usize,
    /// Rows of a part, and how many parts a column has.
    rows: usize,
    row_parts: usize,
}

/// A part: `rows` rows of `columns` from `start` of the tensor, to results from `result`.
struct Part {
    start: usize,
    rows: usize,
    columns: usize,
    result: usize,
}

impl Plan {
    fn new([outer, n, inner]: [usize; 3]) -> Plan {
        let rows = (PART / inner.min(COLUMNS)).next_multiple_of(ROWS).min(n);
        Plan { outer, n, inner, rows, row_parts: n.div_ceil(rows) }
    }

    fn run(&self, pool: &ThreadPool, f: impl Fn(Part) + Sync) {
        let strips = self.inner.div_ceil(COLUMNS);
        let each = |i: usize| {
            let (strip, part) = (i % strips, i / strips % self.row_parts);
            let (outer, column, row) = (i / strips / self.row_parts, strip * COLUMNS, part * self.rows);
            f(Part {
                start: (outer * self.n + row) * self.inner + column,
                rows: self.rows.min(self.n - row),
                columns: COLUMNS.min(self.inner - column),
                result: (outer * self.row_parts + part) * self.inner + column,
            });
        };
        let all = self.outer * self.row_parts * strips;
        if self.outer * self.n * self.inner <= TASK {
            return (0..all).for_each(each);
        }
        // Small parts in groups.
        let tasks = all.min((self.outer * self.n * self.inner / TASK).max(1)).min(all.min(64).max(4 * pool.threads()));
        pool.run(tasks, &|task| (all * task / tasks..all * (task + 1) / tasks).for_each(each));
    }

    /// Where the parts of result `i` are, and how many rows each has.
    fn parts(&self, i: usize) -> impl Iterator<Item = (usize, usize)> {
        let (outer, column) = (i / self.inner, i % self.inner);
        (0..self.row_parts).map(move |part| {
            ((outer * self.row_parts + part) * self.inner + column, self.rows.min(self.n - part * self.rows))
        })
    }
}

/// Softmax of rows of `columns`, or its logarithm.
pub fn softmax(
    kernel: &dyn DenseKernel,
    pool: &ThreadPool,
    x: &[f32],
    columns: usize,
    logarithm: bool,
    out: &mut [f32],
) {
    assert_eq!(x.len(), out.len());
    let to = Parts::new(out);
    split(pool, x.len(), columns, |start, len| {
        // SAFETY: the parts are disjoint.
        kernel.softmax(&x[start..start + len], columns, logarithm, unsafe { to.part(start, len) });
    });
}

/// Layer norm of rows of `columns`; weight and bias `[columns]` or empty.
pub fn layer_norm(
    kernel: &dyn DenseKernel,
    pool: &ThreadPool,
    x: &[f32],
    columns: usize,
    [weight, bias]: [&[f32]; 2],
    eps: f64,
    out: &mut [f32],
) {
    assert_eq!(x.len(), out.len());
    let to = Parts::new(out);
    split(pool, x.len(), columns, |start, len| {
        // SAFETY: the parts are disjoint.
        let out = unsafe { to.part(start, len) };
        kernel.layer_norm(&x[start..start + len], columns, weight, bias, eps, out);
    });
}

/// `out[j, i] = x[i, j]`: x `[rows, columns]` with rows `stride` apart, out `[columns, rows]`.
pub fn transpose(kernel: &dyn DenseKernel, pool: &ThreadPool, x: &[f32], stride: usize, rows: usize, out: &mut [f32]) {
    if super::columns_of(x, stride, rows, 0, out).is_none() {
        return;
    }
    let (len, stream) = (out.len(), size_of_val(out) > STREAM);
    let to = Parts::new(out);
    split(pool, len, 64 * rows, |start, len| {
        // SAFETY: the parts are disjoint.
        kernel.transpose(x, stride, rows, start / rows, stream, unsafe { to.part(start, len) });
    });
}

/// To 16 bits.
pub fn narrow(kernel: &dyn DenseKernel, pool: &ThreadPool, half: Half, x: &[f32], out: &mut [u16]) {
    convert(pool, x, out, |x, out| kernel.narrow(half, x, out));
}

/// From 16 bits.
pub fn widen(kernel: &dyn DenseKernel, pool: &ThreadPool, half: Half, x: &[u16], out: &mut [f32]) {
    convert(pool, x, out, |x, out| kernel.widen(half, x, out));
}

/// To bytes, saturated.
pub fn to_i8(kernel: &dyn DenseKernel, pool: &ThreadPool, x: &[f32], out: &mut [i8]) {
    convert(pool, x, out, |x, out| kernel.to_i8(x, out));
}

/// From bytes.
pub fn widen_i8(kernel: &dyn DenseKernel, pool: &ThreadPool, x: &[i8], out: &mut [f32]) {
    convert(pool, x, out, |x, out| kernel.widen_i8(x, out));
}

fn convert<T: Sync, U: Send>(pool: &ThreadPool, x: &[T], out: &mut [U], f: impl Fn(&[T], &mut [U]) + Sync) {
    assert_eq!(x.len(), out.len());
    let to = Parts::new(out);
    // SAFETY: the parts are disjoint.
    split(pool, x.len(), 64, |start, len| f(&x[start..start + len], unsafe { to.part(start, len) }));
}
