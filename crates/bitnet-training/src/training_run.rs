//! A run of training: tokenizer, data, model and trainer, from a configuration, in a directory.

use crate::config::{Activation, Compute, Config, ConfigSource, Estimator};
use crate::data::{self, DataLoader, Evaluation, LoaderOptions};
use crate::distill::Distillation;
use crate::error::{Result, TrainingError};
use crate::export::{CONFIG, Masters, online, read_config, tokenizer, write_config};
use crate::lora::Lora;
use crate::metrics::Observer;
use crate::model::{ComputeOptions, Transformer};
use crate::objective::Objective;
use crate::run_directory::{Resumed, RunDirectory};
use crate::tokenize::{OnProgress, fingerprint};
use crate::trainer::{Outcome, Progress, Trainer, weights};
use bitnet_core::{Device, Generator};
#[cfg(target_arch = "x86_64")]
use bitnet_kernels::Isa;
use bitnet_model::config::{Architecture, Block, Config as Shape, HiddenAct, RopeConfig, RopeScaling};
use bitnet_model::tokenizer::Tokenizer;
use bitnet_quant::quantizers::Quantizer;
use bitnet_quant::{ActivationRule, StraightThroughEstimator};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// A run in progress: its directory and its trainer.
#[derive(Debug)]
pub struct TrainingRun {
    run: RunDirectory,
    trainer: Trainer,
    notes: Vec<String>,
}

impl TrainingRun {
    /// Starts a run in a directory that has none yet. `on_progress` is told how much of the texts is tokenized. A directory
    /// that was made for a run that cannot be started is removed.
    ///
    /// # Errors
    /// When the configuration cannot be, the directory has checkpoints already, or data or model cannot be read.
    pub fn start(config: &ConfigSource, directory: &Path, on_progress: OnProgress) -> Result<Self> {
        let checked = Config::from_source(config)?;
        let run = RunDirectory::create(directory, config.text(), checked.training.keep)?;
        Self::begin(&checked, run, on_progress)
    }

    /// The first step of a run.
    fn begin(config: &Config, mut run: RunDirectory, on_progress: OnProgress) -> Result<Self> {
        let (mut notes, device) = (Vec::new(), device(config));
        let mut assembled = || {
            let data = data::prepare(config, &run, on_progress)?;
            let model = new_model(config, &data.tokenizer, &device)?;
            write_config(model.config(), &run.path().join(CONFIG))?;
            trainer(config, model, data, &device, &mut notes)
        };
        match assembled() {
            Ok(trainer) => {
                let folder = run.path().to_owned();
                run.set_model_files(&folder)?;
                Ok(Self { run, trainer, notes })
            }
            Err(e) => {
                run.discard();
                Err(e)
            }
        }
    }

