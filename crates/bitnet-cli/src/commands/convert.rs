//! `bitnet convert`: a checkpoint in another format.

use crate::args::{LoraArgs, ReadArgs};
use crate::error::{CliError, Result};
use crate::overwrite::OverwriteArgs;
use crate::progress::Progress;
use crate::{load, output};
use bitnet::model::checkpoint::Checkpoint;
use bitnet::model::convert::{Embeddings, Target, convert, lost};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet convert hf-folder model.gguf --to i2_s                     for bitnet.cpp (x86 order)
  bitnet convert hf-folder model.gguf --to tq2_0 --embeddings q6_k  for llama.cpp
  bitnet convert model.gguf hf-folder --to hf                       for transformers
  bitnet convert model.gguf mlx-folder --to mlx                     for MLX
  bitnet convert dense-folder merged --to hf --lora adapter         with an adapter in its weights

Ternary weights and their scales are converted exactly. A type that cannot hold them is refused: its blocks do not divide the \
rows or the groups that share a scale, f16 would round a scale, or there are zeros (q1_0). --lora merges adapters, which needs dense or master weights.")]
pub struct ConvertArgs {
    /// A Hugging Face directory, a .gguf file, or owner/name of the hub
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// File to write (`-` is standard output), or directory for --to hf and mlx
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Format of the ternary weights
    #[arg(long, value_name = "FORMAT", value_enum)]
    to: Format,
    /// Type of the embeddings and of an untied head
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = EmbeddingType::F16)]
    embeddings: EmbeddingType,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// GGUF I2_S, 2 bits a weight, one scale a tensor
    #[value(name = "i2_s")]
    I2S,
    /// GGUF TQ1_0, 1.69 bits a weight
    #[value(name = "tq1_0")]
    Tq1_0,
    /// GGUF TQ2_0, 2.06 bits a weight
    #[value(name = "tq2_0")]
    Tq2_0,
    /// GGUF Q2_0, 2.25 bits a weight, a scale for every 64
    #[value(name = "q2_0")]
    Q2_0,
    /// GGUF PQ2_0 of PrismML, 2.13 bits a weight, a scale for every 128
    #[value(name = "pq2_0")]
    Pq2_0,
    /// GGUF PTQ1_0 of PrismML, 1.75 bits a weight, a scale for every 128
    #[value(name = "ptq1_0")]
    Ptq1_0,
    /// GGUF Q1_0, 1.13 bits a weight, a scale for every 128; for weights without zeros
    #[value(name = "q1_0")]
    Q1_0,
    /// Hugging Face directory, packed 2-bit safetensors
    Hf,
    /// Directory of MLX, 2 bits a weight, a scale for every 32 to 128
    Mlx,
}

impl From<Format> for Target {
    fn from(format: Format) -> Self {
        match format {
            Format::I2S => Self::I2S,
            Format::Tq1_0 => Self::Tq1_0,
            Format::Tq2_0 => Self::Tq2_0,
            Format::Q2_0 => Self::Q2_0,
            Format::Pq2_0 => Self::Pq2_0,
            Format::Ptq1_0 => Self::Ptq1_0,
            Format::Q1_0 => Self::Q1_0,
            Format::Hf => Self::HuggingFace,
            Format::Mlx => Self::Mlx,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EmbeddingType {
    /// 32 bits a weight: nothing is rounded
    F32,
    /// 16 bits a weight
    F16,
    /// 8.5 bits a weight
    #[value(name = "q8_0")]
    Q8_0,
    /// 6.56 bits a weight
    #[value(name = "q6_k")]
    Q6K,
}

impl From<EmbeddingType> for Embeddings {
    fn from(embeddings: EmbeddingType) -> Self {
        match embeddings {
            EmbeddingType::F32 => Self::F32,
            EmbeddingType::F16 => Self::F16,
            EmbeddingType::Q8_0 => Self::Q8_0,
            EmbeddingType::Q6K => Self::Q6K,
        }
    }
}

pub fn run(args: ConvertArgs) -> Result<()> {
    refuse_itself(&args.input, &args.output)?;
    let checkpoint = match args.lora.lora.is_empty() {
        true => load::open(&args.input, &args.read)?,
        // An adapter goes into the weights before they become ternary.
        false => load::adapt(load::open_masters(&args.input, &args.read)?, &args.lora, true)?,
    };
    check_output(&args.output, args.to, args.overwrite)?;
    write(&checkpoint, &args.output, args.to, args.embeddings)
}

/// An error where other files would be written over.
pub(super) fn check_output(out: &Path, to: Format, overwrite: OverwriteArgs) -> Result<()> {
    if Target::from(to).is_directory() { overwrite.check_directory(out) } else { overwrite.check_file(out) }
}

/// Writes a checkpoint and says so.
pub(super) fn write(checkpoint: &Checkpoint, out: &Path, to: Format, embeddings: EmbeddingType) -> Result<()> {
    let target = to.into();
    let mut progress = Progress::new("converting");
    convert(checkpoint, out, target, embeddings.into(), &mut |done, total| progress.update(done, total))?;
    drop(progress);
    lost(checkpoint, target).iter().for_each(|what| output::note(&format!("note: {what}")));
    wrote(out, "");
    Ok(())
}

/// Says that a file or a directory was written, how large it is, and `more`.
pub(super) fn wrote(out: &Path, more: &str) {
    let name = if out == Path::new("-") { "standard output".into() } else { out.display().to_string() };
    let size = match size(out) {
        0 => String::new(), // a device or a pipe
        bytes => format!(" ({})", output::bytes(bytes)),
    };
    output::note(&format!("wrote {name}{size}{more}"));
}

/// The input is mapped while the output is written.
pub(super) fn refuse_itself(input: &Path, output: &Path) -> Result<()> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => Err(CliError::refused(format!(
            "{} is the checkpoint that is read: write to another path",
            output.display()
        ))),
        _ => Ok(()),
    }
}

/// Bytes of a file, or of the files in a folder.
fn size(path: &Path) -> u64 {
    let own = |path: &Path| path.metadata().map_or(0, |m| if m.is_file() { m.len() } else { 0 });
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| own(&entry.path())).sum(),
        Err(_) => own(path),
    }
}
