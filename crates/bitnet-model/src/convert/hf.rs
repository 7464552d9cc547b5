//! A directory of safetensors with packed weights: for transformers, or for MLX.

use super::{encode, one_scale, ternary};
use crate::checkpoint::hf::{module, norm_modules};
use crate::checkpoint::{Checkpoint, LinearSource, Norm, Projection, WeightSource, Weights};
use crate::config::{LinearClass, QuantizationConfig};
use crate::safetensors::{Dtype, SafetensorsWriter};
use crate::tokenizer::Tokenizer;
use crate::{Config, ModelError, Result};
use bitnet_core::BitNetDType;
use bitnet_core::serialize::output::AtomicFile;
use bitnet_quant::{TernaryCodes, TernaryScales, formats};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Who reads the packed weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reader {
    /// AutoBitLinear, offline.
    Transformers,
    /// 2 bits, with the scale d and the bias -d of each group.
    Mlx,
}

/// A linear layer of a block, or the head.
type Place = Option<(usize, Projection)>;

/// Source of the data of a tensor.
enum Source {
    Values(Vec<f32>),
    /// Always f32: transformers rounds it to the dtype of the model.
    Scale(f32),
    /// Those of MLX, multiplied by a sign: layer, group, sign.
    GroupScales(Place, usize, f32),
    Embedding,
    Linear(Place),
}

/// Properties of the layers, for `config.json`.
#[derive(Default)]
struct Layers {
    dense: Vec<String>,
    inner_norm_eps: Option<f32>,
    attention_bias: bool,
    mlp_bias: bool,
    /// Names of MLX's modules and their groups.
    groups: Vec<(String, usize)>,
}

pub(super) fn write(
    checkpoint: &Checkpoint,
    out: &Path,
    reader: Reader,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let weights = checkpoint.weights();
    let config = weights.config();
    let mut writer = SafetensorsWriter::new();
    writer.metadata("format", "pt");
    let mut sources = HashMap::new();
    let float = FloatType::of(weights, reader)?;
    let layers = announce(weights, (float, reader), &mut writer, &mut sources)?;
    let tied = weights.head()?.is_none();
    let config_json = config_json(config, tied, (float, reader), &layers)?;

    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ModelError::Io { path, source }
    };
    std::fs::create_dir_all(out).map_err(io(out))?;
    let total = sources.len();
    let mut done = 0;
    writer.write(&out.join("model.safetensors"), |tensor, sink| {
        let bytes = match sources.remove(&tensor.name).expect("a source for every tensor") {
            Source::Values(values) => float.encode(&values),
            Source::Scale(scale) => scale.to_le_bytes().to_vec(),
            Source::GroupScales(place, group, sign) => mlx_scales(&linear(weights, place)?, group, sign),
            Source::Embedding => encode(&weights.embedding()?, float.dtype)?,
            Source::Linear(place) => match linear(weights, place)?.weight {
                // MLX has the order of the codes.
                WeightSource::Ternary { codes, .. } if reader == Reader::Mlx => codes.as_bytes().to_vec(),
                WeightSource::Ternary { codes, .. } => formats::hf::encode(&codes),
                WeightSource::Dense(dense) => encode(&dense, float.dtype)?,
            },
        };
        checkpoint.check_unchanged()?;
        done += 1;
        progress(done, total);
        sink.put(&bytes).map_err(ModelError::from)
    })?;
    if let Some(tokenizer) = checkpoint.source_tokenizer() {
        write_tokenizer(tokenizer?, out)?;
    }
    write_json(&out.join("config.json"), &config_json)
}

fn linear(weights: &dyn Weights, place: Place) -> Result<LinearSource> {
    match place {
        Some((layer, projection)) => weights.linear(layer, projection),
        None => weights.head()?.ok_or_else(|| ModelError::Convert("the head disappeared".into())),
    }
}

/// The common dtype of all tensors that are not packed: transformers does not convert them, and multiplies only equal
/// dtypes. That of the source if it represents every value exactly, else f32.
#[derive(Clone, Copy)]
struct FloatType {
    dtype: BitNetDType,
    stored: Dtype,
    name: &'static str,
}

const F32: FloatType = FloatType { dtype: BitNetDType::F32, stored: Dtype::F32, name: "float32" };
const F16: FloatType = FloatType { dtype: BitNetDType::F16, stored: Dtype::F16, name: "float16" };
const BF16: FloatType = FloatType { dtype: BitNetDType::BF16, stored: Dtype::BF16, name: "bfloat16" };