    /// Goes on with a run, as its `config.toml` says: after its newest checkpoint, or that of a step. A run that has none
    /// starts anew.
    ///
    /// # Errors
    /// When there is no run, its checkpoint is damaged, or configuration, data or model are not those of the checkpoint:
    /// the run stays as it is.
    pub fn resume(directory: &Path, step: Option<u64>, on_progress: OnProgress) -> Result<Self> {
        let mut run = RunDirectory::open(directory, 1)?;
        let config = run.config()?;
        run.set_keep(config.training.keep);
        // The very device: two of the same threads are two.
        let device = device(&config);
        let resumed = match step {
            Some(step) => Some(run.load(step, &device)?),
            None => run.latest(&device)?,
        };
        let Some(resumed) = resumed else { return Self::begin(&config, run, on_progress) };
        let step = resumed.step;
        Progress::of(step, &resumed.checkpoint)?.check(step, &config)?;
        // Checkpoints of earlier versions have these files in the directory of the run only.
        let own = resumed.path.join(CONFIG).is_file();
        let folder = if own { resumed.path.clone() } else { run.path().to_owned() };
        let data = data::prepare(&config, &run, on_progress)?;
        check_tokenizer(&config, &data.tokenizer, &folder, step)?;
        let shape = read_config(&folder.join(CONFIG))?;
        let model = resumed_model(&config, &shape, &data.tokenizer, &resumed, &device)?;
        let mut notes = resumed.notes.clone();
        let mut trainer = trainer(&config, model, data, &device, &mut notes)?;
        trainer.restore(resumed)?;
        run.set_model_files(&folder)?;
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

/// The model at its first step.
fn new_model(config: &Config, tokenizer: &Tokenizer, device: &Device) -> Result<Transformer> {
    match &config.model.init {
        Some(folder) => base_model(folder, config, tokenizer, device),
        None => {
            let shape = shape(config, tokenizer)?;
            let std = config.model.initial_deviation();
            Transformer::new(shape, options(config), std, &mut Generator::new(config.training.seed), device)
        }
    }
}

/// The model of `model.init`.
fn base_model(folder: &Path, config: &Config, tokenizer: &Tokenizer, device: &Device) -> Result<Transformer> {
    let masters = Masters::from_hugging_face(folder, device)?;
    let (rows, tokens) = (masters.config.vocab_size, tokenizer.vocab_size());
    if rows < tokens {
        let problem = format!("the model has {rows} tokens, the tokenizer {tokens}: use the model's own");
        return Err(TrainingError::run(folder, problem));
    }
    masters.prepared(&config.quantization)?.into_model(options(config))
}

/// The model of a checkpoint of shape `own`, if the configuration still asks for it. Adapters need the base that they
/// change; other checkpoints hold all weights.
fn resumed_model(
    config: &Config,
    own: &Shape,
    tokenizer: &Tokenizer,
    resumed: &Resumed,
    device: &Device,
) -> Result<Transformer> {
    let model = match (&config.model.init, &config.lora) {
        (Some(folder), Some(_)) => base_model(folder, config, tokenizer, device)?,
        (Some(_), None) => {
            let quantization = &config.quantization;
            let sub_norm = own.block.inner_norms || quantization.sub_norm != Some(true);
            let asked = Shape {
                quantization: quantization.enabled.then(online),
                architecture: if sub_norm { own.architecture } else { Architecture::BitNet },
                block: Block { inner_norms: own.block.inner_norms || !sub_norm, ..own.block.clone() },
                ..own.clone()
            };
            check_shape(&asked, own, resumed.step)?;
            let tensors = weights(&resumed.checkpoint);
            return Transformer::from_parameters(asked, options(config), tensors);
        }
        (None, _) => {
            let asked = shape(config, tokenizer)?;
            check_shape(&asked, own, resumed.step)?;
            new_model(config, tokenizer, device)?
        }
    };
    check_shape(model.config(), own, resumed.step)?;
    Ok(model)
}

/// Refuses a configuration of another model than the checkpoint's, and names the key.
fn check_shape(asked: &Shape, own: &Shape, step: u64) -> Result<()> {
    let shown = |s: &Shape| {
        let (quantized, normed) = (s.quantization.is_some(), s.block.inner_norms);
        [
            ("quantization.enabled", quantized.to_string()),
            ("quantization.sub_norm", normed.to_string()),
            ("model.hidden_size", s.hidden_size.to_string()),
            ("model.intermediate_size", s.intermediate_size.to_string()),
            ("model.layers", s.layers.to_string()),
            ("model.heads", s.heads.to_string()),
            ("model.kv_heads", s.kv_heads.to_string()),
            ("model.context", s.max_positions.to_string()),
            ("model.vocab_size", s.vocab_size.to_string()),
            ("model.activation", format!("{:?}", s.hidden_act).to_lowercase()),
            ("model.norm_eps", s.norm_eps.to_string()),
            ("model.rope_theta", s.rope.theta.to_string()),
            ("model.tie_embeddings", s.tied.to_string()),
        ]
    };
    for ((key, now), (_, before)) in shown(asked).into_iter().zip(shown(own)) {
        if now != before {
            let problem = format!("{key} is {now}, but the checkpoint of step {step} was trained with {before}");
            return Err(TrainingError::Invalid(format!("{problem}: set it back, or begin another run")));
        }
    }
    Ok(())
}

/// Refuses another tokenizer than the checkpoint's: in the directory of the run, or at `tokenizer.path`.
fn check_tokenizer(config: &Config, used: &Tokenizer, folder: &Path, step: u64) -> Result<()> {
    let of_checkpoint = tokenizer(folder)?.map(|tokenizer| fingerprint(&tokenizer));
    let asked = config.tokenizer.path.as_ref().filter(|path| path.exists()).map(Tokenizer::from_file).transpose()?;
    for tokenizer in [Some(used), asked.as_ref()].into_iter().flatten() {
        if of_checkpoint.is_some_and(|before| before != fingerprint(tokenizer)) {
            let problem = format!("the tokenizer is not the one that the checkpoint of step {step} was trained with");
            return Err(TrainingError::Invalid(format!("{problem}: put it back, or begin another run")));
        }
    }
    Ok(())
}

/// The trainer of a model at its first step; what a user should know is added to `notes`.
fn trainer(
    config: &Config,
    model: Transformer,
    data: data::Prepared,
    device: &Device,
    notes: &mut Vec<String>,
) -> Result<Trainer> {
    let most = model.config().max_positions;
    let context = config.data.context.unwrap_or(most);
    if context > most {
        let problem = format!("data.context {context} does not fit the model's context of {most}: make it smaller");
        return Err(TrainingError::Invalid(problem));
    }
    let objective = objective(config, model, device)?;
    let batch = config.training.batch;
    let (packing, order, seed) = (config.data.packing, config.data.order, config.data.seed);
    let loader = DataLoader::mixed(data.train, LoaderOptions { context, batch, packing, order, seed }, device)?;
    let evaluation = match data.validation {
        Some(tokens) => {
            let most = config.training.eval_batches;
            Some(Evaluation::new(tokens, context, batch, packing, most, device)?)
        }
        None => {
            notes.push("no validation data: the run cannot tell when it overfits".to_owned());
            None
        }
    };
    Trainer::new(config, objective, loader, evaluation)
}

fn objective(config: &Config, model: Transformer, device: &Device) -> Result<Box<dyn Objective>> {
    Ok(match (&config.lora, &config.distill) {
        (Some(_), Some(_)) => {
            return Err(TrainingError::Invalid("[lora] and [distill] do not go together: leave one out".into()));
        }
        (Some(lora), None) => Box::new(Lora::new(model, lora, &mut Generator::new(config.training.seed))?),
        (None, Some(distill)) => {
            let teacher = Masters::from_hugging_face(&distill.teacher, device)?;
            // Master weights of a directory are absmean, whatever the student's are.
            let weights = Quantizer::AbsMean;
            let options = ComputeOptions { weights, dropout: 0., checkpoint: false, ..options(config) };
            Box::new(Distillation::new(model, teacher.into_model(options)?, distill.clone())?)
        }
        (None, None) => Box::new(model),
    })
}

/// bf16 where the kernels have instructions for it, f32 elsewhere. So also on a CPU with AMX, whose tiles the kernels do not
/// use: its 512-bit units multiply bf16 no faster than f32.
fn fastest() -> bitnet_quant::linear::Compute {
    #[cfg(target_arch = "x86_64")]
    {
        let has_amx = std::arch::x86_64::__cpuid_count(7, 0).edx >> 24 & 1 == 1;
        if Isa::selected() == Ok(Isa::Avx512) && is_x86_feature_detected!("avx512bf16") && !has_amx {
            return bitnet_quant::linear::Compute::BF16;
        }
    }
    bitnet_quant::linear::Compute::F32
}

fn options(config: &Config) -> ComputeOptions {
    let q = &config.quantization;
    ComputeOptions {
        compute: match config.training.compute {
            Compute::Auto => fastest(),
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
    let inner_norms = config.quantization.sub_norm.unwrap_or(true);
    let shape = Shape {
        architecture: if inner_norms { Architecture::BitNet } else { Architecture::Llama },
        block: Block { inner_norms, ..Block::default() },
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
        activations: ActivationRule::Token,
    };
    shape.validate()?;
    Ok(shape)
}
