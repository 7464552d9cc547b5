//! Checkpoints of Hugging Face: `config.json` and safetensors.

use super::mlx::{Affine, Mlx, Packed};
use super::weights::{DeltaSource, DenseTensor, LinearSource, Norm, Projection, WeightSource, Weights};
use super::{OpenOptions, TensorSummary};
use crate::config::{Architecture, Block, Experts, LinearClass, QuantizationConfig};
use crate::safetensors::{Dtype, Located, Shards, Tensors};
use crate::{Config, ModelError, Result};
use bitnet_core::backend::ActivationRule;
use bitnet_core::{BitNetDType, MappedFile};
use bitnet_quant::{formats, ternarize};
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Weights of a Hugging Face directory, mapped.
#[derive(Debug)]
pub(super) struct HuggingFace {
    config: Config,
    files: Vec<Arc<MappedFile>>,
    tensors: Tensors,
    notes: Vec<String>,
    /// Whether master weights are kept dense.
    keep_master_weights: bool,
    /// How MLX quantized it.
    mlx: Option<Mlx>,
}

/// Size limit of `config.json`.
const MAX_CONFIG: u64 = 1 << 24;

impl HuggingFace {
    pub(super) fn open(folder: &Path, options: &OpenOptions) -> Result<Self> {
        let path = folder.join("config.json");
        let text = read_text(&path)?;
        let mut config = Config::from_json(&text).map_err(|e| e.in_file(&path))?;
        let shards = Shards::find(folder)?;
        let files = shards.paths(folder).into_iter().map(|path| Ok(Arc::new(MappedFile::open(path)?)));
        let files = files.collect::<Result<Vec<_>>>()?;
        let bytes: Vec<&[u8]> = files.iter().map(|f| &f[..]).collect();
        let tensors = shards.open(&bytes).map_err(|e| ModelError::from(e).in_file(folder))?;
        let mut notes = Vec::new();
        let misplaced: Vec<&str> = shards.misplaced(&tensors).collect();
        if let [first, ..] = misplaced[..] {
            let n = misplaced.len();
            notes.push(format!("the index names the wrong file for {first} ({n} such); they were found in others"));
        }
        // A model that was saved without its head, by the name that it has there.
        let bare = tensors.find("embed_tokens.weight").is_some() && tensors.find("model.embed_tokens.weight").is_none();
        let tensors = match bare {
            true => {
                tensors.rename(|name| if name.starts_with("lm_head.") { name.into() } else { format!("model.{name}") })
            }
            false => tensors,
        };
        let tensors = match tensors.find("model.language_model.embed_tokens.weight") {
            Some(_) => tensors.rename(|name| name.replacen("model.language_model.", "model.", 1)),
            None => tensors,
        };
        let skipped = tensors.iter().filter(|t| is_skipped(&t.info.name)).count();
        if skipped > 0 {
            notes.push(format!("{skipped} tensors of vision and of multi-token prediction are skipped"));
        }
        if config.architecture == Architecture::Gemma3
            && let Some(embedding) = tensors.find("model.embed_tokens.weight")
        {
            // In the dtype of the weights.
            let scale = &mut config.block.scales.embedding;
            *scale = match embedding.info.dtype {
                Dtype::BF16 => half::bf16::from_f32(*scale).to_f32(),
                Dtype::F16 => half::f16::from_f32(*scale).to_f32(),
                _ => *scale,
            };
        }
        // BitNet-embedding: master weights, each projection with a norm of its own; it has no head.
        let own_norms = tensors.iter().any(|t| t.info.name.ends_with("_proj.norm.weight"));
        if own_norms && config.quantization.is_none() {
            config.quantization = Some(QuantizationConfig { class: LinearClass::Online, ..Default::default() });
            config.activations = ActivationRule::Token;
        }
        config.activations = options.activations.unwrap_or(config.activations);
        if own_norms && tensors.find("lm_head.weight").is_none() && !config.tied {
            config.tied = true;
            notes.push("it has no head: it makes vectors (bitnet embed), and no text".into());
        }
        notes.extend(unannounced_biases(&text, &tensors));
        let mlx = Mlx::from_config(&text).map_err(|e| e.in_file(&path))?;
        Ok(Self { config, files, tensors, notes, keep_master_weights: options.keep_master_weights, mlx })
    }

