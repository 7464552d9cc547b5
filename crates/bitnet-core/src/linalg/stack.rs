//! Conversion of batches of matrices between tensors and faer.

use super::argument;
use super::scaled::times_power;
use crate::Element;
use crate::{BitNetError, BitNetTensor, Device, Result};
use faer::MatRef;
use faer::traits::RealField;

/// The dtypes of decompositions: f32 or f64.
pub(super) trait Real: Element + RealField + Copy + PartialOrd {
    /// Distance from 1 to the next number.
    const EPSILON: f64;
    /// Largest and smallest power of two whose square is far from the ends of the type: `sqrt(smallest) / EPSILON`.
    const SQUARES: i32;
    /// Power of two that elements may still grow from, and whose reciprocal is a normal number.
    const QUOTIENTS: i32;
    /// Power of two of the smallest normal number.
    const LOWEST: f64;
    /// Whether a magnitude is between the powers of two `-limit` and `limit`.
    fn within(size: f64, limit: i32) -> bool {
        let power = |exponent: i32| f64::from_bits(((1023 + exponent) as u64) << 52);
        (power(-limit)..=power(limit)).contains(&size)
    }
    fn f64(self) -> f64;
    fn of(x: f64) -> Self;
    /// The largest magnitude; NaN where an element is infinite or NaN.
    fn largest(data: &[Self]) -> f64;
}

impl Real for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;
    const SQUARES: i32 = 40;
    const QUOTIENTS: i32 = 100;
    const LOWEST: f64 = -126.0;
    fn f64(self) -> f64 {
        self.into()
    }
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn largest(data: &[f32]) -> f64 {
        // Four at a time, infinities and NaN found by products with zero.
        let (mut top, mut broken) = ([0.0; 4], [0.0; 4]);
        for chunk in data.chunks(4) {
            for ((x, top), broken) in chunk.iter().zip(&mut top).zip(&mut broken) {
                *top = if x.abs() > *top { x.abs() } else { *top };
                *broken += x * 0.0;
            }
        }
        if broken == [0.0; 4] { top.into_iter().fold(0.0, f32::max).into() } else { f64::NAN }
    }
}

impl Real for f64 {
    const EPSILON: f64 = f64::EPSILON;
    const SQUARES: i32 = 458;
    const QUOTIENTS: i32 = 960;
    const LOWEST: f64 = -1022.0;
    fn f64(self) -> f64 {
        self
    }
    fn of(x: f64) -> f64 {
        x
    }
    fn largest(data: &[f64]) -> f64 {
        // Four at a time, infinities and NaN found by products with zero.
        let (mut top, mut broken) = ([0.0; 4], [0.0; 4]);
        for chunk in data.chunks(4) {
            for ((x, top), broken) in chunk.iter().zip(&mut top).zip(&mut broken) {
                *top = if x.abs() > *top { x.abs() } else { *top };
                *broken += x * 0.0;
            }
        }
        if broken == [0.0; 4] { top.into_iter().fold(0.0, f64::max) } else { f64::NAN }
    }
}

/// Calls a function of [`Real`] by a tensor's dtype; other dtypes and devices are unsupported, and so is recording it.
macro_rules! by_dtype {
    ($op:expr, $x:expr, $f:ident($($argument:expr),*)) => {{
        $crate::autograd::not_differentiable($op, &[$x])?;
        match $x.dtype() {
            _ if !$x.device().is_host() => Err($crate::backend::unsupported(&**$x.device(), $op, $x.dtype())),
            $crate::BitNetDType::F32 => $f::<f32>($($argument),*),
            $crate::BitNetDType::F64 => $f::<f64>($($argument),*),
            dtype => Err($crate::backend::unsupported(&**$x.device(), $op, dtype)),
        }
    }};
}
pub(super) use by_dtype;

/// Matrices `[.., rows, columns]`, row-major in host memory.
pub(super) struct Stack<T> {
    data: Vec<T>,
    /// The dimensions before the last two.
    pub batch: Vec<usize>,
    pub rows: usize,
    pub columns: usize,
    device: Device,
}

impl<T: Real> Stack<T> {
    /// The matrices of a tensor of two dimensions at least.
    pub fn of(op: &'static str, x: &BitNetTensor) -> Result<Self> {
        let &[ref batch @ .., rows, columns] = x.dims() else {
            return Err(x.needs(op, "at least 2 dimensions"));
        };
        #[cfg(feature = "parallel")]
        if !crate::start_rayon() {
            faer::set_global_parallelism(faer::Par::Seq);
        }
        let (batch, device) = (batch.to_vec(), x.device().clone());
        Ok(Stack { data: x.to_vec()?, batch, rows, columns, device })
    }

    /// The same for square matrices.
    pub fn square(op: &'static str, x: &BitNetTensor) -> Result<Self> {
        let stack = Self::of(op, x)?;
        if stack.rows != stack.columns {
            return Err(x.needs(op, "square matrices"));
        }
        Ok(stack)
    }

    pub fn count(&self) -> usize {
        self.batch.iter().product()
    }

    /// Matrix `i`, row-major.
    pub fn elements(&self, i: usize) -> &[T] {
        let size = self.rows * self.columns;
        &self.data[i * size..][..size]
    }

    pub fn matrix(&self, i: usize) -> MatRef<'_, T> {
        MatRef::from_row_major_slice(self.elements(i), self.rows, self.columns)
    }

    /// An empty vector with a capacity of as many numbers as the matrices have.
    pub fn reserved(&self) -> Vec<T> {
        Vec::with_capacity(self.data.len())
    }

    /// A tensor of `tail` for each matrix.
    pub fn tensor<U: Element>(&self, data: &[U], tail: &[usize]) -> Result<BitNetTensor> {
        BitNetTensor::from_slice(data, &[&self.batch, tail].concat(), &self.device)
    }
}

/// Appends a matrix to row-major data.
pub(super) fn push<T: Real>(data: &mut Vec<T>, matrix: MatRef<'_, T>) {
    for i in 0..matrix.nrows() {
        data.extend((0..matrix.ncols()).map(|j| matrix[(i, j)]));
    }
}

/// [`push`] of a matrix times `2^exponent`.
pub(super) fn push_scaled<T: Real>(data: &mut Vec<T>, matrix: MatRef<'_, T>, exponent: i32) {
    let start = data.len();
    push(data, matrix);
    if exponent != 0 {
        data[start..].iter_mut().for_each(|x| *x = times_power(*x, exponent));
    }
}

pub(super) fn not_converged(op: &'static str) -> BitNetError {
    argument(op, "the iteration did not converge: does the matrix hold NaN or infinities?".into())
}
