//! `bitnet logits`: the logits of every position, for comparison with other implementations.

use crate::args::{DeviceArgs, LoraArgs, ModelArgs};
use crate::error::{CliError, Result};
use crate::overwrite::OverwriteArgs;
use crate::progress::Progress;
use crate::{load, text};
use bitnet::core::serialize::npy::NpyWriter;
use bitnet::core::{BitNetDType, BitNetError};
use bitnet::inference::{Engine, EngineOptions, InferenceError, KvType};
use bitnet::model::safetensors::{Dtype, FileError, SafetensorsWriter};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet logits --model checkpoint --prompt \"ROMEO:\" --output logits.safetensors
  bitnet logits --model checkpoint --tokens 1,2,3 --output logits.npy

A .safetensors file holds input_ids i32 [T] and logits f32 [T, vocabulary], of several texts, which are computed together, \
input_ids.0, logits.0, input_ids.1 and so on. A .npy file holds the logits of one text alone. Standard output (`-`), devices \
and pipes get safetensors.")]
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
    /// Text to read (may be repeated)
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// File with the text to read; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Token ids to read, separated by commas (may be repeated)
    #[arg(long, value_name = "IDS", value_parser = ids)]
    tokens: Vec<Ids>,
}

#[derive(Debug, Clone)]
struct Ids(Vec<u32>);

fn ids(list: &str) -> Result<Ids, String> {
    let parse = |id: &str| id.trim().parse().map_err(|_| format!("{id:?} is not a token id, such as 42"));
    list.split(',').map(parse).collect::<Result<_, _>>().map(Ids)
}

pub fn run(args: LogitsArgs) -> Result<()> {
    let format = Format::of(&args.output)?;
    args.overwrite.check_file(&args.output)?;
    let checkpoint = load::adapt(load::open(&load::path(&args.model)?, &args.model.read)?, &args.lora, false)?;
    let config = checkpoint.weights().config();
    let Input { prompt, file, tokens } = args.input;
    let mut texts: Vec<Vec<u32>> = tokens.into_iter().map(|Ids(ids)| ids).collect();
    if texts.is_empty() {
        let (tokenizer, context) = (checkpoint.tokenizer()?, config.max_positions);
        let read = |file: PathBuf| text::read_prompt(&file, tokenizer, context);
        let prompts = file.map_or(Ok(prompt), |file| read(file).map(|text| vec![text]))?;
        texts = prompts.iter().map(|text| text::encode_prompt(text, tokenizer, context)).collect::<Result<_>>()?;
    }
    texts.iter().try_for_each(|tokens| check(tokens, config.vocab_size, config.max_positions))?;
    if texts.len() > 1 && matches!(format, Format::Npy) {
        return Err(CliError::refused("a .npy file holds one text: name a .safetensors file for several"));
    }
    let vocab = config.vocab_size;
    let model = load::model(checkpoint.weights(), &args.device.device()?)?;
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let tokens = texts.iter().map(|text| text.len().next_multiple_of(64)).sum();
    let options = EngineOptions { context: longest, parallel: 1, kv_type: args.kv_type, cache_tokens: Some(tokens) };
    let mut engine = Engine::new(model, options)?;
    let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    // The writer asks for the rows of one tensor after the other; the engine gives them in the same order.
    let (sender, rows) = sync_channel(1);
    std::thread::scope(|scope| {
        let computing = scope.spawn(|| {
            // The receiver is gone when writing failed: that error is the one to report.
            let result = engine.logits(&slices, |row| drop(sender.send(row.to_vec())));
            drop(sender);
            result
        });
        let written = write(&args.output, format, &texts, vocab, rows, || Ok(checkpoint.check_unchanged()?));
        // An error of the engine is why rows are missing.
        computing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        written
    })
}

/// Writes the logits of `texts`, whose rows come one after the other, and checks that the model's files are unchanged before the
/// file gets its name.
fn write(
    path: &Path,
    format: Format,
    texts: &[Vec<u32>],
    vocab: usize,
    rows: Receiver<Vec<f32>>,
    unchanged: impl Fn() -> Result<()>,
) -> Result<()> {
    let (total, mut done, mut progress) = (texts.iter().map(Vec::len).sum(), 0, Progress::new("tokens"));
    let mut take = |count: usize, put: &mut dyn FnMut(&[u8]) -> Result<()>| -> Result<()> {
        for _ in 0..count {
            let row = rows.recv().map_err(|_| CliError::refused("the logits ended early"))?;
            put(&row.iter().flat_map(|l| l.to_le_bytes()).collect::<Vec<u8>>())?;
            done += 1;
            progress.update(done, total);
        }
        Ok(())
    };
    match format {
        Format::Npy => {
            let mut file = NpyWriter::create(path, BitNetDType::F32, &[total, vocab])?;
            take(total, &mut |row| Ok(file.put(row).map_err(BitNetError::from)?))?;
            unchanged()?;
            file.finish()?;
        }
        Format::Safetensors => {
            let mut file = SafetensorsWriter::new();
            let name = |kind: &str, index: usize| match texts.len() {
                1 => kind.to_string(),
                _ => format!("{kind}.{index}"),
            };
            for (index, tokens) in texts.iter().enumerate() {
                file.add(&name("input_ids", index), Dtype::I32, &[tokens.len()])?;
                file.add(&name("logits", index), Dtype::F32, &[tokens.len(), vocab])?;
            }
            let mut order = texts.iter();
            let mut tokens: &[u32] = &[];
            file.write::<CliError>(path, |tensor, sink| {
                if tensor.name.starts_with("input_ids") {
                    tokens = order.next().map_or(&[], Vec::as_slice);
                    let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
                    return Ok(sink.put(&bytes).map_err(FileError::from)?);
                }
                take(tokens.len(), &mut |row| Ok(sink.put(row).map_err(FileError::from)?))?;
                unchanged()
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

/// The checks of [`Engine::logits`], before the model is loaded.
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