    /// Whether projections have norms of their own, as in BitNet-embedding.
    pub(super) fn has_own_norms(&self) -> bool {
        self.tensors.iter().any(|t| t.info.name.ends_with("_proj.norm.weight"))
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    pub(super) fn files(&self) -> &[Arc<MappedFile>] {
        &self.files
    }

    pub(super) fn format(&self) -> String {
        let linear = match self.config.quantization.as_ref().map(|q| q.class) {
            None if self.mlx.is_some() => "quantized by MLX",
            None => "not quantized",
            Some(LinearClass::BitLinear) => "BitLinear, packed",
            Some(LinearClass::Offline) => "AutoBitLinear, offline",
            Some(LinearClass::Online) => "master weights, quantized when loaded",
        };
        format!("Hugging Face safetensors, {}, {linear}", self.config.architecture.name())
    }

    pub(super) fn summaries(&self) -> Vec<TensorSummary> {
        let summary = |t: &Located| TensorSummary {
            name: t.info.name.clone(),
            kind: format!("{:?}", t.info.dtype),
            shape: t.info.shape.clone(),
            bytes: t.info.range.len(),
        };
        self.tensors.iter().map(summary).collect()
    }

    /// Names of tensors that the model does not use.
    pub(super) fn unused(&self) -> Vec<String> {
        let mut modules: HashSet<String> = ["model.embed_tokens", "lm_head"].map(String::from).into();
        for layer in 0..self.config.layers {
            modules.extend(Projection::of_layer(&self.config.block, layer).map(|p| module(layer, p)));
            if self.config.block.delta(layer).is_some() {
                modules.insert(delta_module(layer, "conv1d"));
            }
        }
        if self.config.architecture == Architecture::Glm4 {
            modules.extend((0..self.config.layers).map(gate_up));
        }
        if let Some(Experts { count, .. }) = self.config.block.experts {
            let feed_forward = [Projection::Gate, Projection::Up, Projection::Down];
            for layer in 0..self.config.layers {
                modules.insert(router(layer));
                modules.extend(feed_forward.iter().flat_map(|&p| (0..count).map(move |e| expert(layer, e, p))));
            }
        }
        modules.extend(Norm::all(&self.config).flat_map(|norm| norm_modules(norm, &self.config)));
        let read = |name: &str| {
            let ends = [".rms_norm.weight", ".norm.weight", ".weight_scale", ".weight", ".bias", ".scales", ".biases"];
            let mut known = ends.iter().filter_map(|end| name.strip_suffix(end));
            let delta = [".linear_attn.A_log", ".linear_attn.dt_bias"].iter().any(|end| name.ends_with(end));
            known.any(|module| modules.contains(module))
                || name.ends_with(".rotary_emb.inv_freq")
                || is_skipped(name)
                || delta && self.config.block.delta.is_some()
        };
        self.tensors.iter().map(|t| &t.info.name).filter(|name| !read(name)).cloned().collect()
    }

    fn bytes(&self, tensor: &Located) -> &[u8] {
        tensor.info.data(&self.files[tensor.shard])
    }

    /// A vector of floats of a known length.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensors.tensor(name)?;
        if tensor.info.shape.iter().product::<usize>() != len {
            let problem = format!("has shape {:?}, needed {len} values", tensor.info.shape);
            return Err(ModelError::tensor(name, problem));
        }
        Ok(tensor.info.to_f32(&self.files[tensor.shard])?)
    }

