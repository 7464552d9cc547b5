//! A progress bar for what takes over a second.

use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Appears on a terminal once a second has passed, unless `--quiet`; removed when dropped.
pub struct Progress {
    what: &'static str,
    template: &'static str,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(what: &'static str) -> Self {
        Self { what, template: "{msg} {bar:40} {pos}/{len} {eta}", start: Instant::now(), bar: None }
    }

    /// What is done is bytes.
    pub fn of_bytes(what: &'static str) -> Self {
        Self { what, template: "{msg} {bar:40} {bytes}/{total_bytes} {eta}", start: Instant::now(), bar: None }
    }

    /// `done` of `total` are done.
    pub fn update(&mut self, done: usize, total: usize) {
        let wanted = self.start.elapsed() > Duration::from_secs(1) && output::shows_progress();
        if self.bar.is_none() && wanted {
            let style = ProgressStyle::with_template(self.template).expect("a valid template");
            let bar = ProgressBar::new(total as u64).with_style(style).with_message(self.what);
            self.bar = Some(bar.with_elapsed(self.start.elapsed()));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
