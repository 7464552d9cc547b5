//! The configuration in a GGUF file's metadata.

use super::gguf_names::{Family, linear_name};
use super::weights::{Norm, Projection};
use crate::config::{
    Architecture, Block, DeltaNet, Experts, HiddenAct, NormPlacement, QkNorm, RopeConfig, RopeScaling, Scales,
    yarn_attention,
};
use crate::gguf::{Gguf, GgufType, Metadata};
use crate::{Config, ModelError, Result};
use bitnet_core::MappedFile;
use bitnet_core::backend::ActivationRule;
use std::collections::HashSet;
use std::sync::Arc;

/// Reads the configuration and the naming family of the file.
pub(super) fn read(gguf: &Gguf, files: &[Arc<MappedFile>]) -> Result<(Config, Family)> {
    let metadata = &gguf.metadata;
    let name: &str = metadata.require("general.architecture")?;
    let family = Family::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
        let known = Family::ALL.map(Family::name).join(", ");
        ModelError::Config(format!("general.architecture is {name:?}; this build runs {known}"))
    })?;
    let key = |suffix: &str| format!("{name}.{suffix}");
    let need = |suffix: &str| metadata.require::<usize>(&key(suffix)).map_err(ModelError::from);
    let find = |suffix: &str| metadata.find::<usize>(&key(suffix)).map_err(ModelError::from);

    let (hidden_size, heads) = (need("embedding_length")?, need("attention.head_count")?);
    let rows = |name: &str| gguf.find(name).and_then(|t| t.shape.first().copied());
    let head_dim = match find("attention.key_length")?.or(find("rope.dimension_count")?) {
        Some(dim) => dim,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => return Err(ModelError::Config(format!("{hidden_size} is not a multiple of {heads} heads"))),
    };
    let rotary_dim = find("rope.dimension_count")?.filter(|&dim| dim != head_dim);
    if rotary_dim.is_some() && !matches!(family, Family::Maple | Family::Qwen35) {
        let problem = format!(
            "{} is not the head dimension {head_dim}: partial rotation is not computed",
            key("rope.dimension_count")
        );
        return Err(ModelError::Config(problem));
    }
    // Behind them are blocks that predict further tokens.
    let layers = need("block_count")?.saturating_sub(find("nextn_predict_layers")?.unwrap_or(0));
    let number = |suffix: &str| metadata.find::<f32>(&key(suffix)).map_err(ModelError::from);
    let act: Option<&str> = metadata.find(&key("hidden_activation"))?;
    let ids =
        |suffix: &str| metadata.find::<u32>(&format!("tokenizer.ggml.{suffix}_token_id")).map_err(ModelError::from);
    let config = Config {
        architecture: family.architecture(),
        block: Block {
            inner_norms: family.architecture() == Architecture::BitNet,
            norms: if family == Family::Gemma3 { NormPlacement::Both } else { NormPlacement::Before },
            window_rope: match family {
                Family::Gemma3 => {
                    let theta = number("rope.freq_base_swa")?.unwrap_or(10_000.) as f64;
                    Some(RopeConfig { theta, scaling: RopeScaling::None })
                }
                _ => None,
            },
            rotary_dim,
            rotate_windows_only: family == Family::Maple,
            windows: windows(metadata, family, &key, layers)?,
            experts: match family {
                // llama.cpp always divides by the sum.
                Family::Qwen3Moe | Family::Maple => Some(Experts {
                    count: need("expert_count")?,
                    used: need("expert_used_count")?,
                    renormalize: true,
                    // A list with the same limit for each layer.
                    limit: match metadata.find::<&[f32]>(&key("swiglu_clamp_exp"))? {
                        Some(limits) if family == Family::Maple => limits.first().copied(),
                        _ => None,
                    },
                }),
                _ => None,
            },
            logit_cap: number("final_logit_softcapping")?.filter(|_| family == Family::Gemma3),
            qk_norm: match family {
                Family::Qwen3 | Family::Gemma3 | Family::Qwen3Moe | Family::Maple | Family::Qwen35 => {
                    Some(QkNorm::Head)
                }
                Family::Hunyuan => Some(QkNorm::RotatedHead),
                _ => None,
            },
            scales: match family {
                // llama.cpp falls back on the inverse of this divisor of the logits.
                Family::MiniCpm => Scales {
                    embedding: number("embedding_scale")?.unwrap_or(12.),
                    residual: number("residual_scale")?.unwrap_or((1.4 / (layers as f64).sqrt()) as f32),
                    logits: number("logit_scale")?.unwrap_or(hidden_size as f32 / 256.),
                    attention: None,
                },
                Family::Gemma3 => Scales {
                    embedding: (hidden_size as f64).sqrt() as f32,
                    // Of the 27B model, by its number of layers, as in llama.cpp: there is no key.
                    attention: (layers == 62).then(|| 1. / ((hidden_size / heads.max(1)) as f32).sqrt()),
                    ..Scales::default()
                },
                _ => Scales::default(),
            },
            attention_gate: family == Family::Qwen35,
            delta: if family == Family::Qwen35 { Some(delta(metadata, &key, layers)?) } else { None },
            ..Block::default()
        },
        hidden_size,
        intermediate_size: match family {
            Family::Qwen3Moe | Family::Maple => need("expert_feed_forward_length")?,
            _ => need("feed_forward_length")?,
        },
        layers,
        heads,
        kv_heads: find("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        vocab_size: rows("token_embd.weight").or(find("vocab_size")?).unwrap_or(0),
        max_positions: need("context_length")?,
        norm_eps: metadata.require(&key("attention.layer_norm_rms_epsilon"))?,
        rope: rope(gguf, files, &key, rotary_dim.unwrap_or(head_dim))?,
        hidden_act: act.map_or(Ok(family.default_act()), HiddenAct::from_name)?,
        tied: gguf.find("output.weight").is_none(),
        bos: ids("bos")?,
        eos: ids("eos")?.into_iter().collect(),
        quantization: None,
        activations: activations(gguf, family)?,
    };
    config.validate()?;
    if !matches!(config.architecture, Architecture::BitNet | Architecture::Llama) {
        refuse_unknown(gguf, &config, family)?;
    }
    Ok((config, family))
}

