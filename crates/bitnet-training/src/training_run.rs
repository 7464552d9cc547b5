//! From a configuration to a run: tokenizer, data, model and trainer, in a directory.

use crate::config::{Activation, Compute, Config, ConfigSource, Estimator};
use crate::data::{self, DataLoader, Evaluation, LoaderOptions};
use crate::distill::Distillation;
use crate::error::{Result, TrainingError};
use crate::export::{CONFIG, Masters, online, write_config};
use crate::lora::Lora;
use crate::metrics::Observer;
use crate::model::{ComputeOptions, Transformer};
use crate::objective::Objective;
use crate::run_directory::RunDirectory;
use crate::tokenize::OnProgress;
use crate::trainer::{Outcome, Trainer};
use bitnet_core::{Device, Generator};
use bitnet_model::config::{Architecture, Config as Shape, HiddenAct, RopeConfig, RopeScaling};
use bitnet_model::tokenizer::Tokenizer;
use bitnet_quant::StraightThroughEstimator;
use bitnet_quant::quantizers::Quantizer;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// A run that is ready to go on.
#[derive(Debug)]
pub struct TrainingRun {
    run: RunDirectory,
    trainer: Trainer,
    notes: Vec<String>,
}

impl TrainingRun {
    /// Begins a run in a directory that has none yet. `on_progress` hears of the tokenizing.
    ///
    /// # Errors
    /// When the configuration cannot be, the directory has checkpoints already, or data or model cannot be read.
    pub fn start(config: &ConfigSource, directory: &Path, on_progress: OnProgress) -> Result<Self> {
        let checked = Config::from_source(config)?;
        let run = RunDirectory::create(directory, config.text(), checked.training.keep)?;
        let (trainer, notes) = assemble(&checked, &run, on_progress)?;
        Ok(Self { run, trainer, notes })
    }

    /// Goes on with a run, as its `config.toml` says: after its newest checkpoint, or that of a step. A run that had none
    /// begins anew.
    ///
    /// # Errors
    /// When there is no run, its checkpoint is damaged, or configuration, data or model are not those of the checkpoint.
    pub fn resume(directory: &Path, step: Option<u64>, on_progress: OnProgress) -> Result<Self> {
        let mut run = RunDirectory::open(directory, 1)?;
        let config = run.config()?;
        run.set_keep(config.training.keep);
        let (mut trainer, mut notes) = assemble(&config, &run, on_progress)?;
        // The very device: two of the same threads are two.
        let device = trainer.model().device().clone();
        let resumed = match step {
            Some(step) => Some(run.load(step, &device)?),
            None => run.latest(&device)?,
        };
        if let Some(resumed) = resumed {
            notes.extend(resumed.notes.iter().cloned());
            trainer.restore(resumed)?;
        }
        Ok(Self { run, trainer, notes })
    }

    /// Trains until the end, or until `stop` is set: then after a checkpoint.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    pub fn train(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        self.notes.drain(..).for_each(|note| observer.note(&note));
        self.trainer.run(&self.run, observer, stop)
    }

    /// Where it is kept.
    pub fn directory(&self) -> &RunDirectory {
        &self.run
    }

    /// What it trains.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }
}

fn device(config: &Config) -> Device {
    match config.training.threads {
        0 => Device::cpu(),
        threads => Device::cpu_with_threads(threads),
    }
}

