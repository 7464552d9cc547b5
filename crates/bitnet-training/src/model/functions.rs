//! The steps of a decoder block as single recorded operations: each keeps what its derivative needs and no more.

use bitnet_core::BitNetDType::{F32, F64};
use bitnet_core::backend::{CausalShape, GateActivation};
use bitnet_core::neural::derivative::{rope_backward, scaled_dot_product_attention_backward};
use bitnet_core::{AttentionOptions, BitNetDType, BitNetTensor, Device, Result, autograd};
use bitnet_model::config::HiddenAct;
use bitnet_quant::linear::{Compute, matmul};

/// Rows whose logits are held at once.
const LOSS_ROWS: usize = 1024;

/// Shape of attention over a batch.
#[derive(Debug, Clone)]
pub(super) struct AttentionShape {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// `[tokens, head_dim / 2]`, or `[batch, 1, tokens, head_dim / 2]`
    pub cos: BitNetTensor,
    /// As `cos`.
    pub sin: BitNetTensor,
    /// `Bool` `[batch, 1, tokens, tokens]`: which tokens are of one document.
    pub mask: Option<BitNetTensor>,
}

impl AttentionShape {
    fn options(&self) -> AttentionOptions<'_> {
        AttentionOptions { causal: true, mask: self.mask.as_ref(), scale: None }
    }

    /// Rotated queries and keys, and values: `[batch, heads, tokens, head_dim]` each, of `qkv`
    /// `[batch * tokens, (heads + 2 kv_heads) * head_dim]`.
    fn split(&self, qkv: &BitNetTensor) -> Result<[BitNetTensor; 3]> {
        let turning = self.heads + self.kv_heads;
        let all = qkv.reshape(&[self.batch, self.tokens, turning + self.kv_heads, self.head_dim])?.transpose(1, 2)?;
        let turned = all.narrow(1, 0, turning)?.rope(&self.cos, &self.sin)?;
        let (q, k) = (turned.narrow(1, 0, self.heads)?, turned.narrow(1, self.heads, self.kv_heads)?);
        Ok([q, k, all.narrow(1, turning, self.kv_heads)?])
    }
}

/// Causal attention of queries, keys and values that lie side by side: `qkv` `[B * T, (heads + 2 kv_heads) * D]` gives
/// `[B * T, heads * D]`.
pub(super) fn attention(qkv: &BitNetTensor, shape: &AttentionShape) -> Result<BitNetTensor> {
    if shape.mask.is_none() {
        return causal(qkv, shape);
    }
    let rows = shape.batch * shape.tokens;
    let forward = || {
        let [q, k, v] = shape.split(qkv)?;
        let out = q.scaled_dot_product_attention(&k, &v, &shape.options())?;
        out.transpose(1, 2)?.reshape(&[rows, shape.heads * shape.head_dim])
    };
    let (saved, shape) = (qkv.detach(), shape.clone());
    autograd::differentiable("attention", &[qkv], forward, |_| {
        move |grad: &BitNetTensor| {
            let [q, k, v] = shape.split(&saved)?;
            let grad = grad.reshape(&[shape.batch, shape.tokens, shape.heads, shape.head_dim])?.transpose(1, 2)?;
            let d = scaled_dot_product_attention_backward(&grad, &q, &k, &v, &shape.options())?;
            let turned = rope_backward(&BitNetTensor::cat(&[&d.q, &d.k], 1)?, &shape.cos, &shape.sin)?;
            let all = BitNetTensor::cat(&[&turned, &d.v], 1)?.transpose(1, 2)?;
            Ok(vec![Some(all.reshape(saved.dims())?)])
        }
    })
}

/// [`attention`] of texts without documents: the device's own operation.
fn causal(qkv: &BitNetTensor, shape: &AttentionShape) -> Result<BitNetTensor> {
    let AttentionShape { batch, tokens, heads, kv_heads, head_dim, .. } = *shape;
    let sizes = CausalShape { batch, tokens, heads, kv_heads, head_dim };
    let (cos, sin) = (shape.cos.contiguous()?, shape.sin.contiguous()?);
    let forward = || {
        let (qkv, mut out) =
            (qkv.contiguous()?, BitNetTensor::empty(&[batch * tokens, heads * head_dim], F32, qkv.device())?);
        qkv.device().causal_attention(sizes, qkv.as_ref(), cos.as_ref(), sin.as_ref(), out.as_mut()?)?;
        Ok(out)
    };
    let (saved, cos, sin) = (qkv.detach().contiguous()?, cos.clone(), sin.clone());
    autograd::differentiable("causal_attention", &[qkv], forward, |_| {
        move |grad: &BitNetTensor| {
            let (grad, mut out) = (grad.contiguous()?, BitNetTensor::empty(saved.dims(), F32, saved.device())?);
            let (x, cos, sin) = (saved.as_ref(), cos.as_ref(), sin.as_ref());
            saved.device().causal_attention_backward(sizes, grad.as_ref(), x, cos, sin, out.as_mut()?)?;
            Ok(vec![Some(out)])
        }
    })
}

