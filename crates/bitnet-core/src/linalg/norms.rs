//! Matrix norms, rank, condition number and powers.

use super::solve::invertible_form;
use super::stack::by_dtype;
use crate::autograd::{is_recorded, no_grad};
use crate::{BitNetDType, BitNetTensor, Result};

/// Which norm of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixNorm {
    /// Root of the sum of squares.
    Frobenius,
    /// Sum of singular values.
    Nuclear,
    /// Largest sum of absolute values of a row (`inf`).
    LargestRow,
    /// Smallest of them (`-inf`).
    SmallestRow,
    /// Largest sum of absolute values of a column (`1`).
    LargestColumn,
    /// Smallest of them (`-1`).
    SmallestColumn,
    /// Largest singular value (`2`).
    LargestSingular,
    /// Smallest of them (`-2`).
    SmallestSingular,
}

impl BitNetTensor {
    /// Norms of the matrices in the last two dimensions (`torch.linalg.matrix_norm`), `[..]`.
    ///
    /// # Errors
    /// Fewer than 2 dimensions, dtypes other than floats; of norms of singular values as [`svd`](Self::svd).
    pub fn matrix_norm(&self, norm: MatrixNorm) -> Result<Self> {
        if self.rank() < 2 {
            return Err(self.needs("matrix_norm", "at least 2 dimensions"));
        }
        let sums = |axis: isize| self.norm(1.0, axis, false);
        let &[ref batch @ .., rows, columns] = self.dims() else { unreachable!("it has two dimensions") };
        let nothing = match norm {
            MatrixNorm::LargestRow => rows == 0,
            MatrixNorm::LargestColumn => columns == 0,
            MatrixNorm::LargestSingular => rows.min(columns) == 0,
            _ => false,
        };
        if nothing {
            // As a sum, so that it is on the tape.
            return self.sum([-2, -1], false)?.reshape(batch);
        }
        match norm {
            MatrixNorm::Frobenius => self.norm(2.0, [-2, -1], false),
            MatrixNorm::LargestRow => sums(-1)?.amax(-1, false),
            MatrixNorm::SmallestRow => sums(-1)?.amin(-1, false),
            MatrixNorm::LargestColumn => sums(-2)?.amax(-1, false),
            MatrixNorm::SmallestColumn => sums(-2)?.amin(-1, false),
            MatrixNorm::Nuclear => self.svdvals()?.sum(-1, false),
            MatrixNorm::LargestSingular => self.svdvals()?.amax(-1, false),
            MatrixNorm::SmallestSingular => self.svdvals()?.amin(-1, false),
        }
    }

    /// Number of singular values above `max(M, N)` times the dtype's epsilon of the largest
    /// (`torch.linalg.matrix_rank`), `I64` `[..]`.
    ///
    /// # Errors
    /// As [`svd`](Self::svd).
    pub fn matrix_rank(&self) -> Result<Self> {
        if is_recorded(&[self]) {
            return no_grad(|| self.matrix_rank());
        }
        fn epsilon<T: super::stack::Real>() -> Result<f64> {
            Ok(T::EPSILON)
        }
        let epsilon = by_dtype!("matrix_rank", self, epsilon())?;
        let values = self.svdvals()?;
        let &[.., m, n] = self.dims() else { unreachable!("svdvals has checked it") };
        if m.min(n) == 0 {
            return Self::zeros(&self.dims()[..self.rank() - 2], BitNetDType::I64, self.device());
        }
        let cut = values.amax(-1, true)?.mul(m.max(n) as f64 * epsilon)?;
        values.gt(&cut)?.count_nonzero(-1)
    }

    /// `|x| |x^-1|` in the given norm (`torch.linalg.cond`); infinite for singular matrices. For the 2-norms it is the
    /// ratio of singular values, and matrices need not be square.
    ///
    /// # Errors
    /// As [`svd`](Self::svd); matrices that are not square in other norms.
    pub fn cond(&self, norm: MatrixNorm) -> Result<Self> {
        if self.rank() >= 2 && self.dims()[self.rank() - 2..].contains(&0) {
            return self.norm(2.0, [-2, -1], false);
        }
        match norm {
            MatrixNorm::LargestSingular => {
                let values = self.svdvals()?;
                values.amax(-1, false)?.div(&values.amin(-1, false)?)
            }
            MatrixNorm::SmallestSingular => {
                let values = self.svdvals()?;
                values.amin(-1, false)?.div(&values.amax(-1, false)?)
            }
            _ => {
                if !matches!(self.dims(), [.., m, n] if m == n) {
                    return Err(self.needs("cond", "square matrices in this norm"));
                }
                let host = self.detach();
                let (singular, scales) = by_dtype!("cond", &host, invertible_form(&host))?;
                // It does not depend on the scale, in which an inverse could overflow.
                let mut x = if let Some(scales) = scales { self.mul(&scales)? } else { self.clone() };
                let Some(singular) = singular else {
                    return x.matrix_norm(norm)?.mul(&x.inv()?.matrix_norm(norm)?);
                };
                let eye = Self::eye(x.shape().last(), x.dtype(), x.device())?;
                x = Self::where_(&singular.unsqueeze(-1)?.unsqueeze(-1)?, &eye, &x)?;
                x.matrix_norm(norm)?.mul(&x.inv()?.matrix_norm(norm)?)?.masked_fill(&singular, f64::INFINITY)
            }
        }
    }

    /// `x` to the power of `n` (`torch.linalg.matrix_power`); a negative `n` inverts.
    ///
    /// # Errors
    /// Matrices that are not square; for negative `n` as [`inv`](Self::inv).
    pub fn matrix_power(&self, n: i64) -> Result<Self> {
        let &[.., rows, columns] = self.dims() else {
            return Err(self.needs("matrix_power", "at least 2 dimensions"));
        };
        if rows != columns {
            return Err(self.needs("matrix_power", "square matrices"));
        }
        if n < 0 {
            return self.inv()?.matrix_power(n.checked_neg().unwrap_or(i64::MAX));
        }
        if n == 0 {
            return Self::eye(rows, self.dtype(), self.device())?.broadcast_to(self.dims())?.copy();
        }
        // Exponentiation by squaring.
        let (mut square, mut result) = (self.clone(), None::<Self>);
        let mut rest = n;
        while rest > 0 {
            if rest & 1 == 1 {
                result = Some(match result {
                    Some(result) => result.matmul(&square)?.to_dtype(self.dtype())?,
                    None => square.clone(),
                });
            }
            rest >>= 1;
            if rest > 0 {
                square = square.matmul(&square)?.to_dtype(self.dtype())?;
            }
        }
        Ok(result.expect("n is not zero"))
    }
}