/// A run at its beginning, and what a user should know of it.
fn assemble(config: &Config, run: &RunDirectory, on_progress: OnProgress) -> Result<(Trainer, Vec<String>)> {
    let device = device(config);
    let mut notes = Vec::new();
    let data = data::prepare(config, run, on_progress)?;
    let model = match &config.model.init {
        Some(folder) => {
            let masters = Masters::from_hugging_face(folder, &device)?;
            let (rows, tokens) = (masters.config.vocab_size, data.tokenizer.vocab_size());
            if rows < tokens {
                let problem = format!("the model has {rows} tokens, the tokenizer {tokens}: use the model's own");
                return Err(TrainingError::run(folder, problem));
            }
            masters.prepared(&config.quantization)?.into_model(options(config))?
        }
        None => {
            let shape = shape(config, &data.tokenizer)?;
            let mut generator = Generator::new(config.training.seed);
            Transformer::new(shape, options(config), config.model.init_std, &mut generator, &device)?
        }
    };
    write_config(model.config(), &run.path().join(CONFIG))?;
    let most = model.config().max_positions;
    let context = config.data.context.unwrap_or(most);
    if context > most {
        let problem = format!("data.context {context} does not fit the model's context of {most}: make it smaller");
        return Err(TrainingError::Invalid(problem));
    }
    let objective: Box<dyn Objective> = match (&config.lora, &config.distill) {
        (Some(_), Some(_)) => {
            return Err(TrainingError::Invalid("[lora] and [distill] do not go together: leave one out".into()));
        }
        (Some(lora), None) => Box::new(Lora::new(model, lora, &mut Generator::new(config.training.seed))?),
        (None, Some(distill)) => {
            let teacher = Masters::from_hugging_face(&distill.teacher, &device)?;
            // Master weights of a directory are absmean, whatever the student's are.
            let weights = Quantizer::AbsMean;
            let options = ComputeOptions { weights, dropout: 0., checkpoint: false, ..options(config) };
            Box::new(Distillation::new(model, teacher.into_model(options)?, distill.clone())?)
        }
        (None, None) => Box::new(model),
    };
    let batch = config.training.batch;
    let (packing, order, seed) = (config.data.packing, config.data.order, config.data.seed);
    let loader = DataLoader::new(data.train, LoaderOptions { context, batch, packing, order, seed }, &device)?;
    let evaluation = match data.validation {
        Some(tokens) => {
            let most = config.training.eval_batches;
            Some(Evaluation::new(tokens, context, batch, packing, most, &device)?)
        }
        None => {
            notes.push("no validation data: the run cannot tell when it begins to learn by heart".to_owned());
            None
        }
    };
    Ok((Trainer::new(config, objective, loader, evaluation)?, notes))
}

fn options(config: &Config) -> ComputeOptions {
    let q = &config.quantization;
    ComputeOptions {
        compute: match config.training.compute {
            Compute::F32 => bitnet_quant::linear::Compute::F32,
            Compute::Bf16 => bitnet_quant::linear::Compute::BF16,
        },
        weights: q.weights.into(),
        estimator: match q.estimator {
            Estimator::Standard => StraightThroughEstimator::Standard,
            Estimator::Clipped => StraightThroughEstimator::Clipped { limit: q.clip_limit },
            Estimator::Soft => StraightThroughEstimator::Soft { steepness: q.steepness },
        },
        dropout: config.model.dropout,
        checkpoint: config.training.checkpoint_activations,
    }
}

/// The shape of a new model.
fn shape(config: &Config, tokenizer: &Tokenizer) -> Result<Shape> {
    let m = &config.model;
    let tokens = tokenizer.vocab_size();
    let vocab_size = m.vocab_size.unwrap_or(tokens);
    if vocab_size < tokens {
        let problem = format!("model.vocab_size {vocab_size} is less than the tokenizer's {tokens}: leave it out");
        return Err(TrainingError::Invalid(problem));
    }
    let special = tokenizer.special();
    let shape = Shape {
        architecture: match config.quantization.sub_norm.unwrap_or(true) {
            true => Architecture::BitNet,
            false => Architecture::Llama,
        },
        hidden_size: m.hidden_size,
        intermediate_size: m.intermediate_size,
        layers: m.layers,
        heads: m.heads,
        kv_heads: m.kv_heads,
        head_dim: m.hidden_size / m.heads,
        vocab_size,
        max_positions: m.context,
        norm_eps: m.norm_eps as f32,
        rope: RopeConfig { theta: m.rope_theta, scaling: RopeScaling::None },
        hidden_act: match m.activation {
            Activation::Relu2 => HiddenAct::Relu2,
            Activation::Silu => HiddenAct::Silu,
        },
        tied: m.tie_embeddings,
        bos: special.bos,
        eos: special.eos.into_iter().collect(),
        quantization: config.quantization.enabled.then(online),
    };
    shape.validate()?;
    Ok(shape)
}
