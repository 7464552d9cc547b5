//! The loop: batches, gradients, updates, evaluations and checkpoints.

mod progress;

pub(crate) use progress::Progress;
pub use progress::{quantizer, weights};

use crate::config::{Config, TrainingConfig};
use crate::data::{DataLoader, DataPosition, Evaluation};
use crate::divergence::{self, DivergenceDetector};
use crate::fingerprint::fingerprint;
use crate::metrics::{Metrics, Observer, StepReport};
use crate::model::{Transformer, widest};
use crate::objective::{Objective, documents};
use crate::optim::{Ema, GroupedOptimizer, Optimizer, OptimizerState, clip_grad_norm, grad_norm};
use crate::run_directory::{Resumed, RunDirectory, TrainingCheckpoint};
use crate::schedule::{LambdaSchedule, Schedule};
use crate::{Result, TrainingError};
use bitnet_core::autograd::no_grad;
use bitnet_core::serialize::TensorMap;
use bitnet_core::{BitNetDType, BitNetTensor, Generator};
use bitnet_quant::{TernaryCodes, analysis};
use progress::{AVERAGE, OPTIMIZER, parted};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Updates between copies of the weights that a diverged run falls back to.
const COPY_EVERY: u64 = 10;
/// A validation loss this many times the best one confirms that a run diverged.
const WORSE: f64 = 1.1;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps were made.
    Finished,
    /// It was asked to stop, and can be resumed.
    Stopped,
    /// The validation loss no longer fell (early stopping).
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

/// Weights whose loss was at its minimum when they were used.
#[derive(Debug)]
struct GoodWeights {
    step: u64,
    weights: TensorMap,
    average: Option<TensorMap>,
    position: DataPosition,
    divergence: DivergenceDetector,
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
    config: Config,
    /// Fingerprint of the weights that are read and not trained.
    fixed_model: Option<u64>,
    step: u64,
    divergence: DivergenceDetector,
    good: Option<GoodWeights>,
    validation: Option<f64>,
    best: Option<(u64, f64)>,
    waited: usize,
}

impl Trainer {
    /// A run at its beginning.
    ///
    /// # Errors
    /// When a number of the configuration is out of range.
    pub fn new(
        config: &Config,
        objective: Box<dyn Objective>,
        loader: DataLoader,
        evaluation: Option<Evaluation>,
    ) -> Result<Self> {
        let optimizer = GroupedOptimizer::from_config(&config.optimizer, config.schedule.learning_rate)?;
        let average =
            (config.training.ema > 0.).then(|| Ema::new(config.training.ema, &objective.parameters())).transpose()?;
        let fixed_model = objective.fixed_model().map(fingerprint).transpose()?;
        Ok(Self {
            optimizer,
            average,
            fixed_model,
            objective,
            loader,
            evaluation,
            schedule: Schedule::new(&config.schedule, config.training.steps, config.optimizer.weight_decay),
            lambda: LambdaSchedule::new(&config.quantization),
            config: config.clone(),
            step: 0,
            divergence: DivergenceDetector::default(),
            good: None,
            validation: None,
            best: None,
            waited: 0,
        })
    }

    /// The model that is trained.
    pub fn model(&self) -> &Transformer {
        self.objective.model()
    }

    /// What it trains, by name.
    pub fn weights(&self) -> TensorMap {
        self.objective.state_dict()
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
        let progress = Progress::of(step, &checkpoint)?;
        progress.check(step, &self.config)?;
        if let (Some(before), Some(now)) = (progress.fixed_model, self.fixed_model)
            && before != now
        {
            let model = if self.config.lora.is_some() { "the base of the adapters" } else { "the teacher" };
            let problem = format!("{model} is not the one that the checkpoint of step {step} was trained with");
            return Err(TrainingError::Invalid(format!("{problem}: put its weights back, or begin another run")));
        }
        let [weights, moments, average] = parted(checkpoint.tensors);
        self.objective.load_state_dict(&weights)?;
        self.optimizer.load_state(OptimizerState { step: progress.optimizer_step, tensors: moments })?;
        let decay = self.training().ema;
        self.average = match (decay > 0., average.is_empty()) {
            (false, _) => None,
            (true, true) => Some(Ema::new(decay, &self.objective.parameters())?),
            (true, false) => Some(Ema::from_state(decay, average)?),
        };
        self.loader.restore(&progress.position)?;
        (self.step, self.divergence, self.validation) = (step, progress.divergence, progress.validation);
        (self.best, self.waited) = (progress.best, progress.waited);
        Ok(())
    }

