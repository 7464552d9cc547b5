//! How a checkpoint asks to be sampled: `generation_config.json`, or `general.sampling.*` of a GGUF file.

use crate::Result;
use crate::gguf::{Metadata, Value as GgufValue};
use serde_json::Value;
use std::path::Path;

/// Parameters of sampling that a checkpoint recommends; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Randomness; 0 (also for `do_sample: false`) always takes the likeliest token.
    pub temperature: Option<f32>,
    /// Likeliest tokens that are kept.
    pub top_k: Option<usize>,
    /// Probability of the likeliest tokens that are kept.
    pub top_p: Option<f32>,
    /// Divides positive logits of tokens in the text, and multiplies negative ones.
    pub repeat_penalty: Option<f32>,
}

impl SamplingDefaults {
    /// From the `generation_config.json` of a directory, if there is one. A value of another kind than a number is as absent.
    pub(super) fn of_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("generation_config.json");
        if !path.is_file() {
            return Ok(Self::default());
        }
        // The tokenizer reads the same file and reports one that is no JSON.
        let config: Value = serde_json::from_str(&super::hf::read_text(&path)?).unwrap_or_default();
        let number = |key: &str| config[key].as_f64().map(|n| n as f32);
        let greedy = (config["do_sample"] == false).then_some(0.);
        Ok(Self {
            temperature: greedy.or(number("temperature")),
            top_k: config["top_k"].as_u64().map(|n| n as usize),
            top_p: number("top_p"),
            repeat_penalty: number("repetition_penalty"),
        })
    }

    /// From the metadata of a GGUF file.
    pub(super) fn of_gguf(metadata: &Metadata) -> Self {
        let number = |key: &str| match metadata.value(&format!("general.sampling.{key}")) {
            Some(GgufValue::F32(n)) => Some(*n),
            _ => None,
        };
        let top_k = match metadata.value("general.sampling.top_k") {
            Some(GgufValue::I32(n)) => usize::try_from(*n).ok(),
            Some(GgufValue::U32(n)) => usize::try_from(*n).ok(),
            _ => None,
        };
        Self { temperature: number("temp"), top_k, top_p: number("top_p"), repeat_penalty: number("penalty_repeat") }
    }
}
