//! The sections of a configuration. What is not said has the default that the example shows.

use bitnet_quant::quantizers::Quantizer;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[model]`: the sizes of a new model, or the directory of one to go on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A Hugging Face directory to start from; the sizes are then its own, and those below are 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; as many as of queries where absent.
    pub kv_heads: usize,
    /// Most positions a text may have.
    pub context: usize,
    /// Rows of the embedding; the tokenizer's vocabulary where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Between gate and product of the feed-forward layers.
    pub activation: Activation,
    /// Added to the mean square before the root of a norm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the output head is the embedding.
    pub tie_embeddings: bool,
    /// Share of activations dropped on the residual branches and after the embedding.
    pub dropout: f64,
    /// Standard deviation of new weights; `0.7 / sqrt(hidden_size)` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_std: Option<f64>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            init: None,
            hidden_size: 0,
            intermediate_size: 0,
            layers: 0,
            heads: 0,
            kv_heads: 0,
            context: 0,
            vocab_size: None,
            activation: Activation::Relu2,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            tie_embeddings: true,
            dropout: 0.0,
            init_std: None,
        }
    }
}

impl ModelConfig {
    /// Standard deviation of new weights. What suits a model falls with the root of its width: GPT-2's 0.02 is made for one
    /// of 768 to 1600, narrower ones learn better from larger weights (docs/training.md).
    pub fn initial_deviation(&self) -> f64 {
        self.init_std.unwrap_or(0.7 / (self.hidden_size.max(1) as f64).sqrt())
    }
}

/// A function of the feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `max(x, 0)^2`, of BitNet b1.58.
    Relu2,
    /// `x / (1 + exp(-x))`.
    Silu,
}

/// `[quantization]`: ternary weights and absmax 8-bit activations, as in BitNet b1.58.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizationConfig {
    /// Whether linear layers are ternary at all.
    pub enabled: bool,
    /// What their scale is.
    pub weights: WeightQuantizer,
    /// What the gradient of rounding is taken to be.
    pub estimator: Estimator,
    /// Of the clipped estimator, in units of the scale.
    pub clip_limit: f64,
    /// Of the soft estimator.
    pub steepness: f64,
    /// Updates over which the quantizer is faded in; 0 has it at once.
    pub lambda_steps: u64,
    /// How it is faded in.
    pub lambda_shape: LambdaShape,
    /// A norm before the output projections of attention and feed-forward, as in BitNet b1.58 2B4T. A new model has it
    /// where this is absent, one to go on from is as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_norm: Option<bool>,
}

impl Default for QuantizationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            weights: WeightQuantizer::AbsMean,
            estimator: Estimator::Standard,
            clip_limit: 1.0,
            steepness: 1.0,
            lambda_steps: 0,
            lambda_shape: LambdaShape::Linear,
            sub_norm: None,
        }
    }
}

/// What the scale of a ternary matrix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightQuantizer {
    /// The mean of the magnitudes.
    #[default]
    AbsMean,
    /// Their median.
    AbsMedian,
}

impl WeightQuantizer {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::AbsMean => "absmean",
            Self::AbsMedian => "absmedian",
        }
    }
}

impl From<WeightQuantizer> for Quantizer {
    fn from(quantizer: WeightQuantizer) -> Self {
        match quantizer {
            WeightQuantizer::AbsMean => Self::AbsMean,
            WeightQuantizer::AbsMedian => Self::AbsMedian,
        }
    }
}

/// A straight-through estimator; see [`bitnet_quant::StraightThroughEstimator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimator {
    /// The gradient passes.
    Standard,
    /// It passes where the quantizer does not saturate.
    Clipped,
    /// It fades where the quantizer saturates.
    Soft,
}

/// How the quantizer is faded in; see [`LambdaSchedule`](crate::LambdaSchedule).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LambdaShape {
    /// At an even pace.
    Linear,
    /// Slow at both ends.
    Cosine,
    /// Fast at first.
    Exponential,
    /// Slow at both ends, steeper than the cosine.
    Sigmoid,
}

/// `[tokenizer]`: a file, or a kind to make from the training text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerConfig {
    /// A `tokenizer.json`, or a directory with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// What to make from the training text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<TokenizerKind>,
    /// Tokens of a `bpe` vocabulary, special ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Special tokens to add; the first ends a document.
    pub special: Vec<String>,
}

/// A tokenizer that is made from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// Each character of the text is a token.
    Char,
    /// Each byte is a token.
    Bytes,
    /// Byte-level byte-pair encoding.
    Bpe,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Files to train on, or patterns of their names (`texts/**/*.txt`), relative to the directory in which the program
    /// runs: texts (UTF-8), `.jsonl` or `.parquet` with a `text` or `messages` in each record, these compressed (`.gz`,
    /// `.zst`), or token files (of `bitnet tokenize`).
    pub train: Vec<PathBuf>,
    /// How often rows come from each entry of `train`; where absent, all tokens come equally often.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
    /// The same to evaluate on.
    #[serde(default)]
    pub validation: Vec<PathBuf>,
    /// The last part of each training text (of its bytes), or of all token files together (of their tokens), that is kept
    /// for evaluation instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_fraction: Option<f64>,
    /// Tokens of a row of a batch; the context of the model where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// How texts are laid out in rows.
    #[serde(default)]
    pub packing: Packing,
    /// In which order rows come.
    #[serde(default)]
    pub order: Order,
    /// A string that ends a document in the texts; each file is a document of its own in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_end: Option<String>,
    /// Fixes the order.
    #[serde(default)]
    pub seed: u64,
}

