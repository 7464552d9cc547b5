//! `bitnet logits`: the logits of every position, for comparison with other implementations.

use crate::args::{DeviceArgs, LoraArgs, ModelArgs};
use crate::error::{CliError, Result};
use crate::overwrite::OverwriteArgs;
use crate::progress::Progress;
use crate::{load, text};
use bitnet::core::serialize::npy::NpyWriter;
use bitnet::core::{BitNetDType, BitNetError};
use bitnet::inference::{InferenceError, KvType, Session};
use bitnet::model::safetensors::{Dtype, FileError, SafetensorsWriter};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet logits --model checkpoint --prompt \"ROMEO:\" --output logits.safetensors
  bitnet logits --model checkpoint --tokens 1,2,3 --output logits.npy

A .safetensors file holds input_ids i32 [T] and logits f32 [T, vocabulary], a .npy file the logits alone. Standard output \
(`-`), devices and pipes get safetensors.")]
pub struct LogitsArgs {
    #[command(flatten)]
    input: Input,
    /// File to write, .safetensors or .npy
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// How keys and values are stored: f32, f16, bf16 or q8
    #[arg(long, value_name = "TYPE", default_value_t = KvType::F32)]
    kv_type: KvType,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// Text to read
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// File with the text to read; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Token ids to read, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
}

pub fn run(args: LogitsArgs) -> Result<()> {
    let format = Format::of(&args.output)?;
    args.overwrite.check_file(&args.output)?;
    let checkpoint = load::adapt(load::open(&load::path(&args.model)?, &args.model.read)?, &args.lora, false)?;
    let config = checkpoint.weights().config();
    let tokens = match (args.input.tokens, args.input.file) {
        (Some(tokens), _) => tokens,
        (None, file) => {
            let (tokenizer, context) = (checkpoint.tokenizer()?, config.max_positions);
            let read = |file: PathBuf| text::read_prompt(&file, tokenizer, context);
            let text = file.map_or_else(|| Ok(args.input.prompt.unwrap_or_default()), read)?;
            text::encode_prompt(&text, tokenizer, context)?
        }
    };
    check(&tokens, config.vocab_size, config.max_positions)?;
    let model = load::model(checkpoint.weights(), &args.device.device()?)?;
    let mut session = Session::with_kv_type(model, tokens.len(), args.kv_type)?;
    let shape = [tokens.len(), config.vocab_size];
    match format {
        Format::Npy => {
            let mut file = NpyWriter::create(&args.output, BitNetDType::F32, &shape)?;
            feed(&mut session, &tokens, |row| Ok(file.put(row).map_err(BitNetError::from)?))?;
            checkpoint.check_unchanged()?;
            file.finish()?;
        }
        Format::Safetensors => {
            let mut file = SafetensorsWriter::new();
            file.add("input_ids", Dtype::I32, &shape[..1])?;
            file.add("logits", Dtype::F32, &shape)?;
            file.write::<CliError>(&args.output, |tensor, sink| {
                if tensor.name == "input_ids" {
                    let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
                    return Ok(sink.put(&bytes).map_err(FileError::from)?);
                }
                feed(&mut session, &tokens, |row| Ok(sink.put(row).map_err(FileError::from)?))?;
                Ok(checkpoint.check_unchanged()?)
            })?;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Safetensors,
    Npy,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npy") => Ok(Self::Npy),
            _ if path == Path::new("-") || path.exists() && !path.is_file() && !path.is_dir() => Ok(Self::Safetensors),
            _ => Err(CliError::refused(format!(
                "{}: logits are written as .safetensors or .npy: name the file so",
                path.display()
            ))),
        }
    }
}

/// Gives the logits of every position to `put`, as bytes.
fn feed(session: &mut Session, tokens: &[u32], mut put: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let (mut row, mut done, mut progress) = (Vec::new(), Ok(()), Progress::new("tokens"));
    session.feed_all(tokens, |index, logits| {
        progress.update(index + 1, tokens.len());
        row.clear();
        row.extend(logits.iter().flat_map(|l| l.to_le_bytes()));
        if done.is_ok() {
            done = put(&row);
        }
    })?;
    done
}

/// The checks of [`Session`], before the model is loaded.
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
