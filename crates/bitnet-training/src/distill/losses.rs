//! The losses of distillation, each a single recorded operation that keeps no more than its gradient.

use crate::Result;
use crate::model::widest;
use bitnet_core::{BitNetDType, BitNetTensor, Device, TensorOpError, autograd};
use bitnet_quant::linear::{Compute, matmul};

/// Rows whose logits are held at once.
const ROWS: usize = 1024;
/// A logarithm whose exponential is 0 in f32.
const LEAST: f64 = -1e4;

/// The output layer of a model: `hidden` f32 `[N, H]` and `table` f32 `[V, H]`, whose product are the logits.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The residual stream after the final norm.
    pub hidden: &'a BitNetTensor,
    /// The weights of the head.
    pub table: &'a BitNetTensor,
}

impl Head<'_> {
    /// `[rows, V]`, divided by the temperature.
    fn logits(
        &self,
        first: usize,
        rows: usize,
        temperature: f64,
        compute: Compute,
    ) -> bitnet_core::Result<BitNetTensor> {
        let hidden = self.hidden.detach().narrow(0, first, rows)?;
        matmul(&hidden, &self.table.detach().transpose(0, 1)?, compute)?.div(temperature)
    }
}

fn argument(op: &'static str, message: String) -> bitnet_core::BitNetError {
    TensorOpError::Argument { op, message }.into()
}

/// `temperature^2 KL(teacher || student)` of the distributions `softmax(logits / temperature)` (Hinton et al. 2015), the mean
/// over the rows whose `targets`, integers `[N]`, are not negative. Gradients reach the student.
///
/// # Errors
/// When rows or vocabularies differ.
pub fn logit_loss(
    student: Head,
    teacher: Head,
    targets: &BitNetTensor,
    temperature: f64,
    compute: Compute,
) -> Result<BitNetTensor> {
    const OP: &str = "logit_loss";
    let (rows, vocab) = (student.hidden.dims()[0], student.table.dims()[0]);
    if teacher.hidden.dims()[0] != rows || teacher.table.dims()[0] != vocab || targets.dims() != [rows] {
        let (theirs, tokens) = (teacher.table.dims()[0], teacher.hidden.dims()[0]);
        let message = format!("{rows} rows of {vocab} classes, the teacher has {tokens} of {theirs}: both must agree");
        return Err(argument(OP, message).into());
    }
    let recorded = autograd::is_recorded(&[student.hidden, student.table]);
    let counted = targets.ge(0)?.to_dtype(BitNetDType::F32)?;
    // A tensor: the host does not wait for the number.
    let count = counted.sum(.., false)?.clamp(Some(1.into()), None)?;
    let computed = || -> bitnet_core::Result<_> {
        let mut sum = zero(student.hidden.device())?;
        let (mut d_hidden, mut d_table) = (Vec::new(), student.table.zeros_like()?);
        for first in (0..rows).step_by(ROWS) {
            let part = ROWS.min(rows - first);
            let own = student.logits(first, part, temperature, compute)?.log_softmax(-1)?;
            let theirs = teacher.logits(first, part, temperature, compute)?.log_softmax(-1)?;
            let share = theirs.exp()?;
            let counted = counted.narrow(0, first, part)?.unsqueeze(1)?;
            let losses = theirs.sub(&own)?.mul(&share)?.sum(-1, true)?.mul(&counted)?;
            sum.add_(&losses.to_dtype(sum.dtype())?.sum(.., false)?)?;
            if recorded {
                // With respect to the logits: temperature (student - teacher) / count.
                let mut slope = own;
                slope.exp_()?.sub_(&share)?.mul_(&counted.mul(temperature)?.div(&count)?)?;
                d_hidden.push(matmul(&slope, &student.table.detach(), compute)?);
                let hidden = student.hidden.detach().narrow(0, first, part)?;
                d_table.add_(&matmul(&slope.transpose(0, 1)?, &hidden, compute)?)?;
            }
        }
        let gradients = match recorded {
            true => vec![BitNetTensor::cat(&d_hidden.iter().collect::<Vec<_>>(), 0)?, d_table],
            false => Vec::new(),
        };
        let value = sum.mul(temperature * temperature)?.div(&count.to_dtype(sum.dtype())?)?;
        Ok((value.to_dtype(BitNetDType::F32)?, gradients))
    };
    let (loss, gradients) = autograd::no_grad(computed)?;
    Ok(with_gradients(OP, &[student.hidden, student.table], loss, gradients)?)
}

