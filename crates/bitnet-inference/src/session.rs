//! One sequence over a shared model: the simple face of a step.

use crate::batch::StepBatch;
use crate::kv_cache::{KvCache, PAGE};
use crate::samples::Samples;
use crate::step::{Activation, Observer, Step};
use crate::{InferenceError, KvType, Model, Result, Sampler};
use bitnet_core::{BitNetTensor, Device};
use bitnet_model::checkpoint::Projection;
use std::ops::Range;
use std::sync::Arc;

/// Maximum number of tokens in one pass.
pub(crate) const ROWS: usize = 128;

/// State of one sequence. Feeding tokens appends to it; a decode step allocates nothing.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    capacity: usize,
    /// The tokens so far.
    tokens: Vec<u32>,
    cache: KvCache,
    /// Pages of the sequence.
    pages: Vec<u32>,
    batch: StepBatch,
    step: Step,
    samples: Samples,
    /// Logits of the last token fed, `[vocab]`.
    logits: Vec<f32>,
}

impl Session {
    /// An empty sequence of at most `capacity` tokens. Memory grows with the sequence. Where the rotary embedding depends on the
    /// length of a text, it is that of a text of `capacity` tokens.
    pub fn new(model: Arc<Model>, capacity: usize) -> Result<Self> {
        Self::with_kv_type(model, capacity, KvType::default())
    }

