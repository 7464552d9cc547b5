//! Matrices brought to a scale at which squares and reciprocals of their elements neither overflow nor vanish.

use super::stack::{Real, Stack, not_converged};
use crate::Result;
use faer::{Mat, MatRef};

/// A matrix of a stack divided by a power of two.
pub(super) struct Scaled<'a, T> {
    given: MatRef<'a, T>,
    made: Option<Mat<T>>,
    /// The matrix that was given is this one times `2^exponent`.
    pub exponent: i32,
    /// Whether it has neither NaN nor infinities.
    pub finite: bool,
}

impl<'a, T: Real> Scaled<'a, T> {
    /// For what sums squares of elements: the matrix itself unless its largest element is beyond LAPACK's limits. An error
    /// of NaN and infinities, with which iterations need not end.
    pub fn for_squares(op: &'static str, stack: &'a Stack<T>, i: usize) -> Result<Self> {
        let scaled = Self::within(stack.matrix(i), T::SQUARES, T::largest(stack.elements(i)));
        if scaled.finite { Ok(scaled) } else { Err(not_converged(op)) }
    }

    /// The same of a symmetric matrix, of which only the lower triangle counts; NaN and infinities are let pass.
    pub fn lower(stack: &'a Stack<T>, i: usize) -> Self {
        let rows = stack.elements(i).chunks(stack.columns.max(1)).enumerate();
        // An infinity or NaN of a row must not be lost to the maximum.
        let largest =
            rows.map(|(row, data)| T::largest(&data[..=row])).fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a });
        Self::within(stack.matrix(i), T::SQUARES, largest)
    }

    /// For what divides by elements: the matrix itself unless its largest element is near the ends of the type, so that
    /// rows of very different sizes stay as they are.
    pub fn for_quotients(stack: &'a Stack<T>, i: usize) -> Self {
        Self::within(stack.matrix(i), T::QUOTIENTS, T::largest(stack.elements(i)))
    }

    fn within(given: MatRef<'a, T>, limit: i32, largest: f64) -> Self {
        if T::within(largest, limit) {
            return Self { given, made: None, exponent: 0, finite: true };
        }
        let (size, limit) = (largest.log2(), f64::from(limit));
        let beyond = match size {
            _ if !size.is_finite() => 0.0,
            _ if size > limit => size - limit,
            _ if size < -limit => size,
            _ => 0.0,
        };
        // Even, for roots.
        let exponent = (beyond / 2.0).ceil() as i32 * 2;
        let shifted = |i, j| times_power(given[(i, j)], -exponent);
        let made = (exponent != 0).then(|| Mat::from_fn(given.nrows(), given.ncols(), shifted));
        Self { given, made, exponent, finite: largest.is_finite() }
    }

    /// What is computed with.
    pub fn matrix(&self) -> MatRef<'_, T> {
        self.made.as_ref().map_or(self.given, |made| made.as_ref())
    }

    /// A number in the scale of the matrix that was given.
    pub fn back(&self, x: T) -> T {
        times_power(x, self.exponent)
    }
}

/// `x 2^exponent`, rounded once.
pub(super) fn times_power<T: Real>(x: T, exponent: i32) -> T {
    if exponent == 0 { x } else { T::of(libm::scalbn(x.f64(), exponent)) }
}
