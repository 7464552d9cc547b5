//! The configuration of a run, in TOML. A mistake is an error that names the file, the line and the key, and says what to do.
//!
//! The whole of it, with the defaults:
//!
//! ```toml
#![doc = include_str!("example.toml")]
//! ```

mod check;
mod sections;
mod source;

pub use sections::{
    Activation, Compute, DataConfig, Estimator, LambdaShape, ModelConfig, OptimizerConfig, OptimizerName, Order,
    Packing, QuantizationConfig, ScheduleConfig, ScheduleKind, TokenizerConfig, TokenizerKind, TrainingConfig,
    WeightQuantizer,
};
pub use source::ConfigSource;

use crate::distill::DistillConfig;
use crate::error::Result;
use crate::lora::LoraConfig;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A whole run. Paths are relative to the directory in which the program runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model to train.
    pub model: ModelConfig,
    /// How its weights and activations are quantized while it trains.
    #[serde(default)]
    pub quantization: QuantizationConfig,
    /// The tokenizer; that of `model.init` where absent.
    #[serde(default)]
    pub tokenizer: TokenizerConfig,
    /// What it reads.
    pub data: DataConfig,
    /// Adapters that are trained instead of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// A teacher to learn from besides the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<DistillConfig>,
    /// What updates it.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How the rates of the updates change.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// How long, how much at once, and what is kept.
    pub training: TrainingConfig,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, has an unknown key or one of another type, or values that cannot be.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_source(&ConfigSource::read(path.as_ref())?)
    }

    /// Reads and checks the text of a file; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        Self::from_source(&ConfigSource::new(text, name))
    }

    /// Reads and checks a source.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_source(source: &ConfigSource) -> Result<Self> {
        let mut config: Self = source.parse()?;
        check::check(&config).map_err(|(path, problem)| source.problem(&path, problem))?;
        if config.model.kv_heads == 0 {
            config.model.kv_heads = config.model.heads;
        }
        Ok(config)
    }

    /// Makes relative paths start from `folder`, unless what they name is only to be found from where the program runs.
    pub(crate) fn resolve_paths(&mut self, folder: &Path) {
        let data = self.data.train.iter_mut().chain(&mut self.data.validation);
        let own = self.model.init.iter_mut().chain(&mut self.tokenizer.path);
        let teacher = self.distill.iter_mut().map(|distill| &mut distill.teacher);
        for path in data.chain(own).chain(teacher) {
            let from_folder = folder.join(&*path);
            if from_folder.exists() || !path.exists() {
                *path = from_folder;
            }
        }
    }

    /// As TOML, every default written out.
    ///
    /// # Errors
    /// Never for a configuration that was read.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| crate::TrainingError::Invalid(format!("configuration: {e}")))
    }
}

#[cfg(test)]
mod tests;