    /// The matrix of a module that MLX quantized, and how.
    fn affine(&self, module: &str, rows: usize, cols: usize) -> Result<Option<(Affine, Packed<'_>)>> {
        let [scales, biases] = ["scales", "biases"].map(|part| format!("{module}.{part}"));
        let Some(mlx) = self.mlx.as_ref().filter(|_| self.tensors.find(&scales).is_some()) else { return Ok(None) };
        let (affine, name) = (mlx.of(module), format!("{module}.weight"));
        let (words, groups) = affine.widths(&name, cols)?;
        let tensor = self.tensors.tensor(&name)?;
        expect_shape(tensor, &[rows, words])?;
        if tensor.info.dtype != Dtype::U32 {
            return Err(ModelError::tensor(name, format!("is {:?}; MLX packs it in U32", tensor.info.dtype)));
        }
        let vector = |name: &str| {
            expect_shape(self.tensors.tensor(name)?, &[rows, groups])?;
            self.vector(name, rows * groups)
        };
        Ok(Some((
            affine,
            Packed { words: self.bytes(tensor), scales: vector(&scales)?, biases: vector(&biases)?, rows, cols },
        )))
    }

    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<DenseTensor> {
        self.dense_rows(name, 0..rows, rows, cols)
    }

    /// Some rows of the matrix `[all, cols]`.
    fn dense_rows(&self, name: &str, rows: Range<usize>, all: usize, cols: usize) -> Result<DenseTensor> {
        let tensor = self.tensors.tensor(name)?;
        expect_shape(tensor, &[all, cols])?;
        let dtype = match tensor.info.dtype {
            Dtype::F32 => BitNetDType::F32,
            Dtype::F16 => BitNetDType::F16,
            Dtype::BF16 => BitNetDType::BF16,
            other => return Err(ModelError::tensor(name, format!("is {other:?}; needed F32, F16 or BF16"))),
        };
        let (start, row) = (tensor.info.range.start, dtype.row_bytes(cols));
        let range = start + rows.start * row..start + rows.end * row;
        DenseTensor::mapped(name, self.files[tensor.shard].clone(), range, dtype, rows.len(), cols)
    }

    /// The matrices of all experts, which no quantization converts: they are no linear modules of transformers.
    fn experts(&self, layer: usize, projection: Projection, count: usize) -> Result<LinearSource> {
        let (rows, cols) = projection.shape(&self.config);
        let first = expert(layer, 0, projection);
        let one = |e: usize| self.dense(&format!("{}.weight", expert(layer, e, projection)), rows, cols);
        let parts = (0..count).map(one).collect::<Result<Vec<_>>>()?;
        let dtype = parts[0].dtype;
        if parts.iter().any(|part| part.dtype != dtype) {
            return Err(ModelError::tensor(first, "and the other experts have different dtypes"));
        }
        let bytes = parts.iter().flat_map(DenseTensor::bytes).copied().collect();
        let weight = WeightSource::Dense(DenseTensor::owned(&first, bytes, dtype, count * rows, cols)?);
        Ok(LinearSource { weight, bias: None, inner_norm: None })
    }

    /// Gate or up of a family that keeps both in one matrix, gate first.
    fn half_of_gate_up(&self, layer: usize, up: bool) -> Result<LinearSource> {
        let (inner, cols) = (self.config.intermediate_size, self.config.hidden_size);
        let module = gate_up(layer);
        if self.config.quantization.as_ref().is_some_and(|q| q.converts(&module)) {
            let problem = "holds gate and up in one matrix, which is read dense only";
            return Err(ModelError::tensor(module, problem));
        }
        let rows = if up { inner..2 * inner } else { 0..inner };
        let weight = self.dense_rows(&format!("{module}.weight"), rows, 2 * inner, cols)?;
        Ok(LinearSource { weight: WeightSource::Dense(weight), bias: None, inner_norm: None })
    }

