//! Checkpoints of llama.cpp and bitnet.cpp: GGUF.

use super::gguf_config::{ACTIVATIONS, often_by_token};
use super::gguf_names::{Family, interleaved, linear_name};
use super::weights::{DeltaSource, DenseTensor, LinearSource, Norm, Projection, WeightSource, Weights};
use super::{OpenOptions, TensorSummary};
use crate::config::{Architecture, Block};
use crate::gguf::{Gguf, GgufType, Metadata, TensorInfo};
use crate::tokenizer::GgufVocab;
use crate::{Config, ModelError, Result};
use bitnet_core::{BitNetDType, MappedFile};
use bitnet_quant::formats::{self, RowScaledFormat, ScaledFormat, i2_s::I2sOrder, i2s_order::OrderHint};
use bitnet_quant::ternarize;
use std::path::Path;
use std::sync::Arc;

/// Weights of a GGUF file, or of the files of a split one, mapped.
#[derive(Debug)]
pub(super) struct GgufCheckpoint {
    config: Config,
    family: Family,
    order: I2sOrder,
    /// If the order was inferred: whether there is evidence for it.
    guess: Option<bool>,
    /// Whether neither the file nor the options say how activations are rounded.
    guesses_activations: bool,
    files: Vec<Arc<MappedFile>>,
    gguf: Gguf,
}

