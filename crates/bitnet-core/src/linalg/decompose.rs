//! Batched decompositions into triangular and orthogonal factors.

use super::factors::Factors;
use super::scaled::{Scaled, times_power};
use super::stack::{Real, Stack, by_dtype, not_converged, push, push_scaled};
use super::{argument, derivative};
use crate::autograd::is_recorded;
use crate::{BitNetTensor, Result};
use faer::{Mat, Side};

impl BitNetTensor {
    /// `(P, L, U)` with `x = P L U` (`torch.linalg.lu`): P a permutation, L unit lower triangular `[.., M, K]`, U upper
    /// triangular `[.., K, N]`, `K = min(M, N)`; with partial pivoting.
    ///
    /// # Errors
    /// Fewer than 2 dimensions; `Unsupported` unless the dtype is F32 or F64 and the tensor on the CPU (all
    /// decompositions).
    pub fn lu(&self) -> Result<(Self, Self, Self)> {
        if is_recorded(&[self]) {
            if !matches!(self.dims(), [.., m, n] if m == n) {
                return Err(argument("lu", "not differentiable for matrices that are not square".into()));
            }
            return derivative::lu(self, |x| x.lu().map(|(p, l, u)| [p, l, u])).map(<(Self, Self, Self)>::from);
        }
        by_dtype!("lu", self, lu(self))
    }

    /// `(Q, R)` with `x = Q R` (`torch.linalg.qr`, reduced): Q `[.., M, K]` with orthonormal columns, R `[.., K, N]`
    /// upper triangular, `K = min(M, N)`. Signs of the rows of R are not fixed.
    ///
    /// # Errors
    /// As [`lu`](Self::lu).
    pub fn qr(&self) -> Result<(Self, Self)> {
        if is_recorded(&[self]) {
            return derivative::qr(self, |x| x.qr().map(|(q, r)| [q, r])).map(<(Self, Self)>::from);
        }
        by_dtype!("qr", self, qr(self))
    }

    /// Lower triangular L with `x = L L^T` (`torch.linalg.cholesky`); only the lower triangle of `x` is read.
    ///
    /// # Errors
    /// As [`lu`](Self::lu); a matrix that is not positive definite.
    pub fn cholesky(&self) -> Result<Self> {
        if is_recorded(&[self]) {
            return derivative::cholesky(self, || self.cholesky());
        }
        by_dtype!("cholesky", self, cholesky(self))
    }

    /// `(U, S, V^T)` with `x = U diag(S) V^T` (`torch.linalg.svd`): S `[.., K]` in descending order, `K = min(M, N)`,
    /// U `[.., M, K]` and V^T `[.., K, N]`, or `[.., M, M]` and `[.., N, N]` with `full_matrices`. Signs of pairs of
    /// singular vectors are not fixed.
    ///
    /// # Errors
    /// As [`lu`](Self::lu); matrices with NaN or infinities.
    pub fn svd(&self, full_matrices: bool) -> Result<(Self, Self, Self)> {
        if is_recorded(&[self]) {
            if full_matrices {
                let message = "not differentiable with full_matrices: their other columns are not fixed".into();
                return Err(argument("svd", message));
            }
            return derivative::svd(self, |x| x.svd(false).map(|(u, s, v)| [u, s, v])).map(<(Self, Self, Self)>::from);
        }
        by_dtype!("svd", self, svd(self, full_matrices))
    }

    /// Singular values in descending order (`torch.linalg.svdvals`), `[.., min(M, N)]`.
    ///
    /// # Errors
    /// As [`svd`](Self::svd).
    pub fn svdvals(&self) -> Result<Self> {
        if is_recorded(&[self]) {
            return derivative::svdvals(self, || self.svdvals());
        }
        by_dtype!("svdvals", self, svdvals(self))
    }
}

fn lu<T: Real>(x: &BitNetTensor) -> Result<(BitNetTensor, BitNetTensor, BitNetTensor)> {
    let stack = Stack::<T>::of("lu", x)?;
    let (m, n) = (stack.rows, stack.columns);
    let k = m.min(n);
    let (mut p, mut l, mut u) = (stack.reserved(), stack.reserved(), stack.reserved());
    for i in 0..stack.count() {
        if k == 0 {
            push(&mut p, Mat::<T>::identity(m, m).as_ref());
            continue;
        }
        let factors = Factors::of(&stack, i);
        let start = p.len();
        p.resize(start + m * m, T::of(0.0));
        for (j, row) in factors.rows().iter().enumerate() {
            p[start + row * m + j] = T::of(1.0);
        }
        push(&mut l, factors.l());
        push_scaled(&mut u, factors.u(), factors.exponent);
    }
    Ok((stack.tensor(&p, &[m, m])?, stack.tensor(&l, &[m, k])?, stack.tensor(&u, &[k, n])?))
}

