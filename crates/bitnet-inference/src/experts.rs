//! Mixture of experts: feed-forward layers of which a router chooses some for each token.

use crate::Result;
use crate::linear::Linear;
use crate::model::Model;
use crate::step::{empty_f32, rows, rows_mut};
use bitnet_core::backend::{BinaryOp, ReduceOp, TensorMut, TensorRef};
use bitnet_core::{BitNetDType, BitNetTensor, Device};
use bitnet_model::Config;
use bitnet_model::config::Experts;

/// Buffers of a step, flat.
#[derive(Debug)]
pub(crate) struct ExpertScratch {
    experts: Experts,
    /// A number for each row and expert: the scores of the router, their softmax, that in falling order, and its order.
    scores: BitNetTensor,
    probabilities: BitNetTensor,
    sorted: BitNetTensor,
    order: BitNetTensor,
    /// For each row, the experts it uses (u32), their factors and the sum of these.
    chosen: BitNetTensor,
    factors: BitNetTensor,
    total: BitNetTensor,
    /// For each row and expert it uses, width intermediate, and hidden.
    gate: BitNetTensor,
    up: BitNetTensor,
    down: BitNetTensor,
    /// The limit of gates and the lower one of what they multiply, each `[1]`.
    limits: Option<[BitNetTensor; 2]>,
}

impl ExpertScratch {
    pub(crate) fn new(config: &Config, experts: Experts, batch: usize, device: &Device) -> Result<Self> {
        let order = if device.has(BitNetDType::I64) { BitNetDType::I64 } else { BitNetDType::U32 };
        let (all, used) = (batch * experts.count, batch * experts.used);
        Ok(Self {
            experts,
            scores: empty_f32(all, device)?,
            probabilities: empty_f32(all, device)?,
            sorted: empty_f32(all, device)?,
            order: BitNetTensor::empty(&[all], order, device)?,
            chosen: BitNetTensor::empty(&[used], BitNetDType::U32, device)?,
            factors: empty_f32(used, device)?,
            total: empty_f32(batch, device)?,
            gate: empty_f32(used * config.intermediate_size, device)?,
            up: empty_f32(used * config.intermediate_size, device)?,
            down: empty_f32(used * config.hidden_size, device)?,
            limits: match experts.limit {
                Some(limit) => Some([
                    BitNetTensor::from_slice(&[limit], &[1], device)?,
                    BitNetTensor::from_slice(&[-limit], &[1], device)?,
                ]),
                None => None,
            },
        })
    }

    /// `out` `[T, hidden]`: the sum of what the experts of each row of `x` `[T, hidden]` compute, each times its factor.
    pub(crate) fn run(
        &mut self,
        model: &Model,
        router: &BitNetTensor,
        [gate, up, down]: [&Linear; 3],
        x: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        let (device, s) = (&model.device, self);
        let Experts { count, used, renormalize, limit: _ } = s.experts;
        let (tokens, width, inner) = (x.layout.dims()[0], model.config.hidden_size, model.config.intermediate_size);
        device.linear(x, router.as_ref(), rows_mut(&mut s.scores, tokens, count)?)?;
        device.softmax(rows(&s.scores, tokens, count)?, rows_mut(&mut s.probabilities, tokens, count)?)?;
        let (sorted, order) = (rows_mut(&mut s.sorted, tokens, count)?, rows_mut(&mut s.order, tokens, count)?);
        device.sort(rows(&s.probabilities, tokens, count)?, 1, true, sorted, order)?;
        let largest = rows(&s.sorted, tokens, count)?.narrow(1, 0, used)?;
        device.copy(largest, rows_mut(&mut s.factors, tokens, used)?)?;
        let first = rows(&s.order, tokens, count)?.narrow(1, 0, used)?;
        let chosen = rows_mut(&mut s.chosen, tokens, used)?;
        if first.dtype == chosen.dtype { device.copy(first, chosen) } else { device.cast(first, chosen) }?;
        if renormalize {
            device.reduce(ReduceOp::Sum, rows(&s.factors, tokens, used)?, 1, rows_mut(&mut s.total, tokens, 1)?)?;
            device.binary_assign(BinaryOp::Div, rows_mut(&mut s.factors, tokens, used)?, rows(&s.total, tokens, 1)?)?;
        }
        let all = tokens * used;
        let chosen = s.chosen.as_ref().narrow(0, 0, all)?;
        gate.of_experts(device, x, chosen, rows_mut(&mut s.gate, all, inner)?)?;
        up.of_experts(device, x, chosen, rows_mut(&mut s.up, all, inner)?)?;
        if let Some([upper, lower]) = &s.limits {
            device.binary_assign(BinaryOp::Minimum, rows_mut(&mut s.gate, all, inner)?, upper.as_ref())?;
            device.binary_assign(BinaryOp::Minimum, rows_mut(&mut s.up, all, inner)?, upper.as_ref())?;
            device.binary_assign(BinaryOp::Maximum, rows_mut(&mut s.up, all, inner)?, lower.as_ref())?;
        }
        device.gated(model.gate_activation, rows_mut(&mut s.gate, all, inner)?, rows(&s.up, all, inner)?)?;
        down.of_experts(device, rows(&s.gate, all, inner)?, chosen, rows_mut(&mut s.down, all, width)?)?;
        let dims = [tokens, used, width];
        let factors = rows(&s.factors, tokens, used)?.reshape(&[tokens, used, 1])?;
        device.binary_assign(BinaryOp::Mul, rows_mut(&mut s.down, all, width)?.reshape(&dims)?, factors)?;
        let results = rows(&s.down, all, width)?.reshape(&dims)?;
        Ok(device.reduce(ReduceOp::Sum, results, 1, out.reshape(&[tokens, 1, width])?)?)
    }
}
