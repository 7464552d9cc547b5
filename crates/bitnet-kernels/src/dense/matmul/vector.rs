//! Vector-matrix products: nothing is packed, each element of the matrix is read once.

use super::product::{Output, Product, Sum};
use super::{Job, MatmulShape, Matrix};
use crate::float::simd::MAX_LANES;

/// Columns that a task takes at a time.
const COLUMNS: usize = 256;
/// Sums of a dot product.
const SUMS: usize = 64;
/// Elements of `b` below which one thread does it.
const SMALL: usize = 1 << 15;

/// `out[n] = a[k] b[k, n]`; false when the strides of `b` need panels.
pub(super) fn run<P: Product, O: Output<P::Acc>>(p: P, job: &Job<P::In, O>) -> bool {
    let Job { pool, shape: MatmulShape { n, k, .. }, a, b, out } = job;
    let (n, k) = (*n, *k);
    if k == 0 || b.row_stride != 1 && b.col_stride != 1 {
        return false;
    }
    // SAFETY: the matrix holds these elements (checked where it comes in).
    let x: Vec<P::Acc> = (0..k).map(|i| unsafe { P::widen(*a.at(0, i)) }).collect();
    let words: Vec<P::Word> = (0..if P::PLAIN && b.row_stride == 1 { k / P::GROUP } else { 0 })
        // SAFETY: as above.
        .map(|w| p.signed(p.word(|e| Some(unsafe { *a.at(0, w * P::GROUP + e) }))))
        .collect();
    let columns = if n * k < SMALL { n } else { COLUMNS.min(n.div_ceil(pool.threads())) };
    pool.run(n.div_ceil(columns), &|task| {
        for first in (task * columns..n.min((task + 1) * columns)).step_by(COLUMNS) {
            let mut sums = [P::Acc::default(); COLUMNS];
            let sums = &mut sums[..COLUMNS.min(n.min((task + 1) * columns) - first)];
            p.enter(
                #[inline(always)]
                || {
                    // SAFETY: columns first.. of b.
                    unsafe {
                        if b.row_stride != 1 {
                            rows::<P>(&x, b, first, sums)
                        } else if P::PLAIN {
                            word_dots(p, &words, &x, b, first, sums)
                        } else {
                            dots::<P>(&x, b, first, sums)
                        }
                    }
                },
            );
            for (j, &sum) in sums.iter().enumerate() {
                // SAFETY: an element of out that is this task's.
                unsafe { out.at(0, first + j).write(O::rounded(sum)) };
            }
        }
    });
    true
}

/// Vectors of sums of a dot product.
const VECTORS: usize = 4;

/// Columns whose elements follow each other and are words as they are: dot products of words.
#[inline(always)]
unsafe fn word_dots<P: Product>(
    p: P,
    words: &[P::Word],
    x: &[P::Acc],
    b: &Matrix<P::In>,
    first: usize,
    sums: &mut [P::Acc],
) {
    // What words of zeros give with biased ones, to be taken off.
    let zeros = p.splat(p.signed(P::Word::default()));
    let step = VECTORS * P::LANES;
    let whole = words.len() / step * step;
    for (j, sum) in sums.iter_mut().enumerate() {
        let column = b.at(0, first + j);
        let mut parts = [p.zero(); VECTORS];
        let mut bias = [p.zero(); VECTORS];
        // SAFETY: a column of b, `x.len()` elements.
        unsafe {
            for w in (0..whole).step_by(step) {
                for v in 0..VECTORS {
                    let at = w + v * P::LANES;
                    let y = p.words(column.cast::<P::Word>().add(at));
                    parts[v] = p.multiply_add(p.words(words.as_ptr().add(at)), y, parts[v]);
                    if P::BIASED {
                        bias[v] = p.multiply_add(zeros, y, bias[v]);
                    }
                }
            }
            let total = |v: [P::V; VECTORS]| {
                let v = p.add(p.add(v[0], v[1]), p.add(v[2], v[3]));
                let mut lanes = [P::Acc::default(); MAX_LANES];
                p.store(v, lanes.as_mut_ptr());
                lanes[..P::LANES].iter().fold(P::Acc::default(), |sum, &lane| sum.plus(lane))
            };
            let rest = whole * P::GROUP..x.len();
            let rest = rest.fold(P::Acc::default(), |sum, i| sum.multiply_add(x[i], P::widen(*column.add(i))));
            *sum = total(parts).plus(rest);
            if P::BIASED {
                *sum = sum.minus(total(bias));
            }
        }
    }
}

/// Columns whose elements follow each other: a dot product each.
#[inline(always)]
unsafe fn dots<P: Product>(x: &[P::Acc], b: &Matrix<P::In>, first: usize, sums: &mut [P::Acc]) {
    for (j, sum) in sums.iter_mut().enumerate() {
        // SAFETY: a column of b.
        let column = unsafe { std::slice::from_raw_parts(b.at(0, first + j), x.len()) };
        let mut parts = [P::Acc::default(); SUMS];
        let (xs, rest_x) = x.as_chunks::<SUMS>();
        let (ys, rest_y) = column.as_chunks::<SUMS>();
        for (x, y) in xs.iter().zip(ys) {
            for i in 0..SUMS {
                parts[i] = parts[i].multiply_add(x[i], P::widen(y[i]));
            }
        }
        let rest = rest_x.iter().zip(rest_y).fold(P::Acc::default(), |sum, (&x, &y)| sum.multiply_add(x, P::widen(y)));
        let mut width = SUMS / 2;
        while width > 0 {
            for i in 0..width {
                parts[i] = parts[i].plus(parts[i + width]);
            }
            width /= 2;
        }
        *sum = parts[0].plus(rest);
    }
}

/// Rows whose elements follow each other: each times its factor, added up, four at a time.
#[inline(always)]
unsafe fn rows<P: Product>(x: &[P::Acc], b: &Matrix<P::In>, first: usize, sums: &mut [P::Acc]) {
    // SAFETY: columns of a row of b.
    let row = |i: usize| unsafe { std::slice::from_raw_parts(b.at(i, first), sums.len()) };
    let (fours, rest) = x.as_chunks::<4>();
    let len = sums.len();
    let mut parts = [P::Acc::default(); COLUMNS];
    let parts = &mut parts[..len];
    for (i, x) in fours.iter().enumerate() {
        let rows = [row(4 * i), row(4 * i + 1), row(4 * i + 2), row(4 * i + 3)];
        for j in 0..len {
            let mut sum = parts[j];
            for r in 0..4 {
                sum = sum.multiply_add(x[r], P::widen(rows[r][j]));
            }
            parts[j] = sum;
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        let row = row(4 * fours.len() + i);
        for j in 0..len {
            parts[j] = parts[j].multiply_add(x, P::widen(row[j]));
        }
    }
    sums.copy_from_slice(parts);
}
