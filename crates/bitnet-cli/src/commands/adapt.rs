//! What `bitnet finetune` and `bitnet distill` share: a run that goes on from a model.

use super::train;
use crate::error::{CliError, Result};
use bitnet::model::checkpoint::{Checkpoint, OpenOptions};
use bitnet::training::Config;
use bitnet::training::config::*;
use bitnet::training::tokenize::holds_chats;
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// The texts and the length of the run.
#[derive(Debug, clap::Args)]
pub struct AdaptArgs {
    /// Texts, chats or texts as .jsonl, either as .gz or .zst, or token files to train on; patterns are expanded
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// The same to evaluate on [default: the last twentieth of the texts]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    validation: Vec<PathBuf>,
    /// Directory of the run
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Updates
    #[arg(long, value_name = "N", default_value_t = 1000)]
    steps: u64,
    /// Rows of a batch
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Batches of an update
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,
    /// Tokens of a row [default: as many as the model takes, at most 512]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// The highest learning rate
    #[arg(long, value_name = "F", default_value_t = 1e-4)]
    learning_rate: f64,
    /// Updates over which the quantizer is faded in [default: a quarter of them for a model that is not ternary yet, else 0]
    #[arg(long, value_name = "N")]
    lambda_steps: Option<u64>,
    /// Put norms before the output projections where the model has none (SubLN)
    #[arg(long)]
    sub_norm: bool,
    /// Numbers to multiply matrices in
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = Numbers::Auto)]
    compute: Numbers,
    /// Equal seeds give equal runs
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Numbers {
    /// bf16 where that is faster, else f32
    Auto,
    F32,
    Bf16,
}

/// What each command adds.
pub struct Adaptation<'a> {
    /// Hugging Face directory to go on from.
    pub model: &'a Path,
    /// Whether linear layers are ternary.
    pub ternary: bool,
    pub lora: Option<bitnet::training::lora::LoraConfig>,
    pub distill: Option<bitnet::training::distill::DistillConfig>,
}

/// An error for a file, which holds no weights that can be trained.
fn needs_masters(model: &Path) -> Result<()> {
    if !model.is_file() {
        return Ok(());
    }
    let path = model.display();
    Err(CliError::refused(format!(
        "{path} is a file, but training goes on from a Hugging Face directory (config.json, master weights in \
         model.safetensors, tokenizer.json): name one; bitnet convert {path} DIR --to hf makes it of a dense .gguf file"
    )))
}

/// Starts the run; its directory has a `config.toml` that says all of it.
pub fn run(args: &AdaptArgs, adaptation: Adaptation) -> Result<()> {
    needs_masters(adaptation.model)?;
    if let Some(distill) = &adaptation.distill {
        needs_masters(&distill.teacher)?;
    }
    let checkpoint = Checkpoint::open(adaptation.model, &OpenOptions::default())?;
    let shape = checkpoint.weights().config();
    let fading = if shape.quantization.is_some() || !adaptation.ternary { 0 } else { args.steps / 4 };
    let every = (args.steps / 10).max(1);
    // Chats are learned whole, texts as one stream.
    let chats = holds_chats(&args.data)?;
    let config = Config {
        model: ModelConfig { init: Some(adaptation.model.to_owned()), ..ModelConfig::default() },
        quantization: QuantizationConfig {
            enabled: adaptation.ternary,
            lambda_steps: args.lambda_steps.unwrap_or(fading),
            sub_norm: args.sub_norm.then_some(true),
            ..QuantizationConfig::default()
        },
        tokenizer: TokenizerConfig::default(),
        data: DataConfig {
            train: args.data.clone(),
            weights: Vec::new(),
            validation: args.validation.clone(),
            validation_fraction: args.validation.is_empty().then_some(0.05),
            context: Some(args.context.unwrap_or(shape.max_positions.min(512))),
            packing: if chats { Packing::BestFit } else { Packing::Stream },
            order: if chats { Order::Shuffled } else { Order::Random },
            document_end: None,
            seed: args.seed,
        },
        lora: adaptation.lora,
        distill: adaptation.distill,
        optimizer: OptimizerConfig::default(),
        schedule: ScheduleConfig {
            learning_rate: args.learning_rate,
            warmup: args.steps / 20,
            ..ScheduleConfig::default()
        },
        training: TrainingConfig {
            steps: args.steps,
            batch: args.batch,
            accumulate: args.accumulate,
            clip: 1.,
            seed: args.seed,
            compute: match args.compute {
                Numbers::Auto => Compute::Auto,
                Numbers::F32 => Compute::F32,
                Numbers::Bf16 => Compute::Bf16,
            },
            eval_every: every,
            eval_batches: 0,
            checkpoint_every: every,
            keep: 2,
            patience: 0,
            ema: 0.,
            log_every: (every / 10).max(1),
            threads: 0,
            checkpoint_activations: false,
        },
    };
    let source = ConfigSource::new(&config.to_toml()?, "the command line");
    train::start(&source, &args.run, args.json)
}
