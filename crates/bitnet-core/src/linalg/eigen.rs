//! Eigenvalues and eigenvectors.

use super::decompose::finite;
use super::derivative;
use super::stack::{Real, Stack, by_dtype, not_converged, push};
use crate::autograd::is_recorded;
use crate::{BitNetTensor, Result};
use faer::Side;

/// Complex eigenvalues and eigenvectors as pairs of real tensors: `x v = w v` of each column v.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// Real parts of the eigenvalues, `[.., N]`, in no fixed order.
    pub values: BitNetTensor,
    /// Their imaginary parts.
    pub values_imag: BitNetTensor,
    /// Real parts of the eigenvectors, the columns of `[.., N, N]`, each of length 1.
    pub vectors: BitNetTensor,
    /// Their imaginary parts.
    pub vectors_imag: BitNetTensor,
}

impl BitNetTensor {
    /// `(W, V)` of symmetric matrices (`torch.linalg.eigh`): eigenvalues `[.., N]` in ascending order and orthonormal
    /// eigenvectors, the columns of `[.., N, N]`, with signs that are not fixed. Only the lower triangle is read.
    ///
    /// # Errors
    /// As [`svd`](Self::svd); matrices that are not square.
    pub fn eigh(&self) -> Result<(Self, Self)> {
        if is_recorded(&[self]) {
            return derivative::eigh(self, |x| x.eigh().map(|(w, v)| [w, v])).map(<(Self, Self)>::from);
        }
        by_dtype!("eigh", self, eigh(self))
    }

    /// Eigenvalues and right eigenvectors of any square matrices (`torch.linalg.eig`).
    ///
    /// # Errors
    /// As [`eigh`](Self::eigh).
    pub fn eig(&self) -> Result<Eigen> {
        by_dtype!("eig", self, eig(self))
    }
}

fn eigh<T: Real>(x: &BitNetTensor) -> Result<(BitNetTensor, BitNetTensor)> {
    let stack = Stack::<T>::square("eigh", x)?;
    let n = stack.rows;
    let (mut w, mut v) = (Vec::new(), Vec::new());
    for matrix in stack.matrices().filter(|_| n > 0) {
        finite("eigh", matrix)?;
        let eigen = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| not_converged("eigh"))?;
        w.extend((0..n).map(|i| eigen.S()[i]));
        push(&mut v, eigen.U());
    }
    Ok((stack.tensor(&w, &[n])?, stack.tensor(&v, &[n, n])?))
}

fn eig<T: Real>(x: &BitNetTensor) -> Result<Eigen> {
    let stack = Stack::<T>::square("eig", x)?;
    let n = stack.rows;
    let [mut values, mut values_imag, mut vectors, mut vectors_imag] = [const { Vec::<T>::new() }; 4];
    for matrix in stack.matrices().filter(|_| n > 0) {
        finite("eig", matrix)?;
        let eigen = matrix.eigen().map_err(|_| not_converged("eig"))?;
        let u = eigen.U();
        let part = |i: usize, j: usize| (u[(i, j)].re.f64(), u[(i, j)].im.f64());
        let length = |j: usize| (0..n).map(|i| part(i, j)).map(|(re, im)| re * re + im * im).sum::<f64>().sqrt();
        let lengths: Vec<f64> = (0..n).map(length).collect();
        values.extend((0..n).map(|j| eigen.S()[j].re));
        values_imag.extend((0..n).map(|j| eigen.S()[j].im));
        vectors.extend((0..n * n).map(|at| T::of(part(at / n, at % n).0 / lengths[at % n])));
        vectors_imag.extend((0..n * n).map(|at| T::of(part(at / n, at % n).1 / lengths[at % n])));
    }
    Ok(Eigen {
        values: stack.tensor(&values, &[n])?,
        values_imag: stack.tensor(&values_imag, &[n])?,
        vectors: stack.tensor(&vectors, &[n, n])?,
        vectors_imag: stack.tensor(&vectors_imag, &[n, n])?,
    })
}