/// The layers of the gated delta rule.
fn delta(metadata: &Metadata, key: &dyn Fn(&str) -> String, layers: usize) -> Result<DeltaNet> {
    let need = |suffix: &str| metadata.require::<usize>(&key(suffix)).map_err(ModelError::from);
    let recurrent = key("attention.recurrent_layers");
    let kinds: Vec<bool> = match metadata.find::<&[bool]>(&recurrent)? {
        Some(list) => list.iter().copied().take(layers).collect(),
        None => {
            let every = metadata.find::<usize>(&key("full_attention_interval"))?.unwrap_or(4).max(1);
            (1..=layers).map(|i| i % every != 0).collect()
        }
    };
    if kinds.len() != layers {
        let problem = format!("{recurrent} names {} layers; there are {layers}", kinds.len());
        return Err(ModelError::Config(problem));
    }
    let (value_heads, values) = (need("ssm.time_step_rank")?, need("ssm.inner_size")?);
    if value_heads == 0 || !values.is_multiple_of(value_heads) {
        let problem = format!("{} {values} is not a multiple of {value_heads} heads", key("ssm.inner_size"));
        return Err(ModelError::Config(problem));
    }
    Ok(DeltaNet {
        layers: kinds,
        key_heads: need("ssm.group_count")?,
        value_heads,
        key_dim: need("ssm.state_size")?,
        value_dim: values / value_heads,
        taps: need("ssm.conv_kernel")?,
        tiled: true,
    })
}

/// The window of each layer; empty: none has one.
fn windows(
    metadata: &Metadata,
    family: Family,
    key: &dyn Fn(&str) -> String,
    layers: usize,
) -> Result<Vec<Option<u32>>> {
    if !matches!(family, Family::Gemma3 | Family::Maple) {
        return Ok(Vec::new());
    }
    let Some(window) = metadata.find::<u32>(&key("attention.sliding_window"))? else { return Ok(Vec::new()) };
    let pattern = key("attention.sliding_window_pattern");
    let slides: Vec<bool> = match metadata.find::<&[bool]>(&pattern) {
        Ok(Some(list)) => list.to_vec(),
        // A number, or 6, or 4 of Maple: every so many layers one attends to all positions.
        _ => {
            let every = metadata.find::<usize>(&pattern)?.unwrap_or(if family == Family::Maple { 4 } else { 6 }).max(1);
            (1..=layers).map(|i| i % every != 0).collect()
        }
    };
    if slides.len() != layers {
        let problem = format!("{pattern} names {} layers; there are {layers}", slides.len());
        return Err(ModelError::Config(problem));
    }
    Ok(slides.into_iter().map(|slides| slides.then_some(window)).collect())
}

/// How the inputs of ternary layers are rounded: as the file says, else by its family.
fn activations(gguf: &Gguf, family: Family) -> Result<ActivationRule> {
    if let Some(name) = gguf.metadata.find::<&str>(ACTIVATIONS)? {
        return name.parse().map_err(|e| ModelError::Config(format!("{ACTIVATIONS}: {e}")));
    }
    Ok(match family.architecture() {
        Architecture::BitNet => ActivationRule::Token,
        // BitNet-embedding.
        _ if gguf.tensors.iter().any(|t| t.name.ends_with("_norm_in.weight")) => ActivationRule::Token,
        Architecture::Llama if gguf.tensors.iter().any(|t| often_by_token(t.ty)) => ActivationRule::Token,
        _ => ActivationRule::Float,
    })
}

