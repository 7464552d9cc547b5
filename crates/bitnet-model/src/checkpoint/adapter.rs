//! Low-rank adapters (LoRA, Hu et al. 2022): `scale * B (A x)` is added to the output of a linear layer.
//!
//! Read from directories of PEFT (`adapter_config.json`, `adapter_model.safetensors`) and GGUF files of llama.cpp
//! (`general.type` adapter). The factor is `alpha / rank` times the caller's, with rank-stabilised LoRA `alpha / sqrt(rank)`.

use super::gguf_names::{Family, linear_name};
use super::weights::{DeltaSource, DenseTensor, LinearSource, Norm, Projection, WeightSource, Weights};
use super::{folder_of_weights, hf};
use crate::config::{Block, LinearClass};
use crate::gguf::Gguf;
use crate::safetensors::Safetensors;
use crate::{Config, ModelError, Result};
use bitnet_core::{BitNetDType, MappedFile};
use bitnet_quant::ternarize;
use regex::Regex;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A linear layer: layer and projection; `None` is the head.
pub type Place = Option<(usize, Projection)>;

/// Two thin matrices whose product is added to a weight matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// Rows of `a`.
    pub rank: usize,
    /// `[rank, inputs]`
    pub a: Vec<f32>,
    /// `[outputs, rank]`, multiplied by the factor; rows in the order of [`Weights::linear`].
    pub b: Vec<f32>,
}

/// An adapter of a model.
#[derive(Debug)]
pub struct Adapter {
    layers: HashMap<Place, LowRank>,
}

/// One of the two matrices of a layer as it is stored.
struct Stored {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

const CONFIG: &str = "adapter_config.json";
const FILE: &str = "adapter_model.safetensors";

impl Adapter {
    /// Opens an adapter for a model of this configuration; its product is also multiplied by `strength`.
    ///
    /// # Errors
    /// If it is no adapter of a kind that is known, or of another model: a layer or a shape that the model does not have.
    pub fn open(path: &Path, config: &Config, strength: f32) -> Result<Self> {
        let path = folder_of_weights(path).unwrap_or(path);
        let read = if path.is_dir() {
            Self::open_peft(path, config, strength)
        } else {
            Self::open_gguf(path, config, strength)
        };
        read.map_err(|e| e.in_file(path))
    }

    fn open_gguf(path: &Path, config: &Config, strength: f32) -> Result<Self> {
        let file = Arc::new(MappedFile::open(path)?);
        let gguf = Gguf::parse(&file)?;
        let metadata = &gguf.metadata;
        let kinds = (metadata.find::<&str>("general.type")?, metadata.find::<&str>("adapter.type")?);
        if kinds != (Some("adapter"), Some("lora")) {
            let problem = "is no adapter: general.type is not \"adapter\", or adapter.type not \"lora\"";
            return Err(ModelError::Config(problem.into()));
        }
        let alpha: f32 = metadata.require("adapter.lora.alpha")?;
        let name: &str = metadata.require("general.architecture")?;
        let family = Family::ALL.into_iter().find(|family| family.name() == name);
        let interleaved = family.is_some_and(Family::interleaves_heads);
        let mut places: HashMap<String, Place> =
            all_places(config).map(|(l, p)| (linear_name(l, p), Some((l, p)))).collect();
        places.insert("output".into(), None);
        let mut stored = Vec::new();
        for tensor in &gguf.tensors {
            let [rows, cols] = tensor.shape[..] else { return Err(unknown(&tensor.name)) };
            let Some(dtype) = tensor.ty.dtype() else { return Err(unknown(&tensor.name)) };
            let matrix = DenseTensor::mapped(&tensor.name, file.clone(), tensor.range.clone(), dtype, rows, cols)?;
            stored.push(Stored { name: tensor.name.clone(), shape: tensor.shape.clone(), values: matrix.to_f32() });
        }
        let factor = |_: &str, rank: usize| Ok(if alpha == 0. { strength } else { strength * alpha / rank as f32 });
        // The rows of query and key lie as in the file of the model.
        let order = if interleaved { Block { rotary_pairs: true, ..Block::default() } } else { Block::default() };
        Self::pair(stored, config, (".weight.lora_a", ".weight.lora_b"), &places, factor, interleaved.then_some(&order))
    }

