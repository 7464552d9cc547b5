//! One pass of the model over rows of any sequences.

use crate::Result;
use crate::batch::StepBatch;
use crate::experts::ExpertScratch;
use crate::kv_cache::KvCache;
use crate::linear::{Linear, LinearScratch};
use crate::model::{Attention, Layer, Mixer, Model};
use crate::samples::Samples;
use bitnet_core::backend::{BinaryOp, Graph, TensorMut, TensorRef, UnaryOp};
use bitnet_core::{BitNetDType, BitNetTensor, Device};
use bitnet_model::checkpoint::Projection;
use bitnet_model::config::{DeltaNet, QkNorm, RopeConfig};
use std::sync::Arc;

mod delta;
use delta::DeltaScratch;

/// Rows whose logits are held at once.
pub(crate) const HEAD_ROWS: usize = 16;
/// Positions whose rotations are computed at first.
const FIRST_ANGLES: usize = 256;
/// Recorded steps that are kept.
const GRAPHS: usize = 16;

/// Activations of a step of up to `rows` rows. Every buffer is flat and viewed as `[rows, width]`.
#[derive(Debug)]
pub(crate) struct Step {
    model: Arc<Model>,
    rows: usize,
    /// Tokens of a text at most.
    context: usize,
    scratch: Scratch,
    angles: Angles,
    /// Of layers that attend to a window, where they are others.
    window_angles: Option<Angles>,
    /// Results of up to [`HEAD_ROWS`] rows, on the host.
    host: Host,
    graphs: Vec<(Shape, Box<dyn Graph>)>,
}

/// What must be equal for a recorded step to be replayed: rows, columns of the table, how tokens are chosen, moves of the cache.
type Shape = (usize, usize, Option<(usize, bool)>, usize);

#[derive(Debug)]
struct Host {
    /// `[rows, vocab]`
    logits: Vec<f32>,
    tokens: Vec<u32>,
    probabilities: Vec<f32>,
}

/// Rows of a step whose tokens were chosen.
pub(crate) struct Chosen<'a> {
    /// `u32::MAX` where no logit was finite.
    pub tokens: &'a [u32],
    /// Among the candidates; of an earlier step where no sampler needs them.
    pub probabilities: &'a [f32],
    /// `[rows, vocab]`, empty unless asked for.
    pub logits: &'a [f32],
}

/// Cosines and sines `[positions, head_dim / 2]`, as many as were needed.
#[derive(Debug)]
struct Angles {
    cos: BitNetTensor,
    sin: BitNetTensor,
}

#[derive(Debug)]
struct Scratch {
    /// The residual stream, width hidden.
    hidden: BitNetTensor,
    /// After a norm, the width of its input.
    normed: BitNetTensor,
    /// heads * head_dim
    query: BitNetTensor,
    /// kv_heads * head_dim
    key: BitNetTensor,
    /// kv_heads * head_dim
    value: BitNetTensor,
    /// heads * head_dim
    attention: BitNetTensor,
    /// hidden
    output: BitNetTensor,
    /// intermediate, or heads * head_dim of the gate of attention
    gate: BitNetTensor,
    /// intermediate
    up: BitNetTensor,
    delta: Option<DeltaScratch>,
    /// Rows of `normed` whose logits are wanted, up to [`HEAD_ROWS`], width hidden.
    wanted: BitNetTensor,
    /// Up to [`HEAD_ROWS`] rows, width vocab.
    logits: BitNetTensor,
    /// Of up to [`HEAD_ROWS`] rows: the tokens chosen, and their probabilities.
    tokens: BitNetTensor,
    probabilities: BitNetTensor,
    linear: LinearScratch,
    experts: Option<ExpertScratch>,
}

/// An activation passed to an observer.
pub(crate) enum Activation {
    /// The residual stream `[rows, hidden]` before the first layer and after each, the last one normalised.
    Residual(usize),
    /// The input `[rows, K]` of a projection of a layer. Query also represents key and value, gate also represents up.
    Input(usize, Projection),
}

