//! The commands.

pub mod adapt;
pub mod bench;
pub mod chat;
pub mod completions;
pub mod convert;
pub mod devices;
pub mod distill;
pub mod embed;
pub mod export;
pub mod finetune;
pub mod generate;
pub mod inspect;
pub mod logits;
pub mod man;
pub mod perplexity;
pub mod quantize;
pub mod selftest;
pub mod template;
pub mod tokenize;
pub mod train;

use crate::cli::Command;
use crate::error::Result;

/// Runs a command.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Template(args) => template::run(args),
        Command::Logits(args) => logits::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Export(args) => export::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Train(args) => train::run(args),
        Command::Finetune(args) => finetune::run(args),
        Command::Distill(args) => distill::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Selftest(args) => selftest::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}
