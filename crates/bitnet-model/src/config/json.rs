//! Writing a configuration as Hugging Face's `config.json`.

use super::{Architecture, Config, LinearClass, QuantizationConfig, RopeScaling};
use crate::{ModelError, Result};
use serde_json::{Value, json};

impl Config {
    /// The value of a `config.json` that [`from_json`](Self::from_json) and transformers read, without the dtype of the
    /// weights (`dtype`) and the biases of layers.
    ///
    /// # Errors
    /// If each rotary frequency has its own factor, which `config.json` cannot express, or the family is GLM-4 or Gemma 3,
    /// which are not written.
    pub fn to_json(&self) -> Result<Value> {
        let unwritten = match self.architecture {
            Architecture::Glm4 => Some("glm4 keeps gate and up in one matrix"),
            Architecture::Qwen35 => Some("qwen3_5_text keeps states"),
            Architecture::Gemma3 => {
                Some("transformers rounds the scale of gemma3's embedding to the dtype of its weights")
            }
            Architecture::Qwen3Moe | Architecture::Maple => Some("experts are several matrices"),
            _ => None,
        };
        if let Some(why) = unwritten {
            return Err(ModelError::Convert(format!("{why}, which can be read but not written")));
        }
        let mut rope = json!({ "rope_type": "default", "rope_theta": self.rope.theta });
        match &self.rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => {
                rope["rope_type"] = "linear".into();
                rope["factor"] = (*factor).into();
            }
            // The context before scaling is `max_position_embeddings`.
            RopeScaling::Dynamic { factor, original: _ } => {
                rope["rope_type"] = "dynamic".into();
                rope["factor"] = (*factor).into();
            }
            RopeScaling::Yarn { factor, original, attention_factor, beta_fast, beta_slow, truncate } => {
                rope["rope_type"] = "yarn".into();
                rope["factor"] = (*factor).into();
                rope["original_max_position_embeddings"] = (*original).into();
                rope["attention_factor"] = (*attention_factor).into();
                rope["beta_fast"] = (*beta_fast).into();
                rope["beta_slow"] = (*beta_slow).into();
                rope["truncate"] = (*truncate).into();
            }
            RopeScaling::LongRope { short, long, original, attention_factor } => {
                rope["rope_type"] = "longrope".into();
                rope["short_factor"] = short.iter().copied().map(shortest).collect();
                rope["long_factor"] = long.iter().copied().map(shortest).collect();
                rope["original_max_position_embeddings"] = (*original).into();
                rope["attention_factor"] = (*attention_factor).into();
                // transformers takes it from the two contexts; only the attention factor follows from it.
                rope["factor"] = (self.max_positions as f64 / *original as f64).into();
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                rope["rope_type"] = "llama3".into();
                rope["factor"] = (*factor).into();
                rope["low_freq_factor"] = (*low_freq_factor).into();
                rope["high_freq_factor"] = (*high_freq_factor).into();
                rope["original_max_position_embeddings"] = (*original as u64).into();
            }
            RopeScaling::PerPair(_) => {
                let problem =
                    "the file scales each rotary frequency by a factor of its own, which config.json cannot say";
                return Err(ModelError::Convert(problem.into()));
            }
        }
        let mut value = json!({
            "architectures": [self.architecture.class()],
            "model_type": self.architecture.name(),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": match self.rope.scaling {
                RopeScaling::Dynamic { original, .. } => original,
                _ => self.max_positions,
            },
            "rms_norm_eps": shortest(self.norm_eps),
            "hidden_act": self.hidden_act.name(),
            "tie_word_embeddings": self.tied,
            "rope_theta": self.rope.theta,
            "rope_parameters": rope,
            "bitnet_activations": self.activations.name(),
            "bos_token_id": self.bos,
            // transformers fails on an empty list.
            "eos_token_id": (!self.eos.is_empty()).then_some(&self.eos),
        });
        let windows = &self.block.windows;
        let window = windows.iter().flatten().next();
        if window.is_some() || self.architecture == Architecture::Mistral {
            value["sliding_window"] = window.copied().into();
            value["use_sliding_window"] = window.is_some().into();
            let kind = |w: &Option<u32>| if w.is_some() { "sliding_attention" } else { "full_attention" };
            value["layer_types"] = window.map(|_| windows.iter().map(kind).collect::<Vec<_>>()).into();
        }
        let scales = self.block.scales;
        if self.architecture == Architecture::MiniCpm {
            value["scale_emb"] = shortest(scales.embedding).into();
            value["scale_depth"] = (scales.residual as f64 * (self.layers as f64).sqrt()).into();
            value["dim_model_base"] = (self.hidden_size as f64 / scales.logits as f64).into();
        } else if scales != Default::default() {
            value["embedding_multiplier"] = shortest(scales.embedding).into();
            value["residual_multiplier"] = shortest(scales.residual).into();
            value["logits_scaling"] = shortest(scales.logits).into();
            value["attention_multiplier"] = scales.attention.map(shortest).into();
        }
        if let Some(quantization) = &self.quantization {
            value["quantization_config"] = quantization.to_json();
        }
        Ok(value)
    }
}

