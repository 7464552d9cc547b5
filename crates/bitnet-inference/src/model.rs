//! An immutable model on a device, shared by its sessions.

use crate::linear::Linear;
use crate::{InferenceError, Result};
use bitnet_core::backend::GateActivation;
use bitnet_core::{BitNetTensor, Device};
use bitnet_model::Config;
use bitnet_model::checkpoint::{Norm, Projection, Weights};
use bitnet_model::config::HiddenAct;

/// The weights of a model in the layout of its device.
#[derive(Debug)]
pub struct Model {
    pub(crate) device: Device,
    pub(crate) config: Config,
    /// `[vocab, hidden]`
    pub(crate) embedding: BitNetTensor,
    /// `None`: the embedding.
    pub(crate) head: Option<Linear>,
    pub(crate) layers: Vec<Layer>,
    /// `[hidden]`
    pub(crate) norm: BitNetTensor,
    pub(crate) gate_activation: GateActivation,
    /// Of the scores of attention.
    pub(crate) attention_scale: f32,
    /// The factor `[1]` of the embedding; `None`: 1.
    pub(crate) embedding_scale: Option<BitNetTensor>,
    /// The factor `[1]` of what is added to the residual stream; `None`: 1.
    pub(crate) residual_scale: Option<BitNetTensor>,
    /// The divisor `[1]` of the logits; `None`: 1.
    pub(crate) logits_scale: Option<BitNetTensor>,
    /// `[1]`: logits `l` become `cap * tanh(l / cap)`.
    pub(crate) logit_cap: Option<BitNetTensor>,
}

/// A decoder block. It has the norms that its description asks for.
#[derive(Debug)]
pub(crate) struct Layer {
    /// How many of the last positions it attends to; `None`: all.
    pub(crate) window: Option<u32>,
    /// `[hidden]`
    pub(crate) attention_norm: Option<BitNetTensor>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    /// `[head_dim]`, or of all heads
    pub(crate) query_norm: Option<BitNetTensor>,
    /// `[head_dim]`, or of all heads
    pub(crate) key_norm: Option<BitNetTensor>,
    /// `[heads * head_dim]`
    pub(crate) attention_inner_norm: Option<BitNetTensor>,
    pub(crate) output: Linear,
    /// `[hidden]`
    pub(crate) attention_after_norm: Option<BitNetTensor>,
    /// `[hidden]`
    pub(crate) feed_forward_norm: Option<BitNetTensor>,
    /// `[experts, hidden]`, where gate, up and down are those of all experts, one after another.
    pub(crate) router: Option<BitNetTensor>,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    /// `[intermediate]`
    pub(crate) feed_forward_inner_norm: Option<BitNetTensor>,
    pub(crate) down: Linear,
    /// `[hidden]`
    pub(crate) feed_forward_after_norm: Option<BitNetTensor>,
}

impl Layer {
    pub(crate) fn linears(&self) -> [&Linear; 7] {
        [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down]
    }
}

impl Model {
    /// Reads every weight and packs it for `device`; `progress` receives the number of layers done and the total.
    pub fn load(weights: &dyn Weights, device: &Device, mut progress: impl FnMut(usize, usize)) -> Result<Self> {
        let config = weights.config().clone();
        let vector = |norm: Norm| -> Result<BitNetTensor> {
            let values = weights.norm(norm)?;
            Ok(BitNetTensor::from_slice(&values, &[values.len()], device)?)
        };
        let factor = |scale: f32| (scale != 1.).then(|| BitNetTensor::from_slice(&[scale], &[1], device)).transpose();
        // The largest tensors first, to lower peak memory: their copies coexist with nothing else.
        let embedding = weights.embedding()?.to_tensor(device)?;
        let adapted = |linear: Linear, place| linear.with_adapter(weights.adapter(place), device);
        let head = weights.head()?.map(|head| Ok::<_, InferenceError>(adapted(Linear::load(head, device)?, None)?));
        let head = head.transpose()?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            let linear = |p: Projection| -> Result<Linear> {
                Ok(adapted(Linear::load(weights.linear(index, p)?, device)?, Some((index, p)))?)
            };
            let asked = |norm: Norm| {
                let mut norms = Norm::of_layer(&config.block, index);
                norms.any(|n| n == norm).then(|| vector(norm)).transpose()
            };
            layers.push(Layer {
                window: config.block.window(index),
                attention_norm: asked(Norm::Attention(index))?,
                query: linear(Projection::Query)?,
                key: linear(Projection::Key)?,
                value: linear(Projection::Value)?,
                query_norm: asked(Norm::Query(index))?,
                key_norm: asked(Norm::Key(index))?,
                attention_inner_norm: asked(Norm::AttentionInner(index))?,
                output: linear(Projection::Output)?,
                attention_after_norm: asked(Norm::AttentionAfter(index))?,
                feed_forward_norm: asked(Norm::FeedForward(index))?,
                router: match config.block.experts {
                    Some(_) => Some(weights.router(index)?.to_tensor(device)?),
                    None => None,
                },
                gate: linear(Projection::Gate)?,
                up: linear(Projection::Up)?,
                feed_forward_inner_norm: asked(Norm::FeedForwardInner(index))?,
                down: linear(Projection::Down)?,
                feed_forward_after_norm: asked(Norm::FeedForwardAfter(index))?,
            });
            weights.release(index);
            progress(index + 1, config.layers);
        }
        let gate_activation = match config.hidden_act {
            HiddenAct::Relu2 => GateActivation::Relu2,
            HiddenAct::Silu => GateActivation::Silu,
            HiddenAct::GeluTanh => GateActivation::GeluTanh,
        };
        let scales = config.block.scales;
        Ok(Self {
            embedding,
            head,
            norm: vector(Norm::Output)?,
            device: device.clone(),
            attention_scale: scales.attention.unwrap_or(1. / (config.head_dim as f32).sqrt()),
            embedding_scale: factor(scales.embedding)?,
            residual_scale: factor(scales.residual)?,
            logits_scale: factor(scales.logits)?,
            logit_cap: config.block.logit_cap.map(|cap| BitNetTensor::from_slice(&[cap], &[1], device)).transpose()?,
            config,
            layers,
            gate_activation,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// An error unless there are tokens, all in the vocabulary.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(InferenceError::EmptyPrompt);
        }
        let vocab = self.config.vocab_size;
        match tokens.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(InferenceError::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
    }

    /// Bytes of weights read in a decode step: all layers and the head.
    pub fn bytes_per_token(&self) -> usize {
        // Of the experts, those that a token uses.
        let part = |bytes: usize| self.config.block.experts.map_or(bytes, |e| bytes / e.count * e.used);
        let of_layer = |layer: &Layer| {
            let [attention @ .., gate, up, down] = layer.linears();
            let feed_forward: usize = [gate, up, down].map(Linear::bytes).iter().sum();
            attention.map(Linear::bytes).iter().sum::<usize>() + part(feed_forward)
        };
        let head = self.head.as_ref().map_or(self.embedding.storage_bytes(), Linear::bytes);
        self.layers.iter().map(of_layer).sum::<usize>() + head
    }
}