    fn open_peft(path: &Path, config: &Config, strength: f32) -> Result<Self> {
        let text = hf::read_text(&path.join(CONFIG))?;
        let settings: Value =
            serde_json::from_str(&text).map_err(|e| ModelError::Config(format!("{CONFIG} is not JSON: {e}")))?;
        let wrong = |key: &str| ModelError::Config(format!("{key} is {}, which is not applied here", settings[key]));
        if settings["peft_type"] != "LORA" {
            return Err(wrong("peft_type"));
        }
        if let Some(key) = ["use_dora", "fan_in_fan_out"].into_iter().find(|key| settings[key] == true) {
            return Err(wrong(key));
        }
        let alpha = settings["lora_alpha"].as_f64().ok_or_else(|| wrong("lora_alpha"))?;
        let mut patterns = Vec::new();
        for (pattern, alpha) in settings["alpha_pattern"].as_object().into_iter().flatten() {
            let whole = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).map_err(|_| wrong("alpha_pattern"))?;
            patterns.push((whole, alpha.as_f64().ok_or_else(|| wrong("alpha_pattern"))?));
        }
        let bytes = MappedFile::open(path.join(FILE))?;
        let file = Safetensors::parse(&bytes, FILE)?;
        let mut places: HashMap<String, Place> =
            all_places(config).map(|(l, p)| (hf::module(l, p), Some((l, p)))).collect();
        places.insert("lm_head".into(), None);
        let mut stored = Vec::new();
        // PEFT stores the base's own head beside an adapter of it.
        for info in file.tensors().filter(|info| !info.name.ends_with(".base_layer.weight")) {
            let name =
                info.name.strip_prefix("base_model.model.").unwrap_or(&info.name).replace(".default.weight", ".weight");
            stored.push(Stored { name, shape: info.shape.clone(), values: info.to_f32(&bytes)? });
        }
        let stabilised = settings["use_rslora"] == true;
        let factor = |module: &str, rank: usize| {
            let alpha =
                patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map_or(alpha, |(_, alpha)| *alpha);
            let rank = rank as f64;
            Ok((f64::from(strength) * alpha / if stabilised { rank.sqrt() } else { rank }) as f32)
        };
        let block = &config.block;
        let reordered = (block.rotary_dim.is_some() || block.rotary_pairs).then_some(block);
        Self::pair(stored, config, (".lora_A.weight", ".lora_B.weight"), &places, factor, reordered)
    }

    /// Brings the matrices of each layer together.
    fn pair(
        stored: Vec<Stored>,
        config: &Config,
        (a_end, b_end): (&str, &str),
        places: &HashMap<String, Place>,
        factor: impl Fn(&str, usize) -> Result<f32>,
        order: Option<&Block>,
    ) -> Result<Self> {
        let mut halves: HashMap<Place, (Option<Stored>, Option<Stored>)> = HashMap::new();
        for part in stored {
            let ends = (part.name.strip_suffix(a_end), part.name.strip_suffix(b_end));
            let module = ends.0.or(ends.1).and_then(|module| places.get(module));
            let pair = halves.entry(*module.ok_or_else(|| unknown(&part.name))?).or_default();
            let half = if ends.0.is_some() { &mut pair.0 } else { &mut pair.1 };
            *half = Some(part);
        }
        if halves.is_empty() {
            return Err(ModelError::Config("the adapter has no tensors".into()));
        }
        let mut layers = HashMap::new();
        for (place, pair) in halves {
            let (outputs, inputs) = place.map_or((config.vocab_size, config.hidden_size), |(_, p)| p.shape(config));
            let (a, mut b) = match pair {
                (Some(a), Some(b)) => (a, b),
                (Some(one), None) | (None, Some(one)) => {
                    return Err(ModelError::tensor(one.name, "the other matrix of this layer is missing"));
                }
                (None, None) => continue,
            };
            let rank = a.shape.first().copied().unwrap_or(0);
            for (part, needed) in [(&a, [rank, inputs]), (&b, [outputs, rank])] {
                if part.shape != needed || rank == 0 {
                    let problem = format!("has shape {:?}, but this model needs {needed:?}", part.shape);
                    return Err(ModelError::tensor(&part.name, problem));
                }
            }
            let factor = factor(b.name.strip_suffix(b_end).unwrap_or_default(), rank)?;
            b.values.iter_mut().for_each(|value| *value *= factor);
            if let (Some(block), Some((_, Projection::Query | Projection::Key))) = (order, place) {
                let from = |row: usize| &b.values[block.row(row, config.head_dim) * rank..][..rank];
                b.values = (0..outputs).flat_map(from).copied().collect();
            }
            layers.insert(place, LowRank { rank, a: a.values, b: b.values });
        }
        Ok(Self { layers })
    }
}

/// The layers that can be adapted: experts are not.
fn all_places(config: &Config) -> impl Iterator<Item = (usize, Projection)> {
    let count = if config.block.experts.is_some() { 4 } else { Projection::ALL.len() };
    (0..config.layers)
        .flat_map(move |layer| Projection::ALL[..count].iter().map(move |&projection| (layer, projection)))
}

fn unknown(name: &str) -> ModelError {
    ModelError::tensor(name, "is no low-rank matrix of a linear layer of this model, and nothing else is applied")
}

