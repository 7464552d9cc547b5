//! Metrics of a run: JSON lines, TensorBoard events, a plot, observers.

mod events;
mod jsonl;
mod plot;

pub use events::EventWriter;
pub use jsonl::{JsonLines, Record};
pub use plot::{Panel, Series, svg};

use crate::error::Result;
use crate::run_directory::RunDirectory;
use std::path::Path;

/// Receives the progress of a run, for example to show it or to test it. All methods do nothing by default.
pub trait Observer {
    /// An update was made.
    fn step(&mut self, report: &StepReport) {
        let _ = report;
    }
    /// An evaluation was made; `loss` in nats a token.
    fn evaluation(&mut self, step: u64, loss: f64) {
        let _ = (step, loss);
    }
    /// A checkpoint stands.
    fn checkpoint(&mut self, step: u64, path: &Path) {
        let _ = (step, path);
    }
    /// Something that a user should know.
    fn note(&mut self, text: &str) {
        let _ = text;
    }
}

/// Does nothing.
impl Observer for () {}

/// An update, as an [`Observer`] sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Updates made, this one included.
    pub step: u64,
    /// Updates of the run.
    pub steps: u64,
    /// Mean loss over the update's batches, nats a token.
    pub loss: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens trained on in a second, since the report before.
    pub tokens_per_second: f64,
}

/// The files of a run's metrics.
///
/// Names become TensorBoard tags, so `train/loss` and `validation/loss` share a group. The plot shows `train/loss`,
/// `validation/loss`, `learning_rate` and `ternary/flips`.
#[derive(Debug)]
pub struct Metrics {
    lines: JsonLines,
    events: EventWriter,
    records: Vec<Record>,
    plot: std::path::PathBuf,
}

impl Metrics {
    /// Goes on in a run's directory after `step` updates, 0 for a new run. What an interrupted run reported of later
    /// updates is removed: they will be made again.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn open(run: &RunDirectory, step: u64) -> Result<Self> {
        let (lines, records) = JsonLines::open(&run.path().join("metrics.jsonl"), step)?;
        let events = EventWriter::create(run.path(), step)?;
        Ok(Self { lines, events, records, plot: run.path().join("curves.svg") })
    }

    /// Reports values after `step` updates. A line is written at once, so that a kill loses none.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let record = Record { step, values: values.iter().map(|(name, v)| ((*name).to_owned(), *v)).collect() };
        self.lines.write(&record)?;
        self.events.scalars(step, values)?;
        self.records.push(record);
        Ok(())
    }

    /// All reports so far, those before an interruption included.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Draws the curves anew.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn plot(&self) -> Result<()> {
        let series = |name: &str, label: &str| {
            let point = |r: &Record| Some((r.step as f64, *r.values.get(name)?));
            Series { label: label.to_owned(), points: self.records.iter().filter_map(point).collect() }
        };
        let losses = vec![series("train/loss", "training"), series("validation/loss", "validation")];
        let rates = vec![series("learning_rate", "learning rate")];
        let flips = vec![series("ternary/flips", "flipped by an update")];
        let mut panels = vec![
            Panel { title: "loss, nats a token".into(), series: losses },
            Panel { title: "learning rate".into(), series: rates },
        ];
        if !flips[0].points.is_empty() {
            panels.push(Panel { title: "share of ternary weights".into(), series: flips });
        }
        crate::run_directory::write(&self.plot, svg("updates", &panels).as_bytes())
    }
}

#[cfg(test)]
mod tests;
