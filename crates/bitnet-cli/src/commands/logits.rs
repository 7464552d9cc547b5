//! `bitnet logits`: the logits of every position, for comparison with other implementations.

use crate::args::{ModelArgs, ThreadArgs};
use crate::error::{CliError, Result};
use crate::load;
use crate::progress::Progress;
use bitnet::inference::{InferenceError, Session};
use bitnet::model::safetensors::{Dtype, FileError, SafetensorsWriter};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet logits --model checkpoint --prompt \"ROMEO:\" --output logits.safetensors
  bitnet logits --model checkpoint --tokens 1,2,3 --output logits.safetensors

The file holds input_ids i32 [T] and logits f32 [T, vocabulary].")]
pub struct LogitsArgs {
    #[command(flatten)]
    input: Input,
    /// File to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// Text to read
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Token ids to read, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
}

pub fn run(args: LogitsArgs) -> Result<()> {
    let checkpoint = load::open(&load::path(&args.model)?, &args.model.read)?;
    let tokens = match (args.input.tokens, args.input.prompt) {
        (Some(tokens), _) => tokens,
        (None, prompt) => checkpoint.tokenizer()?.encode(&prompt.unwrap_or_default(), true)?,
    };
    let config = checkpoint.weights().config();
    check(&tokens, config.vocab_size, config.max_positions)?;
    let mut session = Session::new(load::model(checkpoint.weights(), args.threads.count())?, tokens.len())?;

    let mut file = SafetensorsWriter::new();
    file.add("input_ids", Dtype::I32, &[tokens.len()])?;
    file.add("logits", Dtype::F32, &[tokens.len(), config.vocab_size])?;
    file.write(&args.output, |tensor, sink| {
        if tensor.name == "input_ids" {
            let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
            return Ok(sink.put(&bytes).map_err(FileError::from)?);
        }
        let (mut row, mut put, mut progress) = (Vec::new(), Ok(()), Progress::new("tokens"));
        session.feed_all(&tokens, |index, logits| {
            progress.update(index + 1, tokens.len());
            row.clear();
            row.extend(logits.iter().flat_map(|l| l.to_le_bytes()));
            if put.is_ok() {
                put = sink.put(&row);
            }
        })?;
        Ok::<_, CliError>(put.map_err(FileError::from)?)
    })?;
    Ok(())
}

/// What [`Session`] would say after the model is loaded.
fn check(tokens: &[u32], vocab: usize, context: usize) -> Result<(), InferenceError> {
    if tokens.is_empty() {
        return Err(InferenceError::EmptyPrompt);
    }
    if tokens.len() > context {
        return Err(InferenceError::ContextFull { needed: tokens.len(), capacity: context });
    }
    match tokens.iter().find(|&&id| id as usize >= vocab) {
        Some(&id) => Err(InferenceError::TokenOutOfRange { id, vocab }),
        None => Ok(()),
    }
}
