//! The orthogonalization of momentum in Muon (Jordan et al. 2024).

use crate::{Result, TrainingError};
use BitNetDType::{BF16, F32};
use bitnet_core::{BitNetDType, BitNetTensor};
use bitnet_quant::linear::{Compute, matmul};

/// Factor of Muon's step by the shape of the matrix `[rows, columns]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MuonScale {
    /// `sqrt(max(1, rows / columns))`, of Jordan et al. 2024; the learning rate is about 0.02.
    Original,
    /// `0.2 sqrt(max(rows, columns))`, of Liu et al. 2025: steps as large as AdamW's, so that its learning rate and weight
    /// decay can be taken.
    MatchAdamW,
}

impl MuonScale {
    pub(super) fn factor(self, dims: &[usize]) -> f64 {
        let (rows, columns) = (dims[0] as f64, dims[1] as f64);
        match self {
            Self::Original => (rows / columns).max(1.).sqrt(),
            Self::MatchAdamW => 0.2 * rows.max(columns).sqrt(),
        }
    }
}

/// Iterations of the author's, after which all singular values lie between about 0.7 and 1.2.
const ITERATIONS: usize = 5;

/// [`newton_schulz`] as Muon's author computes it, operands of products in bf16; in f64 for a parameter of that dtype.
pub(super) fn orthogonal(matrix: &BitNetTensor, parameter: &str) -> Result<BitNetTensor> {
    if matrix.rank() != 2 || matrix.elements() == 0 {
        return Err(TrainingError::NotAMatrix { parameter: parameter.to_owned(), shape: *matrix.shape() });
    }
    newton_schulz(matrix, ITERATIONS, if matrix.dtype() == F32 { BF16 } else { matrix.dtype() })
}

/// A matrix `U S' V^T` for the matrix `U S V^T`, where all of `S'` lie near 1: Newton-Schulz iterations
/// `X (a + b X^T X + c (X^T X)^2)` whose polynomial is as steep at 0 as it can be without growing. `X`, `X^T X` and the
/// polynomial are rounded to `dtype`, wherever they stand: iterations repair what is rounded alike everywhere.
pub fn newton_schulz(matrix: &BitNetTensor, iterations: usize, dtype: BitNetDType) -> Result<BitNetTensor> {
    const A: f64 = 3.4445;
    const B: f64 = -4.775;
    const C: f64 = 2.0315;
    let product = |a: &BitNetTensor, b: &BitNetTensor| match dtype {
        BF16 => matmul(a, b, Compute::BF16),
        _ => a.matmul(b),
    };
    // product + factor x
    let sum = |mut product: BitNetTensor, x: &BitNetTensor, factor: f64| {
        let mut x = x.to_dtype(product.dtype())?;
        product.add_(&*x.mul_(factor)?)?.to_dtype(dtype)
    };
    let tall = matrix.dims()[0] > matrix.dims()[1];
    let norm = matrix.norm(2., .., false)?.maximum(1e-7)?;
    let mut x = matrix.div(&norm)?.to_dtype(dtype)?;
    for _ in 0..iterations {
        // The smaller one of X^T X and X X^T, whose polynomial goes to the other side.
        let gram = if tall { product(&x.t()?, &x)? } else { product(&x, &x.t()?)? }.to_dtype(dtype)?;
        let mut square = product(&gram, &gram)?;
        square.mul_(C)?;
        let polynomial = sum(square, &gram, B)?;
        x = sum(if tall { product(&x, &polynomial)? } else { product(&polynomial, &x)? }, &x, A)?;
    }
    Ok(x)
}
