//! An immutable model on a device, shared by its sessions.

use crate::linear::Linear;
use crate::{InferenceError, Result};
use bitnet_core::backend::{DeltaShape, GateActivation};
use bitnet_core::{BitNetTensor, Device};
use bitnet_model::Config;
use bitnet_model::checkpoint::{DeltaSource, Norm, Projection, Weights};
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
    /// `[hidden]`
    pub(crate) attention_norm: Option<BitNetTensor>,
    pub(crate) mixer: Mixer,
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

/// How a layer mixes the tokens of a sequence.
#[derive(Debug)]
pub(crate) enum Mixer {
    Attention(Box<Attention>),
    Delta(Box<Delta>),
}

/// Attention over the cache.
#[derive(Debug)]
pub(crate) struct Attention {
    /// How many of the last positions it attends to; `None`: all.
    pub(crate) window: Option<u32>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    /// Of what is mixed.
    pub(crate) gate: Option<Linear>,
    /// `[head_dim]`, or of all heads
    pub(crate) query_norm: Option<BitNetTensor>,
    /// `[head_dim]`, or of all heads
    pub(crate) key_norm: Option<BitNetTensor>,
    /// `[heads * head_dim]`
    pub(crate) inner_norm: Option<BitNetTensor>,
    pub(crate) output: Linear,
}

/// The gated delta rule, which keeps a state of each sequence.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(crate) shape: DeltaShape,
    pub(crate) qkv: Linear,
    pub(crate) gate: Linear,
    pub(crate) a: Linear,
    pub(crate) b: Linear,
    /// `[taps, channels]`
    pub(crate) conv: BitNetTensor,
    /// `[value_heads]`
    pub(crate) decay: BitNetTensor,
    /// `[value_heads]`
    pub(crate) bias: BitNetTensor,
    /// `[value_dim]`
    pub(crate) norm: BitNetTensor,
    pub(crate) output: Linear,
}

impl Layer {
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let mixer: Vec<&Linear> = match &self.mixer {
            Mixer::Attention(attention) => {
                let Attention { query, key, value, gate, output, .. } = &**attention;
                [query, key, value, output].into_iter().chain(gate).collect()
            }
            Mixer::Delta(delta) => vec![&delta.qkv, &delta.gate, &delta.a, &delta.b, &delta.output],
        };
        mixer.into_iter().chain([&self.gate, &self.up, &self.down])
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
            let mixer = match config.block.delta(index) {
                Some(sizes) => {
                    let DeltaSource { conv, decay, bias } = weights.delta(index)?;
                    let of_heads = |values: &[f32]| BitNetTensor::from_slice(values, &[sizes.value_heads], device);
                    Mixer::Delta(Box::new(Delta {
                        shape: DeltaShape {
                            key_heads: sizes.key_heads,
                            value_heads: sizes.value_heads,
                            key_dim: sizes.key_dim,
                            value_dim: sizes.value_dim,
                            tiled: sizes.tiled,
                        },
                        qkv: linear(Projection::DeltaQkv)?,
                        gate: linear(Projection::DeltaGate)?,
                        a: linear(Projection::DeltaA)?,
                        b: linear(Projection::DeltaB)?,
                        conv: BitNetTensor::from_slice(&conv, &[sizes.taps, sizes.channels()], device)?,
                        decay: of_heads(&decay)?,
                        bias: of_heads(&bias)?,
                        norm: vector(Norm::Delta(index))?,
                        output: linear(Projection::DeltaOutput)?,
                    }))
                }
                None => Mixer::Attention(Box::new(Attention {
                    window: config.block.window(index),
                    query: linear(Projection::Query)?,
                    key: linear(Projection::Key)?,
                    value: linear(Projection::Value)?,
                    gate: config.block.attention_gate.then(|| linear(Projection::AttentionGate)).transpose()?,
                    query_norm: asked(Norm::Query(index))?,
                    key_norm: asked(Norm::Key(index))?,
                    inner_norm: asked(Norm::AttentionInner(index))?,
                    output: linear(Projection::Output)?,
                })),
            };
            layers.push(Layer {
                attention_norm: asked(Norm::Attention(index))?,
                mixer,
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
            let all: usize = layer.linears().map(Linear::bytes).sum();
            let feed_forward = [&layer.gate, &layer.up, &layer.down].map(Linear::bytes).iter().sum();
            all - feed_forward + part(feed_forward)
        };
        let head = self.head.as_ref().map_or(self.embedding.storage_bytes(), Linear::bytes);
        self.layers.iter().map(of_layer).sum::<usize>() + head
    }
}