/// See [`Activation`].
pub(crate) type Observer<'a> = &'a mut dyn FnMut(Activation, TensorRef) -> Result<()>;

/// The first `rows * width` elements of a buffer as `[rows, width]`.
pub(crate) fn rows(t: &BitNetTensor, rows: usize, width: usize) -> Result<TensorRef<'_>> {
    Ok(t.as_ref().narrow(0, 0, rows * width)?.reshape(&[rows, width])?)
}

pub(crate) fn rows_mut(t: &mut BitNetTensor, rows: usize, width: usize) -> Result<TensorMut<'_>> {
    Ok(t.as_mut()?.narrow(0, 0, rows * width)?.reshape(&[rows, width])?)
}

impl Step {
    pub(crate) fn new(model: Arc<Model>, rows: usize, context: usize) -> Result<Self> {
        let scratch = Scratch::new(&model, rows)?;
        let (angles, window_angles) = Angles::all(&model, FIRST_ANGLES.min(context), context)?;
        let most = HEAD_ROWS.min(rows);
        let host = Host {
            logits: vec![0.; most * model.config.vocab_size],
            tokens: vec![0; most],
            probabilities: vec![0.; most],
        };
        Ok(Self { model, rows, context, scratch, angles, window_angles, host, graphs: Vec::new() })
    }

    /// Rows that fit.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Computes the rows of a batch, adds their keys and values to the cache, and passes the logits `[rows, vocab]` of the wanted
    /// rows to `each`, up to [`HEAD_ROWS`] at a time, with the place of the first among them.
    pub(crate) fn run(
        &mut self,
        batch: &mut StepBatch,
        cache: &mut KvCache,
        mut each: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.upload(batch, cache, None)?;
        self.compute(batch, cache, None, |step, first, count| each(first, step.logits(count)?))
    }

    /// As [`Step::run`], but chooses a token for each wanted row on the device; `logits`: whether they are wanted too.
    pub(crate) fn sample(
        &mut self,
        batch: &mut StepBatch,
        cache: &mut KvCache,
        samples: &mut Samples,
        logits: bool,
        mut each: impl FnMut(usize, Chosen) -> Result<()>,
    ) -> Result<()> {
        self.upload(batch, cache, Some(samples))?;
        self.compute(batch, cache, Some(samples), |step, first, count| {
            let length = if logits { step.logits(count)?.len() } else { 0 };
            let Self { host, scratch, model, .. } = step;
            let (tokens, probabilities) = (&mut host.tokens[..count], &mut host.probabilities[..count]);
            model.device.download(scratch.tokens.as_ref().storage, 0, bytemuck::cast_slice_mut(tokens))?;
            if samples.probabilities() {
                let bytes = bytemuck::cast_slice_mut(probabilities);
                model.device.download(scratch.probabilities.as_ref().storage, 0, bytes)?;
            }
            each(first, Chosen { tokens, probabilities, logits: &host.logits[..length] })
        })
    }