impl GgufCheckpoint {
    pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let (first, mut gguf) = parse(path)?;
        let others = gguf.other_parts(path).map_err(|e| ModelError::from(e).in_file(path))?;
        let others = others.iter().map(|path| parse(path)).collect::<Result<Vec<_>>>()?;
        let (others, headers): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        gguf.join(headers).map_err(|e| ModelError::from(e).in_file(path))?;
        if gguf.metadata.iter().any(|(key, _)| key.starts_with("prism.hadamard.")) {
            let problem = "its weights are rotated (keys prism.hadamard.*), which is not supported: without the \
                           rotation they make noise; use a file without it";
            return Err(ModelError::Config(problem.into()).in_file(path));
        }
        let files: Vec<_> = [first].into_iter().chain(others).collect();
        let (mut config, family) = super::gguf_config::read(&gguf, &files).map_err(|e| e.in_file(path))?;
        config.activations = options.activations.unwrap_or(config.activations);
        let guesses_activations = options.activations.is_none() && gguf.metadata.value(ACTIVATIONS).is_none();
        let order = I2sOrder::X86;
        let mut checkpoint = Self { config, family, order, guess: None, guesses_activations, files, gguf };
        match options.i2s_order {
            Some(order) => checkpoint.order = order,
            None if checkpoint.gguf.tensors.iter().any(|t| t.ty == GgufType::I2_S) => checkpoint.guess_order(),
            None => {}
        }
        Ok(checkpoint)
    }

    /// Infers the block order of I2_S from the first layers.
    fn guess_order(&mut self) {
        let mut hint = OrderHint::default();
        for layer in 0..self.config.layers.min(3) {
            let mut pairs =
                vec![(Projection::Query, Norm::Attention(layer)), (Projection::Gate, Norm::FeedForward(layer))];
            if self.config.block.inner_norms {
                let inner = [
                    (Projection::Output, Norm::AttentionInner(layer)),
                    (Projection::Down, Norm::FeedForwardInner(layer)),
                ];
                pairs.extend(inner);
            }
            for (projection, norm) in pairs {
                let (rows, cols) = projection.shape(&self.config);
                let name = format!("{}.weight", linear_name(layer, projection));
                let Some(tensor) = self.gguf.find(&name).filter(|t| t.ty == GgufType::I2_S) else { continue };
                // Missing or malformed tensors are reported when the layer is loaded.
                let Ok(norm) = self.norm(norm) else { continue };
                let _ = hint.add(self.data(tensor), rows, cols, &norm);
            }
        }
        self.guess = Some(hint.order().is_some());
        self.order = hint.order().unwrap_or(I2sOrder::X86);
    }

    /// Whether projections have norms of their own, as in BitNet-embedding.
    pub(super) fn has_own_norms(&self) -> bool {
        self.gguf.tensors.iter().any(|t| t.name.ends_with("_norm_in.weight"))
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.gguf.metadata
    }

    pub(super) fn files(&self) -> &[Arc<MappedFile>] {
        &self.files
    }

    fn data<'a>(&'a self, tensor: &TensorInfo) -> &'a [u8] {
        tensor.data(&self.files[tensor.part])
    }

    pub(super) fn format(&self) -> String {
        let parts = if self.files.len() > 1 { format!(" in {} files", self.files.len()) } else { String::new() };
        format!("GGUF v{}{parts}, architecture {}", self.gguf.version, self.family.name())
    }

    pub(super) fn summaries(&self) -> Vec<TensorSummary> {
        let summary = |t: &TensorInfo| TensorSummary {
            name: t.name.clone(),
            kind: t.ty.name().into(),
            shape: t.shape.clone(),
            bytes: t.range.len(),
        };
        self.gguf.tensors.iter().map(summary).collect()
    }

    /// The vocabulary, if the file has one.
    pub(super) fn vocab(&self) -> Result<Option<GgufVocab>> {
        match self.gguf.metadata.find::<&str>("tokenizer.ggml.model")? {
            None | Some("no_vocab") => Ok(None),
            Some(_) => super::gguf_vocab::read(&self.gguf.metadata).map(Some),
        }
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let key = format!("{}.hidden_activation", self.family.name());
        if self.config.block.inner_norms && self.gguf.metadata.value(&key).is_none() {
            notes.push(format!("{key} is absent: {} is assumed", self.config.hidden_act.name()));
        }
        if self.guess == Some(true) {
            let order = match self.order {
                I2sOrder::X86 => "x86",
                I2sOrder::Arm => "ARM",
            };
            notes.push(format!("I2_S does not record its block order: {order}, inferred from the norms"));
        }
        notes.extend(self.guesses());
        for t in self.gguf.tensors.iter().filter(|t| t.ty.advice().is_some()) {
            notes.push(format!("{} is {} (type {}), which is not supported", t.name, t.ty.name(), t.ty.number()));
        }
        notes
    }

    /// What is assumed without evidence.
    pub(super) fn guesses(&self) -> Vec<String> {
        let guessed = self.guess == Some(false);
        let order = guessed.then(|| {
            "I2_S does not record its block order: x86 is assumed; if the text is noise, try --i2s-order arm".to_owned()
        });
        let ty = self.gguf.tensors.iter().map(|t| t.ty).find(|&ty| often_by_token(ty));
        let ty = ty.filter(|_| self.guesses_activations && self.config.architecture == Architecture::Llama);
        let activations = ty.map(|ty| {
            format!(
                "a llama of {} does not record how activations are rounded: token is assumed; if it was trained otherwise, as \
                 TriLM was, try --activations float",
                ty.name()
            )
        });
        order.into_iter().chain(activations).collect()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let tensor = self.gguf.tensor(name)?;
        let same = tensor.shape.iter().product::<usize>() == shape.iter().product::<usize>()
            && tensor.shape.last() == shape.last();
        if !same {
            let problem = format!("has shape {:?}, but the metadata asks for {shape:?}", tensor.shape);
            return Err(ModelError::tensor(name, problem));
        }
        Ok(tensor)
    }

    /// A matrix whose inputs are not quantized: the bytes of the file, or if it has no such dtype its values, exact in F16
    /// if they are small multiples of f16 scales, F64 rounded to F32.
    fn dense(&self, tensor: &TensorInfo, rows: usize, cols: usize) -> Result<DenseTensor> {
        let (bytes, name) = (self.data(tensor), &tensor.name);
        let owned = |values, dtype| DenseTensor::owned(name, values, dtype, rows, cols);
        if let Some(dtype) = tensor.ty.dtype() {
            let file = self.files[tensor.part].clone();
            return DenseTensor::mapped(name, file, tensor.range.clone(), dtype, rows, cols);
        }
        if let Some(format) = scaled_format(tensor.ty) {
            let mut values = Vec::with_capacity(2 * rows * cols);
            for row in bytes.chunks_exact(format.byte_size(1, cols)?) {
                values.extend(formats::float16::encode_f16(&format.dequantize(row, 1, cols)?));
            }
            return owned(values, BitNetDType::F16);
        }
        if let Some(format) = row_scaled_format(tensor.ty) {
            let decoded = format.decode(bytes, rows, cols)?;
            let (weights, scales) = (decoded.codes.to_weights(), &decoded.scales);
            let values = weights.into_iter().enumerate().map(|(i, w)| f32::from(w) * scales[i / cols]);
            return owned(values.flat_map(f32::to_le_bytes).collect(), BitNetDType::F32);
        }
        match tensor.ty {
            GgufType::F64 => {
                let narrow = |b: &[u8; 8]| (f64::from_le_bytes(*b) as f32).to_le_bytes();
                owned(bytes.as_chunks().0.iter().flat_map(narrow).collect(), BitNetDType::F32)
            }
            GgufType::I2_S => {
                let (codes, scale) = formats::i2_s::decode(bytes, rows, cols, self.order)?;
                let values = codes.to_weights().into_iter().flat_map(|w| (f32::from(w) * scale).to_le_bytes());
                owned(values.collect(), BitNetDType::F32)
            }
            other => Err(ModelError::tensor(name, format!("is {}, which is not a type of matrices", other.name()))),
        }
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, &[len])?;
        Ok(self.dense(tensor, 1, len)?.to_f32())
    }

    /// The separate scale that upstream llama.cpp stores for a weight, or 1.
    fn extra_scale(&self, base: &str) -> Result<f32> {
        let name = format!("{base}.scale");
        if self.gguf.find(&name).is_none() { Ok(1.) } else { Ok(self.vector(&name, 1)?[0]) }
    }

    /// The linear layer with the tensors `base.weight`, `base.bias`, `base.scale`.
    fn linear_tensor(&self, base: &str, rows: usize, cols: usize, quantized: bool) -> Result<LinearSource> {
        let name = format!("{base}.weight");
        let tensor = self.tensor(&name, &[rows, cols])?;
        let bytes = self.data(tensor);
        let norm = format!("{base}_norm_in.weight");
        let norm = self.gguf.find(&norm).map(|_| Ok((self.vector(&norm, cols)?, self.config.norm_eps)));
        let inner_norm = norm.transpose().map_err(|e: ModelError| e)?;
        let quantized = quantized || inner_norm.is_some();
        // A type with a scale in every block or row: ternary if no code is +2.
        let decoded = match row_scaled_format(tensor.ty) {
            Some(format) => Some(format.decode(bytes, rows, cols)),
            None => scaled_format(tensor.ty).map(|format| format.decode(bytes, rows, cols)),
        };
        let scaled = decoded.and_then(|decoded| {
            let decoded = decoded.ok()?;
            Some((decoded.ternary_scales().ok()?, decoded.codes))
        });
        let weight = match (tensor.ty, scaled) {
            (GgufType::I2_S, _) => {
                let (codes, scale) = formats::i2_s::decode(bytes, rows, cols, self.order)?;
                WeightSource::Ternary { codes, scales: scale.into() }
            }
            (_, Some((scales, codes))) => WeightSource::Ternary { codes, scales },
            // A BitNet quantizes its weights regardless of their stored type; rounded to another type they are still
            // ternary.
            _ if quantized => {
                let values = self.dense(tensor, rows, cols)?.to_f32();
                let exact = ternarize::exact(&values, rows, cols)?;
                let (codes, scale) = exact.map_or_else(|| ternarize::absmean(&values, rows, cols), Ok)?;
                WeightSource::Ternary { codes, scales: scale.into() }
            }
            _ => WeightSource::Dense(self.dense(tensor, rows, cols)?),
        };
        let extra = self.extra_scale(base)?;
        let weight = match weight {
            WeightSource::Ternary { codes, scales } => {
                scales.times(extra).map(|scales| WeightSource::Ternary { codes, scales })
            }
            WeightSource::Dense(dense) if extra == 1. => Some(WeightSource::Dense(dense)),
            WeightSource::Dense(dense) => {
                let values = dense.to_f32().into_iter().flat_map(|v| (v * extra).to_le_bytes()).collect();
                Some(WeightSource::Dense(DenseTensor::owned(&name, values, BitNetDType::F32, rows, cols)?))
            }
        };
        let weight = weight
            .ok_or_else(|| ModelError::tensor(name, format!("has the scale {extra}, which does not fit its type")))?;
        let bias = format!("{base}.bias");
        let bias = self.gguf.find(&bias).map(|_| self.vector(&bias, rows)).transpose()?;
        Ok(LinearSource { weight, bias, inner_norm })
    }
}

