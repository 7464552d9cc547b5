//! `bitnet train`: a run, started or resumed.

use crate::error::{CliError, Result};
use crate::interrupt;
use crate::output::{self, counted};
use crate::progress::Progress;
use bitnet::training::config::ConfigSource;
use bitnet::training::tokenize::OnProgress;
use bitnet::training::{End, Observer, Outcome, RunDirectory, StepReport, TrainingError, TrainingRun};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet train configs/shakespeare-char.toml            a new run in runs/shakespeare-char
  bitnet train --resume runs/shakespeare-char           after Ctrl-C, SIGTERM or a crash
  bitnet train --resume runs/shakespeare-char --steps 4000   and go on to 4000 updates

Ctrl-C or SIGTERM ends a run after the update in progress, with a checkpoint; a resumed run goes on bit for bit. The directory of a \
run has its curves (curves.svg), metrics.jsonl, and an event file for TensorBoard.")]
pub struct TrainArgs {
    /// The configuration of a new run, TOML
    #[arg(value_name = "CONFIG", required_unless_present = "resume")]
    config: Option<PathBuf>,
    /// Directory of the new run [default: runs/ and the name of the configuration]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    run: Option<PathBuf>,
    /// Go on with the run of a directory
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    resume: Option<PathBuf>,
    /// Updates in all, instead of the configuration's; a shorter run has a shorter warm-up
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Go on after this many steps instead of from the newest checkpoint
    #[arg(long, value_name = "STEP", requires = "resume")]
    from_step: Option<u64>,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: TrainArgs) -> Result<()> {
    match (&args.config, &args.resume) {
        (_, Some(directory)) => {
            interrupt::catch_termination()?;
            if let Some(steps) = args.steps {
                RunDirectory::open(directory, usize::MAX)?.set_steps(steps)?;
            }
            let run = prepared(|report| TrainingRun::resume(directory, args.from_step, report))?;
            go_on(run, directory, args.json)
        }
        (Some(path), None) => {
            let directory =
                args.run.clone().unwrap_or_else(|| Path::new("runs").join(path.file_stem().unwrap_or_default()));
            let source = ConfigSource::read(path)?;
            let source = args.steps.map_or(Ok(source.clone()), |steps| source.with_steps(steps))?;
            start(&source, &directory, args.json)
        }
        (None, None) => Err(CliError::refused("name a configuration, or a run with --resume DIR")),
    }
}

/// Starts a run and trains to its end.
pub fn start(config: &ConfigSource, directory: &Path, as_json: bool) -> Result<()> {
    interrupt::catch_termination()?;
    go_on(prepared(|report| TrainingRun::start(config, directory, report))?, directory, as_json)
}

/// A run that is ready, its texts tokenized.
fn prepared(make: impl FnOnce(OnProgress) -> Result<TrainingRun, TrainingError>) -> Result<TrainingRun> {
    let mut progress = Progress::new("tokenizing");
    let mut report = |done: u64, total: u64| {
        progress.update((done >> 10) as usize, (total >> 10) as usize);
        match interrupt::pressed() {
            // There is nothing to keep yet; once the model is there, a checkpoint is written instead.
            true => Err(TrainingError::Invalid("interrupted while tokenizing: nothing was trained yet".into())),
            false => Ok(()),
        }
    };
    Ok(make(&mut report)?)
}

fn go_on(mut run: TrainingRun, directory: &Path, as_json: bool) -> Result<()> {
    let model = run.trainer().model();
    let parameters: usize = model.tensors().values().map(|x| x.elements()).sum();
    let from = run.trainer().step();
    output::note(&format!("{parameters} parameters, from step {from}, in {}", directory.display()));
    let mut watch = Watch { bar: None, shown: Instant::now() };
    let outcome = run.train(&mut watch, interrupt::flag());
    watch.finish();
    show(&outcome?, directory, as_json)
}

fn show(outcome: &Outcome, directory: &Path, as_json: bool) -> Result<()> {
    if outcome.end == End::Stopped {
        let directory = directory.display();
        output::note(&format!("stopped after a checkpoint: go on with bitnet train --resume {directory}"));
    }
    let end = match outcome.end {
        End::Finished => "finished",
        End::Stopped => "stopped",
        End::EarlyStopped => "early_stopped",
    };
    if as_json {
        return output::json(&json!({
            "end": end,
            "step": outcome.step,
            "validation_loss": outcome.validation,
            "best_step": outcome.best.map(|(step, _)| step),
            "best_validation_loss": outcome.best.map(|(_, loss)| loss),
            "run": directory,
        }));
    }
    let mut rows = vec![vec!["end".to_owned(), format!("{end} after {}", counted(outcome.step, "update"))]];
    if let Some(loss) = outcome.validation {
        rows.push(vec!["validation".into(), format!("{loss:.4} nats a token")]);
    }
    if let Some((step, loss)) = outcome.best {
        rows.push(vec!["best".into(), format!("{loss:.4} after {}", counted(step, "update"))]);
    }
    output::text(&output::columns(&rows, "ll"))
}

/// A bar on a terminal; elsewhere a line now and then.
struct Watch {
    bar: Option<ProgressBar>,
    shown: Instant,
}

impl Watch {
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(steps: u64, step: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} {msg}").expect("a valid template");
    ProgressBar::new(steps).with_style(style).with_position(step)
}

impl Observer for Watch {
    fn step(&mut self, report: &StepReport) {
        let StepReport { step, steps, loss, learning_rate, tokens_per_second, .. } = *report;
        let text = format!("loss {loss:.4}  rate {learning_rate:.2e}  {tokens_per_second:.0} tokens/s");
        if output::shows_progress() {
            let bar = self.bar.get_or_insert_with(|| bar(steps, step));
            bar.set_position(step);
            bar.set_message(text);
        } else if self.shown.elapsed() > Duration::from_secs(30) || step == steps {
            self.shown = Instant::now();
            self.line(&format!("step {step}/{steps}  {text}"));
        }
    }

    fn evaluation(&mut self, step: u64, loss: f64) {
        self.line(&format!("step {step}: validation loss {loss:.4}"));
    }

    fn note(&mut self, text: &str) {
        self.line(&format!("note: {text}"));
    }
}
