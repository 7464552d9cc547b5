//! The configuration in a GGUF file's metadata.

use super::gguf_names::Family;
use crate::config::{Architecture, Block, HiddenAct, RopeConfig, RopeScaling};
use crate::gguf::{Gguf, GgufType};
use crate::{Config, ModelError, Result};
use bitnet_core::MappedFile;
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
    if find("rope.dimension_count")?.is_some_and(|dim| dim != head_dim) {
        let problem = format!(
            "{} is not the head dimension {head_dim}: partial rotation is not computed",
            key("rope.dimension_count")
        );
        return Err(ModelError::Config(problem));
    }
    let act: Option<&str> = metadata.find(&key("hidden_activation"))?;
    let ids =
        |suffix: &str| metadata.find::<u32>(&format!("tokenizer.ggml.{suffix}_token_id")).map_err(ModelError::from);
    let config = Config {
        architecture: family.architecture(),
        block: Block { inner_norms: family.architecture() == Architecture::BitNet, ..Block::default() },
        hidden_size,
        intermediate_size: need("feed_forward_length")?,
        layers: need("block_count")?,
        heads,
        kv_heads: find("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        vocab_size: rows("token_embd.weight").or(find("vocab_size")?).unwrap_or(0),
        max_positions: need("context_length")?,
        norm_eps: metadata.require(&key("attention.layer_norm_rms_epsilon"))?,
        rope: rope(gguf, files, &key, head_dim)?,
        hidden_act: act.map_or(Ok(family.default_act()), HiddenAct::from_name)?,
        tied: gguf.find("output.weight").is_none(),
        bos: ids("bos")?,
        eos: ids("eos")?.into_iter().collect(),
        quantization: None,
    };
    config.validate()?;
    Ok((config, family))
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
    let scaling = match (gguf.find("rope_freqs.weight"), kind, factor) {
        (Some(tensor), _, _) => {
            if tensor.ty != GgufType::F32 || tensor.count() != head_dim / 2 {
                let problem =
                    format!("is {} {:?}; needed {} values of F32", tensor.ty.name(), tensor.shape, head_dim / 2);
                return Err(ModelError::tensor("rope_freqs.weight", problem));
            }
            let values = tensor.data(&files[tensor.part]).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
            RopeScaling::PerPair(values.collect())
        }
        (None, Some("none") | None, None) => RopeScaling::None,
        (None, Some("none"), Some(_)) => RopeScaling::None,
        (None, Some("linear") | None, Some(factor)) => RopeScaling::Linear { factor: factor as f64 },
        (None, Some(kind), _) => {
            return Err(ModelError::Config(format!(
                "rope.scaling.type is {kind:?}; this build computes none and linear"
            )));
        }
    };
    Ok(RopeConfig { theta, scaling })
}
