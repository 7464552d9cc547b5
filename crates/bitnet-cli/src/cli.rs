//! The command line as a whole.

use crate::commands;
use crate::output::OutputArgs;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "bitnet",
    version,
    about = "Train, run, check and convert ternary (1.58-bit) language models",
    arg_required_else_help = true,
    after_help = "\
Examples:
  bitnet generate \"ROMEO:\"                        text from the model of this repository
  bitnet chat                                     a conversation with the chat model in the tree
  bitnet inspect path/to/checkpoint               contents of a checkpoint
  bitnet convert hf-folder model.gguf --to tq2_0  a file that llama.cpp reads
  bitnet quantize hf-folder model.gguf            make a dense model ternary
  bitnet train configs/tree.toml                  a model of your own

A model is a Hugging Face directory, a .gguf file, or a model of the Hugging Face hub: owner/name, owner/name:Q2_0 for one \
GGUF file of several, owner/name@revision. It is taken from the local cache, else downloaded (HF_HOME, HF_TOKEN, HF_ENDPOINT \
and HF_HUB_OFFLINE hold). Without --model, commands take the first models/*.gguf found from \
here upwards, chat one with a chat template. BITNET_ISA=scalar|sse41|avx2|avx512|neon|dotprod caps the instruction set."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Continue a text
    Generate(commands::generate::GenerateArgs),
    /// Chat with a model
    Chat(commands::chat::ChatArgs),
    /// Show the text that a chat template makes of a conversation
    Template(commands::template::TemplateCommandArgs),
    /// Write the logits of every position of a text to a file
    Logits(commands::logits::LogitsArgs),
    /// Make vectors of texts
    Embed(commands::embed::EmbedArgs),
    /// Measure how well a model predicts a text
    Perplexity(commands::perplexity::PerplexityArgs),
    /// Show the contents of a checkpoint
    Inspect(commands::inspect::InspectArgs),
    /// Write a checkpoint in another format
    Convert(commands::convert::ConvertArgs),
    /// Make a dense checkpoint ternary, without training
    Quantize(commands::quantize::QuantizeArgs),
    /// Export a trained model to files that run
    Export(commands::export::ExportArgs),
    /// Train a tokenizer, and tokenize text
    Tokenize(commands::tokenize::TokenizeArgs),
    /// Train a model
    Train(commands::train::TrainArgs),
    /// Fine-tune a model, or make a dense one ternary
    Finetune(commands::finetune::FinetuneArgs),
    /// Train a model with a teacher (distillation)
    Distill(commands::distill::DistillArgs),
    /// Measure speed and the limits of this machine
    Bench(commands::bench::BenchArgs),
    /// Show detected hardware and the kernels chosen
    Devices(commands::devices::DevicesArgs),
    /// Check a device: every operation and a small model against the CPU, and its speed
    Selftest(commands::selftest::SelftestArgs),
    /// Print a completion script for a shell
    Completions(commands::completions::CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(commands::man::ManArgs),
}