fn qr<T: Real>(x: &BitNetTensor) -> Result<(BitNetTensor, BitNetTensor)> {
    let stack = Stack::<T>::of("qr", x)?;
    let (m, n) = (stack.rows, stack.columns);
    let (mut q, mut r) = (Vec::new(), Vec::new());
    if m > 0 && n > 0 {
        for i in 0..stack.count() {
            let scaled = Scaled::for_quotients(&stack, i);
            let factors = scaled.matrix().qr();
            push(&mut q, factors.compute_thin_Q().as_ref());
            push_scaled(&mut r, factors.thin_R(), scaled.exponent);
        }
    }
    Ok((stack.tensor(&q, &[m, m.min(n)])?, stack.tensor(&r, &[m.min(n), n])?))
}

fn cholesky<T: Real>(x: &BitNetTensor) -> Result<BitNetTensor> {
    let stack = Stack::<T>::square("cholesky", x)?;
    let n = stack.rows;
    let mut l = stack.reserved();
    for i in (0..stack.count()).filter(|_| n > 0) {
        let direct = stack.matrix(i).llt(Side::Lower).ok();
        let is_safe = |x: T| T::within(x.f64(), T::QUOTIENTS / 2);
        let safe = direct.filter(|factors| (0..n).all(|j| is_safe(factors.L()[(j, j)])));
        let scaled = safe.is_none().then(|| Scaled::lower(&stack, i));
        let factors = safe.map_or_else(|| scaled.as_ref()?.matrix().llt(Side::Lower).ok(), Some);
        let Some(factors) = factors else {
            return Err(argument("cholesky", format!("matrix {i} of the batch is not positive definite")));
        };
        let factor = factors.L();
        for i in 0..n {
            l.extend((0..n).map(|j| if j <= i { factor[(i, j)] } else { T::of(0.0) }));
        }
        if let Some(scaled) = scaled {
            let start = l.len() - n * n;
            l[start..].iter_mut().for_each(|x| *x = times_power(*x, scaled.exponent / 2));
        }
        if l[l.len() - n * n..].iter().any(|x| x.f64().is_nan()) {
            return Err(argument(
                "cholesky",
                format!("matrix {i} of the batch is not positive definite: it holds NaN"),
            ));
        }
    }
    stack.tensor(&l, &[n, n])
}

fn svd<T: Real>(x: &BitNetTensor, full: bool) -> Result<(BitNetTensor, BitNetTensor, BitNetTensor)> {
    let stack = Stack::<T>::of("svd", x)?;
    let (m, n) = (stack.rows, stack.columns);
    let k = m.min(n);
    let (rows, columns) = if full { (m, n) } else { (k, k) };
    let (mut u, mut s, mut v) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..stack.count() {
        if k == 0 {
            push(&mut u, Mat::<T>::identity(m, rows).as_ref());
            push(&mut v, Mat::<T>::identity(columns, n).as_ref());
            continue;
        }
        let scaled = Scaled::for_squares("svd", &stack, i)?;
        let matrix = scaled.matrix();
        let factors = if full { matrix.svd() } else { matrix.thin_svd() }.map_err(|_| not_converged("svd"))?;
        push(&mut u, factors.U());
        s.extend((0..k).map(|i| scaled.back(factors.S()[i])));
        push(&mut v, factors.V().transpose());
    }
    Ok((stack.tensor(&u, &[m, rows])?, stack.tensor(&s, &[k])?, stack.tensor(&v, &[columns, n])?))
}

fn svdvals<T: Real>(x: &BitNetTensor) -> Result<BitNetTensor> {
    let stack = Stack::<T>::of("svdvals", x)?;
    let k = stack.rows.min(stack.columns);
    let mut s: Vec<T> = Vec::new();
    for i in (0..stack.count()).filter(|_| k > 0) {
        let scaled = Scaled::for_squares("svdvals", &stack, i)?;
        let values = scaled.matrix().singular_values().map_err(|_| not_converged("svdvals"))?;
        s.extend(values.into_iter().map(|value| scaled.back(value)));
    }
    stack.tensor(&s, &[k])
}