/// The format of a type with a scale in every block.
fn scaled_format(ty: GgufType) -> Option<&'static ScaledFormat> {
    Some(match ty {
        GgufType::TQ1_0 => &formats::TQ1_0,
        GgufType::TQ2_0 => &formats::TQ2_0,
        GgufType::Q2_0_G64 => &formats::Q2_0_G64,
        GgufType::Q2_0_G128 | GgufType::PQ2_0 => &formats::Q2_0_G128,
        GgufType::Q1_0 => &formats::Q1_0,
        GgufType::PTQ1_0 => &formats::PTQ1_0,
        GgufType::STQ1_0 | GgufType::STQ1_0_EARLY => &formats::STQ1_0,
        _ => return None,
    })
}

/// The format of a type with a scale for each row.
fn row_scaled_format(ty: GgufType) -> Option<&'static RowScaledFormat> {
    Some(match ty {
        GgufType::IQ1_BN => &formats::IQ1_BN,
        GgufType::IQ2_BN => &formats::IQ2_BN,
        _ => return None,
    })
}

/// A mapped file and its header.
fn parse(path: &Path) -> Result<(Arc<MappedFile>, Gguf)> {
    let file = Arc::new(MappedFile::open(path)?);
    let gguf = Gguf::parse(&file).map_err(|e| ModelError::from(e).in_file(path))?;
    Ok((file, gguf))
}

