//! Determinants, inverses and linear systems.

use super::argument;
use super::decompose::finite;
use super::derivative;
use super::stack::{Real, Stack, by_dtype, not_converged, push};
use crate::autograd::{differentiable, differentiable_by_result, is_recorded};
use crate::{BitNetError, BitNetTensor, Result};
use faer::linalg::solvers::{PartialPivLu, Solve};
use faer::{Mat, MatRef};

impl BitNetTensor {
    /// Determinants (`torch.linalg.det`), `[..]`; 1 for an empty matrix.
    ///
    /// # Errors
    /// As [`lu`](Self::lu); matrices that are not square.
    pub fn det(&self) -> Result<Self> {
        if is_recorded(&[self]) {
            let x = self.clone();
            return differentiable_by_result(
                "det",
                &[self],
                || self.det(),
                || {
                    move |grad: &Self, det: &Self| {
                        let factor = grad.unsqueeze(-1)?.unsqueeze(-1)?;
                        Ok(vec![Some(derivative::cofactors(&x, det)?.mul(&factor)?)])
                    }
                },
            );
        }
        by_dtype!("det", self, det(self))
    }

    /// `(sign, log |det|)` (`torch.linalg.slogdet`), 0 and minus infinity for singular matrices.
    ///
    /// # Errors
    /// As [`det`](Self::det).
    pub fn slogdet(&self) -> Result<(Self, Self)> {
        if is_recorded(&[self]) {
            let (sign, log) = self.detach().slogdet()?;
            let x = self.clone();
            let log = differentiable(
                "slogdet",
                &[self],
                || Ok(log),
                |_| {
                    move |grad: &Self| {
                        Ok(vec![Some(x.inv()?.transpose(-2, -1)?.mul(&grad.unsqueeze(-1)?.unsqueeze(-1)?)?)])
                    }
                },
            );
            return Ok((sign, log?));
        }
        by_dtype!("slogdet", self, slogdet(self))
    }

    /// Inverses (`torch.linalg.inv`).
    ///
    /// # Errors
    /// As [`det`](Self::det); singular matrices.
    pub fn inv(&self) -> Result<Self> {
        if is_recorded(&[self]) {
            // -A^-T grad A^-T (Giles 2008)
            return differentiable_by_result(
                "inv",
                &[self],
                || self.inv(),
                || {
                    |grad: &Self, y: &Self| {
                        let turned = y.transpose(-2, -1)?;
                        Ok(vec![Some(turned.matmul(grad)?.matmul(&turned)?.neg()?)])
                    }
                },
            );
        }
        by_dtype!("inv", self, inv(self))
    }

    /// `x` with `self x = b` (`torch.linalg.solve`): `b` holds columns `[.., N, R]`, or one vector for each matrix
    /// where it has one dimension or the shape of `self` without its last. Batches broadcast.
    ///
    /// # Errors
    /// As [`inv`](Self::inv); shapes, dtypes or devices that do not fit.
    pub fn solve(&self, b: &Self) -> Result<Self> {
        self.same_device("solve", b)?;
        if is_recorded(&[self, b]) {
            let vector = b.rank() == 1 || b.dims() == &self.dims()[..self.rank().max(1) - 1];
            let (a, dims) = (self.clone(), (self.dims().to_vec(), b.dims().to_vec()));
            // db = A^-T grad, dA = -db x^T (Giles 2008)
            return differentiable_by_result(
                "solve",
                &[self, b],
                || self.solve(b),
                || {
                    move |grad: &Self, x: &Self| {
                        let column = |t: &Self| if vector { t.unsqueeze(-1) } else { Ok(t.clone()) };
                        let db = a.transpose(-2, -1)?.solve(&column(grad)?)?;
                        let da = db.matmul(&column(x)?.transpose(-2, -1)?)?.neg()?.sum_to_shape(&dims.0)?;
                        let db = if vector { db.squeeze(-1)? } else { db };
                        Ok(vec![Some(da), Some(db.sum_to_shape(&dims.1)?)])
                    }
                },
            );
        }
        by_dtype!("solve", self, solve(self, b))
    }

    /// The minimum-norm `x` that minimises `|self x - b|` (`torch.linalg.lstsq`, its solution), of `b`
    /// `[.., M, R]`. Singular values below `max(M, N)` times the dtype's epsilon of the largest count as zero.
    ///
    /// # Errors
    /// As [`svd`](Self::svd); shapes, dtypes or devices that do not fit.
    pub fn lstsq(&self, b: &Self) -> Result<Self> {
        self.same_device("lstsq", b)?;
        let fits = b.rank() == self.rank() && b.rank() >= 2 && b.dims()[..b.rank() - 1] == self.dims()[..b.rank() - 1];
        if !fits {
            return Err(b.needs("lstsq", &format!("as many rows and matrices as {}", self.shape())));
        }
        self.pinv()?.matmul(b)
    }

    /// Pseudoinverses (`torch.linalg.pinv`), singular values truncated as in [`lstsq`](Self::lstsq).
    ///
    /// # Errors
    /// As [`svd`](Self::svd).
    pub fn pinv(&self) -> Result<Self> {
        if is_recorded(&[self]) {
            return derivative::pinv(self, || self.pinv());
        }
        by_dtype!("pinv", self, pinv(self))
    }
}

