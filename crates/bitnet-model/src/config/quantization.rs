//! How the linear layers of a Hugging Face checkpoint are quantized (transformers, `integrations/bitnet.py`).

use crate::{ModelError, Result};
use regex::Regex;
use serde_json::Value;

/// How stored weights are interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearClass {
    /// `BitLinear`: packed, the product is divided by `weight_scale`.
    BitLinear,
    /// `AutoBitLinear`, offline: packed, the product is multiplied by `weight_scale`.
    Offline,
    /// `AutoBitLinear`, online: master weights, quantized when loaded.
    Online,
}

/// The `quantization_config` of a `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationConfig {
    /// How stored weights are interpreted.
    pub class: LinearClass,
    /// Epsilon of an RMS norm inside every quantized linear layer; `None`: no such norm.
    pub inner_norm_eps: Option<f32>,
    /// Names or patterns of layers that stay dense; `None`: the output head only.
    pub not_converted: Option<Vec<String>>,
}

impl Default for QuantizationConfig {
    fn default() -> Self {
        Self { class: LinearClass::BitLinear, inner_norm_eps: None, not_converted: None }
    }
}

impl QuantizationConfig {
    /// Reads the object.
    pub fn from_json(value: &Value) -> Result<Self> {
        let wrong = |key: &str, value: &Value, known: &str| {
            ModelError::Config(format!("quantization_config.{key} is {value}; this build knows {known}"))
        };
        if !value.is_object() {
            return Err(ModelError::Config("quantization_config is not an object".into()));
        }
        let text = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) => Ok(Some(s.as_str())),
            Some(other) => Err(wrong(key, other, "a string")),
        };
        if let Some(method) = text("quant_method")?.filter(|&m| m != "bitnet") {
            return Err(wrong("quant_method", &method.into(), "\"bitnet\""));
        }
        let class =
            match (text("linear_class")?.unwrap_or("bitlinear"), text("quantization_mode")?.unwrap_or("offline")) {
                ("bitlinear", "offline" | "online") => LinearClass::BitLinear,
                ("autobitlinear", "offline") => LinearClass::Offline,
                ("autobitlinear", "online") => LinearClass::Online,
                ("bitlinear" | "autobitlinear", mode) => {
                    return Err(wrong("quantization_mode", &mode.into(), "\"offline\" and \"online\""));
                }
                (class, _) => return Err(wrong("linear_class", &class.into(), "\"bitlinear\" and \"autobitlinear\"")),
            };
        let use_norm = match value.get("use_rms_norm") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(b)) => *b,
            Some(other) => return Err(wrong("use_rms_norm", other, "true and false")),
        };
        let eps = match value.get("rms_norm_eps") {
            None | Some(Value::Null) => 1e-6,
            Some(v) => {
                v.as_f64().filter(|e| (0. ..1.).contains(e)).ok_or_else(|| wrong("rms_norm_eps", v, "a number"))?
            }
        };
        let not_converted = match value.get("modules_to_not_convert") {
            None | Some(Value::Null) => None,
            Some(Value::Array(names)) => {
                Some(names.iter().map(|n| n.as_str().map(str::to_string)).collect::<Option<Vec<_>>>().ok_or_else(
                    || wrong("modules_to_not_convert", &Value::from("not all strings"), "a list of names"),
                )?)
            }
            Some(other) => return Err(wrong("modules_to_not_convert", other, "a list of names")),
        };
        Ok(Self { class, inner_norm_eps: use_norm.then_some(eps as f32), not_converted })
    }

    /// Whether the linear layer `module` (such as `model.layers.0.mlp.up_proj`) is quantized.
    ///
    /// A pattern excludes a module that it matches from the start, as a regular expression, up to the boundary of a
    /// name, or that ends with it (transformers, `should_convert_module`).
    pub fn converts(&self, module: &str) -> bool {
        let Some(patterns) = &self.not_converted else { return module != "lm_head" };
        !patterns.iter().any(|pattern| {
            module.ends_with(pattern.as_str())
                || Regex::new(&format!("^(?:{pattern})$"))
                    .is_ok_and(|regex| boundaries(module).any(|end| regex.is_match(&module[..end])))
        })
    }
}

/// Whether a match may end here: at a dot, after one, or at the end.
fn boundaries(module: &str) -> impl Iterator<Item = usize> {
    module.match_indices('.').flat_map(|(at, _)| [at, at + 1]).chain([module.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_exclude_what_transformers_excludes() {
        let with = |patterns: &[&str]| QuantizationConfig {
            not_converted: Some(patterns.iter().map(|p| p.to_string()).collect()),
            ..Default::default()
        };
        let module = "model.layers.1.mlp.gate_proj";
        assert!(QuantizationConfig::default().converts(module));
        assert!(!QuantizationConfig::default().converts("lm_head"));
        assert!(with(&["lm_head"]).converts(module));
        assert!(with(&[]).converts("lm_head"));
        assert!(!with(&["model.layers.1"]).converts(module));
        assert!(with(&["model.layers.1"]).converts("model.layers.11.mlp.gate_proj"));
        assert!(!with(&["gate_proj"]).converts(module));
        assert!(with(&["model.layers.1.mlp.gate"]).converts(module));
        assert!(!with(&["model.layers.*"]).converts(module));
        assert!(!with(&[r"model\.layers\.\d+\.mlp"]).converts(module));
        assert!(with(&["mlp.gate"]).converts(module));
    }
}
