//! The loop: batches, gradients, updates, evaluations and checkpoints.

use crate::config::{Config, TrainingConfig, WeightQuantizer};
use crate::data::{DataLoader, DataPosition, Evaluation};
use crate::metrics::{Metrics, Observer, StepReport};
use crate::model::Transformer;
use crate::objective::{Objective, documents};
use crate::optim::{Ema, GroupedOptimizer, Optimizer, OptimizerState, clip_grad_norm, grad_norm, scale_grad};
use crate::run_directory::{Resumed, RunDirectory, TrainingCheckpoint};
use crate::schedule::{LambdaSchedule, Schedule};
use crate::{Result, TrainingError};
use bitnet_core::Generator;
use bitnet_core::autograd::no_grad;
use bitnet_core::serialize::TensorMap;
use bitnet_quant::{TernaryCodes, analysis};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Where the names of the optimizer's tensors begin in a checkpoint, and those of the averaged weights.
const OPTIMIZER: &str = "optimizer.";
const AVERAGE: &str = "ema.";
/// A loss this many times the first one is a run that came apart.
const DIVERGED: f64 = 1.5;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps were made.
    Finished,
    /// It was asked to stop, and can be resumed.
    Stopped,
    /// The validation loss no longer fell.
    EarlyStopped,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub end: End,
    /// Updates made.
    pub step: u64,
    /// The last validation loss, nats a token.
    pub validation: Option<f64>,
    /// The least validation loss, and after how many updates it was.
    pub best: Option<(u64, f64)>,
}

/// What a checkpoint keeps besides tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Progress {
    /// Absent in checkpoints of when there was but one.
    #[serde(default)]
    weights: WeightQuantizer,
    position: DataPosition,
    optimizer_step: u64,
    first_loss: Option<f64>,
    validation: Option<f64>,
    best: Option<(u64, f64)>,
    /// Evaluations since the best one.
    waited: usize,
}

/// A run in progress: what it changes and what it reads.
#[derive(Debug)]
pub struct Trainer {
    objective: Box<dyn Objective>,
    optimizer: GroupedOptimizer,
    average: Option<Ema>,
    loader: DataLoader,
    evaluation: Option<Evaluation>,
    schedule: Schedule,
    lambda: LambdaSchedule,
    config: TrainingConfig,
    weights: WeightQuantizer,
    step: u64,
    first_loss: Option<f64>,
    validation: Option<f64>,
    best: Option<(u64, f64)>,
    waited: usize,
}

impl Trainer {
    /// A run at its beginning.
    ///
    /// # Errors
    /// When a number of the configuration cannot be meant.
    pub fn new(
        config: &Config,
        objective: Box<dyn Objective>,
        loader: DataLoader,
        evaluation: Option<Evaluation>,
    ) -> Result<Self> {
        let optimizer = GroupedOptimizer::from_config(&config.optimizer, config.schedule.learning_rate)?;
        let average =
            (config.training.ema > 0.).then(|| Ema::new(config.training.ema, &objective.parameters())).transpose()?;
        Ok(Self {
            optimizer,
            average,
            objective,
            loader,
            evaluation,
            schedule: Schedule::new(&config.schedule, config.training.steps, config.optimizer.weight_decay),
            lambda: LambdaSchedule::new(&config.quantization),
            config: config.training.clone(),
            weights: config.quantization.weights,
            step: 0,
            first_loss: None,
            validation: None,
            best: None,
            waited: 0,
        })
    }

    /// The model that is trained.
    pub fn model(&self) -> &Transformer {
        self.objective.model()
    }

    /// Updates made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Goes on from a checkpoint of such a run: every number that follows is the one that would have followed.
    ///
    /// # Errors
    /// When it is of another model, another quantizer, other data or another optimizer.
    pub fn restore(&mut self, resumed: Resumed) -> Result<()> {
        let Resumed { step, checkpoint, .. } = resumed;
        let progress: Progress = serde_json::from_value(checkpoint.state)
            .map_err(|e| TrainingError::Invalid(format!("the checkpoint of step {step} is of another program: {e}")))?;
        if progress.weights != self.weights {
            let (before, now) = (progress.weights.name(), self.weights.name());
            let problem =
                format!("quantization.weights is {now}, but the checkpoint of step {step} was trained with {before}");
            return Err(TrainingError::Invalid(format!("{problem}: set it back, or begin another run")));
        }
        let (mut weights, mut moments, mut average) = (TensorMap::new(), TensorMap::new(), TensorMap::new());
        for (name, tensor) in checkpoint.tensors {
            match (name.strip_prefix(OPTIMIZER), name.strip_prefix(AVERAGE)) {
                (Some(inner), _) => moments.insert(inner.to_owned(), tensor),
                (_, Some(inner)) => average.insert(inner.to_owned(), tensor),
                _ => weights.insert(name, tensor),
            };
        }
        self.objective.load_state_dict(&weights)?;
        self.optimizer.load_state(OptimizerState { step: progress.optimizer_step, tensors: moments })?;
        self.average = match (self.config.ema > 0., average.is_empty()) {
            (false, _) => None,
            (true, true) => Some(Ema::new(self.config.ema, &self.objective.parameters())?),
            (true, false) => Some(Ema::from_state(self.config.ema, average)?),
        };
        self.loader.restore(&progress.position)?;
        (self.step, self.first_loss, self.validation) = (step, progress.first_loss, progress.validation);
        (self.best, self.waited) = (progress.best, progress.waited);
        Ok(())
    }