/// Queries, keys and values side by side `[B * T, query + 2 kv]`, as a decoder's block computes them.
#[derive(Debug, Clone, Copy)]
pub struct Projections<'a> {
    /// The tensor, f32.
    pub all: &'a BitNetTensor,
    /// Width of the queries.
    pub query: usize,
    /// Width of the keys, and of the values.
    pub kv: usize,
}

impl Projections<'_> {
    /// First column and width of each.
    fn parts(&self) -> [(usize, usize); 3] {
        [(0, self.query), (self.query, self.kv), (self.query + self.kv, self.kv)]
    }

    /// One of them as `[batch, heads, T, width / heads]`.
    fn split(&self, part: usize, batch: usize, heads: usize) -> bitnet_core::Result<BitNetTensor> {
        let (first, width) = self.parts()[part];
        let tokens = self.all.dims()[0] / batch;
        let part = self.all.detach().narrow(1, first, width)?;
        part.reshape(&[batch, tokens, heads, width / heads])?.transpose(1, 2)?.contiguous()
    }
}

/// Which tokens of a batch have relations: `Bool`, broadcastable to `[B, 1, T, T]`, a row for each query and a column for each
/// key; and the weight of each query, f32 `[B, 1, T]`, whose sum over the batch is 1.
#[derive(Debug, Clone)]
pub struct Related {
    keys: BitNetTensor,
    queries: BitNetTensor,
}

impl Related {
    /// Queries are the tokens whose `targets`, integers `[B, T]`, count; their keys are the tokens of the same document
    /// (`segments`, integers `[B, T]`, where documents share rows) that are not padding.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn new(targets: &BitNetTensor, segments: Option<&BitNetTensor>) -> Result<Self> {
        let counted = targets.ge(0)?;
        let queries = counted.to_dtype(BitNetDType::F32)?;
        let count = queries.sum(.., false)?.clamp(Some(1.into()), None)?;
        // Padding is what follows the last target of a row.
        let left = queries.flip(&[1])?.cumsum(1)?.flip(&[1])?;
        let mut keys = left.gt(0)?.unsqueeze(1)?;
        if let Some(segments) = segments {
            keys = keys.bitwise_and(&segments.unsqueeze(1)?.eq(&segments.unsqueeze(2)?)?)?;
        }
        Ok(Self { keys: keys.unsqueeze(1)?, queries: queries.div(&count)?.unsqueeze(1)? })
    }
}

