//! State of one sequence: cache, scratch and position over a shared model.

use crate::linear::{Linear, LinearScratch};
use crate::model::{Layer, Model};
use crate::{InferenceError, Result};
use bitnet_core::backend::{BinaryOp, TensorMut, TensorRef};
use bitnet_core::{BitNetDType, BitNetTensor, Device, TensorStorage};
use bitnet_model::checkpoint::Projection;
use std::ops::Range;
use std::sync::Arc;

/// Maximum number of tokens in one pass.
const BATCH: usize = 128;
/// Maximum number of tokens whose logits are held at once.
const HEAD_BATCH: usize = 16;

/// State of one sequence. Feeding tokens appends to it; a decode step allocates nothing.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    capacity: usize,
    /// The tokens so far.
    tokens: Vec<u32>,
    /// Keys and values of each layer, f32 `[kv_heads, capacity, head_dim]`.
    cache: Vec<(BitNetTensor, BitNetTensor)>,
    /// Cosines and sines `[capacity, head_dim / 2]`.
    angles: (BitNetTensor, BitNetTensor),
    scratch: Scratch,
    /// Logits of the last token fed, `[vocab]`.
    logits: Vec<f32>,
}

/// Activations of up to a batch of tokens; every buffer is flat and viewed as `[T, width]`.
#[derive(Debug)]
struct Scratch {
    /// Capacity in tokens.
    batch: usize,
    /// u32, the tokens of the batch.
    ids: BitNetTensor,
    /// u32, their positions.
    positions: BitNetTensor,
    /// What `positions` is written from.
    next: Vec<u32>,
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
    /// intermediate
    gate: BitNetTensor,
    /// intermediate
    up: BitNetTensor,
    /// Of up to [`HEAD_BATCH`] tokens, width vocab.
    logits: BitNetTensor,
    linear: LinearScratch,
}

/// An activation passed to an observer.
enum Activation {
    /// The residual stream `[T, hidden]` before the first layer and after each, the last one normalised.
    Residual(usize),
    /// The input `[T, K]` of a projection of a layer. Query also represents key and value, gate also represents up.
    Input(usize, Projection),
}

/// See [`Activation`].
type Observer<'a> = &'a mut dyn FnMut(Activation, TensorRef) -> Result<()>;

/// The first `rows * width` elements of a buffer as `[rows, width]`.
fn rows(t: &BitNetTensor, rows: usize, width: usize) -> Result<TensorRef<'_>> {
    Ok(t.as_ref().narrow(0, 0, rows * width)?.reshape(&[rows, width])?)
}

fn rows_mut(t: &mut BitNetTensor, rows: usize, width: usize) -> Result<TensorMut<'_>> {
    Ok(t.as_mut()?.narrow(0, 0, rows * width)?.reshape(&[rows, width])?)
}

