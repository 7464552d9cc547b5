//! Norms of activations.

use crate::{BitNetDType, BitNetTensor, Result};

impl BitNetTensor {
    /// `(x - mean) / sqrt(var + eps) * weight + bias` over the last dimensions, whose extents are `normalized`
    /// (`torch.nn.functional.layer_norm`; Ba et al. 2016). `weight` and `bias` have these extents.
    pub fn layer_norm(
        &self,
        normalized: &[usize],
        weight: Option<&Self>,
        bias: Option<&Self>,
        eps: f64,
    ) -> Result<Self> {
        const OP: &str = "layer_norm";
        let dtype = super::compute_dtype(OP, self.dtype())?;
        let flat = |p: Option<&Self>| p.map(|p| self.parameter(OP, p, normalized, dtype)).transpose();
        let (weight, bias) = (flat(weight)?, flat(bias)?);
        let x = self.rows_of(OP, normalized)?.to_dtype(dtype)?;
        let out = if x.elements() == 0 {
            x
        } else if dtype == BitNetDType::F32 {
            let x = x.contiguous()?;
            let mut out = x.empty_like()?;
            let (weight, bias) = (weight.as_ref().map(Self::as_ref), bias.as_ref().map(Self::as_ref));
            x.device().layer_norm(x.as_ref(), weight, bias, eps, out.as_mut()?)?;
            out
        } else {
            let centred = x.sub(&x.mean(-1, true)?)?;
            let mut out = centred.mul(&centred.square()?.mean(-1, true)?.add(eps)?.rsqrt()?)?;
            if let Some(weight) = &weight {
                out.mul_(weight)?;
            }
            if let Some(bias) = &bias {
                out.add_(bias)?;
            }
            out
        };
        out.reshape(self.dims())?.to_dtype(self.dtype())
    }

    /// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension (`torch.nn.functional.rms_norm`; Zhang and Sennrich
    /// 2019); `weight` is `[H]`.
    pub fn rms_norm(&self, weight: &Self, eps: f64) -> Result<Self> {
        const OP: &str = "rms_norm";
        let dtype = super::compute_dtype(OP, self.dtype())?;
        let normalized = [self.shape().last()];
        let weight = self.parameter(OP, weight, &normalized, dtype)?;
        let x = self.rows_of(OP, &normalized)?.to_dtype(dtype)?;
        let out = if x.elements() == 0 {
            x
        } else if dtype == BitNetDType::F32 {
            let x = x.contiguous()?;
            let mut out = x.empty_like()?;
            x.device().rms_norm(x.as_ref(), weight.as_ref(), eps as f32, out.as_mut()?)?;
            out
        } else {
            x.mul(&x.square()?.mean(-1, true)?.add(eps)?.rsqrt()?)?.mul(&weight)?
        };
        out.reshape(self.dims())?.to_dtype(self.dtype())
    }

    /// The tensor as `[rows, H]`, where a row is everything that is normed together.
    fn rows_of(&self, op: &'static str, normalized: &[usize]) -> Result<Self> {
        if normalized.is_empty() || !self.dims().ends_with(normalized) {
            return Err(self.needs(op, &format!("one whose last dimensions are {normalized:?}")));
        }
        let columns: usize = normalized.iter().product();
        let rows = self.dims()[..self.rank() - normalized.len()].iter().product();
        self.reshape(&[rows, columns])
    }

    /// A weight or bias as contiguous `[H]` of the dtype that is computed in.
    fn parameter(&self, op: &'static str, p: &Self, normalized: &[usize], dtype: BitNetDType) -> Result<Self> {
        self.same_device(op, p)?;
        if p.dims() != normalized {
            return Err(p.needs(op, &format!("{normalized:?}, the extents that are normed, of a weight or bias")));
        }
        p.reshape(&[p.elements()])?.to_dtype(dtype)?.contiguous()
    }
}
