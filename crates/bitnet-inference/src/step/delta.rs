//! Layers of the gated delta rule (Qwen3.5).

use super::{Scratch, empty_f32, normed, rows, rows_mut};
use crate::Result;
use crate::batch::StepBatch;
use crate::kv_cache::KvCache;
use crate::model::{Delta, Layer, Model};
use bitnet_core::backend::{DeltaGates, GateActivation, TensorRef};
use bitnet_core::{BitNetTensor, Device};
use bitnet_model::checkpoint::Projection;
use bitnet_model::config::DeltaNet;

/// Activations of such a layer, flat as those of [`Scratch`].
#[derive(Debug)]
pub(super) struct DeltaScratch {
    /// Queries, keys and values, before the convolution and after it.
    qkv: BitNetTensor,
    mixed: BitNetTensor,
    /// Width of the values.
    gate: BitNetTensor,
    values: BitNetTensor,
    /// value_heads
    a: BitNetTensor,
    b: BitNetTensor,
}

impl DeltaScratch {
    pub(super) fn new(sizes: &DeltaNet, batch: usize, device: &Device) -> Result<Self> {
        let buffer = |width: usize| empty_f32(batch * width, device);
        Ok(Self {
            qkv: buffer(sizes.channels())?,
            mixed: buffer(sizes.channels())?,
            gate: buffer(sizes.values())?,
            values: buffer(sizes.values())?,
            a: buffer(sizes.value_heads)?,
            b: buffer(sizes.value_heads)?,
        })
    }
}

impl Scratch {
    /// What a layer of the gated delta rule adds to the residual stream, in `output`; its states go on.
    pub(super) fn delta(
        &mut self,
        model: &Model,
        (index, layer, delta): (usize, &Layer, &Delta),
        cache: &mut KvCache,
        batch: &StepBatch,
        observe: &mut dyn FnMut(Projection, TensorRef) -> Result<()>,
    ) -> Result<()> {
        let (device, c, s, count) = (&model.device, &model.config, self, batch.rows());
        let (shape, width) = (delta.shape, c.hidden_size);
        let (channels, values, heads) = (shape.row(), shape.value(), shape.value_heads);
        let d = s.delta.as_mut().expect("made for the layers of the model");
        let x = normed(device, layer.attention_norm.as_ref(), c.norm_eps, (&s.hidden, &mut s.normed), [count, width])?;
        observe(Projection::DeltaQkv, x)?;
        s.linear.project(
            device,
            x,
            [
                (&delta.qkv, rows_mut(&mut d.qkv, count, channels)?),
                (&delta.gate, rows_mut(&mut d.gate, count, values)?),
                (&delta.a, rows_mut(&mut d.a, count, heads)?),
                (&delta.b, rows_mut(&mut d.b, count, heads)?),
            ],
        )?;
        let (conv, state) = cache.delta_mut(index)?;
        let rows_of = batch.state_rows()?;
        let mixed = rows_mut(&mut d.mixed, count, channels)?;
        device.short_conv(rows(&d.qkv, count, channels)?, delta.conv.as_ref(), rows_of, conv, mixed)?;
        let gates = DeltaGates {
            a: rows(&d.a, count, heads)?,
            b: rows(&d.b, count, heads)?,
            decay: delta.decay.as_ref(),
            bias: delta.bias.as_ref(),
        };
        let out = rows_mut(&mut d.values, count, values)?;
        device.gated_delta(shape, rows(&d.mixed, count, channels)?, gates, rows_of, state, out)?;
        let by_head = [count * heads, shape.value_dim];
        let out = rows_mut(&mut s.normed, by_head[0], by_head[1])?;
        device.rms_norm(rows(&d.values, by_head[0], by_head[1])?, delta.norm.as_ref(), c.norm_eps, out)?;
        device.gated(GateActivation::Silu, rows_mut(&mut d.gate, count, values)?, rows(&s.normed, count, values)?)?;
        let gated = rows(&d.gate, count, values)?;
        observe(Projection::DeltaOutput, gated)?;
        s.linear.project(device, gated, [(&delta.output, rows_mut(&mut s.output, count, width)?)]).map_err(Into::into)
    }
}
