//! The `bitnet` command line: every command in a file of its own under `commands`.
#![forbid(unsafe_code)]

mod args;
mod cli;
mod commands;
mod error;
mod interrupt;
mod limits;
mod load;
mod memory;
mod output;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = match cli::Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(e)
            if e.exit_code() == 0 || e.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            e.exit()
        }
        Err(e) => return error::report_usage(&e),
    };
    match commands::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => error::report(&e),
    }
}
