//! `bitnet embed`: texts as vectors.

use crate::args::{CacheArgs, DeviceArgs, ModelArgs};
use crate::error::{CliError, Result};
use crate::overwrite::OverwriteArgs;
use crate::{load, output, text};
use bitnet::inference::{Engine, EngineOptions, Pooling};
use bitnet::model::safetensors::{Dtype, FileError, SafetensorsWriter};
use clap::ValueEnum;
use serde_json::json;
use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet embed --model embedding.gguf \"What is a ternary weight?\" \"One of -1, 0 and 1.\"
  bitnet embed --model embedding.gguf --file a.txt --file b.txt --output vectors.safetensors
  bitnet embed --model embedding.gguf --lines --file questions.txt | jq '.embeddings[].embedding[0]'

Standard output is one JSON object: `embeddings` has for each text its `tokens` (their number) and its `embedding`, the \
hidden state after the last norm, pooled, of length 1. A .safetensors file holds `embeddings` f32 [texts, hidden]; with \
--pooling none `0`, `1` and so on, f32 [tokens, hidden].")]
pub struct EmbedArgs {
    /// Texts [default: standard input]
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    texts: Vec<String>,
    /// File with a text (may be given more than once); `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Each line of the files that is not empty is a text
    #[arg(long)]
    lines: bool,
    /// How the vectors of the tokens become one [default: as the model asks, else last]
    #[arg(long, value_name = "KIND", value_enum)]
    pooling: Option<Kind>,
    /// Leave the vectors as long as they are
    #[arg(long)]
    no_normalize: bool,
    /// File to write in place of standard output, .safetensors or .json
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// No pooling: a vector for each token
    None,
    /// The mean over the tokens
    Mean,
    /// The first token
    Cls,
    /// The last token
    Last,
}

impl From<Kind> for Pooling {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::None => Self::None,
            Kind::Mean => Self::Mean,
            Kind::Cls => Self::First,
            Kind::Last => Self::Last,
        }
    }
}

pub fn run(args: EmbedArgs) -> Result<()> {
    let tensors = match &args.output {
        None => false,
        Some(path) => {
            args.overwrite.check_file(path)?;
            match path.extension().and_then(|e| e.to_str()) {
                Some("safetensors") => true,
                Some("json") => false,
                _ => {
                    let path = path.display();
                    let problem = format!("{path}: vectors are written as .safetensors or .json: name the file so");
                    return Err(CliError::refused(problem));
                }
            }
        }
    };
    let checkpoint = load::open(&load::path(&args.model)?, &args.model.read)?;
    let (tokenizer, config) = (checkpoint.tokenizer()?, checkpoint.weights().config());
    let (context, width) = (args.cache.context(config.max_positions)?, config.hidden_size);
    let mut texts = args.texts;
    let files = match (texts.is_empty(), args.file.is_empty()) {
        (true, true) if stdin().is_terminal() => {
            return Err(CliError::refused("no text: give texts, files with --file, or write one to standard input"));
        }
        (true, true) => vec![PathBuf::from("-")],
        _ => args.file,
    };
    for path in &files {
        match args.lines {
            true => {
                let lines = text::read_start(path, tokenizer, usize::MAX)?;
                texts.extend(lines.lines().filter(|line| !line.trim().is_empty()).map(String::from));
            }
            false => texts.push(text::read_prompt(path, tokenizer, context)?),
        }
    }
    let tokens = texts.iter().map(|text| text::encode_prompt(text, tokenizer, context));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let pooling = args.pooling.map(Pooling::from).or(checkpoint.pooling()).unwrap_or(Pooling::Last);
    let model = load::model(checkpoint.weights(), &args.device.device()?)?;
    let options = EngineOptions { context, parallel: 1, kv_type: args.cache.kv_type, cache_tokens: None };
    let ids: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let mut vectors = Engine::new(model, options)?.embed(&ids, pooling)?;
    checkpoint.check_unchanged()?;
    if !args.no_normalize {
        vectors.iter_mut().flat_map(|all| all.chunks_exact_mut(width)).for_each(normalize);
    }
    match &args.output {
        Some(path) if tensors => write(path, &vectors, width, pooling),
        path => {
            let one = |(vector, tokens): (&Vec<f32>, &Vec<u32>)| match pooling {
                Pooling::None => {
                    json!({"tokens": tokens.len(), "embeddings": vector.chunks_exact(width).collect::<Vec<_>>()})
                }
                _ => json!({"tokens": tokens.len(), "embedding": vector}),
            };
            let all: Vec<_> = vectors.iter().zip(&tokens).map(one).collect();
            let value = json!({
                "pooling": format!("{pooling:?}").to_lowercase(),
                "normalized": !args.no_normalize,
                "embeddings": all,
            });
            match path {
                None => output::json(&value),
                Some(path) => std::fs::write(path, format!("{value}\n"))
                    .map_err(|source| CliError::File { path: path.clone(), source }),
            }
        }
    }
}

/// Divides a vector by its Euclidean length, unless that is 0.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0. {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

fn write(path: &Path, vectors: &[Vec<f32>], width: usize, pooling: Pooling) -> Result<()> {
    let mut file = SafetensorsWriter::new();
    match pooling {
        Pooling::None => {
            for (index, vector) in vectors.iter().enumerate() {
                file.add(&index.to_string(), Dtype::F32, &[vector.len() / width, width])?;
            }
        }
        _ => file.add("embeddings", Dtype::F32, &[vectors.len(), width])?,
    }
    file.write::<CliError>(path, |tensor, sink| {
        let of_text = tensor.name.parse().ok().and_then(|index: usize| vectors.get(index..=index));
        for vector in of_text.unwrap_or(vectors) {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            sink.put(&bytes).map_err(FileError::from)?;
        }
        Ok(())
    })?;
    Ok(())
}
