//! `bitnet generate`: continues a text.

use crate::args::{ModelArgs, SamplingArgs, StopArgs, ThreadArgs};
use crate::error::{CliError, Result};
use crate::{interrupt, load, output};
use bitnet::inference::{FinishReason, GenerateOptions, Generation, InferenceError, Session, generate};
use serde_json::json;
use std::io::Read;
use std::ops::ControlFlow;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet generate \"ROMEO:\" --max-tokens 200
  bitnet generate \"To be, or\" --temperature 0
  bitnet generate - --model bitnet-2b4t.gguf --stop $'\\n' < prompt.txt
  bitnet generate \"ROMEO:\" --seed 7 --json | jq -r .text

The text goes to standard output as it comes, the speed to standard error. Ctrl-C ends the text.
Candidates pass temperature, --top-k, --top-p and --min-p in this order.")]
pub struct GenerateArgs {
    /// Text to continue; `-` reads standard input
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
    /// Most tokens to generate
    #[arg(long, short = 'n', value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: u64,
    #[command(flatten)]
    stop: StopArgs,
    /// Print one JSON object when done
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

pub fn run(args: GenerateArgs) -> Result<()> {
    let options = GenerateOptions {
        max_tokens: usize::try_from(args.max_tokens).unwrap_or(usize::MAX),
        sampling: args.sampling.sampling()?,
        stop: args.stop.stop,
    };
    let prompt = read_prompt(args.prompt.as_deref())?;
    let path = load::path(&args.model)?;
    let checkpoint = load::open(&path, &args.model.read)?;
    let tokenizer = checkpoint.tokenizer()?;
    let tokens = tokenizer.encode(&prompt, true)?;
    let context = checkpoint.weights().config().max_positions;
    if tokens.len() > context {
        return Err(InferenceError::ContextFull { needed: tokens.len(), capacity: context }.into());
    }
    let threads = args.threads.count();
    let model = load::model(checkpoint.weights(), threads)?;
    let mut session = Session::new(model, context.min(tokens.len().saturating_add(options.max_tokens)))?;

    interrupt::catch()?;
    let mut written = Ok(());
    let on_text = |text: &str| {
        if !args.json {
            written = output::text(text);
        }
        match written.is_err() || interrupt::pressed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let generation = generate(&mut session, tokenizer, &tokens, &options, on_text)?;
    written?;
    if args.json {
        return output::json(&json!({
            "prompt": prompt,
            "text": generation.text,
            "tokens": generation.tokens,
            "finish_reason": generation.finish.name(),
            "seed": options.sampling.seed,
            "prompt_tokens": generation.prompt_tokens,
            "prompt_tokens_per_second": generation.prompt_rate(),
            "decode_tokens_per_second": generation.decode_rate(),
            "threads": threads,
            "model": path.display().to_string(),
        }));
    }
    output::line("")?;
    output::note(&statistics(&generation, options.sampling.seed, context));
    Ok(())
}

/// The text to continue.
fn read_prompt(argument: Option<&str>) -> Result<String> {
    let text = match argument {
        None => return Err(CliError::refused("no prompt: give a text to continue, or - to read standard input")),
        Some("-") => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|source| CliError::File { path: "standard input".into(), source })?;
            String::from_utf8(bytes).map_err(|e| {
                let at = e.utf8_error().valid_up_to();
                CliError::refused(format!("standard input is not UTF-8 from byte {at} on: convert it first"))
            })?
        }
        Some(text) => text.to_string(),
    };
    if text.is_empty() {
        return Err(CliError::refused("the prompt is empty: give a text to continue"));
    }
    Ok(text)
}

/// The line on standard error after a text.
fn statistics(g: &Generation, seed: u64, context: usize) -> String {
    let decode = g.decode_rate().map_or_else(String::new, |rate| format!(", {rate:.1} tokens/s"));
    let mut line = format!("prompt: {} tokens, {:.1} tokens/s; ", g.prompt_tokens, g.prompt_rate());
    line += &format!("decode: {} tokens{decode}; seed {seed}", g.tokens.len());
    match g.finish {
        FinishReason::ContextFull => line += &format!("; stopped: the context of {context} tokens is full"),
        FinishReason::Interrupted => line += "; interrupted",
        _ => {}
    }
    line
}