    /// Runs an uploaded batch and calls `each` when the logits of wanted rows, and the tokens chosen from them, are in the
    /// scratch memory, with the place of the first row and their number. A step in which every sequence decodes one token is
    /// recorded where the device records.
    fn compute(
        &mut self,
        batch: &StepBatch,
        cache: &mut KvCache,
        samples: Option<&Samples>,
        mut each: impl FnMut(&mut Self, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let decode = batch.rows() == batch.sequences() && batch.wanted() == batch.rows() && batch.rows() <= HEAD_ROWS;
        if decode {
            let shape = (batch.rows(), batch.width(), samples.map(Samples::shape), cache.moves);
            match self.graphs.iter().find(|(known, _)| *known == shape) {
                Some((_, graph)) => graph.replay()?,
                None => {
                    let (mut failure, device) = (Ok(()), self.model.device.clone());
                    let graph = device.record(&mut || {
                        let done = self.forward(batch, cache, &mut |_, _| Ok(()));
                        failure = done.and_then(|()| self.head(batch, samples, 0, batch.rows()));
                        Ok(())
                    })?;
                    failure?;
                    if let Some(graph) = graph {
                        if self.graphs.len() == GRAPHS {
                            self.graphs.remove(0);
                        }
                        self.graphs.push((shape, graph));
                    }
                }
            }
            return each(self, 0, batch.rows());
        }
        self.forward(batch, cache, &mut |_, _| Ok(()))?;
        for first in (0..batch.wanted()).step_by(HEAD_ROWS) {
            let count = HEAD_ROWS.min(batch.wanted() - first);
            self.head(batch, samples, first, count)?;
            each(self, first, count)?;
        }
        Ok(())
    }

    /// As [`Step::run`], but passes activations to an observer, and computes no logits.
    pub(crate) fn observe(&mut self, batch: &mut StepBatch, cache: &mut KvCache, observer: Observer) -> Result<()> {
        self.upload(batch, cache, None)?;
        self.forward(batch, cache, observer)
    }

    fn upload(&mut self, batch: &mut StepBatch, cache: &KvCache, samples: Option<&mut Samples>) -> Result<()> {
        let mut moved = batch.upload(&self.model.device)?;
        if let Some(samples) = samples {
            moved |= samples.upload(&self.model.device)?;
        }
        let (needed, known) = (batch.positions_end(), self.angles.cos.dims()[0]);
        if needed > known {
            let positions = needed.next_power_of_two().min(self.context);
            (self.angles, self.window_angles) = Angles::all(&self.model, positions, self.context)?;
            moved = true;
        }
        // What a recorded step refers to is gone.
        self.graphs.retain(|((.., moves), _)| !moved && *moves == cache.moves);
        Ok(())
    }

    /// All layers; the normalised result of each row stays in `scratch.normed`.
    fn forward(&mut self, batch: &StepBatch, cache: &mut KvCache, observe: Observer) -> Result<()> {
        let model = &*self.model;
        let (device, config, s) = (&model.device, &model.config, &mut self.scratch);
        let (count, width) = (batch.rows(), config.hidden_size);
        device.embedding(batch.ids()?, model.embedding.as_ref(), rows_mut(&mut s.hidden, count, width)?)?;
        if let Some(scale) = &model.embedding_scale {
            device.binary_assign(BinaryOp::Mul, rows_mut(&mut s.hidden, count, width)?, scale.as_ref())?;
        }
        for (index, layer) in model.layers.iter().enumerate() {
            observe(Activation::Residual(index), rows(&s.hidden, count, width)?)?;
            let mut inputs = |projection, x: TensorRef| observe(Activation::Input(index, projection), x);
            match &layer.mixer {
                Mixer::Attention(attention) => {
                    let of_window = self.window_angles.as_ref().filter(|_| attention.window.is_some());
                    let rotated = attention.window.is_some() || !config.block.rotate_windows_only;
                    let angles = rotated.then_some(of_window.unwrap_or(&self.angles));
                    s.attention(model, (index, layer, attention), cache, angles, batch, &mut inputs)?;
                }
                Mixer::Delta(delta) => s.delta(model, (index, layer, delta), cache, batch, &mut inputs)?,
            }
            s.add(model, layer.attention_after_norm.as_ref(), count)?;
            s.feed_forward(model, layer, count, &mut inputs)?;
        }
        let normed = rows_mut(&mut s.normed, count, width)?;
        device.rms_norm(rows(&s.hidden, count, width)?, model.norm.as_ref(), config.norm_eps, normed)?;
        observe(Activation::Residual(model.layers.len()), rows(&s.normed, count, width)?)
    }

    /// Logits of `count` wanted rows from `first` on, into `scratch.logits`, and the tokens chosen from them.
    fn head(&mut self, batch: &StepBatch, samples: Option<&Samples>, first: usize, count: usize) -> Result<()> {
        let model = &*self.model;
        let (device, config, s) = (&model.device, &model.config, &mut self.scratch);
        let width = config.hidden_size;
        let mut x = rows(&s.normed, batch.rows(), width)?;
        if batch.wanted() < batch.rows() || count < batch.rows() {
            device.embedding(batch.wanted_rows(first, count)?, x, rows_mut(&mut s.wanted, count, width)?)?;
            x = rows(&s.wanted, count, width)?;
        }
        let out = rows_mut(&mut s.logits, count, config.vocab_size)?;
        match &model.head {
            Some(head) => s.linear.project(device, x, [(head, out)])?,
            None => device.linear(x, model.embedding.as_ref(), out)?,
        }
        if let Some(scale) = &model.logits_scale {
            device.binary_assign(BinaryOp::Div, rows_mut(&mut s.logits, count, config.vocab_size)?, scale.as_ref())?;
        }
        if let Some(cap) = &model.logit_cap {
            let mut logits = rows_mut(&mut s.logits, count, config.vocab_size)?;
            device.binary_assign(BinaryOp::Div, logits.reborrow(), cap.as_ref())?;
            device.unary_assign(UnaryOp::Tanh, logits.reborrow())?;
            device.binary_assign(BinaryOp::Mul, logits, cap.as_ref())?;
        }
        if let Some(samples) = samples {
            let logits = rows(&s.logits, count, config.vocab_size)?;
            let (tokens, probabilities) = (s.tokens.as_mut()?, s.probabilities.as_mut()?);
            let (tokens, probabilities) = (tokens.narrow(0, 0, count)?, probabilities.narrow(0, 0, count)?);
            device.sample(logits, samples.rows(first, count)?, tokens, probabilities)?;
        }
        Ok(())
    }

    /// The first `count` rows of `scratch.logits`, on the host.
    fn logits(&mut self, count: usize) -> Result<&[f32]> {
        let logits = &mut self.host.logits[..count * self.model.config.vocab_size];
        self.model.device.download(self.scratch.logits.as_ref().storage, 0, bytemuck::cast_slice_mut(logits))?;
        Ok(logits)
    }
}

impl Angles {
    /// Those of all layers, and of those that attend to a window, where they are others.
    fn all(model: &Model, positions: usize, context: usize) -> Result<(Self, Option<Self>)> {
        let new = |rope| Self::new(model, rope, positions, context);
        Ok((new(&model.config.rope)?, model.config.block.window_rope.as_ref().map(new).transpose()?))
    }