/// How texts are laid out in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// One stream of tokens, cut anywhere.
    #[default]
    Stream,
    /// Whole documents in their order, as many as fit a row; positions start anew in each.
    Packed,
    /// The same, but each document in the row that it fills best, so that fewer tokens are padding.
    #[serde(rename = "best-fit")]
    BestFit,
    /// One document a row, padded.
    Padded,
}

/// In which order rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Each row starts anywhere, at random.
    #[default]
    Random,
    /// Each row once an epoch, in an order drawn anew for each.
    Shuffled,
    /// As in the file.
    Sequential,
}

/// `[optimizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which.
    pub name: OptimizerName,
    /// Decay rates of the averages of Adam and Lion.
    pub betas: [f64; 2],
    /// Added to the root of the second average.
    pub eps: f64,
    /// Pull of weights (not norms, biases or embeddings) to zero, times the learning rate.
    pub weight_decay: f64,
    /// Of SGD and Muon.
    pub momentum: f64,
    /// Whether averages are kept in 8 bits.
    pub eight_bit: bool,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            name: OptimizerName::AdamW,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            momentum: 0.95,
            eight_bit: false,
        }
    }
}

/// A rule for updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Gradient descent with momentum.
    Sgd,
    /// Adam, the decay in the gradient.
    Adam,
    /// Adam, the decay apart.
    AdamW,
    /// Signs of averages.
    Lion,
    /// Orthogonalized momentum for matrices, AdamW for the rest.
    Muon,
}

/// `[schedule]`; the formulas are those of [`Schedule`](crate::Schedule).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Which.
    pub kind: ScheduleKind,
    /// The highest rate.
    pub learning_rate: f64,
    /// Updates over which it rises to that.
    pub warmup: u64,
    /// The rate at the end.
    pub end: f64,
    /// Two-stage: the share of the steps after which the second stage begins, 0.5 where absent. Wsd: the share after which
    /// the decay begins, 0.8 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_at: Option<f64>,
    /// Two-stage: the rate at the end of the first stage; half the highest where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_one_end: Option<f64>,
    /// Two-stage: the rate at the start of the second stage; a third of the highest where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_two: Option<f64>,
    /// Two-stage: the weight decay of the second stage.
    pub stage_two_weight_decay: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Cosine,
            learning_rate: 1e-3,
            warmup: 0,
            end: 0.0,
            switch_at: None,
            stage_one_end: None,
            stage_two: None,
            stage_two_weight_decay: 0.0,
        }
    }
}

impl ScheduleConfig {
    /// The rate at the end of the first of two stages.
    pub fn stage_one_end_rate(&self) -> f64 {
        self.stage_one_end.unwrap_or(self.learning_rate / 2.0)
    }

    /// The share of the steps after which the second part begins.
    pub fn switch_share(&self) -> f64 {
        self.switch_at.unwrap_or(if self.kind == ScheduleKind::Wsd { 0.8 } else { 0.5 })
    }

    /// The rate at the start of the second of two stages.
    pub fn stage_two_rate(&self) -> f64 {
        self.stage_two.unwrap_or(self.learning_rate / 3.0)
    }
}

/// How the learning rate changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Not at all.
    Constant,
    /// On a line.
    Linear,
    /// On half a wave.
    Cosine,
    /// On two lines with a drop between, as BitNet b1.58.
    TwoStage,
    /// Not at all until the last part, then down (warm-up, stable, decay).
    Wsd,
}

/// `[training]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Updates.
    pub steps: u64,
    /// Rows of a batch.
    pub batch: usize,
    /// Batches whose gradients make one update.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Largest norm of all gradients together; 0 for no limit.
    #[serde(default = "clip")]
    pub clip: f64,
    /// Fixes new weights and dropout.
    #[serde(default)]
    pub seed: u64,
    /// Numbers to compute with.
    #[serde(default)]
    pub compute: Compute,
    /// Updates between evaluations; 0 for none but the last.
    #[serde(default = "hundred")]
    pub eval_every: u64,
    /// Batches of an evaluation; 0 for all that there are.
    #[serde(default)]
    pub eval_batches: usize,
    /// Updates between checkpoints; 0 for none but the last.
    #[serde(default = "hundred")]
    pub checkpoint_every: u64,
    /// Newest checkpoints that are kept.
    #[serde(default = "two")]
    pub keep: usize,
    /// Evaluations without a better loss after which the run ends; 0 for never.
    #[serde(default)]
    pub patience: usize,
    /// Decay rate of an average of the weights; 0 for none.
    #[serde(default)]
    pub ema: f64,
    /// Updates between lines of the metrics.
    #[serde(default = "ten")]
    pub log_every: u64,
    /// Threads; all cores where 0.
    #[serde(default)]
    pub threads: usize,
    /// Whether activations of blocks are computed again for the gradient instead of kept.
    #[serde(default)]
    pub checkpoint_activations: bool,
}

fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn ten() -> u64 {
    10
}
fn hundred() -> u64 {
    100
}
fn clip() -> f64 {
    1.0
}

/// Numbers to compute with; weights and their updates are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// Those in which products are fastest on this CPU: `Bf16` where it has AVX512-BF16 and no AMX, else `F32`.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits for products of matrices.
    Bf16,
}