impl QuantizationConfig {
    /// The value of `quantization_config`.
    pub fn to_json(&self) -> Value {
        let (class, mode) = match self.class {
            LinearClass::BitLinear => ("bitlinear", "offline"),
            LinearClass::Offline => ("autobitlinear", "offline"),
            LinearClass::Online => ("autobitlinear", "online"),
        };
        let mut value = json!({
            "quant_method": "bitnet",
            "linear_class": class,
            "quantization_mode": mode,
            "use_rms_norm": self.inner_norm_eps.is_some(),
        });
        if let Some(names) = &self.not_converted {
            value["modules_to_not_convert"] = names.clone().into();
        }
        if let Some(eps) = self.inner_norm_eps {
            value["rms_norm_eps"] = shortest(eps).into();
        }
        value
    }
}

/// The f64 with the shortest decimal digits that still gives `x`.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_configuration_is_read_again() {
        for text in [
            r#"{"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                "quantization_mode": "online"}}"#,
            r#"{"model_type": "llama", "rms_norm_eps": 1e-5, "eos_token_id": [3, 4], "head_dim": 32, "rope_scaling":
                {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512}, "quantization_config": {"linear_class": "bitlinear",
                "use_rms_norm": true, "modules_to_not_convert": ["lm_head", "model.layers.0"]}}"#,
            r#"{"model_type": "llama", "bos_token_id": null, "eos_token_id": null, "tie_word_embeddings": true,
                "rope_scaling": {"rope_type": "linear", "factor": 2.0}}"#,
            r#"{"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.5}}"#,
            r#"{"model_type": "qwen3", "rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": false, "mscale": 2.0,
                "mscale_all_dim": 1.0, "beta_fast": 16, "original_max_position_embeddings": 8192}}"#,
            r#"{"model_type": "llama", "head_dim": 4, "original_max_position_embeddings": 64, "rope_scaling":
                {"rope_type": "longrope", "short_factor": [1, 1.1], "long_factor": [1, 3.3]}}"#,
            r#"{"model_type": "qwen2", "num_hidden_layers": 3, "use_sliding_window": true, "max_window_layers": 2}"#,
            r#"{"model_type": "qwen3"}"#,
            r#"{"model_type": "mistral", "sliding_window": null}"#,
            r#"{"model_type": "mistral", "num_hidden_layers": 2, "sliding_window": 5}"#,
            r#"{"model_type": "granite", "residual_multiplier": 0.22, "attention_multiplier": 0.0625}"#,
            r#"{"model_type": "olmo2"}"#,
            r#"{"model_type": "hunyuan_v1_dense", "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}}"#,
            r#"{"model_type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "num_hidden_layers": 62, "dim_model_base": 256}"#,
        ] {
            let config = Config::from_json(text).unwrap();
            let json = config.to_json().unwrap().to_string();
            assert_eq!(Config::from_json(&json).unwrap(), config, "{json}");
        }
    }
}