    fn new(model: &Model, rope: &RopeConfig, positions: usize, context: usize) -> Result<Self> {
        let dims = [positions, model.config.head_dim / 2];
        let (cos, sin) = model.config.rope_tables(rope, positions, context);
        let table = |values: &[f32]| BitNetTensor::from_slice(values, &dims, &model.device);
        Ok(Self { cos: table(&cos)?, sin: table(&sin)? })
    }
}

impl Scratch {
    fn new(model: &Model, batch: usize) -> Result<Self> {
        let (c, device) = (&model.config, &model.device);
        let buffer = |width: usize| empty_f32(batch * width, device);
        let delta = c.block.delta.as_ref();
        let widest = c.hidden_size.max(c.intermediate_size).max(c.query_size()).max(delta.map_or(0, DeltaNet::values));
        let linears = model.layers.iter().flat_map(Layer::linears).chain(&model.head);
        let own_norms = linears.into_iter().any(Linear::has_own_norm);
        let head_rows = HEAD_ROWS.min(batch);
        let adapted = model.layers.iter().flat_map(Layer::linears).map(|layer| (layer, batch));
        let adapted = adapted.chain(model.head.iter().map(|head| (head, head_rows)));
        Ok(Self {
            hidden: buffer(c.hidden_size)?,
            normed: buffer(widest)?,
            query: buffer(c.query_size())?,
            key: buffer(c.kv_size())?,
            value: buffer(c.kv_size())?,
            attention: buffer(c.query_size())?,
            output: buffer(c.hidden_size)?,
            gate: buffer(if c.block.attention_gate {
                c.intermediate_size.max(c.query_size())
            } else {
                c.intermediate_size
            })?,
            up: buffer(c.intermediate_size)?,
            delta: delta.map(|delta| DeltaScratch::new(delta, batch, device)).transpose()?,
            wanted: empty_f32(HEAD_ROWS.min(batch) * c.hidden_size, device)?,
            logits: empty_f32(HEAD_ROWS.min(batch) * c.vocab_size, device)?,
            tokens: BitNetTensor::empty(&[HEAD_ROWS.min(batch)], BitNetDType::U32, device)?,
            probabilities: empty_f32(HEAD_ROWS.min(batch), device)?,
            linear: LinearScratch::new(c.activations, batch, widest, own_norms, device)?
                .with_adapters(adapted, device)?,
            experts: c.block.experts.map(|experts| ExpertScratch::new(c, experts, batch, device)).transpose()?,
        })
    }

