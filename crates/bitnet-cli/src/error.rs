//! Errors of commands, and how they are printed.

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

/// Prints an error on one line. A reader that closed the pipe is no error.
pub fn report(error: &CliError) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    output::error_line(&prefix(), &one_line(&error.to_string()));
    ExitCode::FAILURE
}

/// Prints help or the version, or a mistake in the command line, clap's paragraphs on one line.
pub fn report_usage(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        return output::styled(&error.render().ansi().to_string()).map_or_else(|e| report(&e), |()| ExitCode::SUCCESS);
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print(); // the exit code tells as well
        return ExitCode::from(2);
    }
    let text = error.render().to_string();
    let paragraphs = text.split("\n\n").map(one_line).filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; ");
    output::error_line(&prefix(), paragraphs.strip_prefix("error: ").unwrap_or(&paragraphs));
    ExitCode::from(2)
}

fn prefix() -> String {
    format!("{}: ", output::red("error"))
}

fn is_broken_pipe(error: &CliError) -> bool {
    let own = matches!(error, CliError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe);
    let mut next = std::error::Error::source(error);
    while let Some(source) = next.filter(|_| !own) {
        if source.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = source.source();
    }
    own
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
