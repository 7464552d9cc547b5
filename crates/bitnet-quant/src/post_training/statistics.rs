//! Second-order statistics of the inputs of a layer.

use crate::QuantError;
use bitnet_core::{BitNetDType, BitNetTensor, Device};

/// Rows accumulated in f32 before they are added in f64.
const BATCH: usize = 256;

/// `X^T X` of the inputs `X` `[tokens, K]` observed so far: half the Hessian of the squared error of every output.
///
/// Uses `8 K^2` bytes.
#[derive(Debug, Clone)]
pub struct InputStatistics {
    columns: usize,
    tokens: u64,
    /// `[K, K]`
    sum: Vec<f64>,
}

impl InputStatistics {
    /// Empty statistics of inputs with `columns` columns.
    ///
    /// # Errors
    /// If the sums do not fit in memory.
    pub fn new(columns: usize) -> Result<Self, QuantError> {
        let too_large = || QuantError::TooLarge { rows: columns, cols: columns };
        let count = columns.checked_mul(columns).ok_or_else(too_large)?;
        let mut sum = Vec::new();
        sum.try_reserve_exact(count).map_err(|_| too_large())?;
        sum.resize(count, 0.);
        Ok(Self { columns, tokens: 0, sum })
    }

    /// Adds the inputs `x` `[.., K]` of a float dtype.
    ///
    /// # Errors
    /// When `x` has other columns, or a value is not finite; then none of it counts.
    pub fn observe(&mut self, x: &BitNetTensor) -> Result<(), QuantError> {
        if x.rank() == 0 || x.shape().last() != self.columns {
            let message = format!("inputs of shape {} for a layer of {} columns", x.shape(), self.columns);
            return Err(QuantError::Argument { op: "calibration", message });
        }
        let x = x.detach().to_dtype(BitNetDType::F32)?.to_cpu()?;
        if let Some((index, &value)) = x.to_vec::<f32>()?.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(QuantError::NotFinite { index, value });
        }
        let tokens = x.elements() / self.columns.max(1);
        for rows in x.reshape(&[tokens, self.columns])?.split(BATCH, 0)? {
            let products = rows.t()?.matmul(&rows)?.to_vec::<f32>()?;
            for (sum, product) in self.sum.iter_mut().zip(products) {
                *sum += f64::from(product);
            }
        }
        self.tokens += tokens as u64;
        Ok(())
    }

    /// Columns of the inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows observed.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// `X^T X / tokens`, `[K, K]`.
    pub(super) fn mean(&self) -> Result<Vec<f64>, QuantError> {
        if self.tokens == 0 {
            return Err(QuantError::NoData);
        }
        let tokens = self.tokens as f64;
        Ok(self.sum.iter().map(|s| s / tokens).collect())
    }

    /// [`Self::mean`] as an f32 tensor.
    pub(super) fn mean_tensor(&self) -> Result<BitNetTensor, QuantError> {
        let mean: Vec<f32> = self.mean()?.into_iter().map(|v| v as f32).collect();
        Ok(BitNetTensor::from_slice(&mean, &[self.columns, self.columns], &Device::cpu())?)
    }
}
