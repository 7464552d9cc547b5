//! What can go wrong, and the one place that tells the user.

use crate::output;
use bitnet::core::BitNetError;
use bitnet::inference::InferenceError;
use bitnet::model::ModelError;
use bitnet::model::safetensors::FileError;
use bitnet::model::tokenizer::TokenizerError;
use bitnet::training::TrainingError;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Result of everything in this crate.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

/// An error of a command. Its message is what the user reads after `error: `.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Safetensors(#[from] FileError),
    #[error(transparent)]
    Training(#[from] TrainingError),
    #[error(transparent)]
    Core(#[from] BitNetError),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// What the user asked for cannot be done; says what can.
    #[error("{0}")]
    Refused(String),
}

impl CliError {
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }
}

/// Prints an error on one line; a closed pipe is no error.
pub fn report(error: &CliError) -> ExitCode {
    if matches!(error, CliError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    output::note(&format!("{}: {}", output::red("error"), one_line(&error.to_string())));
    ExitCode::FAILURE
}

/// Prints a mistake in the command line itself, clap's paragraphs on one line.
pub fn report_usage(error: &clap::Error) -> ExitCode {
    let text = error.render().ansi().to_string();
    let paragraphs = text.split("\n\n").map(one_line).filter(|p| !p.is_empty());
    output::note(&paragraphs.collect::<Vec<_>>().join("; "));
    ExitCode::from(2)
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
