//! Eigenvalues and eigenvectors.

use super::derivative;
use super::scaled::Scaled;
use super::stack::{Real, Stack, by_dtype, not_converged, push};
use crate::autograd::is_recorded;
use crate::{BitNetTensor, Result};
use faer::{Mat, MatRef, Side, c64};

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
    for i in (0..stack.count()).filter(|_| n > 0) {
        let scaled = Scaled::lower(&stack, i);
        if !scaled.finite {
            return Err(not_converged("eigh"));
        }
        let eigen = scaled.matrix().self_adjoint_eigen(Side::Lower).map_err(|_| not_converged("eigh"))?;
        w.extend((0..n).map(|i| scaled.back(eigen.S()[i])));
        push(&mut v, eigen.U());
    }
    Ok((stack.tensor(&w, &[n])?, stack.tensor(&v, &[n, n])?))
}

fn eig<T: Real>(x: &BitNetTensor) -> Result<Eigen> {
    let stack = Stack::<T>::square("eig", x)?;
    let n = stack.rows;
    let [mut values, mut values_imag, mut vectors, mut vectors_imag] = [const { Vec::<T>::new() }; 4];
    for i in (0..stack.count()).filter(|_| n > 0) {
        let scaled = Scaled::for_squares("eig", &stack, i)?;
        let eigen = scaled.matrix().eigen().map_err(|_| not_converged("eig"))?;
        let (s, u) = (eigen.S(), eigen.U());
        let roots: Vec<c64> = (0..n).map(|j| c64::new(s[j].re.f64(), s[j].im.f64())).collect();
        let columns: Vec<Vec<c64>> = (0..n)
            .map(|j| {
                let column: Vec<c64> = (0..n).map(|i| c64::new(u[(i, j)].re.f64(), u[(i, j)].im.f64())).collect();
                unit(column).map_or_else(|| null_vector(scaled.matrix(), &roots, j), Ok)
            })
            .collect::<Result<_>>()?;
        values.extend((0..n).map(|j| scaled.back(s[j].re)));
        values_imag.extend((0..n).map(|j| scaled.back(s[j].im)));
        vectors.extend((0..n * n).map(|at| T::of(columns[at % n][at / n].re)));
        vectors_imag.extend((0..n * n).map(|at| T::of(columns[at % n][at / n].im)));
    }
    Ok(Eigen {
        values: stack.tensor(&values, &[n])?,
        values_imag: stack.tensor(&values_imag, &[n])?,
        vectors: stack.tensor(&vectors, &[n, n])?,
        vectors_imag: stack.tensor(&vectors_imag, &[n, n])?,
    })
}

/// The vector made one of length 1; `None` of one that has no direction.
fn unit(mut vector: Vec<c64>) -> Option<Vec<c64>> {
    let largest = vector.iter().fold(0.0, |top: f64, x| top.max(x.re.abs()).max(x.im.abs()));
    let finite = vector.iter().all(|x| x.re.is_finite() && x.im.is_finite());
    if !finite || largest == 0.0 {
        return None;
    }
    // Squares of what is near 1 neither overflow nor vanish.
    vector.iter_mut().for_each(|x| *x = c64::new(x.re / largest, x.im / largest));
    let length = vector.iter().map(|x| x.re * x.re + x.im * x.im).sum::<f64>().sqrt();
    vector.iter_mut().for_each(|x| *x = c64::new(x.re / length, x.im / length));
    Some(vector)
}

/// An eigenvector of `roots[j]` where substitution overflowed, as it does for long chains of a defective matrix: the direction
/// that `matrix - root` shortens most. Equal roots take one direction after the other while these are eigenvectors.
fn null_vector<T: Real>(matrix: MatRef<'_, T>, roots: &[c64], j: usize) -> Result<Vec<c64>> {
    let (n, root) = (matrix.nrows(), roots[j]);
    let shifted = Mat::<c64>::from_fn(n, n, |i, k| {
        c64::new(matrix[(i, k)].f64() - if i == k { root.re } else { 0.0 }, if i == k { -root.im } else { 0.0 })
    });
    let svd = shifted.svd().map_err(|_| not_converged("eig"))?;
    let size = |i: usize| svd.S()[i].re;
    let nothing = n as f64 * T::EPSILON * size(0);
    let nullity = (0..n).filter(|&i| size(i) <= nothing).count().max(1);
    let place = roots[..j].iter().filter(|&&other| other == root).count() % nullity;
    Ok((0..n).map(|i| svd.V()[(i, n - 1 - place)]).collect())
}
