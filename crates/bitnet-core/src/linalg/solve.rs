//! Determinants, inverses and linear systems.

use super::argument;
use super::derivative;
use super::factors::Factors;
use super::scaled::Scaled;
use super::stack::{Real, Stack, by_dtype, not_converged, push_scaled};
use crate::autograd::{differentiable, differentiable_by_result, is_recorded};
use crate::{BitNetError, BitNetTensor, Result};
use faer::Mat;

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
            let vector = is_vector(self, b);
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
        if is_recorded(&[self, b]) {
            return derivative::lstsq(self, b, || self.lstsq(b));
        }
        by_dtype!("lstsq", self, lstsq(self, b))
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

/// Pivots of LU, and the sign and the power of two that their product has beside them; of singular matrices the sign is 0.
struct Pivots {
    sign: f64,
    exponent: i64,
    values: Vec<f64>,
}

fn pivots<T: Real>(stack: &Stack<T>, i: usize) -> Pivots {
    if stack.rows == 0 {
        return Pivots { sign: 1.0, exponent: 0, values: Vec::new() };
    }
    let factors = Factors::of(stack, i);
    let mut rows = factors.rows().to_vec();
    let mut sign = 1.0;
    for i in 0..rows.len() {
        while rows[i] != i {
            let j = rows[i];
            rows.swap(i, j);
            sign = -sign;
        }
    }
    let values: Vec<f64> = factors.diagonal().collect();
    if values.contains(&0.0) && !values.iter().any(|value| value.is_nan()) {
        sign = 0.0;
    }
    Pivots { sign, exponent: i64::from(factors.exponent) * stack.rows as i64, values }
}

fn det<T: Real>(x: &BitNetTensor) -> Result<BitNetTensor> {
    let stack = Stack::<T>::square("det", x)?;
    let value = |i| {
        let Pivots { sign, mut exponent, values } = pivots(&stack, i);
        if sign == 0.0 {
            return T::of(0.0);
        }
        // The product may leave the range of f64 on its way: its exponent is counted apart.
        let mut in_range = |x: f64| {
            if (1e-150..1e150).contains(&x.abs()) {
                return x;
            }
            let (fraction, power) = libm::frexp(x);
            exponent += i64::from(power);
            fraction
        };
        let mut product = sign;
        for value in values {
            let factor = in_range(value);
            product = in_range(product * factor);
        }
        T::of(libm::scalbn(product, exponent.clamp(-5000, 5000) as i32))
    };
    stack.tensor(&(0..stack.count()).map(value).collect::<Vec<T>>(), &[])
}

fn slogdet<T: Real>(x: &BitNetTensor) -> Result<(BitNetTensor, BitNetTensor)> {
    let stack = Stack::<T>::square("slogdet", x)?;
    let (mut signs, mut logs) = (Vec::new(), Vec::new());
    for i in 0..stack.count() {
        let Pivots { sign, exponent, values } = pivots(&stack, i);
        signs.push(T::of(values.iter().fold(sign, |sign, d| if d.is_nan() { *d } else { sign * d.signum() })));
        let log: f64 = values.iter().map(|d| d.abs().ln()).sum();
        logs.push(T::of(if sign == 0.0 { f64::NEG_INFINITY } else { log + exponent as f64 * std::f64::consts::LN_2 }));
    }
    Ok((stack.tensor(&signs, &[])?, stack.tensor(&logs, &[])?))
}

/// Factors of a matrix that can be inverted.
fn invertible<T: Real>(op: &'static str, stack: &Stack<T>, at: usize) -> Result<Factors<T>> {
    let factors = Factors::of(stack, at);
    let zero = factors.diagonal().position(|d| d == 0.0);
    match zero {
        Some(i) => Err(singular(op, at, i)),
        None => Ok(factors),
    }
}

fn singular(op: &'static str, at: usize, pivot: usize) -> BitNetError {
    argument(
        op,
        format!("matrix {at} of the batch is singular: pivot {pivot} is zero; pinv and lstsq take such matrices"),
    )
}

/// Which matrices have a pivot of zero, `Bool` `[..]`, and powers of two `[.., 1, 1]` that bring the largest element of each
/// near 1; `None` where no matrix has one, and where none needs to be scaled.
pub(super) fn invertible_form<T: Real>(x: &BitNetTensor) -> Result<(Option<BitNetTensor>, Option<BitNetTensor>)> {
    let stack = Stack::<T>::square("cond", x)?;
    let all = || 0..stack.count();
    let singular: Vec<bool> = all().map(|i| pivots(&stack, i).sign == 0.0).collect();
    let sizes: Vec<f64> = all().map(|i| T::largest(stack.elements(i))).collect();
    let scale = |size: &f64| match size.log2() {
        size if size.is_finite() => T::of((-size.floor()).clamp(T::LOWEST, -T::LOWEST).exp2()),
        _ => T::of(1.0),
    };
    let scales = if sizes.iter().all(|&size| T::within(size, T::SQUARES)) {
        None
    } else {
        Some(stack.tensor(&sizes.iter().map(scale).collect::<Vec<T>>(), &[1, 1])?)
    };
    let singular = if singular.contains(&true) {
        Some(BitNetTensor::from_bools(&singular, &stack.batch, x.device())?)
    } else {
        None
    };
    Ok((singular, scales))
}