impl Weights for GgufCheckpoint {
    fn config(&self) -> &Config {
        &self.config
    }

    fn embedding(&self) -> Result<DenseTensor> {
        let (rows, cols) = (self.config.vocab_size, self.config.hidden_size);
        self.dense(self.tensor("token_embd.weight", &[rows, cols])?, rows, cols)
    }

    fn head(&self) -> Result<Option<LinearSource>> {
        if self.config.tied {
            return Ok(None);
        }
        self.linear_tensor("output", self.config.vocab_size, self.config.hidden_size, false).map(Some)
    }

    fn norm(&self, norm: Norm) -> Result<Vec<f32>> {
        let values = self.vector(&self.family.norm_name(norm), norm.len(&self.config))?;
        let Config { block, head_dim, .. } = &self.config;
        Ok(match norm {
            Norm::Query(_) | Norm::Key(_) if block.reorders() => block.order_norm(values, *head_dim),
            _ => values,
        })
    }

    fn linear(&self, layer: usize, projection: Projection) -> Result<LinearSource> {
        let (rows, cols) = projection.shape(&self.config);
        if let (Some(experts), Projection::Gate | Projection::Up | Projection::Down) =
            (self.config.block.experts, projection)
        {
            let name = format!("{}_exps.weight", linear_name(layer, projection));
            let tensor = self.tensor(&name, &[experts.count, rows, cols])?;
            let weight = WeightSource::Dense(self.dense(tensor, experts.count * rows, cols)?);
            return Ok(LinearSource { weight, bias: None, inner_norm: None });
        }
        let quantized = self.config.block.inner_norms;
        // Of each head the query, then the gate.
        let both =
            self.config.block.attention_gate && matches!(projection, Projection::Query | Projection::AttentionGate);
        let stored = if both { 2 * rows } else { rows };
        let source = self.linear_tensor(&linear_name(layer, projection), stored, cols, quantized)?;
        match projection {
            Projection::Query | Projection::Key if self.family.interleaves_heads() => {
                interleaved::undo(source, self.config.head_dim)
            }
            Projection::Query if self.config.block.attention_gate => {
                source.take_rows(stored / 2, |row| self.config.block.query_with_gate(row, self.config.head_dim))
            }
            Projection::AttentionGate => {
                source.take_rows(stored / 2, |row| Block::gate_with_query(row, self.config.head_dim))
            }
            Projection::Query | Projection::Key if self.config.block.reorders() => {
                source.reorder_rows(|row| self.config.block.row(row, self.config.head_dim))
            }
            _ => Ok(source),
        }
    }

    fn delta(&self, layer: usize) -> Result<DeltaSource> {
        let Some(delta) = self.config.block.delta(layer) else {
            return Err(ModelError::Config(format!("layer {layer} attends")));
        };
        let (channels, taps, heads) = (delta.channels(), delta.taps, delta.value_heads);
        let name = format!("blk.{layer}.ssm_conv1d.weight");
        let conv = self.dense(self.tensor(&name, &[channels, taps])?, channels, taps)?.to_f32();
        Ok(DeltaSource {
            conv: (0..taps * channels).map(|i| conv[i % channels * taps + i / channels]).collect(),
            decay: self.vector(&format!("blk.{layer}.ssm_a"), heads)?,
            bias: self.vector(&format!("blk.{layer}.ssm_dt.bias"), heads)?,
        })
    }

    fn router(&self, layer: usize) -> Result<DenseTensor> {
        let (count, cols) = (self.config.block.experts.map_or(0, |experts| experts.count), self.config.hidden_size);
        self.dense(self.tensor(&format!("blk.{layer}.ffn_gate_inp.weight"), &[count, cols])?, count, cols)
    }

    fn release(&self, layer: usize) {
        let prefix = format!("blk.{layer}.");
        for tensor in self.gguf.tensors.iter().filter(|t| t.name.starts_with(&prefix)) {
            self.files[tensor.part].release(tensor.range.clone());
        }
    }
}
