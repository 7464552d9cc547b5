//! Scaled dot-product attention.

use crate::{BitNetDType, BitNetTensor, Result};

/// How [`BitNetTensor::scaled_dot_product_attention`] attends.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionOptions<'a> {
    /// Query `t` sees keys `0..=t` only.
    pub causal: bool,
    /// `Bool` (true: seen) or floats that are added to the scores; broadcasts to `[.., heads, T, S]`.
    pub mask: Option<&'a BitNetTensor>,
    /// Factor of the scores; `1 / sqrt(D)` by default.
    pub scale: Option<f64>,
}

impl BitNetTensor {
    /// `softmax(q k^T * scale + mask) v` (`torch.nn.functional.scaled_dot_product_attention` with `enable_gqa`; Vaswani et
    /// al. 2017): this tensor is `q` `[.., heads, T, D]`, `keys` `[.., kv_heads, S, D]`, `values` `[.., kv_heads, S, E]`, the
    /// result `[.., heads, T, E]`. Query head `h` reads key head `h / (heads / kv_heads)`. A query that sees nothing gives 0.
    pub fn scaled_dot_product_attention(&self, keys: &Self, values: &Self, options: &AttentionOptions) -> Result<Self> {
        const OP: &str = "scaled_dot_product_attention";
        self.same_device(OP, keys)?;
        self.same_device(OP, values)?;
        let sizes = |x: &Self| match *x.dims() {
            [ref batch @ .., heads, rows, width] => Ok((batch.to_vec(), heads, rows, width)),
            _ => Err(x.needs(OP, "[.., heads, rows, width]")),
        };
        let ((batch, heads, t, width), (kb, kv_heads, s, kw)) = (sizes(self)?, sizes(keys)?);
        let (vb, vh, vs, out_width) = sizes(values)?;
        if kb != batch || vb != batch || kw != width || (vh, vs) != (kv_heads, s) {
            let needed = format!("keys and values {batch:?} + [kv_heads, S, ..] with the width {width} of keys");
            return Err(keys.needs(OP, &needed));
        }
        if kv_heads == 0 || heads % kv_heads != 0 {
            return Err(keys.needs(OP, &format!("a number of heads that divides the {heads} of the queries")));
        }
        let group = heads / kv_heads;
        self.widened(OP, |q| {
            let scale = options.scale.unwrap_or(1. / (width as f64).sqrt());
            // [.., kv_heads, group * T, D]: the queries of a key head are rows of one product.
            let rows = |x: &Self, columns: usize| x.reshape(&[&batch[..], &[kv_heads, group * t, columns]].concat());
            let keys = keys.to_dtype(q.dtype())?;
            let mut scores = rows(&q.mul(scale)?, width)?.product(&keys.transpose(-2, -1)?)?;
            scores = scores.reshape(&[&batch[..], &[heads, t, s]].concat())?;
            let hides = options.causal || options.mask.is_some();
            if options.causal {
                let seen = Self::ones(&[t, s], BitNetDType::Bool, self.device())?.tril(0)?;
                scores = scores.masked_fill(&seen.logical_not()?, f64::NEG_INFINITY)?;
            }
            if let Some(mask) = options.mask {
                self.same_device(OP, mask)?;
                scores = if mask.dtype() == BitNetDType::Bool {
                    scores.masked_fill(&mask.logical_not()?, f64::NEG_INFINITY)?
                } else {
                    scores.add(&mask.to_dtype(q.dtype())?)?
                };
            }
            let mut weights = scores.softmax(-1)?;
            if hides && s > 0 {
                weights = weights.masked_fill(&scores.amax(-1, true)?.eq(f64::NEG_INFINITY)?, 0.)?;
            }
            let out = rows(&weights, s)?.product(&values.to_dtype(q.dtype())?)?;
            out.reshape(&[&batch[..], &[heads, t, out_width]].concat())
        })
    }

    /// `[.., M, K] x [.., K, N]` of equal leading dimensions and dtypes.
    fn product(&self, other: &Self) -> Result<Self> {
        let rank = self.rank();
        let dims = [&self.dims()[..rank - 1], &other.dims()[rank - 1..]].concat();
        let mut out = Self::empty(&dims, self.dtype(), self.device())?;
        self.device().matmul(self.as_ref(), other.as_ref(), out.as_mut()?)?;
        Ok(out)
    }
}
