//! LU factors of every finite matrix, singular ones too.

use super::scaled::Scaled;
use super::stack::{Real, Stack};
use faer::linalg::solvers::{PartialPivLu, Solve};
use faer::{Mat, MatRef};

/// `P L U` of a matrix, rows exchanged so that the largest element of a column is divided by.
pub(super) struct Factors<T> {
    blocked: PartialPivLu<T>,
    plain: Option<Plain<T>>,
    /// The matrix is `P L U` times `2^exponent`.
    pub exponent: i32,
}

struct Plain<T> {
    l: Mat<T>,
    u: Mat<T>,
    rows: Vec<usize>,
}

impl<T: Real> Factors<T> {
    /// Of matrix `i`. The blocked algorithm multiplies by reciprocals of pivots: where one is zero or near the ends of the type,
    /// the matrix is scaled, and divided by its pivots where that does not help.
    #[inline]
    pub fn of(stack: &Stack<T>, i: usize) -> Self {
        let blocked = stack.matrix(i).partial_piv_lu();
        let u = blocked.U();
        if (0..u.nrows().min(u.ncols())).all(|i| T::within(u[(i, i)].f64().abs(), T::QUOTIENTS)) {
            return Self { blocked, plain: None, exponent: 0 };
        }
        Self::scaled(stack, i, blocked)
    }

    #[cold]
    fn scaled(stack: &Stack<T>, i: usize, blocked: PartialPivLu<T>) -> Self {
        let scaled = Scaled::for_quotients(stack, i);
        let (exponent, matrix) = (scaled.exponent, scaled.matrix());
        let blocked = if exponent == 0 { blocked } else { matrix.partial_piv_lu() };
        // Where a reciprocal is infinite, all later pivots and the last column of L hold infinities and NaN.
        let (l, u) = (blocked.L(), blocked.U());
        let whole = l.ncols() == 0 || {
            let last = l.ncols() - 1;
            (0..=last).all(|i| u[(i, i)].f64().is_finite()) && (0..l.nrows()).all(|i| l[(i, last)].f64().is_finite())
        };
        let plain = (scaled.finite && !whole).then(|| plain(matrix));
        Self { blocked, plain, exponent }
    }

    /// Unit lower triangular.
    #[inline]
    pub fn l(&self) -> MatRef<'_, T> {
        self.plain.as_ref().map_or(self.blocked.L(), |plain| plain.l.as_ref())
    }

    /// Upper triangular.
    pub fn u(&self) -> MatRef<'_, T> {
        self.plain.as_ref().map_or(self.blocked.U(), |plain| plain.u.as_ref())
    }

    /// The pivots.
    pub fn diagonal(&self) -> impl Iterator<Item = f64> {
        let u = self.u();
        (0..u.nrows().min(u.ncols())).map(move |i| u[(i, i)].f64())
    }

    /// The row of the matrix that row `i` of `L U` is.
    pub fn rows(&self) -> &[usize] {
        self.plain.as_ref().map_or(self.blocked.P().arrays().0, |plain| &plain.rows)
    }

    /// `x` with `matrix x = b` of a square matrix without a pivot of zero.
    pub fn solve(&self, b: MatRef<'_, T>) -> Mat<T> {
        // The blocked algorithm multiplies by reciprocals here too.
        let divides = self.plain.is_some() || self.diagonal().any(|d| T::of(1.0 / d).f64().is_infinite());
        if divides { self.substitute(b) } else { self.blocked.solve(b) }
    }

    fn substitute(&self, b: MatRef<'_, T>) -> Mat<T> {
        let (l, u, rows) = (self.l(), self.u(), self.rows());
        let n = rows.len();
        let mut x = Mat::from_fn(n, b.ncols(), |i, j| b[(rows[i], j)]);
        for column in 0..b.ncols() {
            for i in 0..n {
                x[(i, column)] = (0..i).fold(x[(i, column)], |sum, k| sum - l[(i, k)] * x[(k, column)]);
            }
            for i in (0..n).rev() {
                let rest = (i + 1..n).fold(x[(i, column)], |sum, k| sum - u[(i, k)] * x[(k, column)]);
                x[(i, column)] = rest / u[(i, i)];
            }
        }
        x
    }
}

/// Column by column, dividing by pivots; a column without one leaves zeros in L.
fn plain<T: Real>(matrix: MatRef<'_, T>) -> Plain<T> {
    let (m, n) = (matrix.nrows(), matrix.ncols());
    let mut a = matrix.to_owned();
    let mut rows: Vec<usize> = (0..m).collect();
    for k in 0..m.min(n) {
        let size = |i: usize| a[(i, k)].f64().abs();
        let pivot = (k + 1..m).fold(k, |best, i| if size(i) > size(best) { i } else { best });
        if size(pivot) == 0.0 {
            continue;
        }
        rows.swap(k, pivot);
        for j in 0..n {
            (a[(k, j)], a[(pivot, j)]) = (a[(pivot, j)], a[(k, j)]);
        }
        for i in k + 1..m {
            a[(i, k)] = a[(i, k)] / a[(k, k)];
        }
        for j in k + 1..n {
            let top = a[(k, j)];
            for i in k + 1..m {
                a[(i, j)] = a[(i, j)] - a[(i, k)] * top;
            }
        }
    }
    let k = m.min(n);
    let (zero, one) = (T::of(0.0), T::of(1.0));
    let below = |i: usize, j: usize| if j < i { a[(i, j)] } else { zero };
    let l = Mat::from_fn(m, k, |i, j| if i == j { one } else { below(i, j) });
    let u = Mat::from_fn(k, n, |i, j| if i <= j { a[(i, j)] } else { zero });
    Plain { l, u, rows }
}