    /// As [`Session::new`], with keys and values in `kind`.
    pub fn with_kv_type(model: Arc<Model>, capacity: usize, kind: KvType) -> Result<Self> {
        let c = model.config();
        if capacity == 0 || capacity > c.max_positions {
            return Err(InferenceError::ContextFull { needed: capacity, capacity: c.max_positions });
        }
        let (device, rows) = (model.device(), capacity.min(ROWS));
        Ok(Self {
            capacity,
            tokens: Vec::with_capacity(capacity.min(4096)),
            cache: KvCache::new(c, device, kind, capacity.div_ceil(PAGE), 1)?,
            pages: Vec::with_capacity(capacity.min(4096).div_ceil(PAGE)),
            batch: StepBatch::new(rows, device)?,
            logits: vec![0.; c.vocab_size],
            samples: Samples::new(1, c.vocab_size, device)?,
            step: Step::new(model.clone(), rows, capacity)?,
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

    /// Logits `[vocab]` of the token after those that were fed last ([`Session::sample`] leaves them as they are); zeros before.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Capacity in tokens.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the keys and values of the pages in use.
    pub fn cache_bytes(&self) -> usize {
        self.pages.len() * self.cache.page_bytes()
    }

    /// Removes all tokens from `position` on; of a model whose layers keep states, which cannot be taken back, all tokens where
    /// that removes any.
    pub fn truncate(&mut self, position: usize) {
        let position = if self.cache.has_states && position < self.tokens.len() { 0 } else { position };
        self.tokens.truncate(position);
        for page in self.pages.drain(self.tokens.len().div_ceil(PAGE)..) {
            self.cache.pages.release(page);
        }
    }

    /// Replaces the sequence by `text`, reusing the cache of the common prefix, and computes the logits of the next
    /// token. Returns the number of tokens that were processed: at least one, the last.
    pub fn resume(&mut self, text: &[u32]) -> Result<usize> {
        let kept = self.keep(text)?;
        self.feed(&text[kept..])?;
        Ok(text.len() - kept)
    }

    /// As [`Session::resume`], but chooses the next token on the device instead; gives it too.
    pub fn resume_and_sample(&mut self, text: &[u32], sampler: &mut Sampler) -> Result<(usize, u32)> {
        let kept = self.keep(text)?;
        Ok((text.len() - kept, self.sample(&text[kept..], sampler)?))
    }

    /// Truncates to the common prefix with `text`, without its last token; its length.
    fn keep(&mut self, text: &[u32]) -> Result<usize> {
        let known = self.tokens.iter().zip(text).take_while(|(a, b)| a == b).count();
        let kept = known.min(text.len().saturating_sub(1));
        if text.len() > self.capacity {
            return Err(InferenceError::ContextFull { needed: text.len(), capacity: self.capacity });
        }
        self.truncate(kept);
        Ok(self.tokens.len())
    }

    /// Appends tokens and chooses the next one on the device, whose logits stay there.
    pub fn sample(&mut self, tokens: &[u32], sampler: &mut Sampler) -> Result<u32> {
        self.check(tokens)?;
        let (rows, last) = (self.step.rows(), tokens.len() - 1);
        let mut chosen = (u32::MAX, 0.);
        for (i, chunk) in tokens.chunks(rows).enumerate() {
            self.fill(chunk, |at| i * rows + at == last)?;
            self.samples.clear();
            if (i + 1) * rows > last {
                self.samples.push(sampler, None);
            }
            let Self { step, batch, cache, samples, .. } = self;
            step.sample(batch, cache, samples, false, |_, row| {
                chosen = (row.tokens[0], row.probabilities[0]);
                Ok(())
            })?;
            self.tokens.extend_from_slice(chunk);
        }
        sampler.chosen(chosen.0, chosen.1)
    }

    /// Appends tokens and returns the logits of the next one, `[vocab]`.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.check(tokens)?;
        let (rows, last) = (self.step.rows(), tokens.len() - 1);
        for (i, chunk) in tokens.chunks(rows).enumerate() {
            self.fill(chunk, |at| i * rows + at == last)?;
            let logits = &mut self.logits;
            self.step.run(&mut self.batch, &mut self.cache, |_, row| {
                logits.copy_from_slice(row);
                Ok(())
            })?;
            self.tokens.extend_from_slice(chunk);
        }
        Ok(&self.logits)
    }

    /// Appends tokens and passes the logits after each of them to `each`, with its index in `tokens`.
    pub fn feed_all(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        self.check(tokens)?;
        let rows = self.step.rows();
        for (i, chunk) in tokens.chunks(rows).enumerate() {
            self.fill(chunk, |_| true)?;
            let logits = &mut self.logits;
            self.step.run(&mut self.batch, &mut self.cache, |first, values| {
                for (row, values) in (first..).zip(values.chunks_exact(logits.len())) {
                    if row + 1 == chunk.len() {
                        logits.copy_from_slice(values);
                    }
                    each(i * rows + row, values);
                }
                Ok(())
            })?;
            self.tokens.extend_from_slice(chunk);
        }
        Ok(())
    }

    /// Appends tokens and returns the residual stream `[T, hidden]` after the embedding and after each layer, the last
    /// one after the final norm: the hidden states of transformers.
    pub fn hidden_states(&mut self, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        let (layers, device) = (self.model.layers.len(), self.model.device.clone());
        let mut states = vec![Vec::new(); layers + 1];
        let mut part = Vec::new();
        self.observe(tokens, &mut |seen, state| {
            let Activation::Residual(index) = seen else { return Ok(()) };
            part.resize(state.layout.shape().elements(), 0f32);
            device.download(state.storage, state.layout.offset() * 4, bytemuck::cast_slice_mut(&mut part))?;
            states[index].extend_from_slice(&part);
            Ok(())
        })?;
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
        let (device, host) = (self.model.device.clone(), Device::cpu());
        self.observe(tokens, &mut |seen, input| match seen {
            Activation::Input(layer, projection) if layers.contains(&layer) => {
                let mut values = vec![0f32; input.layout.shape().elements()];
                let offset = input.layout.offset() * size_of::<f32>();
                device.download(input.storage, offset, bytemuck::cast_slice_mut(&mut values))?;
                each(layer, projection, &BitNetTensor::from_slice(&values, input.layout.dims(), &host)?)
            }
            _ => Ok(()),
        })
    }

    fn observe(&mut self, tokens: &[u32], observer: Observer) -> Result<()> {
        self.check(tokens)?;
        for chunk in tokens.chunks(self.step.rows()) {
            self.fill(chunk, |_| false)?;
            self.step.observe(&mut self.batch, &mut self.cache, observer)?;
            self.tokens.extend_from_slice(chunk);
        }
        Ok(())
    }

    /// The batch of these tokens, and pages for them.
    fn fill(&mut self, tokens: &[u32], wanted: impl Fn(usize) -> bool) -> Result<()> {
        let (position, end) = (self.tokens.len(), self.tokens.len() + tokens.len());
        while self.pages.len() * PAGE < end {
            let full = InferenceError::ContextFull { needed: end, capacity: self.capacity };
            self.pages.push(self.cache.page()?.ok_or(full)?);
        }
        self.batch.clear();
        self.batch.push((&self.pages, 0), position, tokens, wanted);
        Ok(())
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        let needed = self.position().saturating_add(tokens.len());
        if needed > self.capacity {
            return Err(InferenceError::ContextFull { needed, capacity: self.capacity });
        }
        self.model.check_tokens(tokens)
    }
}