    /// The linear layer `module` with `[rows, cols]` weights.
    fn linear_module(&self, module: &str, rows: usize, cols: usize) -> Result<LinearSource> {
        let name = format!("{module}.weight");
        let tensor = self.tensors.tensor(&name)?;
        let quantization = self.config.quantization.as_ref();
        let class = quantization.filter(|q| q.converts(module)).map(|q| q.class);
        let mut bias = match self.tensors.find(&format!("{module}.bias")) {
            Some(_) => Some(self.vector(&format!("{module}.bias"), rows)?),
            None => None,
        };
        if let Some((affine, matrix)) = self.affine(module, rows, cols)? {
            return Ok(LinearSource { weight: affine.weights(&name, &matrix)?, bias, inner_norm: None });
        }
        let scale = || Ok::<f32, ModelError>(self.vector(&format!("{module}.weight_scale"), 1)?[0]);
        let packed = tensor.info.dtype == Dtype::U8;
        let weight = match class {
            None if packed => {
                let problem = "is packed, but config.json does not say that this layer is quantized";
                return Err(ModelError::tensor(name, problem));
            }
            None => WeightSource::Dense(self.dense(&name, rows, cols)?),
            Some(LinearClass::Online) if packed => {
                return Err(ModelError::tensor(name, "is packed, but config.json says master weights (online)"));
            }
            Some(LinearClass::Online) if self.keep_master_weights => {
                WeightSource::Dense(self.dense(&name, rows, cols)?)
            }
            Some(LinearClass::Online) => {
                let (codes, scale) = ternarize::absmean(&self.dense(&name, rows, cols)?.to_f32(), rows, cols)?;
                WeightSource::Ternary { codes, scales: scale.into() }
            }
            Some(LinearClass::BitLinear) => {
                if !packed {
                    return Err(ModelError::tensor(
                        name,
                        format!("is {:?}; the BitLinear class packs it in U8", tensor.info.dtype),
                    ));
                }
                expect_shape(tensor, &[rows.div_ceil(4), cols])?;
                // The product is divided by this scale.
                WeightSource::Ternary {
                    codes: formats::hf::decode(self.bytes(tensor), rows, cols)?,
                    scales: (1. / scale()?).into(),
                }
            }
            Some(LinearClass::Offline) => {
                let scale = scale()?;
                // The product is multiplied by this scale after the bias was added.
                bias.iter_mut().flatten().for_each(|b| *b *= scale);
                if packed {
                    expect_shape(tensor, &[rows.div_ceil(4), cols])?;
                    WeightSource::Ternary {
                        codes: formats::hf::decode(self.bytes(tensor), rows, cols)?,
                        scales: scale.into(),
                    }
                } else {
                    let weights = self.dense(&name, rows, cols)?.to_f32();
                    let (codes, unit) = ternarize::exact(&weights, rows, cols)?.ok_or_else(|| {
                        ModelError::tensor(&name, "is not ternary, though config.json says it was quantized offline")
                    })?;
                    WeightSource::Ternary { codes, scales: (unit * scale).into() }
                }
            }
        };
        if let WeightSource::Ternary { scales, .. } = &weight
            && scales.times(1.).is_none()
        {
            return Err(ModelError::tensor(format!("{module}.weight_scale"), "is zero or not a number"));
        }
        let eps = quantization.and_then(|q| q.inner_norm_eps).filter(|_| class.is_some());
        let own = format!("{module}.norm.weight");
        let inner_norm = match eps {
            Some(eps) => Some((self.vector(&format!("{module}.rms_norm.weight"), cols)?, eps)),
            None if self.tensors.find(&own).is_some() => Some((self.vector(&own, cols)?, self.config.norm_eps)),
            None => None,
        };
        Ok(LinearSource { weight, bias, inner_norm })
    }
}

/// Notes on biases of which the configuration does not know: transformers leaves them out.
fn unannounced_biases(config: &str, tensors: &Tensors) -> Vec<String> {
    let config: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
    let note = |(key, part): (&str, &str)| {
        let stored = tensors.iter().map(|t| &t.info.name).filter(|name| name.contains(part) && name.ends_with(".bias"));
        // Qwen2 has them by its architecture.
        let expected = config[key] == true || config["model_type"] == "qwen2";
        let first = stored.min().filter(|_| !expected)?;
        Some(format!(
            "{first} is there, though config.json does not say {key}: it is added, transformers leaves it out"
        ))
    };
    [("attention_bias", ".self_attn."), ("mlp_bias", ".mlp.")].into_iter().filter_map(note).collect()
}

/// Name of a projection of an expert.
fn expert(layer: usize, expert: usize, projection: Projection) -> String {
    module(layer, projection).replace(".mlp.", &format!(".mlp.experts.{expert}."))
}

fn router(layer: usize) -> String {
    format!("model.layers.{layer}.mlp.gate")
}

/// Whether it belongs to parts that do not continue a text: vision, and the prediction of several tokens.
fn is_skipped(name: &str) -> bool {
    ["model.visual.", "visual.", "mtp."].iter().any(|start| name.starts_with(start))
}

