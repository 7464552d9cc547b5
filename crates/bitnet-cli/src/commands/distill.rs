//! `bitnet distill`: train a model beside a teacher.

use super::adapt::{self, AdaptArgs, Adaptation};
use crate::error::Result;
use crate::load;
use bitnet::training::distill::DistillConfig;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet distill dense-llama --data texts/*.txt --run runs/distilled --sub-norm
  bitnet distill small --teacher large --data texts/*.txt --run runs/small --relations 1
  bitnet export runs/distilled model.gguf --to i2_s                 the student, as a file that runs

Student and teacher are Hugging Face directories with one tokenizer; without --teacher a ternary student learns from \
itself in full precision. Ctrl-C ends a run with a checkpoint; bitnet train --resume RUN goes on with it.")]
pub struct DistillArgs {
    /// Hugging Face directory of the student
    #[arg(value_name = "STUDENT")]
    student: PathBuf,
    /// Hugging Face directory of the teacher [default: the student's]
    #[arg(long, value_name = "DIR", help_heading = "Teacher")]
    teacher: Option<PathBuf>,
    /// Weight of the loss of the text itself
    #[arg(long, value_name = "F", default_value_t = 1., help_heading = "Teacher")]
    text: f64,
    /// Weight of the loss of the teacher's next tokens
    #[arg(long, value_name = "F", default_value_t = 1., help_heading = "Teacher")]
    logits: f64,
    /// What logits are divided by before they are compared
    #[arg(long, value_name = "F", default_value_t = 2., help_heading = "Teacher")]
    temperature: f64,
    /// Weight of the loss of the relations between tokens in attention; 0 leaves it out
    #[arg(long, value_name = "F", default_value_t = 0., help_heading = "Teacher")]
    relations: f64,
    /// The student's block whose relations are compared, from 0 [default: the last]
    #[arg(long, value_name = "N", help_heading = "Teacher")]
    block: Option<usize>,
    /// The teacher's block that they are compared with [default: the last]
    #[arg(long, value_name = "N", help_heading = "Teacher")]
    teacher_block: Option<usize>,
    #[command(flatten)]
    adapt: AdaptArgs,
}

pub fn run(args: DistillArgs) -> Result<()> {
    let student = load::local(&args.student)?;
    let distill = DistillConfig {
        teacher: args.teacher.map_or_else(|| Ok(student.clone()), |teacher| load::local(&teacher))?,
        text: args.text,
        logits: args.logits,
        temperature: args.temperature,
        relations: args.relations,
        block: args.block,
        teacher_block: args.teacher_block,
        relation_heads: None,
    };
    let adaptation = Adaptation { model: &student, ternary: true, lora: None, distill: Some(distill) };
    adapt::run(&args.adapt, adaptation)
}