    /// All that a run needs to go on.
    fn checkpoint(&self) -> Result<TrainingCheckpoint> {
        let mut tensors = self.objective.state_dict();
        let OptimizerState { step, tensors: moments } = self.optimizer.state()?;
        tensors.extend(moments.into_iter().map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor)));
        if let Some(average) = &self.average {
            tensors.extend(average.state().iter().map(|(name, x)| (format!("{AVERAGE}{name}"), x.clone())));
        }
        let progress = Progress {
            weights: self.weights,
            position: self.loader.position(),
            optimizer_step: step,
            first_loss: self.first_loss,
            validation: self.validation,
            best: self.best,
            waited: self.waited,
        };
        let state = serde_json::to_value(progress).map_err(|e| TrainingError::Invalid(e.to_string()))?;
        Ok(TrainingCheckpoint { tensors, state })
    }

    /// One update; gives its loss, the norm of its gradients and the tokens that counted.
    ///
    /// # Errors
    /// When the loss or a gradient is not finite, or the loss is far above where it began: weights are then as they were.
    pub fn update(&mut self) -> Result<(f64, f64, usize)> {
        let rates = self.schedule.at(self.step);
        for group in 0..self.optimizer.groups() {
            self.optimizer.set_learning_rate(group, rates.learning_rate);
            if self.optimizer.weight_decay(group) > 0. || group == self.optimizer.groups() - 1 {
                self.optimizer.set_weight_decay(group, rates.weight_decay);
            }
        }
        self.objective.set_lambda(self.lambda.at(self.step));
        let (mut loss, mut tokens) = (0., 0);
        for part in 0..self.config.accumulate {
            let batch = self.loader.next_batch()?;
            let mut generator = Generator::new(step_seed(self.config.seed, self.step, part as u64));
            let of_part = self.objective.loss(&batch, Some(&mut generator))?;
            loss += f64::from(of_part.item::<f32>()?) / self.config.accumulate as f64;
            tokens += batch.counted;
            self.check(loss)?;
            of_part.backward()?;
        }
        let parameters = self.objective.parameters();
        if self.config.accumulate > 1 {
            scale_grad(&parameters, 1. / self.config.accumulate as f64)?;
        }
        let norm = match self.config.clip > 0. {
            true => clip_grad_norm(&parameters, self.config.clip)?,
            false => grad_norm(&parameters)?,
        };
        if !norm.is_finite() {
            self.objective.zero_grad();
            return Err(self.diverged(format!("the norm of the gradients is {norm}")));
        }
        self.optimizer.step(self.objective.parameters_mut())?;
        self.objective.zero_grad();
        if let Some(average) = &mut self.average {
            average.update(&self.objective.parameters())?;
        }
        self.first_loss.get_or_insert(loss);
        self.step += 1;
        Ok((loss, norm, tokens))
    }

    fn check(&self, loss: f64) -> Result<()> {
        let limit = self.first_loss.map_or(f64::INFINITY, |first| first * DIVERGED);
        if loss.is_finite() && loss <= limit {
            return Ok(());
        }
        self.objective.zero_grad();
        Err(self.diverged(format!("the loss is {loss}")))
    }

    fn diverged(&self, what: String) -> TrainingError {
        TrainingError::Diverged { step: self.step + 1, what }
    }

    /// Mean loss over the validation data in nats a token, of the averaged weights where there are any.
    ///
    /// # Errors
    /// When there is no validation data.
    pub fn evaluate(&self) -> Result<f64> {
        let evaluation = self.evaluation.as_ref();
        let evaluation = evaluation.ok_or_else(|| TrainingError::Invalid("the run has no validation data".into()))?;
        mean_loss(&self.objective.result(self.average.as_ref().map(Ema::state))?, evaluation)
    }

    /// Trains until the end, and writes what the run's configuration asks for into its directory.
    ///
    /// `stop` ends it after the update in progress, with a checkpoint.
    ///
    /// # Errors
    /// When it diverges or a file cannot be written; the checkpoints written before stand.
    pub fn run(&mut self, run: &RunDirectory, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        let steps = self.config.steps;
        let mut metrics = Metrics::open(run, self.step)?;
        let mut reported = (Instant::now(), 0);
        let due = |step: u64, every: u64| every > 0 && step.is_multiple_of(every);
        let mut saved = self.step;
        let mut end = End::Finished;
        while self.step < steps {
            if stop.load(Ordering::Relaxed) {
                end = End::Stopped;
                break;
            }
            let rate = self.schedule.at(self.step).learning_rate;
            let last = self.step + 1 == steps;
            let report = due(self.step + 1, self.config.log_every) || last;
            let before = if report { self.ternary_weights()? } else { Vec::new() };
            let (loss, norm, tokens) = self.update()?;
            reported.1 += tokens;
            if report {
                let speed = reported.1 as f64 / reported.0.elapsed().as_secs_f64();
                let mut values = vec![
                    ("train/loss", loss),
                    ("learning_rate", rate),
                    ("gradient_norm", norm),
                    ("tokens_per_second", speed),
                ];
                values.extend(ternary_shares(&before, &self.ternary_weights()?)?);
                metrics.log(self.step, &values)?;
                let (step, learning_rate, gradient_norm) = (self.step, rate, norm);
                observer.step(&StepReport {
                    step,
                    steps,
                    loss,
                    learning_rate,
                    gradient_norm,
                    tokens_per_second: speed,
                });
                reported = (Instant::now(), 0);
            }
            if self.evaluation.is_some() && (due(self.step, self.config.eval_every) || last) {
                let began = Instant::now();
                self.take_evaluation(run, &mut metrics, observer)?;
                // What evaluating takes is not training's.
                reported.0 += began.elapsed();
            }
            if due(self.step, self.config.checkpoint_every) || last {
                self.save(run, &metrics, observer)?;
                saved = self.step;
            }
            if self.config.patience > 0 && self.waited >= self.config.patience {
                end = End::EarlyStopped;
                break;
            }
        }
        if saved != self.step {
            self.save(run, &metrics, observer)?;
        }
        Ok(Outcome { end, step: self.step, validation: self.validation, best: self.best })
    }

    fn ternary_weights(&self) -> Result<Vec<TernaryCodes>> {
        self.objective.result(None)?.ternary_weights()
    }

    fn save(&self, run: &RunDirectory, metrics: &Metrics, observer: &mut dyn Observer) -> Result<()> {
        let path = run.save(self.step, &self.checkpoint()?)?;
        metrics.plot()?;
        observer.checkpoint(self.step, &path);
        Ok(())
    }

    fn take_evaluation(
        &mut self,
        run: &RunDirectory,
        metrics: &mut Metrics,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let loss = self.evaluate()?;
        self.validation = Some(loss);
        metrics.log(self.step, &[("validation/loss", loss)])?;
        observer.evaluation(self.step, loss);
        if self.best.is_none_or(|(_, best)| loss < best) {
            (self.best, self.waited) = (Some((self.step, loss)), 0);
            run.save_best(self.step, &self.checkpoint()?)?;
        } else {
            self.waited += 1;
        }
        Ok(())
    }
}