/// `act(gate) * up` of both side by side: `[N, 2 I]` gives `[N, I]`.
pub(super) fn gated_halves(act: HiddenAct, both: &BitNetTensor) -> Result<BitNetTensor> {
    let act = match act {
        HiddenAct::Relu2 => GateActivation::Relu2,
        HiddenAct::Silu => GateActivation::Silu,
        HiddenAct::GeluTanh => GateActivation::GeluTanh,
    };
    let dims = [both.dims()[0], both.dims()[1] / 2];
    let forward = || {
        let mut out = BitNetTensor::empty(&dims, BitNetDType::F32, both.device())?;
        both.device().gated_halves(act, both.as_ref(), out.as_mut()?)?;
        Ok(out)
    };
    let saved = both.detach();
    autograd::differentiable("gated_halves", &[both], forward, move |_| {
        move |grad: &BitNetTensor| {
            let mut out = BitNetTensor::empty(saved.dims(), BitNetDType::F32, saved.device())?;
            saved.device().gated_halves_backward(act, grad.contiguous()?.as_ref(), saved.as_ref(), out.as_mut()?)?;
            Ok(vec![Some(out)])
        }
    })
}

/// The float dtype that long sums are taken in.
pub(crate) fn widest(device: &Device) -> BitNetDType {
    if device.has(F64) { F64 } else { F32 }
}

/// Mean cross entropy of the logits `hidden table^T` with `targets`, over the targets that are not negative: `hidden`
/// `[N, H]`, `table` `[V, H]`, `targets` integers `[N]`. Never more than some rows of the logits exist at a time; gradients are
/// computed with the loss, while they do.
pub(super) fn head_loss(
    hidden: &BitNetTensor,
    table: &BitNetTensor,
    targets: &BitNetTensor,
    compute: Compute,
) -> Result<BitNetTensor> {
    let recorded = autograd::is_recorded(&[hidden, table]);
    let counted = targets.ge(0)?;
    // A tensor: the host does not wait for the number.
    let count = counted.to_dtype(F32)?.sum(.., false)?.clamp(Some(1.into()), None)?;
    let sum_dtype = widest(hidden.device());
    let parts = || -> Result<(BitNetTensor, Option<[BitNetTensor; 2]>)> {
        let (rows, device) = (hidden.dims()[0], hidden.device());
        let mut sum = BitNetTensor::zeros(&[], sum_dtype, device)?;
        let mut d_hidden = Vec::new();
        let mut d_table: Option<BitNetTensor> = None;
        let (table, hidden) = (compute.operand(&table.detach())?, compute.operand(&hidden.detach())?);
        for first in (0..rows).step_by(LOSS_ROWS) {
            let part = LOSS_ROWS.min(rows - first);
            let hidden = hidden.narrow(0, first, part)?;
            let valid = counted.narrow(0, first, part)?.unsqueeze(1)?;
            let valid_f32 = valid.to_dtype(BitNetDType::F32)?;
            let class = targets.narrow(0, first, part)?.unsqueeze(1)?.masked_fill(&valid.bitwise_not()?, 0)?;
            let logs = matmul(&hidden, &table.transpose(0, 1)?, compute)?.log_softmax(-1)?;
            // Masked by choice, not by a product: an infinity times 0 would be NaN.
            let picked = logs.gather(-1, &class)?.masked_fill(&valid.bitwise_not()?, 0.)?;
            sum.add_(&picked.to_dtype(sum_dtype)?.sum(.., false)?)?;
            if recorded {
                let mut slope = logs;
                slope.exp_()?;
                slope.scatter_add_(-1, &class, &valid_f32.neg()?)?;
                slope.mul_(&valid_f32.div(&count)?)?;
                d_hidden.push(matmul(&slope, &table, compute)?);
                let part = matmul(&slope.transpose(0, 1)?, &hidden, compute)?;
                match &mut d_table {
                    Some(sum) => {
                        sum.add_(&part)?;
                    }
                    None => d_table = Some(part),
                }
            }
        }
        let loss = sum.neg()?.div(&count.to_dtype(sum_dtype)?)?.to_dtype(F32)?;
        let gradients = match d_table {
            Some(d_table) => Some([BitNetTensor::cat(&d_hidden.iter().collect::<Vec<_>>(), 0)?, d_table]),
            None => None,
        };
        Ok((loss, gradients))
    };
    let (loss, gradients) = autograd::no_grad(parts)?;
    let Some(gradients) = gradients else { return Ok(loss) };
    autograd::differentiable(
        "head_loss",
        &[hidden, table],
        || Ok(loss),
        move |_| move |grad: &BitNetTensor| gradients.iter().map(|d| d.mul(grad).map(Some)).collect(),
    )
}
