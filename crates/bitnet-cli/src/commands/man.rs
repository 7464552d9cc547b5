//! `bitnet man`: manual pages, made of the help texts.

use crate::cli::Cli;
use crate::error::{CliError, Result};
use crate::output;
use clap::CommandFactory;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet man | man -l -
  bitnet man ~/.local/share/man/man1               then: man bitnet-generate")]
pub struct ManArgs {
    /// Directory for the pages of all commands [default: one page to standard output]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub fn run(args: ManArgs) -> Result<()> {
    let Some(directory) = args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(CliError::Output)?;
        return output::raw(&page);
    };
    let failed = |source| CliError::File { path: directory.clone(), source };
    std::fs::create_dir_all(&directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &directory).map_err(failed)?;
    output::note(&format!("wrote the pages of all commands to {}", directory.display()));
    Ok(())
}