impl Session {
    /// An empty sequence of at most `capacity` tokens. Cache memory is committed as the sequence grows.
    pub fn new(model: Arc<Model>, capacity: usize) -> Result<Self> {
        let c = model.config();
        if capacity == 0 || capacity > c.max_positions {
            return Err(InferenceError::ContextFull { needed: capacity, capacity: c.max_positions });
        }
        let device = model.device();
        let cache_dims = [c.kv_heads, capacity, c.head_dim];
        let f32s = |dims: &[usize]| BitNetTensor::empty(dims, BitNetDType::F32, device);
        // Committed as the sequence grows, not for the whole capacity.
        let cache = || -> Result<BitNetTensor> {
            let mut cache = f32s(&cache_dims)?;
            if let TensorStorage::Cpu(memory) = cache.as_mut()?.storage {
                memory.advise_huge_pages(false);
            }
            Ok(cache)
        };
        let cache = (0..c.layers).map(|_| Ok((cache()?, cache()?))).collect::<Result<Vec<_>>>()?;
        let (cos, sin) = c.rope.tables(capacity, c.head_dim);
        let table = |values: &[f32]| BitNetTensor::from_slice(values, &[capacity, c.head_dim / 2], device);
        Ok(Self {
            capacity,
            tokens: Vec::with_capacity(capacity),
            cache,
            angles: (table(&cos)?, table(&sin)?),
            scratch: Scratch::new(&model, capacity.min(BATCH))?,
            logits: vec![0.; c.vocab_size],
            model,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens fed so far.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// The text so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Logits of the next token, `[vocab]`; zeros before the first token is fed.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Capacity in tokens.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Removes all tokens from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.tokens.truncate(position);
    }

    /// Replaces the sequence by `text`, reusing the cache of the common prefix, and computes the logits of the next
    /// token. Returns the number of tokens that were processed: at least one, the last.
    pub fn resume(&mut self, text: &[u32]) -> Result<usize> {
        let known = self.tokens.iter().zip(text).take_while(|(a, b)| a == b).count();
        let kept = known.min(text.len().saturating_sub(1));
        if text.len() > self.capacity {
            return Err(InferenceError::ContextFull { needed: text.len(), capacity: self.capacity });
        }
        self.truncate(kept);
        self.feed(&text[kept..])?;
        Ok(text.len() - kept)
    }

    /// Appends tokens and returns the logits of the next one, `[vocab]`.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.check(tokens)?;
        for batch in tokens.chunks(self.scratch.batch) {
            self.forward(batch, &mut |_, _| Ok(()))?;
        }
        let last = (tokens.len() - 1) % self.scratch.batch;
        self.head(last, 1)?;
        self.download_logits(0)?;
        Ok(&self.logits)
    }

    /// Appends tokens and passes the logits after each of them to `each`, with its index in `tokens`.
    pub fn feed_all(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        self.check(tokens)?;
        let mut index = 0;
        for batch in tokens.chunks(self.scratch.batch) {
            self.forward(batch, &mut |_, _| Ok(()))?;
            for first in (0..batch.len()).step_by(HEAD_BATCH) {
                let count = HEAD_BATCH.min(batch.len() - first);
                self.head(first, count)?;
                for row in 0..count {
                    self.download_logits(row)?;
                    each(index, &self.logits);
                    index += 1;
                }
            }
        }
        Ok(())
    }

    /// Appends tokens and returns the residual stream `[T, hidden]` after the embedding and after each layer, the last
    /// one after the final norm: the hidden states of transformers.
    pub fn hidden_states(&mut self, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        self.check(tokens)?;
        let (layers, hidden) = (self.model.layers.len(), self.model.config.hidden_size);
        let mut states = vec![Vec::new(); layers + 1];
        for batch in tokens.chunks(self.scratch.batch) {
            let device = self.model.device.clone();
            let mut part = vec![0f32; batch.len() * hidden];
            self.forward(batch, &mut |seen, state| {
                let Activation::Residual(index) = seen else { return Ok(()) };
                device.download(state.storage, state.layout.offset() * 4, bytemuck::cast_slice_mut(&mut part))?;
                states[index].extend_from_slice(&part);
                Ok(())
            })?;
        }
        Ok(states)
    }

    /// Appends tokens and passes the inputs of the linear layers of blocks `layers` to `each`, f32 `[T, K]` in host
    /// memory, with block and projection. Query, key and value share their input, as do gate and up; a layer's own norm
    /// comes after it.
    pub fn linear_inputs(
        &mut self,
        tokens: &[u32],
        layers: Range<usize>,
        mut each: impl FnMut(usize, Projection, &BitNetTensor) -> Result<()>,
    ) -> Result<()> {
        self.check(tokens)?;
        let (device, host) = (self.model.device.clone(), Device::cpu());
        for batch in tokens.chunks(self.scratch.batch) {
            self.forward(batch, &mut |seen, input| match seen {
                Activation::Input(layer, projection) if layers.contains(&layer) => {
                    let mut values = vec![0f32; input.layout.shape().elements()];
                    let offset = input.layout.offset() * size_of::<f32>();
                    device.download(input.storage, offset, bytemuck::cast_slice_mut(&mut values))?;
                    each(layer, projection, &BitNetTensor::from_slice(&values, input.layout.dims(), &host)?)
                }
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(InferenceError::EmptyPrompt);
        }
        let needed = self.position().saturating_add(tokens.len());
        if needed > self.capacity {
            return Err(InferenceError::ContextFull { needed, capacity: self.capacity });
        }
        let vocab = self.model.config.vocab_size;
        match tokens.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(InferenceError::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
    }

    /// Runs a batch through all layers; the normalised result of each token stays in `scratch.normed`.
    fn forward(&mut self, tokens: &[u32], observe: Observer) -> Result<()> {
        let model = &*self.model;
        let (device, config, s) = (&model.device, &model.config, &mut self.scratch);
        let (start, count, width) = (self.tokens.len(), tokens.len(), config.hidden_size);
        s.next.clear();
        s.next.extend((start as u32..).take(count));
        device.write(s.ids.as_mut()?.storage, 0, bytemuck::cast_slice(tokens))?;
        device.write(s.positions.as_mut()?.storage, 0, bytemuck::cast_slice(&s.next))?;
        let ids = s.ids.as_ref().narrow(0, 0, count)?;
        device.embedding(ids, model.embedding.as_ref(), rows_mut(&mut s.hidden, count, width)?)?;
        for (index, (layer, cache)) in model.layers.iter().zip(&mut self.cache).enumerate() {
            observe(Activation::Residual(index), rows(&s.hidden, count, width)?)?;
            let mut inputs = |projection, x: TensorRef| observe(Activation::Input(index, projection), x);
            s.attention(model, layer, cache, &self.angles, start, count, &mut inputs)?;
            s.feed_forward(model, layer, count, &mut inputs)?;
        }
        let normed = rows_mut(&mut s.normed, count, width)?;
        device.rms_norm(rows(&s.hidden, count, width)?, model.norm.as_ref(), config.norm_eps, normed)?;
        observe(Activation::Residual(model.layers.len()), rows(&s.normed, count, width)?)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Logits of tokens `first..first + count` of the last batch, into `scratch.logits`.
    fn head(&mut self, first: usize, count: usize) -> Result<()> {
        let model = &*self.model;
        let (device, config, s) = (&model.device, &model.config, &mut self.scratch);
        let width = config.hidden_size;
        let x = s.normed.as_ref().narrow(0, first * width, count * width)?.reshape(&[count, width])?;
        let out = rows_mut(&mut s.logits, count, config.vocab_size)?;
        match &model.head {
            Some(head) => s.linear.project(device, x, [(head, out)])?,
            None => device.linear(x, model.embedding.as_ref(), out)?,
        }
        Ok(())
    }

    /// Row `row` of `scratch.logits` to the host.
    fn download_logits(&mut self, row: usize) -> Result<()> {
        let offset = row * self.logits.len() * size_of::<f32>();
        let out = bytemuck::cast_slice_mut(&mut self.logits);
        let logits = self.scratch.logits.as_ref();
        Ok(self.model.device.download(logits.storage, offset, out)?)
    }
}

impl Scratch {
    fn new(model: &Model, batch: usize) -> Result<Self> {
        let (c, device) = (&model.config, &model.device);
        let buffer = |width: usize| empty_f32(batch * width, device);
        let widest = c.hidden_size.max(c.intermediate_size).max(c.query_size());
        let linears = model.layers.iter().flat_map(Layer::linears).chain(&model.head);
        let own_norms = linears.into_iter().any(Linear::has_own_norm);
        Ok(Self {
            batch,
            ids: BitNetTensor::empty(&[batch], BitNetDType::U32, device)?,
            positions: BitNetTensor::empty(&[batch], BitNetDType::U32, device)?,
            next: Vec::with_capacity(batch),
            hidden: buffer(c.hidden_size)?,
            normed: buffer(widest)?,
            query: buffer(c.query_size())?,
            key: buffer(c.kv_size())?,
            value: buffer(c.kv_size())?,
            attention: buffer(c.query_size())?,
            output: buffer(c.hidden_size)?,
            gate: buffer(c.intermediate_size)?,
            up: buffer(c.intermediate_size)?,
            logits: empty_f32(HEAD_BATCH.min(batch) * c.vocab_size, device)?,
            linear: LinearScratch::new(batch, widest, own_norms, device)?,
        })
    }

    /// Adds attention of `layer` over the cache and the `count` new tokens to the residual stream.
    fn attention(
        &mut self,
        model: &Model,
        layer: &Layer,
        (keys, values): &mut (BitNetTensor, BitNetTensor),
        (cos, sin): &(BitNetTensor, BitNetTensor),
        start: usize,
        count: usize,
        observe: &mut dyn FnMut(Projection, TensorRef) -> Result<()>,
    ) -> Result<()> {
        let (device, c, s) = (&model.device, &model.config, self);
        let (width, query_width, kv_width) = (c.hidden_size, c.query_size(), c.kv_size());
        let normed = rows_mut(&mut s.normed, count, width)?;
        device.rms_norm(rows(&s.hidden, count, width)?, layer.attention_norm.as_ref(), c.norm_eps, normed)?;
        observe(Projection::Query, rows(&s.normed, count, width)?)?;
        s.linear.project(
            device,
            rows(&s.normed, count, width)?,
            [
                (&layer.query, rows_mut(&mut s.query, count, query_width)?),
                (&layer.key, rows_mut(&mut s.key, count, kv_width)?),
                (&layer.value, rows_mut(&mut s.value, count, kv_width)?),
            ],
        )?;
        let by_head = [count, c.heads, c.head_dim];
        let by_kv_head = [count, c.kv_heads, c.head_dim];
        device.rope(
            rows_mut(&mut s.query, count, query_width)?.reshape(&by_head)?,
            cos.as_ref(),
            sin.as_ref(),
            s.positions.as_ref().narrow(0, 0, count)?,
        )?;
        let key = rows_mut(&mut s.key, count, kv_width)?.reshape(&by_kv_head)?;
        device.rope(key, cos.as_ref(), sin.as_ref(), s.positions.as_ref().narrow(0, 0, count)?)?;
        for (new, cache) in [(&s.key, &mut *keys), (&s.value, &mut *values)] {
            // [T, kv_heads, D] to positions start.. of [kv_heads, capacity, D]
            let new = rows(new, count, kv_width)?.reshape(&by_kv_head)?.transpose(0, 1)?;
            device.copy(new, cache.as_mut()?.narrow(1, start, count)?)?;
        }
        let query = rows(&s.query, count, query_width)?.reshape(&by_head)?;
        let out = rows_mut(&mut s.attention, count, query_width)?.reshape(&by_head)?;
        let positions = s.positions.as_ref().narrow(0, 0, count)?;
        device.attention(query, keys.as_ref(), values.as_ref(), positions, out)?;
        let mut mixed = rows(&s.attention, count, query_width)?;
        if let Some(norm) = &layer.attention_inner_norm {
            device.rms_norm(mixed, norm.as_ref(), c.norm_eps, rows_mut(&mut s.normed, count, query_width)?)?;
            mixed = rows(&s.normed, count, query_width)?;
        }
        observe(Projection::Output, mixed)?;
        s.linear.project(device, mixed, [(&layer.output, rows_mut(&mut s.output, count, width)?)])?;
        Ok(device.binary_assign(
            BinaryOp::Add,
            rows_mut(&mut s.hidden, count, width)?,
            rows(&s.output, count, width)?,
        )?)
    }

    /// Adds the feed-forward part of `layer` to the residual stream.
    fn feed_forward(
        &mut self,
        model: &Model,
        layer: &Layer,
        count: usize,
        observe: &mut dyn FnMut(Projection, TensorRef) -> Result<()>,
    ) -> Result<()> {
        let (device, c, s) = (&model.device, &model.config, self);
        let (width, inner) = (c.hidden_size, c.intermediate_size);
        let normed = rows_mut(&mut s.normed, count, width)?;
        device.rms_norm(rows(&s.hidden, count, width)?, layer.feed_forward_norm.as_ref(), c.norm_eps, normed)?;
        observe(Projection::Gate, rows(&s.normed, count, width)?)?;
        s.linear.project(
            device,
            rows(&s.normed, count, width)?,
            [(&layer.gate, rows_mut(&mut s.gate, count, inner)?), (&layer.up, rows_mut(&mut s.up, count, inner)?)],
        )?;
        device.gated(model.gate_activation, rows_mut(&mut s.gate, count, inner)?, rows(&s.up, count, inner)?)?;
        let mut gated = rows(&s.gate, count, inner)?;
        if let Some(norm) = &layer.feed_forward_inner_norm {
            device.rms_norm(gated, norm.as_ref(), c.norm_eps, rows_mut(&mut s.normed, count, inner)?)?;
            gated = rows(&s.normed, count, inner)?;
        }
        observe(Projection::Down, gated)?;
        s.linear.project(device, gated, [(&layer.down, rows_mut(&mut s.output, count, width)?)])?;
        Ok(device.binary_assign(
            BinaryOp::Add,
            rows_mut(&mut s.hidden, count, width)?,
            rows(&s.output, count, width)?,
        )?)
    }
}

fn empty_f32(elements: usize, device: &Device) -> Result<BitNetTensor> {
    Ok(BitNetTensor::empty(&[elements], BitNetDType::F32, device)?)
}