    /// What attention of a layer over the cache and the new rows adds to the residual stream, in `output`.
    fn attention(
        &mut self,
        model: &Model,
        (index, layer, attention): (usize, &Layer, &Attention),
        cache: &mut KvCache,
        angles: Option<&Angles>,
        batch: &StepBatch,
        observe: &mut dyn FnMut(Projection, TensorRef) -> Result<()>,
    ) -> Result<()> {
        let (device, c, s, count) = (&model.device, &model.config, self, batch.rows());
        let (width, query_width, kv_width) = (c.hidden_size, c.query_size(), c.kv_size());
        let x = normed(device, layer.attention_norm.as_ref(), c.norm_eps, (&s.hidden, &mut s.normed), [count, width])?;
        observe(Projection::Query, x)?;
        s.linear.project(
            device,
            x,
            [
                (&attention.query, rows_mut(&mut s.query, count, query_width)?),
                (&attention.key, rows_mut(&mut s.key, count, kv_width)?),
                (&attention.value, rows_mut(&mut s.value, count, kv_width)?),
            ],
        )?;
        if let Some(gate) = &attention.gate {
            s.linear.project(device, x, [(gate, rows_mut(&mut s.gate, count, query_width)?)])?;
        }
        let (by_head, by_kv_head) = ([count, c.heads, c.head_dim], [count, c.kv_heads, c.head_dim]);
        let rotate = |query: &mut BitNetTensor, key: &mut BitNetTensor| -> Result<()> {
            let Some(angles) = angles else { return Ok(()) };
            for (x, dims) in [(query, by_head), (key, by_kv_head)] {
                let x = rows_mut(x, count, dims[1] * dims[2])?.reshape(&dims)?;
                device.rope(x, angles.cos.as_ref(), angles.sin.as_ref(), batch.positions()?)?;
            }
            Ok(())
        };
        let rotated_first = c.block.qk_norm == Some(QkNorm::RotatedHead);
        if rotated_first {
            rotate(&mut s.query, &mut s.key)?;
        }
        // Their norms write to buffers that are free until the attention is mixed.
        let (mut query, mut key) = (&mut s.query, &mut s.key);
        if let (Some(query_norm), Some(key_norm)) = (&attention.query_norm, &attention.key_norm) {
            for (x, norm, out, width) in
                [(&*query, query_norm, &mut s.normed, query_width), (&*key, key_norm, &mut s.attention, kv_width)]
            {
                let dims = [count * width / norm.elements(), norm.elements()];
                let out = rows_mut(out, dims[0], dims[1])?;
                device.rms_norm(rows(x, dims[0], dims[1])?, norm.as_ref(), c.norm_eps, out)?;
            }
            (query, key) = (&mut s.normed, &mut s.attention);
        }
        if !rotated_first {
            rotate(query, key)?;
        }
        let key = rows(key, count, kv_width)?.reshape(&by_kv_head)?;
        let value = rows(&s.value, count, kv_width)?.reshape(&by_kv_head)?;
        device.store_kv(key, value, batch.slots()?, cache.layer_mut(index)?)?;
        let query = rows(query, count, query_width)?.reshape(&by_head)?;
        let out = rows_mut(&mut s.attention, count, query_width)?.reshape(&by_head)?;
        let rows_of = batch.attention_rows()?;
        device.paged_attention(query, cache.layer(index), rows_of, model.attention_scale, attention.window, out)?;
        if attention.gate.is_some() {
            let mut gate = rows_mut(&mut s.gate, count, query_width)?;
            device.unary_assign(UnaryOp::Sigmoid, gate.reborrow())?;
            device.binary_assign(BinaryOp::Mul, rows_mut(&mut s.attention, count, query_width)?, gate.as_ref())?;
        }
        let inner = attention.inner_norm.as_ref();
        let mixed = normed(device, inner, c.norm_eps, (&s.attention, &mut s.normed), [count, query_width])?;
        observe(Projection::Output, mixed)?;
        Ok(s.linear.project(device, mixed, [(&attention.output, rows_mut(&mut s.output, count, width)?)])?)
    }