fn inv<T: Real>(x: &BitNetTensor) -> Result<BitNetTensor> {
    let stack = Stack::<T>::square("inv", x)?;
    let n = stack.rows;
    let (identity, mut data) = (Mat::<T>::identity(n, n), stack.reserved());
    for i in (0..stack.count()).filter(|_| n > 0) {
        let factors = invertible("inv", &stack, i)?;
        let inverse = factors.solve(identity.as_ref());
        push_scaled(&mut data, inverse.as_ref(), -factors.exponent);
    }
    stack.tensor(&data, &[n, n])
}

/// Whether `b` holds one vector for each matrix of `a`.
fn is_vector(a: &BitNetTensor, b: &BitNetTensor) -> bool {
    b.rank() == 1 || b.dims() == &a.dims()[..a.rank().max(1) - 1]
}

fn solve<T: Real>(a: &BitNetTensor, b: &BitNetTensor) -> Result<BitNetTensor> {
    const OP: &str = "solve";
    let (got, needed) = (b.dtype(), a.dtype());
    if got != needed {
        return Err(crate::TensorOpError::DType { op: OP, what: "b", got, needed }.into());
    }
    let matrices = Stack::<T>::square(OP, a)?;
    if is_vector(a, b) { columns(a, matrices, &b.unsqueeze(-1)?)?.squeeze(-1) } else { columns(a, matrices, b) }
}

/// `x` with `a x = b` of columns `b` `[.., N, R]`.
fn columns<T: Real>(a: &BitNetTensor, matrices: Stack<T>, b: &BitNetTensor) -> Result<BitNetTensor> {
    const OP: &str = "solve";
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
    for i in (0..matrices.count()).filter(|_| n > 0) {
        let (factors, side) = (invertible(OP, &matrices, i)?, Scaled::for_quotients(&sides, i));
        push_scaled(&mut data, factors.solve(side.matrix()).as_ref(), side.exponent - factors.exponent);
    }
    matrices.tensor(&data, &[n, columns])
}

/// V divided by the singular values that are not cut off, and U, of the matrix that was scaled.
fn inverse_parts<T: Real>(op: &'static str, scaled: &Scaled<T>) -> Result<(Mat<T>, Mat<T>)> {
    let matrix = scaled.matrix();
    let (m, n) = (matrix.nrows(), matrix.ncols());
    let svd = matrix.thin_svd().map_err(|_| not_converged(op))?;
    let cut = svd.S()[0].f64() * T::EPSILON * m.max(n) as f64;
    let inverse = |i: usize| if svd.S()[i].f64() > cut { T::of(1.0 / svd.S()[i].f64()) } else { T::of(0.0) };
    let v = Mat::<T>::from_fn(n, m.min(n), |i, j| svd.V()[(i, j)] * inverse(j));
    Ok((v, svd.U().to_owned()))
}

fn pinv<T: Real>(x: &BitNetTensor) -> Result<BitNetTensor> {
    let stack = Stack::<T>::of("pinv", x)?;
    let (m, n) = (stack.rows, stack.columns);
    let mut data = Vec::new();
    for i in (0..stack.count()).filter(|_| m > 0 && n > 0) {
        let scaled = Scaled::for_squares("pinv", &stack, i)?;
        let (v, u) = inverse_parts("pinv", &scaled)?;
        push_scaled(&mut data, (v.as_ref() * u.transpose()).as_ref(), -scaled.exponent);
    }
    stack.tensor(&data, &[n, m])
}

fn lstsq<T: Real>(a: &BitNetTensor, b: &BitNetTensor) -> Result<BitNetTensor> {
    const OP: &str = "lstsq";
    let (got, needed) = (b.dtype(), a.dtype());
    if got != needed {
        return Err(crate::TensorOpError::DType { op: OP, what: "b", got, needed }.into());
    }
    let (matrices, sides) = (Stack::<T>::of(OP, a)?, Stack::<T>::of(OP, b)?);
    let (m, n, columns) = (matrices.rows, matrices.columns, sides.columns);
    if m == 0 {
        return BitNetTensor::zeros(&[&matrices.batch[..], &[n, columns]].concat(), a.dtype(), a.device());
    }
    let mut data = Vec::new();
    for i in (0..matrices.count()).filter(|_| n > 0) {
        let (scaled, side) = (Scaled::for_squares(OP, &matrices, i)?, Scaled::for_squares(OP, &sides, i)?);
        let (v, u) = inverse_parts(OP, &scaled)?;
        let x = v.as_ref() * (u.transpose() * side.matrix()).as_ref();
        push_scaled(&mut data, x.as_ref(), side.exponent - scaled.exponent);
    }
    matrices.tensor(&data, &[n, columns])
}