impl LowRank {
    /// Both products as one.
    fn joined(&self, other: &Self) -> Self {
        let rows = self.b.chunks_exact(self.rank).zip(other.b.chunks_exact(other.rank));
        let b = rows.flat_map(|(one, two)| one.iter().chain(two)).copied().collect();
        Self { rank: self.rank + other.rank, a: [&self.a[..], &other.a].concat(), b }
    }

    /// Adds the product to a matrix `[outputs, inputs]`.
    fn add_to(&self, weights: &mut [f32]) {
        let inputs = self.a.len() / self.rank;
        for (row, b) in weights.chunks_exact_mut(inputs).zip(self.b.chunks_exact(self.rank)) {
            for (a, &b) in self.a.chunks_exact(inputs).zip(b) {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += b * a);
            }
        }
    }
}

/// The weights of a model with adapters: beside them ([`Weights::adapter`]), or merged into dense matrices, which are then f32.
pub struct AdaptedWeights {
    base: Box<dyn Weights>,
    layers: HashMap<Place, LowRank>,
    merged: bool,
}

impl AdaptedWeights {
    /// Adapters that were opened for the configuration of `base`, all of them applied.
    ///
    /// # Errors
    /// If one is for the head of a model that has none of its own.
    pub fn new(base: Box<dyn Weights>, adapters: Vec<Adapter>, merged: bool) -> Result<Self> {
        let mut layers: HashMap<Place, LowRank> = HashMap::new();
        for (place, one) in adapters.into_iter().flat_map(|adapter| adapter.layers) {
            let joined = layers.get(&place).map(|other| other.joined(&one));
            layers.insert(place, joined.unwrap_or(one));
        }
        if layers.contains_key(&None) && base.head()?.is_none() {
            let problem = "an adapter is for the output head, which this model shares with its embedding";
            return Err(ModelError::Config(problem.into()));
        }
        Ok(Self { base, layers, merged })
    }

    fn merge(&self, place: Place, source: LinearSource) -> Result<LinearSource> {
        let module = place.map_or_else(|| "lm_head".into(), |(layer, projection)| hf::module(layer, projection));
        let adapter = self.layers.get(&place).filter(|_| self.merged);
        let (dense, adapter) = match (source.weight, adapter) {
            (WeightSource::Dense(dense), Some(adapter)) => (dense, adapter),
            (WeightSource::Ternary { .. }, Some(_)) => {
                let problem = "is ternary: an adapter cannot be merged into it; apply it as the model runs (--lora)";
                return Err(ModelError::tensor(module, problem));
            }
            (weight, None) => return Ok(LinearSource { weight, ..source }),
        };
        let mut values = dense.to_f32();
        adapter.add_to(&mut values);
        // 16 bits would round away what an adapter changes.
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let merged = DenseTensor::owned(&module, bytes, BitNetDType::F32, dense.rows, dense.cols)?;
        Ok(LinearSource { weight: WeightSource::Dense(merged), ..source })
    }

    /// Master weights that were kept dense to be merged, as they run.
    fn ternary(&self, place: Place, source: LinearSource) -> Result<LinearSource> {
        let module = place.map_or_else(|| "lm_head".into(), |(layer, projection)| hf::module(layer, projection));
        let config = self.base.config().quantization.as_ref();
        let online = config.is_some_and(|q| q.class == LinearClass::Online && q.converts(&module)) && self.merged;
        match source.weight {
            WeightSource::Dense(dense) if online => {
                let (codes, scale) = ternarize::absmean(&dense.to_f32(), dense.rows, dense.cols)?;
                Ok(LinearSource { weight: WeightSource::Ternary { codes, scales: scale.into() }, ..source })
            }
            weight => Ok(LinearSource { weight, ..source }),
        }
    }
}

impl Weights for AdaptedWeights {
    fn config(&self) -> &Config {
        self.base.config()
    }

    fn embedding(&self) -> Result<DenseTensor> {
        self.base.embedding()
    }

    fn head(&self) -> Result<Option<LinearSource>> {
        self.base.head()?.map(|head| self.ternary(None, self.merge(None, head)?)).transpose()
    }

    fn norm(&self, norm: Norm) -> Result<Vec<f32>> {
        self.base.norm(norm)
    }

    fn router(&self, layer: usize) -> Result<DenseTensor> {
        self.base.router(layer)
    }

    fn linear(&self, layer: usize, projection: Projection) -> Result<LinearSource> {
        let place = Some((layer, projection));
        self.ternary(place, self.merge(place, self.base.linear(layer, projection)?)?)
    }

    fn delta(&self, layer: usize) -> Result<DeltaSource> {
        self.base.delta(layer)
    }

    fn adapter(&self, place: Place) -> Option<LowRank> {
        self.layers.get(&place).filter(|_| !self.merged).cloned()
    }

    fn release(&self, layer: usize) {
        self.base.release(layer);
    }
}