/// Name of a part of a layer of the gated delta rule.
fn delta_module(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.linear_attn.{part}")
}

/// Name of the matrix of gate and up of a family that keeps both in one.
fn gate_up(layer: usize) -> String {
    format!("model.layers.{layer}.mlp.gate_up_proj")
}

fn expect_shape(tensor: &Located, shape: &[usize]) -> Result<()> {
    if tensor.info.shape == shape {
        return Ok(());
    }
    let problem = format!("has shape {:?}, but config.json asks for {shape:?}", tensor.info.shape);
    Err(ModelError::tensor(&tensor.info.name, problem))
}

pub(crate) fn module(layer: usize, projection: Projection) -> String {
    let name = match projection {
        // Both in one matrix.
        Projection::Query | Projection::AttentionGate => "self_attn.q_proj",
        Projection::DeltaQkv => "linear_attn.in_proj_qkv",
        Projection::DeltaGate => "linear_attn.in_proj_z",
        Projection::DeltaA => "linear_attn.in_proj_a",
        Projection::DeltaB => "linear_attn.in_proj_b",
        Projection::DeltaOutput => "linear_attn.out_proj",
        Projection::Key => "self_attn.k_proj",
        Projection::Value => "self_attn.v_proj",
        Projection::Output => "self_attn.o_proj",
        Projection::Gate => "mlp.gate_proj",
        Projection::Up => "mlp.up_proj",
        Projection::Down => "mlp.down_proj",
    };
    format!("model.layers.{layer}.{name}")
}

/// Names of a norm; the second, where there is one, is that of 1bitLLM's checkpoints.
pub(crate) fn norm_modules(norm: Norm, config: &Config) -> Vec<String> {
    let olmo_or_gemma = matches!(config.architecture, Architecture::Olmo2 | Architecture::Gemma3);
    let names: (usize, &[&str]) = match norm {
        Norm::Output => return vec!["model.norm".into()],
        Norm::Attention(layer) => (layer, &["input_layernorm"]),
        Norm::Query(layer) if config.architecture == Architecture::Hunyuan => (layer, &["self_attn.query_layernorm"]),
        Norm::Key(layer) if config.architecture == Architecture::Hunyuan => (layer, &["self_attn.key_layernorm"]),
        Norm::Query(layer) => (layer, &["self_attn.q_norm"]),
        Norm::Key(layer) => (layer, &["self_attn.k_norm"]),
        Norm::Delta(layer) => (layer, &["linear_attn.norm"]),
        Norm::AttentionInner(layer) => (layer, &["self_attn.attn_sub_norm", "self_attn.inner_attn_ln"]),
        // Everywhere else this is the name of the norm before the feed-forward part.
        Norm::AttentionAfter(layer) if olmo_or_gemma => (layer, &["post_attention_layernorm"]),
        Norm::AttentionAfter(layer) => (layer, &["post_self_attn_layernorm"]),
        Norm::FeedForward(layer) if config.architecture == Architecture::Gemma3 => {
            (layer, &["pre_feedforward_layernorm"])
        }
        Norm::FeedForward(layer) => (layer, &["post_attention_layernorm"]),
        Norm::FeedForwardInner(layer) => (layer, &["mlp.ffn_sub_norm", "mlp.ffn_layernorm"]),
        Norm::FeedForwardAfter(layer) if olmo_or_gemma => (layer, &["post_feedforward_layernorm"]),
        Norm::FeedForwardAfter(layer) => (layer, &["post_mlp_layernorm"]),
    };
    names.1.iter().map(|name| format!("model.layers.{}.{name}", names.0)).collect()
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    let io = |source| ModelError::Io { path: path.into(), source };
    if std::fs::metadata(path).map_err(io)?.len() > MAX_CONFIG {
        return Err(ModelError::Config("is far larger than a configuration".into()).in_file(path));
    }
    std::fs::read_to_string(path).map_err(io)
}

impl Weights for HuggingFace {
    fn config(&self) -> &Config {
        &self.config
    }

    fn embedding(&self) -> Result<DenseTensor> {
        let (module, rows, cols) = ("model.embed_tokens", self.config.vocab_size, self.config.hidden_size);
        match self.affine(module, rows, cols)? {
            Some((affine, matrix)) => affine.dense(module, &matrix),
            None => self.dense("model.embed_tokens.weight", rows, cols),
        }
    }

