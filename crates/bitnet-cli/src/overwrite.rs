//! Files that a command writes do not replace others unasked.

use crate::error::{CliError, Result};
use std::path::Path;

/// Files of a Hugging Face directory.
const CHECKPOINT: [&str; 4] = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/// Whether files may be replaced.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct OverwriteArgs {
    /// Replace what is there already
    #[arg(long)]
    force: bool,
}

impl OverwriteArgs {
    /// An error if a file is there, unless `--force`. Devices and pipes are written to, not replaced.
    pub fn check_file(self, path: &Path) -> Result<()> {
        if self.force || !path.is_file() {
            return Ok(());
        }
        let path = path.display();
        Err(CliError::refused(format!("{path} is there already: write to another path, or replace it with --force")))
    }

    /// An error if a directory holds files of a checkpoint, unless `--force`, or cannot be one.
    pub fn check_directory(self, path: &Path) -> Result<()> {
        if path == Path::new("-") {
            return Err(CliError::refused("a directory of files cannot go to standard output: name a directory"));
        }
        CHECKPOINT.iter().try_for_each(|name| self.check_file(&path.join(name)))
    }
}
