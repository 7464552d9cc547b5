//! `bitnet export`: a trained model as files that run.

use super::convert::{EmbeddingType, wrote};
use crate::error::Result;
use crate::output;
use crate::overwrite::OverwriteArgs;
use crate::progress::Progress;
use bitnet::model::convert::Target;
use bitnet::training::export::{Masters, Which};
use clap::ValueEnum;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet export runs/shakespeare model.gguf --to i2_s         for bitnet.cpp and this program
  bitnet export runs/shakespeare model.gguf --to tq2_0        for llama.cpp
  bitnet export runs/shakespeare folder --to hf               packed, for transformers
  bitnet export runs/shakespeare folder --to hf-master        the weights that training changes, to go on from

The packed files answer as the run did: ternary values and scales are those of its forward pass. The run may go on \
meanwhile.")]
pub struct ExportArgs {
    /// Directory of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// File to write (`-` is standard output), or directory for --to hf and hf-master
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Form to write
    #[arg(long, value_name = "FORM", value_enum)]
    to: Form,
    /// Take the checkpoint of this many updates [default: the newest]
    #[arg(long, value_name = "N", conflicts_with_all = ["best", "average"])]
    step: Option<u64>,
    /// Take the checkpoint with the least validation loss
    #[arg(long, conflicts_with = "average")]
    best: bool,
    /// Take the mean of the weights of the N newest checkpoints
    #[arg(long, value_name = "N")]
    average: Option<usize>,
    /// Type of the embeddings and of an untied head in a GGUF file: f16 moves logits by up to 2 %, f32 does not
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = EmbeddingType::F16)]
    embeddings: EmbeddingType,
    #[command(flatten)]
    overwrite: OverwriteArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// GGUF I2_S, 2 bits a weight, one scale a tensor
    #[value(name = "i2_s")]
    I2S,
    /// GGUF TQ1_0, 1.69 bits a weight
    #[value(name = "tq1_0")]
    Tq1_0,
    /// GGUF TQ2_0, 2.06 bits a weight
    #[value(name = "tq2_0")]
    Tq2_0,
    /// Hugging Face directory, packed 2-bit safetensors
    Hf,
    /// Hugging Face directory, 32-bit master weights
    HfMaster,
}

pub fn run(args: ExportArgs) -> Result<()> {
    match args.to {
        Form::Hf | Form::HfMaster => args.overwrite.check_directory(&args.output)?,
        Form::I2S | Form::Tq1_0 | Form::Tq2_0 => args.overwrite.check_file(&args.output)?,
    }
    let which = match (args.step, args.average) {
        (Some(step), _) => Which::Step(step),
        (None, Some(count)) => Which::Average(count),
        (None, None) if args.best => Which::Best,
        (None, None) => Which::Latest,
    };
    let (masters, step) = Masters::from_run(&args.run, which)?;
    let target = match args.to {
        Form::I2S => Some(Target::I2S),
        Form::Tq1_0 => Some(Target::Tq1_0),
        Form::Tq2_0 => Some(Target::Tq2_0),
        Form::Hf => Some(Target::HuggingFace),
        Form::HfMaster => None,
    };
    match target {
        Some(target) => {
            let mut progress = Progress::new("exporting");
            let mut update = |done, total| progress.update(done, total);
            masters.write_packed(&args.output, target, args.embeddings.into(), &mut update)?;
        }
        None => masters.write_hugging_face(&args.output)?,
    }
    wrote(&args.output, &format!(", the weights after {}", output::counted(step, "update")));
    Ok(())
}