/// Attention-relation distillation (Wang et al. 2021, MiniLMv2; Wu et al. 2025, BitNet Distillation): for queries, keys and
/// values `X`, split into `heads` relation heads of any width `d`, the relations between tokens `softmax(X X^T / sqrt(d))` of
/// the student are to be those of the teacher. The sum over the three of the mean `KL(teacher || student)` over heads and the
/// tokens of `related` `[B, T]`. Widths of student and teacher may differ. Gradients reach the student.
///
/// # Errors
/// When tokens differ or the heads do not divide a width.
pub fn relation_loss(
    student: Projections,
    teacher: Projections,
    related: &Related,
    heads: usize,
) -> Result<BitNetTensor> {
    const OP: &str = "relation_loss";
    let (rows, batch) = (student.all.dims()[0], related.queries.dims()[0]);
    // Keys that are no relations have no share, and no -inf - -inf in the difference of logarithms.
    let unrelated = related.keys.bitwise_not()?;
    let weights = related.queries.div(heads as f64)?;
    let whole = |p: &Projections| {
        p.all.dims() == [rows, p.query + 2 * p.kv] && p.query.is_multiple_of(heads) && p.kv.is_multiple_of(heads)
    };
    if batch == 0 || heads == 0 || !rows.is_multiple_of(batch) || !whole(&student) || !whole(&teacher) {
        let message = format!("{heads} relation heads must divide the widths of queries and keys of both models");
        return Err(argument(OP, message).into());
    }
    let recorded = autograd::is_recorded(&[student.all]);
    let computed = || -> bitnet_core::Result<_> {
        let mut sum = zero(student.all.device())?;
        let mut parts = Vec::new();
        for part in 0..3 {
            let relations = |projections: &Projections| -> bitnet_core::Result<_> {
                let x = projections.split(part, batch, heads)?;
                let scale = (x.shape().last() as f64).sqrt().recip();
                let products = x.matmul(&x.transpose(-1, -2)?)?.mul(scale)?;
                let logs = products.masked_fill(&unrelated, f64::NEG_INFINITY)?.log_softmax(-1)?;
                Ok((x, scale, logs.masked_fill(&unrelated, LEAST)?))
            };
            let ((x, scale, own), (_, _, theirs)) = (relations(&student)?, relations(&teacher)?);
            let share = theirs.exp()?;
            let losses = theirs.sub(&own)?.mul(&share)?.sum(-1, false)?.mul(&weights)?;
            sum.add_(&losses.to_dtype(sum.dtype())?.sum(.., false)?)?;
            if recorded {
                // With respect to X X^T; X is on both sides of it.
                let slope = own.exp()?.sub(&share)?.mul(&weights.unsqueeze(-1)?.mul(scale)?)?;
                let both = slope.add(&slope.transpose(-1, -2)?)?;
                let gradient = both.matmul(&x)?.transpose(1, 2)?;
                parts.push(gradient.reshape(&[rows, student.parts()[part].1])?);
            }
        }
        let gradients = match recorded {
            true => vec![BitNetTensor::cat(&parts.iter().collect::<Vec<_>>(), 1)?],
            false => Vec::new(),
        };
        Ok((sum.to_dtype(BitNetDType::F32)?, gradients))
    };
    let (loss, gradients) = autograd::no_grad(computed)?;
    Ok(with_gradients(OP, &[student.all], loss, gradients)?)
}

/// Where a sum begins, in the widest float.
fn zero(device: &Device) -> bitnet_core::Result<BitNetTensor> {
    BitNetTensor::zeros(&[], widest(device), device)
}

/// The sum of losses, each times its weight.
pub(super) fn weighted_sum(losses: &[(f64, &BitNetTensor)]) -> Result<BitNetTensor> {
    let inputs: Vec<&BitNetTensor> = losses.iter().map(|(_, loss)| *loss).collect();
    let weights: Vec<f64> = losses.iter().map(|(weight, _)| *weight).collect();
    let forward = || {
        let mut sum = BitNetTensor::scalar(0., BitNetDType::F32, inputs[0].device())?;
        for (weight, loss) in losses {
            sum.add_(&loss.mul(*weight)?)?;
        }
        Ok(sum)
    };
    Ok(autograd::differentiable("weighted_sum", &inputs, forward, |_| {
        move |grad: &BitNetTensor| weights.iter().map(|weight| grad.mul(*weight).map(Some)).collect()
    })?)
}

/// A loss whose gradients were computed with it.
fn with_gradients(
    op: &'static str,
    inputs: &[&BitNetTensor],
    loss: BitNetTensor,
    gradients: Vec<BitNetTensor>,
) -> bitnet_core::Result<BitNetTensor> {
    autograd::differentiable(
        op,
        inputs,
        || Ok(loss),
        move |_| move |grad: &BitNetTensor| gradients.iter().map(|d| d.mul(grad).map(Some)).collect(),
    )
}
