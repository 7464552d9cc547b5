//! What a training checkpoint holds, and how it is read.

use crate::config::{TokenizerConfig, WeightQuantizer};
use crate::data::DataPosition;
use crate::divergence::DivergenceDetector;
use crate::lora::LoraConfig;
use crate::run_directory::TrainingCheckpoint;
use crate::{Config, Result, TrainingError};
use bitnet_core::Generator;
use bitnet_core::serialize::TensorMap;
use serde::{Deserialize, Serialize};

/// Where the names of the optimizer's tensors begin in a checkpoint, and those of the averaged weights.
pub(super) const OPTIMIZER: &str = "optimizer.";
pub(super) const AVERAGE: &str = "ema.";

/// What a checkpoint keeps besides tensors. Checkpoints of earlier versions lack what has a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Progress {
    #[serde(default)]
    pub weights: WeightQuantizer,
    /// What decides which model the checkpoint is of, beside its `config.json` and its tokenizer.
    #[serde(default)]
    pub tokenizer: Option<TokenizerConfig>,
    #[serde(default)]
    pub lora: Option<LoraConfig>,
    /// Fingerprint of the weights that are read and not trained: a base of adapters, a teacher.
    #[serde(default)]
    pub fixed_model: Option<u64>,
    /// [`Generator::VERSION`] of its dropout and first weights.
    #[serde(default)]
    pub random: u32,
    pub position: DataPosition,
    pub optimizer_step: u64,
    #[serde(default)]
    pub divergence: DivergenceDetector,
    pub validation: Option<f64>,
    pub best: Option<(u64, f64)>,
    /// Evaluations since the best one.
    pub waited: usize,
}

impl Progress {
    /// Reads the state of a checkpoint.
    pub fn of(step: u64, checkpoint: &TrainingCheckpoint) -> Result<Self> {
        let other = |e| TrainingError::Invalid(format!("the checkpoint of step {step} is of another program: {e}"));
        serde_json::from_value(checkpoint.state.clone()).map_err(other)
    }

    /// Refuses a configuration of another model than the checkpoint's, and other random numbers.
    pub fn check(&self, step: u64, config: &Config) -> Result<()> {
        if self.random != Generator::VERSION {
            let (before, now) = (self.random, Generator::VERSION);
            return Err(TrainingError::Invalid(format!(
                "the checkpoint of step {step} was trained with random numbers of version {before}, this program has version \
                 {now} and cannot go on as it would have: resume it with the program that began the run, or begin another \
                 run from its weights (`bitnet export --to hf-master`, and model.init)"
            )));
        }
        let differs = |key: &str, now: String, before: String| {
            let problem = format!("{key} is {now}, but the checkpoint of step {step} was trained with {before}");
            Err(TrainingError::Invalid(format!("{problem}: set it back, or begin another run")))
        };
        let name = |weights: WeightQuantizer| weights.name().to_owned();
        if self.weights != config.quantization.weights {
            return differs("quantization.weights", name(config.quantization.weights), name(self.weights));
        }
        if let Some(before) = &self.tokenizer {
            let now = &config.tokenizer;
            // Another path may lead to the same file; the tokens are compared elsewhere.
            let shown =
                |t: &TokenizerConfig| (format!("{:?}", t.kind), format!("{:?}", t.vocab_size), t.special.join(" "));
            let (now, before) = (shown(now), shown(before));
            for (key, now, before) in [
                ("tokenizer.kind", now.0, before.0),
                ("tokenizer.vocab_size", now.1, before.1),
                ("tokenizer.special", now.2, before.2),
            ] {
                if now != before {
                    return differs(key, now, before);
                }
            }
            if self.lora != config.lora {
                let shown = |lora: &Option<LoraConfig>| match lora {
                    Some(LoraConfig { rank, alpha, targets }) => format!("rank {rank}, alpha {alpha} of {targets:?}"),
                    None => "absent".to_owned(),
                };
                return differs("[lora]", shown(&config.lora), shown(&self.lora));
            }
        }
        Ok(())
    }
}

/// The tensors of a checkpoint: weights, the optimizer's moments, averaged weights.
pub(super) fn parted(tensors: TensorMap) -> [TensorMap; 3] {
    let (mut weights, mut moments, mut average) = (TensorMap::new(), TensorMap::new(), TensorMap::new());
    for (name, tensor) in tensors {
        match (name.strip_prefix(OPTIMIZER), name.strip_prefix(AVERAGE)) {
            (Some(inner), _) => moments.insert(inner.to_owned(), tensor),
            (_, Some(inner)) => average.insert(inner.to_owned(), tensor),
            _ => weights.insert(name, tensor),
        };
    }
    [weights, moments, average]
}

/// The weights that a checkpoint evaluates and exports: the averaged ones where it has them.
pub fn weights(checkpoint: &TrainingCheckpoint) -> TensorMap {
    let [weights, _, average] = parted(checkpoint.tensors.clone());
    if average.is_empty() { weights } else { average }
}

/// How the weights of a checkpoint were quantized.
///
/// # Errors
/// When this program knows no such quantizer.
pub fn quantizer(checkpoint: &TrainingCheckpoint) -> Result<WeightQuantizer> {
    let read = |weights: &serde_json::Value| {
        let unknown = |_| TrainingError::Invalid(format!("the checkpoint's weights are quantized by {weights}"));
        serde_json::from_value(weights.clone()).map_err(unknown)
    };
    checkpoint.state.get("weights").map_or(Ok(WeightQuantizer::default()), read)
}
