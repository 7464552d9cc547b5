//! Converting checkpoints to another format with unchanged ternary values and scales.

mod gguf;
mod hf;

pub use hf::write_tokenizer;

use crate::checkpoint::{Checkpoint, DenseTensor, LinearSource, WeightSource};
use crate::{ModelError, Result};
use bitnet_core::BitNetDType;
use bitnet_quant::{TernaryCodes, TernaryScales, formats};
use std::path::Path;

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// GGUF with I2_S as bitnet.cpp's x86 build reads it.
    I2S,
    /// GGUF with TQ1_0 (1.69 bits a weight), for llama.cpp.
    Tq1_0,
    /// GGUF with TQ2_0 (2.06 bits a weight), for llama.cpp.
    Tq2_0,
    /// GGUF with Q2_0 (2.25 bits a weight, a scale for every 64), for llama.cpp.
    Q2_0,
    /// GGUF with PrismML's PQ2_0 (2.125 bits a weight, a scale for every 128).
    Pq2_0,
    /// GGUF with PrismML's PTQ1_0 (1.75 bits a weight, a scale for every 128).
    Ptq1_0,
    /// GGUF with Q1_0 (1.125 bits a weight, a scale for every 128), for weights without zeros.
    Q1_0,
    /// A Hugging Face directory with packed weights (AutoBitLinear, offline).
    HuggingFace,
    /// A directory of MLX: 2 bits, a scale and a bias for every 32, 64 or 128.
    Mlx,
}

impl Target {
    /// Whether it is a directory, not a file.
    pub fn is_directory(self) -> bool {
        matches!(self, Self::HuggingFace | Self::Mlx)
    }
}

/// Type of embeddings and heads in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embeddings {
    /// 32-bit floats: nothing is rounded.
    F32,
    /// 16-bit floats.
    F16,
    /// 8.5 bits a weight.
    Q8_0,
    /// 6.6 bits a weight.
    Q6K,
}

/// Writes `checkpoint` to `out`: a file, or for [`Target::HuggingFace`] and [`Target::Mlx`] a directory. Existing files at `out` are kept
/// until the new ones are complete. `progress` receives the number of tensors written and the total.
///
/// `embeddings` is for GGUF; a Hugging Face directory keeps the floats of the source.
///
/// # Errors
/// If the target cannot hold the model: rows that are not whole blocks of a type (the message names one that fits), scales
/// of smaller groups than the type's or that f16 would round, zeros for Q1_0, an inner norm in a linear layer or a tokenizer that GGUF cannot express.
pub fn convert(
    checkpoint: &Checkpoint,
    out: &Path,
    target: Target,
    embeddings: Embeddings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    if checkpoint.weights().config().block.delta.is_some() {
        let problem = "layers that keep a state instead of keys and values can be read but not written";
        return Err(ModelError::Convert(problem.into()));
    }
    match target {
        Target::HuggingFace => hf::write(checkpoint, out, hf::Reader::Transformers, progress),
        Target::Mlx => hf::write(checkpoint, out, hf::Reader::Mlx, progress),
        _ => gguf::write(checkpoint, out, target, embeddings, progress),
    }
}

/// What [`convert`] cannot keep of the tokenizer, a line each.
pub fn lost(checkpoint: &Checkpoint, target: Target) -> Vec<String> {
    let rows = checkpoint.weights().config().vocab_size;
    match (checkpoint.tokenizer(), target) {
        (Ok(tokenizer), target) if target.is_directory() => tokenizer.lost_in_json(),
        (Ok(tokenizer), _) => tokenizer.lost_in_gguf(rows),
        (Err(_), _) => Vec::new(),
    }
}

/// The parts of a ternary linear layer.
fn ternary(source: &LinearSource) -> Option<(&TernaryCodes, &TernaryScales)> {
    match &source.weight {
        WeightSource::Ternary { codes, scales } => Some((codes, scales)),
        WeightSource::Dense(_) => None,
    }
}

/// The scale of a matrix, or an error that says why a format of one scale cannot hold it.
fn one_scale(name: &str, scales: &TernaryScales, format: &str) -> Result<f32> {
    scales.one().ok_or_else(|| {
        let group = scales.group().unwrap_or(0);
        let problem = format!("{name} has a scale for every {group} weights of a row, and {format} has one for all");
        ModelError::Convert(problem)
    })
}

/// The bytes of `dense` converted to another type; unchanged if it has that type.
fn encode(dense: &DenseTensor, dtype: BitNetDType) -> Result<Vec<u8>> {
    if dense.dtype == dtype {
        return Ok(dense.bytes().to_vec());
    }
    let values = dense.to_f32();
    Ok(match dtype {
        BitNetDType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        BitNetDType::F16 => formats::float16::encode_f16(&values),
        BitNetDType::Q8_0 => formats::q8_0::encode(&values, dense.rows, dense.cols)?,
        BitNetDType::Q6K => formats::q6_k::encode(&values, dense.rows, dense.cols)?,
        other => return Err(ModelError::Convert(format!("{other} can be read but not written"))),
    })
}
