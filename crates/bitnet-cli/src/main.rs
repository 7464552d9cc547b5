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
mod overwrite;
mod progress;
mod text;

use clap::Parser;
use std::process::ExitCode;

/// Bytes of stack for a command. The main thread has what `ulimit -s` leaves it.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    match std::thread::Builder::new().name("command".into()).stack_size(STACK).spawn(run) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        // No thread is to be had: the main one is likely to do.
        Err(_) => run(),
    }
}

fn run() -> ExitCode {
    bitnet::core::install_signal_handlers();
    interrupt::listen();
    output::set_color_early(std::env::args_os().skip(1));
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return error::report_usage(&e),
    };
    output::set(cli.output);
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => error::report(&e),
    }
}