impl FloatType {
    fn of(weights: &dyn Weights, reader: Reader) -> Result<Self> {
        let small = match weights.embedding()?.dtype {
            BitNetDType::F16 => F16,
            BitNetDType::BF16 => BF16,
            _ => return Ok(F32),
        };
        let holds = |values: &[f32]| values.iter().all(|&v| small.round(v).to_bits() == v.to_bits());
        for norm in Norm::all(weights.config()) {
            if !holds(&weights.norm(norm)?) {
                return Ok(F32);
            }
        }
        for (place, _) in places(weights)? {
            let source = linear(weights, place)?;
            let dense = match &source.weight {
                WeightSource::Dense(dense) => dense.dtype == small.dtype,
                WeightSource::Ternary { .. } => true,
            };
            let inner = source.inner_norm.as_ref().is_none_or(|(norm, _)| holds(norm));
            if !dense || !inner || !bias(&source, reader).is_none_or(|b| holds(&b)) {
                return Ok(F32);
            }
        }
        Ok(small)
    }

    fn round(self, value: f32) -> f32 {
        match self.dtype {
            BitNetDType::F16 => half::f16::from_f32(value).to_f32(),
            BitNetDType::BF16 => half::bf16::from_f32(value).to_f32(),
            _ => value,
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self.dtype {
            BitNetDType::F16 => formats::float16::encode_f16(values),
            BitNetDType::BF16 => formats::float16::encode_bf16(values),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

/// The linear layers by position and name.
fn places(weights: &dyn Weights) -> Result<Vec<(Place, String)>> {
    let head = weights.head()?.is_some().then(|| (None, "lm_head".to_string()));
    let blocks =
        (0..weights.config().layers).flat_map(|layer| Projection::ALL.map(|p| (Some((layer, p)), module(layer, p))));
    Ok(head.into_iter().chain(blocks).collect())
}

/// The group of a layer of MLX: the largest that it multiplies and that divides the rows and the groups of the source.
fn mlx_group(name: &str, codes: &TernaryCodes, scales: &TernaryScales) -> Result<usize> {
    let shared = scales.group().unwrap_or(codes.cols());
    let fits = |group: &usize| codes.cols().is_multiple_of(*group) && shared.is_multiple_of(*group);
    [128, 64, 32].into_iter().find(fits).ok_or_else(|| {
        let problem = format!("{name} has rows of {}, and a scale of MLX is for 32, 64 or 128 weights", codes.cols());
        ModelError::Convert(problem)
    })
}

/// The type of scales in MLX's files: F16 where it holds them.
fn mlx_scale_type(scales: &TernaryScales) -> Dtype {
    if scales.values().iter().all(|&scale| formats::f16_exact(scale).is_some()) { Dtype::F16 } else { Dtype::F32 }
}

fn mlx_scales(source: &LinearSource, group: usize, sign: f32) -> Vec<u8> {
    let Some((codes, scales)) = ternary(source) else { return Vec::new() };
    let (rows, cols) = (codes.rows(), codes.cols());
    let all = (0..rows).flat_map(|row| (0..cols / group).map(move |g| sign * scales.at(row, g * group, cols)));
    match mlx_scale_type(scales) {
        Dtype::F16 => formats::float16::encode_f16(&all.collect::<Vec<_>>()),
        _ => all.flat_map(f32::to_le_bytes).collect(),
    }
}

/// The bias as it is stored: an offline layer of transformers multiplies it by the scale as well.
fn bias(source: &LinearSource, reader: Reader) -> Option<Vec<f32>> {
    let offline = ternary(source).filter(|_| reader == Reader::Transformers);
    let scale = offline.and_then(|(_, scales)| scales.one()).unwrap_or(1.);
    source.bias.as_ref().map(|bias| bias.iter().map(|b| b / scale).collect())
}

/// Declares every tensor and records the source of its data.
fn announce(
    weights: &dyn Weights,
    (float, reader): (FloatType, Reader),
    writer: &mut SafetensorsWriter,
    sources: &mut HashMap<String, Source>,
) -> Result<Layers> {
    let mut layers = Layers::default();
    if weights.head()?.is_none() {
        // Without the head in the list it is converted, even if tied.
        layers.dense.push("lm_head".into());
    }
    let mut add = |name: &str, dtype: Dtype, shape: &[usize], source: Source| -> Result<()> {
        writer.add(name, dtype, shape)?;
        sources.insert(name.to_owned(), source);
        Ok(())
    };
    let embedding = weights.embedding()?;
    let shape = [embedding.rows, embedding.cols];
    add("model.embed_tokens.weight", float.stored, &shape, Source::Embedding)?;
    for (place, name) in places(weights)? {
        let source = linear(weights, place)?;
        match &source.weight {
            WeightSource::Ternary { codes, scales } if reader == Reader::Mlx => {
                if source.inner_norm.is_some() {
                    let problem =
                        format!("{name} has a norm of its own (use_rms_norm), which MLX cannot hold: use --to hf");
                    return Err(ModelError::Convert(problem));
                }
                let (group, dtype) = (mlx_group(&name, codes, scales)?, mlx_scale_type(scales));
                let shape = [codes.rows(), codes.cols() / group];
                add(&format!("{name}.weight"), Dtype::U32, &[codes.rows(), codes.cols() / 16], Source::Linear(place))?;
                add(&format!("{name}.scales"), dtype, &shape, Source::GroupScales(place, group, 1.))?;
                add(&format!("{name}.biases"), dtype, &shape, Source::GroupScales(place, group, -1.))?;
                layers.groups.push((name.clone(), group));
            }
            WeightSource::Ternary { codes, scales } => {
                let scale = one_scale(&name, scales, "a packed layer of transformers")?;
                if !codes.rows().is_multiple_of(4) {
                    let problem = format!("{name} has {} outputs; transformers packs multiples of 4", codes.rows());
                    return Err(ModelError::Convert(problem));
                }
                add(&format!("{name}.weight"), Dtype::U8, &[codes.rows() / 4, codes.cols()], Source::Linear(place))?;
                add(&format!("{name}.weight_scale"), Dtype::F32, &[1], Source::Scale(scale))?;
            }
            WeightSource::Dense(dense) => {
                add(&format!("{name}.weight"), float.stored, &[dense.rows, dense.cols], Source::Linear(place))?;
                layers.dense.push(name.clone());
            }
        }
        if let Some(bias) = bias(&source, reader) {
            layers.attention_bias |= name.contains(".self_attn.");
            layers.mlp_bias |= name.contains(".mlp.");
            add(&format!("{name}.bias"), float.stored, &[bias.len()], Source::Values(bias))?;
        }
        if let (Some((norm, eps)), Some(_)) = (&source.inner_norm, ternary(&source)) {
            add(&format!("{name}.rms_norm.weight"), float.stored, &[norm.len()], Source::Values(norm.clone()))?;
            layers.inner_norm_eps = Some(*eps);
        }
    }
    for norm in Norm::all(weights.config()) {
        let values = weights.norm(norm)?;
        let name = format!("{}.weight", norm_modules(norm, weights.config())[0]);
        add(&name, float.stored, &[values.len()], Source::Values(values))?;
    }
    Ok(layers)
}

fn config_json(config: &Config, tied: bool, (float, reader): (FloatType, Reader), layers: &Layers) -> Result<Value> {
    let quantization = QuantizationConfig {
        class: LinearClass::Offline,
        inner_norm_eps: layers.inner_norm_eps,
        not_converted: Some(layers.dense.clone()),
    };
    let quantization = (reader == Reader::Transformers).then_some(quantization);
    let mut value = Config { tied, quantization, ..config.clone() }.to_json()?;
    if let (Reader::Mlx, Some((_, group))) = (reader, layers.groups.first()) {
        let settings = |group: &usize| json!({ "group_size": group, "bits": 2 });
        let mut all = settings(group);
        layers.groups.iter().filter(|(_, g)| g != group).for_each(|(name, g)| all[name] = settings(g));
        all["mode"] = "affine".into();
        value["quantization"] = all.clone();
        value["quantization_config"] = all;
    }
    value["dtype"] = float.name.into();
    value["attention_bias"] = layers.attention_bias.into();
    value["mlp_bias"] = layers.mlp_bias.into();
    Ok(value)
}

/// Writes `tokenizer.json` and `tokenizer_config.json` as transformers reads them.
///
/// # Errors
/// If a file cannot be written.
pub fn write_tokenizer(tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    tokenizer.save_json(folder.join("tokenizer.json"))?;
    write_json(&folder.join("tokenizer_config.json"), &tokenizer_config(tokenizer))
}

fn tokenizer_config(tokenizer: &Tokenizer) -> Value {
    let special = tokenizer.special();
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": text(special.bos),
        "eos_token": text(special.eos),
        "unk_token": text(special.unk),
        "pad_token": text(special.pad),
        "chat_template": tokenizer.chat_template_source(),
    })
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| ModelError::Convert(e.to_string()))?;
    AtomicFile::write_bytes(path, (text + "\n").as_bytes())?;
    Ok(())
}
