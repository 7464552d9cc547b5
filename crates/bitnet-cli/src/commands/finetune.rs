//! `bitnet finetune`: go on training a model, or make a dense one ternary.

use super::adapt::{self, AdaptArgs, Adaptation};
use crate::error::Result;
use crate::load;
use bitnet::training::lora::LoraConfig;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet finetune bitnet-2b4t-bf16 --data notes.txt --run runs/notes --lora 16
  bitnet finetune dense-llama --data texts/*.txt --run runs/ternary --sub-norm --steps 5000
  bitnet finetune bitnet-2b4t-bf16 --data chats.jsonl --run runs/chat --lora 16    only the answers are learned
  bitnet export runs/notes notes.gguf --to i2_s                     what was trained, as a file that runs

The model is a Hugging Face directory with a tokenizer and master weights: of a dense Llama, or of a ternary model as it \
was trained (not packed). A dense model becomes ternary, its quantizer faded in. Ctrl-C ends a run with a checkpoint; \
bitnet train --resume RUN goes on with it.")]
pub struct FinetuneArgs {
    /// Hugging Face directory to go on from
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Train adapters of this rank instead of the weights
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    /// The adapters' product is multiplied by this and divided by their rank
    #[arg(long, value_name = "F", default_value_t = 16., requires = "lora")]
    alpha: f64,
    /// Train in full precision, without quantization
    #[arg(long, conflicts_with_all = ["lambda_steps", "sub_norm"])]
    full_precision: bool,
    #[command(flatten)]
    adapt: AdaptArgs,
}

pub fn run(args: FinetuneArgs) -> Result<()> {
    let lora = args.lora.map(|rank| LoraConfig { rank, alpha: args.alpha, ..LoraConfig::default() });
    let model = load::local(&args.model)?;
    let adaptation = Adaptation { model: &model, ternary: !args.full_precision, lora, distill: None };
    adapt::run(&args.adapt, adaptation)
}