    fn head(&self) -> Result<Option<LinearSource>> {
        let stored = self.tensors.find("lm_head.weight");
        let same =
            |head| Some(self.bytes(head)) == self.tensors.find("model.embed_tokens.weight").map(|e| self.bytes(e));
        match stored {
            None if self.config.tied => Ok(None),
            // A tied checkpoint may still store a head; transformers uses it if it differs.
            Some(head) if self.config.tied && same(head) => Ok(None),
            _ => self.linear_module("lm_head", self.config.vocab_size, self.config.hidden_size).map(Some),
        }
    }

    fn norm(&self, norm: Norm) -> Result<Vec<f32>> {
        let names: Vec<String> =
            norm_modules(norm, &self.config).into_iter().map(|module| module + ".weight").collect();
        let name = names.iter().find(|name| self.tensors.find(name).is_some()).unwrap_or(&names[0]);
        let mut values = self.vector(name, norm.len(&self.config))?;
        let one_more = match self.config.architecture {
            Architecture::Gemma3 => true,
            Architecture::Qwen35 => !matches!(norm, Norm::Delta(_)),
            _ => false,
        };
        if one_more {
            values.iter_mut().for_each(|w| *w += 1.);
        }
        let Config { block, head_dim, .. } = &self.config;
        Ok(match norm {
            Norm::Query(_) | Norm::Key(_) if block.reorders() => block.order_norm(values, *head_dim),
            _ => values,
        })
    }

    fn linear(&self, layer: usize, projection: Projection) -> Result<LinearSource> {
        let Config { architecture, block, head_dim, .. } = &self.config;
        let (rows, cols) = projection.shape(&self.config);
        match projection {
            Projection::Gate | Projection::Up | Projection::Down if block.experts.is_some() => {
                self.experts(layer, projection, block.experts.map_or(0, |experts| experts.count))
            }
            Projection::Gate | Projection::Up if *architecture == Architecture::Glm4 => {
                self.half_of_gate_up(layer, projection == Projection::Up)
            }
            Projection::Query | Projection::AttentionGate if block.attention_gate => {
                // Of each head the query, then the gate.
                let source = self.linear_module(&module(layer, projection), 2 * rows, cols)?;
                match projection {
                    Projection::Query => source.take_rows(rows, |row| block.query_with_gate(row, *head_dim)),
                    _ => source.take_rows(rows, |row| Block::gate_with_query(row, *head_dim)),
                }
            }
            Projection::Query | Projection::Key if block.reorders() => {
                let source = self.linear_module(&module(layer, projection), rows, cols)?;
                source.reorder_rows(|row| block.row(row, *head_dim))
            }
            _ => self.linear_module(&module(layer, projection), rows, cols),
        }
    }

    fn router(&self, layer: usize) -> Result<DenseTensor> {
        let count = self.config.block.experts.map_or(0, |experts| experts.count);
        self.dense(&format!("{}.weight", router(layer)), count, self.config.hidden_size)
    }

    fn delta(&self, layer: usize) -> Result<DeltaSource> {
        let Some(delta) = self.config.block.delta(layer) else {
            return Err(ModelError::Config(format!("layer {layer} attends")));
        };
        let (channels, taps) = (delta.channels(), delta.taps);
        let conv = self.vector(&delta_module(layer, "conv1d.weight"), channels * taps)?;
        let mut decay = self.vector(&delta_module(layer, "A_log"), delta.value_heads)?;
        decay.iter_mut().for_each(|x| *x = -x.exp());
        Ok(DeltaSource {
            conv: (0..taps * channels).map(|i| conv[i % channels * taps + i / channels]).collect(),
            decay,
            bias: self.vector(&delta_module(layer, "dt_bias"), delta.value_heads)?,
        })
    }

    fn release(&self, layer: usize) {
        let prefix = format!("model.layers.{layer}.");
        for tensor in self.tensors.iter().filter(|t| t.info.name.starts_with(&prefix)) {
            self.files[tensor.shard].release(tensor.info.range.clone());
        }
    }
}