/// Sign of the determinant, and the diagonal, the product of whose magnitudes is its magnitude.
fn diagonal<T: Real>(matrix: MatRef<'_, T>) -> (f64, Vec<f64>) {
    if matrix.nrows() == 0 {
        return (1.0, Vec::new());
    }
    let lu = matrix.partial_piv_lu();
    let mut forward = lu.P().arrays().0.to_vec();
    let mut sign = 1.0;
    for i in 0..forward.len() {
        while forward[i] != i {
            let j = forward[i];
            forward.swap(i, j);
            sign = -sign;
        }
    }
    let diagonal = (0..matrix.nrows()).map(|i| lu.U()[(i, i)].f64()).collect::<Vec<_>>();
    // What follows a pivot of zero is not a number.
    match diagonal.iter().position(|&d| d == 0.0) {
        Some(at) if diagonal[..at].iter().all(|d| !d.is_nan()) => (0.0, vec![0.0]),
        _ => (sign, diagonal),
    }
}

fn det<T: Real>(x: &BitNetTensor) -> Result<BitNetTensor> {
    let stack = Stack::<T>::square("det", x)?;
    let value = |matrix| {
        let (sign, diagonal) = diagonal(matrix);
        T::of(diagonal.iter().product::<f64>() * if sign == 0.0 { 1.0 } else { sign })
    };
    stack.tensor(&stack.matrices().map(value).collect::<Vec<T>>(), &[])
}

fn slogdet<T: Real>(x: &BitNetTensor) -> Result<(BitNetTensor, BitNetTensor)> {
    let stack = Stack::<T>::square("slogdet", x)?;
    let (mut signs, mut logs) = (Vec::new(), Vec::new());
    for matrix in stack.matrices() {
        let (sign, diagonal) = diagonal(matrix);
        signs.push(T::of(diagonal.iter().fold(sign, |sign, d| if d.is_nan() { *d } else { sign * d.signum() })));
        logs.push(T::of(diagonal.iter().map(|d| d.abs().ln()).sum()));
    }
    Ok((stack.tensor(&signs, &[])?, stack.tensor(&logs, &[])?))
}

/// Factors of an invertible matrix.
fn invertible<T: Real>(op: &'static str, matrix: MatRef<'_, T>, at: usize) -> Result<PartialPivLu<T>> {
    let lu = matrix.partial_piv_lu();
    match (0..matrix.nrows()).find(|&i| lu.U()[(i, i)].f64() == 0.0) {
        Some(i) => Err(singular(op, at, i)),
        None => Ok(lu),
    }
}

fn singular(op: &'static str, at: usize, pivot: usize) -> BitNetError {
    argument(
        op,
        format!("matrix {at} of the batch is singular: pivot {pivot} is zero; pinv and lstsq take such matrices"),
    )
}

fn inv<T: Real>(x: &BitNetTensor) -> Result<BitNetTensor> {
    let stack = Stack::<T>::square("inv", x)?;
    let n = stack.rows;
    let mut data = Vec::new();
    for (i, matrix) in stack.matrices().enumerate().filter(|_| n > 0) {
        push(&mut data, invertible("inv", matrix, i)?.solve(Mat::<T>::identity(n, n)).as_ref());
    }
    stack.tensor(&data, &[n, n])
}

fn solve<T: Real>(a: &BitNetTensor, b: &BitNetTensor) -> Result<BitNetTensor> {
    const OP: &str = "solve";
    let (got, needed) = (b.dtype(), a.dtype());
    if got != needed {
        return Err(crate::TensorOpError::DType { op: OP, what: "b", got, needed }.into());
    }
    let matrices = Stack::<T>::square(OP, a)?;
    if b.rank() == 1 || b.dims() == &a.dims()[..a.rank() - 1] {
        return solve::<T>(a, &b.unsqueeze(-1)?)?.squeeze(-1);
    }
    let n = matrices.rows;
    let &[ref batch_b @ .., rows, columns] = b.dims() else {
        return Err(b.needs(OP, "at least 1 dimension"));
    };
    if rows != n {
        return Err(b.needs(OP, &format!("{n} rows")));
    }
    let shape = |dims: &[usize]| crate::TensorShape::new(dims);
    let batch = crate::ops::broadcast_shapes(OP, &shape(&matrices.batch)?, &shape(batch_b)?)?;
    // One matrix for many right-hand sides, or one for each.
    let wide = a.broadcast_to(&[batch.dims(), &[n, n]].concat())?;
    let (matrices, sides) = (
        if batch.dims() == matrices.batch { matrices } else { Stack::<T>::of(OP, &wide)? },
        Stack::<T>::of(OP, &b.broadcast_to(&[batch.dims(), &[n, columns]].concat())?)?,
    );
    let mut data = Vec::new();
    for (i, matrix) in matrices.matrices().enumerate().filter(|_| n > 0) {
        push(&mut data, invertible(OP, matrix, i)?.solve(sides.matrix(i)).as_ref());
    }
    matrices.tensor(&data, &[n, columns])
}

fn pinv<T: Real>(x: &BitNetTensor) -> Result<BitNetTensor> {
    let stack = Stack::<T>::of("pinv", x)?;
    let (m, n) = (stack.rows, stack.columns);
    let mut data = Vec::new();
    for matrix in stack.matrices().filter(|_| m > 0 && n > 0) {
        finite("pinv", matrix)?;
        let svd = matrix.thin_svd().map_err(|_| not_converged("pinv"))?;
        let cut = svd.S()[0].f64() * T::EPSILON * m.max(n) as f64;
        let k = m.min(n);
        let inverse = |i: usize| if svd.S()[i].f64() > cut { T::of(1.0 / svd.S()[i].f64()) } else { T::of(0.0) };
        let scaled = Mat::<T>::from_fn(n, k, |i, j| svd.V()[(i, j)] * inverse(j));
        push(&mut data, (scaled.as_ref() * svd.U().transpose()).as_ref());
    }
    stack.tensor(&data, &[n, m])
}
