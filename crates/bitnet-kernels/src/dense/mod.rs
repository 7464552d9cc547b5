//! Dense tensors: f32 element by element, reductions, norms, transposition, conversions; [`matmul`] of every type;
//! [`strided`] for any type and strides.
//!
//! [`DenseKernel`] holds what one thread does with slices; the functions here divide the work of a whole tensor among
//! the threads of a pool, in parts whose bounds do not depend on their number, so that results do not either.
//! The scalar kernel is the specification.

mod columns;
mod convert;
mod elementwise;
pub(crate) use convert::f32_to_bf16;
mod kernel;
mod math;
pub mod matmul;
pub mod parallel;
mod rows;
mod scalar;
pub mod strided;
mod transpose;

use crate::Isa;
use crate::lengths::check_rows;
use bitnet_device::backend::UnaryOp;

/// The functions of [`DenseKernel::unary`]: those that models spend time in. `Rsqrt` is `1 / sqrt(x)` in f32.
pub const UNARY: [UnaryOp; 19] = {
    use UnaryOp::*;
    [
        Neg, Abs, Square, Relu, Relu2, Sqrt, Rsqrt, Reciprocal, Floor, Ceil, Round, Trunc, Exp, Tanh, Erf, Sigmoid,
        Silu, GeluErf, GeluTanh,
    ]
};

/// Functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `b - a`: for a left operand that is repeated.
    ReverseSub,
    /// `a * b`.
    Mul,
    /// `a / b`.
    Div,
    /// `b / a`: for a left operand that is repeated.
    ReverseDiv,
    /// The smaller; NaN where one is.
    Minimum,
    /// The larger; NaN where one is.
    Maximum,
}

impl Binary {
    /// Every function.
    pub const ALL: [Binary; 8] = {
        use Binary::*;
        [Add, Sub, ReverseSub, Mul, Div, ReverseDiv, Minimum, Maximum]
    };
}

/// Formats of 16-bit floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
}

/// A sum and the sum of squared differences from the mean, of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// How many.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of squared differences from their mean.
    pub squares: f64,
}

impl Moments {
    /// Those of both together (Chan, Golub, LeVeque 1979).
    #[inline(always)]
    pub fn join(self, other: Moments) -> Moments {
        if self.count == 0.0 {
            return other;
        }
        let apart = other.sum / other.count - self.sum / self.count;
        let count = self.count + other.count;
        let between = apart * apart * (self.count * other.count / count);
        Moments { count, sum: self.sum + other.sum, squares: self.squares + other.squares + between }
    }
}

/// The f32 operations of one instruction set, on one thread.
///
/// All of them panic when the lengths of slices do not fit together; none allocates. Functions are within 4 units in the
/// last place ([`UnaryOp::GeluErf`] 7), those of one rounding exact.
pub trait DenseKernel: Send + Sync {
    /// The instruction set.
    fn isa(&self) -> Isa;

    /// `out = op(x)`, one of [`UNARY`].
    fn unary(&self, op: UnaryOp, x: &[f32], out: &mut [f32]);
    /// `x = op(x)`.
    fn unary_assign(&self, op: UnaryOp, x: &mut [f32]);
    /// `out = op(a, b)`; b, not empty, is repeated as often as it fits into a, which must be whole.
    fn binary(&self, op: Binary, a: &[f32], b: &[f32], out: &mut [f32]);
    /// `a = op(a, b)`; b as in [`DenseKernel::binary`].
    fn binary_assign(&self, op: Binary, a: &mut [f32], b: &[f32]);

    /// The sum.
    fn sum(&self, x: &[f32]) -> f64;
    /// The largest (or smallest), NaN where there is one; infinite for none.
    fn extreme(&self, largest: bool, x: &[f32]) -> f32;
    /// Moments in two passes over what is in the cache.
    fn moments(&self, x: &[f32]) -> Moments;
    /// Adds to sums `[C]` columns of `rows` rows of x, the rows `stride` apart.
    fn column_sums(&self, x: &[f32], stride: usize, rows: usize, sums: &mut [f64]);
    /// The largest (or smallest) of each column and what is in out `[C]`, x as in [`DenseKernel::column_sums`].
    fn column_extremes(&self, largest: bool, x: &[f32], stride: usize, rows: usize, out: &mut [f32]);
    /// Joins the moments of columns to sums and squares `[C]` of `before` rows, x as in [`DenseKernel::column_sums`].
    fn column_moments(&self, x: &[f32], stride: usize, rows: usize, before: f64, sums: &mut [f64], squares: &mut [f64]);

    /// Softmax of rows of `columns`, or its logarithm.
    fn softmax(&self, x: &[f32], columns: usize, logarithm: bool, out: &mut [f32]);
    /// `out = (x - mean) / sqrt(var + eps) * weight + bias` of rows of `columns`; weight and bias `[columns]` or empty.
    fn layer_norm(&self, x: &[f32], columns: usize, weight: &[f32], bias: &[f32], eps: f64, out: &mut [f32]);

    /// Writes columns `first..first + count` of x `[rows, stride]` as rows of out `[count, rows]`; with `stream` past the
    /// caches, where rows are aligned.
    fn transpose(&self, x: &[f32], stride: usize, rows: usize, first: usize, stream: bool, out: &mut [f32]);

    /// To 16 bits, to nearest, ties to even; NaN stays NaN.
    fn narrow(&self, to: Half, x: &[f32], out: &mut [u16]);
    /// From 16 bits, exact.
    fn widen(&self, from: Half, x: &[u16], out: &mut [f32]);
    /// Truncated and saturated, NaN gives 0.
    fn to_i8(&self, x: &[f32], out: &mut [i8]);
    /// Exact.
    fn widen_i8(&self, x: &[i8], out: &mut [f32]);
}

/// Columns of x that [`DenseKernel::transpose`] writes, or `None` where there is nothing to write; panics where it would
/// leave x or out.
fn columns_of(x: &[f32], stride: usize, rows: usize, first: usize, out: &[f32]) -> Option<usize> {
    if out.is_empty() {
        return None;
    }
    assert!(rows > 0 && out.len().is_multiple_of(rows), "{} numbers in columns of {rows} rows", out.len());
    let count = out.len() / rows;
    check_rows(x.len(), stride, rows, first, count);
    Some(count)
}

/// Panics unless b, not empty, can be repeated to the length of a.
fn repeats(a: &[f32], b: &[f32]) {
    assert!(!b.is_empty() && a.len().is_multiple_of(b.len()), "{} numbers repeated to {}", b.len(), a.len());
}

/// Panics unless x and out are whole rows.
fn whole_rows(x: &[f32], columns: usize, out: &[f32]) {
    assert!(columns > 0 && x.len().is_multiple_of(columns), "{} values in rows of {columns}", x.len());
    assert_eq!(x.len(), out.len(), "length of out");
}

/// Panics unless each has a number for each column, or none at all.
fn per_column(columns: usize, vectors: &[&[f32]]) {
    assert!(vectors.iter().all(|v| v.is_empty() || v.len() == columns), "weights for {columns} columns");
}
