//! Scaled dot product attention.

use super::derivative::scaled_dot_product_attention_backward;
use super::shape_error;
use crate::autograd::{differentiable, is_recorded};
use crate::mixed_precision::operands;
use crate::{BitNetDType, BitNetTensor, MAX_DIMS, Result, TensorOpError, TensorShape};
use BitNetDType::{Bool, U32};

/// Options of [`BitNetTensor::scaled_dot_product_attention`].
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionOptions<'a> {
    /// Whether query `t` attends to keys `0..=t` only.
    pub causal: bool,
    /// Broadcast to `[.., heads, T, S]`: `Bool`, true where a key is attended to, or floats added to the scores.
    pub mask: Option<&'a BitNetTensor>,
    /// Factor of the scores; `1 / sqrt(D)` by default.
    pub scale: Option<f64>,
}

/// Intermediate values of attention, which the derivative also uses.
pub(super) struct Attention {
    /// `[.., kv_heads, group, T, D]`.
    pub q: BitNetTensor,
    /// `[.., kv_heads, 1, S, D]`.
    pub k: BitNetTensor,
    /// `[.., kv_heads, 1, S, E]`.
    pub v: BitNetTensor,
    pub scale: f64,
    /// Softmax of the scores, `[.., kv_heads, group, T, S]`.
    pub weights: BitNetTensor,
}

impl BitNetTensor {
    /// `softmax(q k^T * scale + mask) v` (Vaswani et al. 2017; `torch.nn.functional.scaled_dot_product_attention` with
    /// `enable_gqa`): this tensor is `q` `[.., heads, T, D]`, `k` `[.., kv_heads, S, D]`, `v` `[.., kv_heads, S, E]`
    /// give `[.., heads, T, E]`. Query head `h` reads key head `h / (heads / kv_heads)`. A query whose keys are all
    /// masked gives zeros.
    pub fn scaled_dot_product_attention(&self, k: &Self, v: &Self, options: &AttentionOptions) -> Result<Self> {
        const OP: &str = "scaled_dot_product_attention";
        let mask = options.mask.filter(|mask| mask.dtype() != Bool);
        let given: Vec<&Self> = [Some(self), Some(k), Some(v), mask].into_iter().flatten().collect();
        if is_recorded(&given) {
            let (q, keys, values) = (self.clone(), k.clone(), v.clone());
            let (all, causal, scale) = (options.mask.cloned(), options.causal, options.scale);
            let forward = || self.scaled_dot_product_attention(k, v, options);
            return differentiable(OP, &given, forward, |_| {
                let floats = mask.is_some();
                move |grad: &Self| {
                    let options = AttentionOptions { causal, mask: all.as_ref(), scale };
                    let d = scaled_dot_product_attention_backward(grad, &q, &keys, &values, &options)?;
                    let of_mask = floats.then_some(d.mask);
                    Ok([Some(d.q), Some(d.k), Some(d.v)].into_iter().chain(of_mask).collect())
                }
            });
        }
        let operands = operands(OP, [Some(self), Some(k), Some(v)])?;
        let [Some(q), Some(k), Some(v)] = operands else { unreachable!("all were given") };
        let attention = Attention::new(OP, &q, &k, &v, options)?;
        let out = product(&attention.weights, &attention.v)?;
        out.reshape(&[&q.dims()[..q.rank() - 1], &[v.shape().last()]].concat())?.to_dtype(q.dtype())
    }
}

impl Attention {
    pub fn new(
        op: &'static str,
        q: &BitNetTensor,
        k: &BitNetTensor,
        v: &BitNetTensor,
        options: &AttentionOptions,
    ) -> Result<Self> {
        let rank = q.rank();
        let &[ref lead @ .., heads, tokens, width] = q.dims() else {
            return Err(shape_error(op, "q", q, "[.., heads, T, D]"));
        };
        let (kv_heads, seen) = match k.dims() {
            &[ref l @ .., h, s, d] if l == lead && d == width && h > 0 && heads.is_multiple_of(h) => (h, s),
            _ => return Err(shape_error(op, "k", k, "[.., kv_heads, S, D], kv_heads a divisor of q's heads")),
        };
        if v.rank() != rank || v.dims()[..rank - 1] != k.dims()[..rank - 1] {
            return Err(shape_error(op, "v", v, "[.., kv_heads, S, E], as k but for E"));
        }
        for (what, x) in [("k", k), ("v", v)] {
            q.same_device(op, x)?;
            if x.dtype() != q.dtype() {
                return Err(TensorOpError::DType { op, what, got: x.dtype(), needed: q.dtype() }.into());
            }
        }
        let group = heads / kv_heads;
        // Groups of heads need a dimension more than a shape may have: then those before the heads are one.
        let merged = rank == MAX_DIMS;
        let wide = |x: &BitNetTensor| if merged { x.wide(op)?.flatten(0, -4) } else { x.wide(op) };
        let (q, k, v) = (wide(q)?, wide(k)?.unsqueeze(-3)?, wide(v)?.unsqueeze(-3)?);
        let q = q.reshape(&[&q.dims()[..q.rank() - 3], &[kv_heads, group, tokens, width]].concat())?;
        let scale = options.scale.unwrap_or(1. / (width.max(1) as f64).sqrt());

        let mut scores = product(&q, &k.transpose(-2, -1)?)?;
        scores.mul_(scale)?;
        if options.causal {
            let count = |n: usize| BitNetTensor::arange(0, n, 1, U32, q.device());
            let later = count(seen)?.gt(&count(tokens)?.unsqueeze(-1)?)?;
            scores.masked_fill_(&later, f64::NEG_INFINITY)?;
        }
        if let Some(mask) = options.mask {
            let full = [lead, &[heads, tokens, seen]].concat();
            // Heads as kv_heads and group.
            let mask = mask.expand(&full)?;
            let mask = if merged { mask.reshape(scores.dims())? } else { mask.view(scores.dims())? };
            match mask.dtype() {
                Bool => scores.masked_fill_(&mask.bitwise_not()?, f64::NEG_INFINITY)?,
                _ => scores.add_(&mask.wide(op)?)?,
            };
        }
        let mut weights = scores.clone();
        if seen > 0 {
            weights = scores.softmax(-1)?;
            if options.mask.is_some() {
                let blind = scores.amax(-1, true)?.eq(f64::NEG_INFINITY)?;
                weights.masked_fill_(&blind, 0.)?;
            }
        }
        Ok(Self { q, k, v, scale, weights })
    }
}

/// `a b` of the last two dimensions, the others broadcast.
pub(super) fn product(a: &BitNetTensor, b: &BitNetTensor) -> Result<BitNetTensor> {
    let rank = a.rank();
    let lead = crate::ops::broadcast_shapes(
        "matmul",
        &TensorShape::new(&a.dims()[..rank - 2])?,
        &TensorShape::new(&b.dims()[..rank - 2])?,
    )?;
    let expand = |x: &BitNetTensor| x.expand(&[lead.dims(), &x.dims()[rank - 2..]].concat());
    let (left, right) = (expand(a)?, expand(b)?);
    if is_recorded(&[a, b]) {
        return left.multiplied("matmul", &right, None);
    }
    let dims = [lead.dims(), &[a.dims()[rank - 2], b.dims()[rank - 1]]].concat();
    let mut out = BitNetTensor::empty(&dims, a.dtype(), a.device())?;
    a.device().matmul(left.as_ref(), right.as_ref(), out.as_mut()?)?;
    Ok(out)
}