/// The shares of ternary weights that an update flipped, and that are 0.
fn ternary_shares(before: &[TernaryCodes], after: &[TernaryCodes]) -> Result<Vec<(&'static str, f64)>> {
    let (mut flipped, mut zero, mut count) = (0., 0., 0.);
    for (before, after) in before.iter().zip(after) {
        let weights = (after.rows() * after.cols()) as f64;
        let changed = analysis::flips(before, after).map_err(|e| TrainingError::Invalid(e.to_string()))?.changed;
        flipped += changed * weights;
        zero += analysis::zeros(after) * weights;
        count += weights;
    }
    Ok(if count > 0. { vec![("ternary/flips", flipped / count), ("ternary/zeros", zero / count)] } else { vec![] })
}

/// Mean loss of a model in nats a token, over all targets that count.
pub fn mean_loss(model: &Transformer, evaluation: &Evaluation) -> Result<f64> {
    let (mut sum, mut tokens) = (0., 0);
    for batch in evaluation.batches() {
        let batch = batch?;
        let loss = no_grad(|| model.loss(&batch.inputs, &batch.targets, documents(&batch), None))?;
        sum += f64::from(loss.item::<f32>()?) * batch.counted as f64;
        tokens += batch.counted;
    }
    Ok(sum / tokens.max(1) as f64)
}

/// The weights that a checkpoint evaluates and exports: the averaged ones where it has them.
pub fn weights(checkpoint: &TrainingCheckpoint) -> TensorMap {
    let averaged = checkpoint.tensors.iter().filter_map(|(name, x)| Some((name.strip_prefix(AVERAGE)?, x)));
    let averaged: TensorMap = averaged.map(|(name, x)| (name.to_owned(), x.clone())).collect();
    if !averaged.is_empty() {
        return averaged;
    }
    let own = checkpoint.tensors.iter().filter(|(name, _)| !name.starts_with(OPTIMIZER));
    own.map(|(name, x)| (name.clone(), x.clone())).collect()
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

/// A seed for each step and part (SplitMix64, Steele et al. 2014).
fn step_seed(seed: u64, step: u64, part: u64) -> u64 {
    let mut z = seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