    fn training(&self) -> &TrainingConfig {
        &self.config.training
    }

    /// All that a run needs to go on.
    fn checkpoint(&self) -> Result<TrainingCheckpoint> {
        let average = self.average.as_ref().map(|average| average.state().clone());
        let (position, divergence) = (self.loader.position(), self.divergence.clone());
        self.checkpoint_of(self.objective.state_dict(), self.optimizer.state()?, average, position, divergence)
    }

    fn checkpoint_of(
        &self,
        weights: TensorMap,
        optimizer: OptimizerState,
        average: Option<TensorMap>,
        position: DataPosition,
        divergence: DivergenceDetector,
    ) -> Result<TrainingCheckpoint> {
        let mut tensors = weights;
        tensors.extend(optimizer.tensors.into_iter().map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor)));
        tensors.extend(average.into_iter().flatten().map(|(name, tensor)| (format!("{AVERAGE}{name}"), tensor)));
        let progress = Progress {
            weights: self.config.quantization.weights,
            tokenizer: Some(self.config.tokenizer.clone()),
            lora: self.config.lora.clone(),
            fixed_model: self.fixed_model,
            random: Generator::VERSION,
            position,
            optimizer_step: optimizer.step,
            divergence,
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
    /// When the loss or a gradient is not finite, or the loss has risen far above its recent minimum: weights are then as
    /// they were before it.
    pub fn update(&mut self) -> Result<(f64, f64, usize)> {
        if self.divergence.start().is_none() {
            self.measure_start()?;
        }
        self.set_rates();
        let (losses, tokens) = self.accumulate()?;
        let parameters = self.objective.parameters();
        let clip = self.config.training.clip;
        let norm = if clip > 0. { clip_grad_norm(&parameters, clip)? } else { grad_norm(&parameters)? };
        // The only time that an update waits for the device: all of it is queued but the step of the optimizer, which must not
        // be made by what is not finite.
        let (shares, mut numbers): (Vec<f64>, Vec<BitNetTensor>) = losses.into_iter().unzip();
        numbers.push(norm);
        let mut numbers = read(&numbers)?;
        let norm = numbers.pop().unwrap_or_default();
        if let Some(loss) = numbers.iter().find(|loss| !loss.is_finite()) {
            return Err(self.diverged(format!("the loss is {loss}")));
        }
        let loss = shares.iter().zip(&numbers).map(|(share, loss)| share * loss).sum();
        self.judge(loss)?;
        if !norm.is_finite() {
            return Err(self.diverged(format!("the norm of the gradients is {norm}")));
        }
        self.optimizer.step(self.objective.parameters_mut())?;
        self.objective.zero_grad();
        if let Some(average) = &mut self.average {
            average.update(&self.objective.parameters())?;
        }
        self.step += 1;
        Ok((loss, norm, tokens))
    }

    /// Measures the first weights, on the batches that come next and on the validation data: a rate that is far too high
    /// spoils them within a few updates, before there is anything to compare their loss with.
    fn measure_start(&mut self) -> Result<()> {
        let position = self.loader.position();
        let batches = (0..divergence::FIRST).map(|_| self.loader.next_batch()).collect::<Result<Vec<_>>>()?;
        self.loader.restore(&position)?;
        let validation = self.evaluation.is_some().then(|| self.evaluate()).transpose()?;
        let fading = self.lambda.at(self.step) < 1.;
        let mut largest: Option<f64> = None;
        for lambda in if fading { &[0., 1.][..] } else { &[1.] } {
            self.objective.set_lambda(*lambda);
            let losses = batches.iter().map(|batch| no_grad(|| self.objective.loss(batch, None)));
            let losses = read(&losses.collect::<Result<Vec<_>>>()?)?;
            for &loss in losses.iter().filter(|loss| loss.is_finite() && !fading) {
                self.divergence.observe(loss);
            }
            let mean = losses.iter().sum::<f64>() / losses.len() as f64;
            largest = Some(largest.map_or(mean, |largest| largest.max(mean))).filter(|mean| mean.is_finite());
        }
        let loss = largest.filter(|_| fading);
        self.divergence.set_start(divergence::Start { loss, validation: validation.filter(|loss| loss.is_finite()) });
        Ok(())
    }

    fn set_rates(&mut self) {
        let rates = self.schedule.at(self.step);
        for group in 0..self.optimizer.groups() {
            self.optimizer.set_learning_rate(group, rates.learning_rate);
            if self.optimizer.weight_decay(group) > 0. || group == self.optimizer.groups() - 1 {
                self.optimizer.set_weight_decay(group, rates.weight_decay);
            }
        }
        self.objective.set_lambda(self.lambda.at(self.step));
    }

    /// Gradients of the batches of an update, each weighted by its share of the tokens that count, so that they are those
    /// of one batch of all rows. Gives the share and the loss of each, and the tokens.
    fn accumulate(&mut self) -> Result<(Vec<(f64, BitNetTensor)>, usize)> {
        let parts = self.config.training.accumulate;
        let batches = (0..parts).map(|_| self.loader.next_batch()).collect::<Result<Vec<_>>>()?;
        let tokens: usize = batches.iter().map(|batch| batch.counted).sum();
        let mut losses = Vec::new();
        for (part, batch) in batches.iter().enumerate() {
            let share = batch.counted as f64 / tokens.max(1) as f64;
            let mut generator = Generator::new(step_seed(self.config.training.seed, self.step, part as u64));
            let of_part = self.objective.loss(batch, Some(&mut generator))?;
            match share == 1. {
                true => of_part.backward()?,
                false => of_part.mul(share)?.backward()?,
            }
            losses.push((share, of_part.detach()));
        }
        Ok((losses, tokens))
    }

    /// Refuses the update of a diverged run; keeps the weights of a healthy one now and then.
    ///
    /// While the quantizer is faded in the loss must rise, so it is judged afterwards. Where there is validation data, a
    /// rise of the training loss is only taken for a divergence if the validation loss has risen as well.
    fn judge(&mut self, loss: f64) -> Result<()> {
        let fading = self.lambda.at(self.step) < 1.;
        let risen = if fading { None } else { self.divergence.observe(loss) };
        if let Some(minimum) = risen {
            if self.validation_is_worse()? {
                let now = self.divergence.smoothed();
                return Err(self.diverged(format!("the training loss has risen from {minimum:.4} to {now:.4}")));
            }
            self.divergence.restart();
        }
        let due = self.good.as_ref().is_none_or(|good| self.step >= good.step + COPY_EVERY);
        if due && (self.good.is_none() || (!fading && self.divergence.is_lowest())) {
            // The weights share their storage until the update writes them.
            self.good = Some(GoodWeights {
                step: self.step,
                weights: self.objective.state_dict(),
                average: self.average.as_ref().map(|average| average.state().clone()),
                position: self.loader.position(),
                divergence: self.divergence.clone(),
            });
        }
        Ok(())
    }

    /// Whether the validation loss is above the best one and that of the first weights; true where nothing is known of it.
    fn validation_is_worse(&self) -> Result<bool> {
        let start = self.divergence.start().and_then(|start| start.validation);
        let known = [self.best.map(|(_, best)| best), start].into_iter().flatten().reduce(f64::min);
        let Some(known) = known.filter(|_| self.evaluation.is_some()) else { return Ok(true) };
        let now = self.evaluate()?;
        Ok(!now.is_finite() || now > WORSE * known)
    }

    fn diverged(&self, what: String) -> TrainingError {
        self.objective.zero_grad();
        TrainingError::Diverged { step: self.step + 1, what, saved: None }
    }

    /// Makes the best weights at hand the newest checkpoint of a diverged run, and removes those after it. Gives its step.
    fn save_good(&mut self, run: &RunDirectory) -> Result<Option<u64>> {
        let good = self.good.take();
        let device = self.model().device().clone();
        let best = match (self.best, &self.evaluation, &good) {
            (Some((_, best)), Some(evaluation), Some(good)) => {
                let weights = good.average.as_ref().unwrap_or(&good.weights);
                let own = mean_loss(&self.objective.result(Some(weights))?, evaluation)?;
                if own <= best { None } else { run.best(&device)? }
            }
            (Some(_), Some(_), None) => run.best(&device)?,
            _ => None,
        };
        let (step, checkpoint) = match (best, good) {
            (Some(best), _) => (best.step, best.checkpoint),
            (None, Some(good)) => {
                let GoodWeights { step, weights, average, position, divergence } = good;
                // Moments of the optimizer begin anew.
                let optimizer = OptimizerState { step, tensors: TensorMap::new() };
                (step, self.checkpoint_of(weights, optimizer, average, position, divergence)?)
            }
            (None, None) => return Ok(None),
        };
        run.save_last(step, &checkpoint)?;
        Ok(Some(step))
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
    /// When it diverges: the newest checkpoint is then that of the best weights it had. When a file cannot be written: the
    /// checkpoints before stand.
    pub fn run(&mut self, run: &RunDirectory, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        let steps = self.training().steps;
        let mut metrics = Metrics::open(run, self.step)?;
        let mut reported = (Instant::now(), 0);
        let due = |step: u64, every: u64| every > 0 && step.is_multiple_of(every);
        // A run that is stopped while it starts has no checkpoint yet.
        let mut saved = (self.step > 0).then_some(self.step);
        let mut end = End::Finished;
        while self.step < steps {
            if stop.load(Ordering::Relaxed) {
                end = End::Stopped;
                break;
            }
            let rate = self.schedule.at(self.step).learning_rate;
            let last = self.step + 1 == steps;
            let report = due(self.step + 1, self.training().log_every) || last;
            let before = if report { self.ternary_weights()? } else { Vec::new() };
            let (loss, norm, tokens) = match self.update() {
                Err(TrainingError::Diverged { step, what, .. }) => {
                    let saved = self.save_good(run)?;
                    metrics.plot()?;
                    return Err(TrainingError::Diverged { step, what, saved });
                }
                updated => updated?,
            };
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
            if self.evaluation.is_some() && (due(self.step, self.training().eval_every) || last) {
                let began = Instant::now();
                self.take_evaluation(run, &mut metrics, observer)?;
                // What evaluating takes is not training's.
                reported.0 += began.elapsed();
            }
            if due(self.step, self.training().checkpoint_every) || last {
                self.save(run, &metrics, observer)?;
                saved = Some(self.step);
            }
            if self.training().patience > 0 && self.waited >= self.training().patience {
                end = End::EarlyStopped;
                break;
            }
        }
        if saved != Some(self.step) {
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
    let (mut losses, mut counted) = (Vec::new(), Vec::new());
    for batch in evaluation.batches() {
        let batch = batch?;
        losses.push(no_grad(|| model.loss(&batch.inputs, &batch.targets, documents(&batch), None))?);
        counted.push(batch.counted);
    }
    let sum: f64 = read(&losses)?.iter().zip(&counted).map(|(loss, &counted)| loss * counted as f64).sum();
    Ok(sum / counted.iter().sum::<usize>().max(1) as f64)
}

/// Scalars of one device, brought to the host at once.
fn read(scalars: &[BitNetTensor]) -> Result<Vec<f64>> {
    let Some(device) = scalars.first().map(BitNetTensor::device) else { return Ok(Vec::new()) };
    let wide = widest(device);
    let scalars = scalars.iter().map(|x| x.to_dtype(wide)).collect::<bitnet_core::Result<Vec<_>>>()?;
    let all = BitNetTensor::stack(&scalars.iter().collect::<Vec<_>>(), 0)?;
    Ok(match wide {
        BitNetDType::F64 => all.to_vec()?,
        _ => all.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
    })
}

/// A seed for each step and part (SplitMix64, Steele et al. 2014).
fn step_seed(seed: u64, step: u64, part: u64) -> u64 {
    let mut z = seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