    /// Adds the feed-forward part of a layer to the residual stream.
    fn feed_forward(
        &mut self,
        model: &Model,
        layer: &Layer,
        count: usize,
        observe: &mut dyn FnMut(Projection, TensorRef) -> Result<()>,
    ) -> Result<()> {
        let (device, c, s) = (&model.device, &model.config, self);
        let (width, inner) = (c.hidden_size, c.intermediate_size);
        let norm = layer.feed_forward_norm.as_ref();
        let x = normed(device, norm, c.norm_eps, (&s.hidden, &mut s.normed), [count, width])?;
        observe(Projection::Gate, x)?;
        if let (Some(router), Some(experts)) = (&layer.router, &mut s.experts) {
            let linears = [&layer.gate, &layer.up, &layer.down];
            experts.run(model, router, linears, x, rows_mut(&mut s.output, count, width)?)?;
            return s.add(model, layer.feed_forward_after_norm.as_ref(), count);
        }
        s.linear.project(
            device,
            x,
            [(&layer.gate, rows_mut(&mut s.gate, count, inner)?), (&layer.up, rows_mut(&mut s.up, count, inner)?)],
        )?;
        device.gated(model.gate_activation, rows_mut(&mut s.gate, count, inner)?, rows(&s.up, count, inner)?)?;
        let inner_norm = layer.feed_forward_inner_norm.as_ref();
        let gated = normed(device, inner_norm, c.norm_eps, (&s.gate, &mut s.normed), [count, inner])?;
        observe(Projection::Down, gated)?;
        s.linear.project(device, gated, [(&layer.down, rows_mut(&mut s.output, count, width)?)])?;
        s.add(model, layer.feed_forward_after_norm.as_ref(), count)
    }

    /// Adds `output` to the residual stream, after the norm and the scale that it has.
    fn add(&mut self, model: &Model, norm: Option<&BitNetTensor>, count: usize) -> Result<()> {
        let (device, c, s) = (&model.device, &model.config, self);
        let dims @ [_, width] = [count, c.hidden_size];
        normed(device, norm, c.norm_eps, (&s.output, &mut s.normed), dims)?;
        let branch = if norm.is_some() { &mut s.normed } else { &mut s.output };
        if let Some(scale) = &model.residual_scale {
            device.binary_assign(BinaryOp::Mul, rows_mut(branch, count, width)?, scale.as_ref())?;
        }
        let hidden = rows_mut(&mut s.hidden, count, width)?;
        Ok(device.binary_assign(BinaryOp::Add, hidden, rows(branch, count, width)?)?)
    }
}

/// `x` after a norm, in `out`; `x` itself where there is none.
fn normed<'a>(
    device: &Device,
    norm: Option<&BitNetTensor>,
    eps: f32,
    (x, out): (&'a BitNetTensor, &'a mut BitNetTensor),
    [count, width]: [usize; 2],
) -> Result<TensorRef<'a>> {
    let Some(norm) = norm else { return rows(x, count, width) };
    device.rms_norm(rows(x, count, width)?, norm.as_ref(), eps, rows_mut(out, count, width)?)?;
    rows(out, count, width)
}

pub(crate) fn empty_f32(elements: usize, device: &Device) -> Result<BitNetTensor> {
    Ok(BitNetTensor::empty(&[elements], BitNetDType::F32, device)?)
}