/// The key of the rule of activations.
pub(crate) const ACTIVATIONS: &str = "bitnet.activations";

/// Whether Llamas with this type were mostly trained with activations quantized by token.
pub(super) fn often_by_token(ty: GgufType) -> bool {
    matches!(ty, GgufType::TQ1_0 | GgufType::TQ2_0 | GgufType::I2_S)
}

/// An error if a block has a tensor that is not read: models of the same architecture name occur with further norms.
fn refuse_unknown(gguf: &Gguf, config: &Config, family: Family) -> Result<()> {
    let of_layer = |layer| Projection::of_layer(&config.block, layer).map(move |p| linear_name(layer, p));
    let linears = (0..config.layers).flat_map(of_layer);
    let mut known: HashSet<String> = linears
        .flat_map(|base| [".weight", ".bias", ".scale", "_norm_in.weight"].map(|end| format!("{base}{end}")))
        .collect();
    known.extend(Norm::all(config).map(|norm| family.norm_name(norm)));
    if config.block.delta.is_some() {
        let names = ["ssm_conv1d.weight", "ssm_a", "ssm_dt.bias"];
        known.extend((0..config.layers).flat_map(|layer| names.map(|name| format!("blk.{layer}.{name}"))));
    }
    let last = format!("blk.{}.", config.layers);
    if config.block.experts.is_some() {
        let names = ["ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];
        known.extend((0..config.layers).flat_map(|layer| names.map(|name| format!("blk.{layer}.{name}.weight"))));
    }
    let further = |name: &str| family == Family::Qwen35 && name.starts_with(&last);
    let unknown = |name: &str| name.starts_with("blk.") && !known.contains(name) && !further(name);
    match gguf.tensors.iter().find(|t| unknown(&t.name)) {
        Some(tensor) => Err(ModelError::tensor(&tensor.name, "is not part of the blocks that this build computes")),
        None => Ok(()),
    }
}

fn rope(gguf: &Gguf, files: &[Arc<MappedFile>], key: &dyn Fn(&str) -> String, head_dim: usize) -> Result<RopeConfig> {
    let metadata = &gguf.metadata;
    let theta = metadata.find::<f32>(&key("rope.freq_base"))?.unwrap_or(10_000.) as f64;
    let kind: Option<&str> = metadata.find(&key("rope.scaling.type"))?;
    let factor = match metadata.find::<f32>(&key("rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        // An older key; readers apply its inverse.
        None => metadata.find::<f32>(&key("rope.scale_linear"))?,
    };
    let factors = |name: &str| -> Result<Vec<f32>> {
        let tensor = gguf.tensor(name)?;
        if tensor.ty != GgufType::F32 || tensor.count() != head_dim / 2 {
            let problem = format!("is {} {:?}; needed {} values of F32", tensor.ty.name(), tensor.shape, head_dim / 2);
            return Err(ModelError::tensor(name, problem));
        }
        Ok(tensor.data(&files[tensor.part]).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let original = match metadata.find::<usize>(&key("rope.scaling.original_context_length"))? {
        Some(original) => original,
        None => metadata.require::<usize>(&key("context_length"))?,
    };
    let attention = metadata.find::<f32>(&key("rope.scaling.attn_factor"))?.unwrap_or(1.) as f64;
    let scaling = match (kind, factor) {
        _ if gguf.find("rope_freqs.weight").is_some() => RopeScaling::PerPair(factors("rope_freqs.weight")?),
        (Some("none"), _) | (None, None) => RopeScaling::None,
        (Some("linear") | None, Some(factor)) => RopeScaling::Linear { factor: factor as f64 },
        // As llama.cpp computes it for these architectures, which reads neither betas nor scales.
        (Some("yarn"), Some(factor)) => RopeScaling::Yarn {
            factor: factor as f64,
            original,
            attention_factor: attention * yarn_attention(factor as f64, 1.),
            beta_fast: 32.,
            beta_slow: 1.,
            truncate: true,
        },
        (Some("longrope"), _) => RopeScaling::LongRope {
            short: factors("rope_factors_short.weight")?,
            long: factors("rope_factors_long.weight")?,
            original,
            attention_factor: attention,
        },
        (Some(kind @ ("linear" | "yarn")), None) => {
            let problem = format!("rope.scaling.type is {kind:?}, but there is no rope.scaling.factor");
            return Err(ModelError::Config(problem));
        }
        (Some(kind), _) => {
            return Err(ModelError::Config(format!(
                "rope.scaling.type is {kind:?}; this build computes none, linear, yarn and longrope"
            )));
        }
    };
    Ok(RopeConfig { theta, scaling })
}
