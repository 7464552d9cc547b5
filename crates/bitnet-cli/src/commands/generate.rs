//! `bitnet generate`: continues a text.

use crate::args::{self, CacheArgs, DeviceArgs, LoraArgs, ModelArgs, SamplingArgs, StopArgs, TemplateArgs};
use crate::error::{CliError, Result};
use crate::output::{self, counted};
use crate::{interrupt, load, text};
use bitnet::inference::{
    Engine, EngineOptions, FinishReason, GenerateOptions, Generation, Session, generate, generate_together,
};
use bitnet::model::tokenizer::Tokenizer;
use serde_json::json;
use std::io::{IsTerminal, stdin};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet generate \"ROMEO:\" --max-tokens 200
  bitnet generate \"To be, or\" --temperature 0
  printf 'ROMEO:' | bitnet generate --model bitnet-2b4t.gguf --stop $'\\n'
  bitnet generate --prompt \"--- a list ---\" -n -1
  bitnet generate \"ROMEO:\" --seed 7 --json | jq -r .text
  bitnet generate \"ROMEO:\" --parallel 4 -n 40
  bitnet generate --model bitnet-2b4t.gguf --messages chat.json

The text goes to standard output as it is generated, the speed to standard error. Ctrl-C ends the text. An empty prompt \
is the model's begin token. Tokens pass --logit-bias, the penalties, --dry-multiplier, --top-n-sigma, --temperature, --top-k, \
--top-p, --min-p, --typical-p, --xtc-threshold and --mirostat in this order.")]
pub struct GenerateArgs {
    #[command(flatten)]
    prompt: Prompt,
    /// Most tokens to generate; -1 goes on to the end of the text or of the context
    #[arg(long, short = 'n', value_name = "N", default_value = "128", allow_negative_numbers = true,
          value_parser = args::token_limit)]
    max_tokens: usize,
    #[command(flatten)]
    stop: StopArgs,
    /// Continue the text in N ways at once, with the seed and those after it; they are printed when done
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    parallel: u16,
    /// Print one JSON object when done; with --parallel an array of them
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Prompt {
    /// Text to continue [default: standard input, also for `-`]
    #[arg(value_name = "PROMPT", allow_hyphen_values = true, value_parser = not_a_flag)]
    text: Option<String>,
    /// Text to continue, whatever it begins with
    #[arg(long = "prompt", short = 'p', value_name = "TEXT", allow_hyphen_values = true)]
    flag: Option<String>,
    /// File with the text to continue; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// File with a conversation as JSON, which the chat template writes out: the answer follows, or goes on where the last
    /// message is the assistant's (see bitnet template); `-` is standard input
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
}

/// A text that begins with `-` is a prompt, unless it looks like a flag with a typing error.
fn not_a_flag(text: &str) -> Result<String, String> {
    let name = text.trim_start_matches('-');
    let flag = name.len() < text.len() && name.starts_with(char::is_alphabetic) && !name.contains(char::is_whitespace);
    if flag { Err("there is no such flag (a prompt like this is given with --prompt)".into()) } else { Ok(text.into()) }
}

impl Prompt {
    fn read(self, tokenizer: &Tokenizer, context: usize) -> Result<String> {
        match (self.text, self.flag, self.file) {
            (Some(text), _, _) if text != "-" => Ok(text),
            (_, Some(text), _) => Ok(text),
            (_, _, Some(file)) => text::read_prompt(&file, tokenizer, context),
            (None, ..) if stdin().is_terminal() => {
                Err(CliError::refused("no prompt: give a text to continue, or write it to standard input"))
            }
            _ => text::read_prompt(Path::new("-"), tokenizer, context),
        }
    }
}

pub fn run(args: GenerateArgs) -> Result<()> {
    args.sampling.check()?;
    let path = load::path(&args.model)?;
    let checkpoint = load::adapt(load::open(&path, &args.model.read)?, &args.lora, false)?;
    let sampling = args.sampling.sampling(checkpoint.sampling(), Some(checkpoint.tokenizer()?))?;
    let options = GenerateOptions { max_tokens: args.max_tokens, sampling, stop: args.stop.stop };
    let tokenizer = checkpoint.tokenizer()?;
    let context = args.cache.context(checkpoint.weights().config().max_positions)?;
    let (prompt, tokens) = match &args.prompt.messages {
        Some(file) => {
            let conversation = text::read_messages(file)?;
            let template = args.template.load(tokenizer, &path)?;
            let prompt = template.render_conversation(&conversation, conversation.ending())?;
            let tokens = text::encode_rendered(&prompt, tokenizer, context)?;
            (prompt, tokens)
        }
        None if args.template.is_given() => {
            return Err(CliError::refused("--chat-template and --template-kwargs are for --messages"));
        }
        None => {
            let prompt = args.prompt.read(tokenizer, context)?;
            let tokens = text::encode_prompt(&prompt, tokenizer, context)?;
            (prompt, tokens)
        }
    };
    let model = load::model(checkpoint.weights(), &args.device.device()?)?;
    let capacity = context.min(tokens.len().saturating_add(options.max_tokens));
    interrupt::catch()?;
    let report = |generation: &Generation, seed: u64| {
        json!({
            "prompt": prompt,
            "text": generation.text,
            "tokens": generation.tokens,
            "finish_reason": generation.finish.name(),
            "seed": seed,
            "prompt_tokens": generation.prompt_tokens,
            "prompt_tokens_per_second": generation.prompt_rate(),
            "decode_tokens_per_second": generation.decode_rate(),
            "threads": args.device.threads.count(),
            "model": path.display().to_string(),
        })
    };
    if args.parallel > 1 {
        let parallel = usize::from(args.parallel);
        let engine = EngineOptions { context: capacity, parallel, kv_type: args.cache.kv_type, cache_tokens: None };
        let mut engine = Engine::new(model, engine)?;
        let stopped = || interrupt::pressed() || checkpoint.check_unchanged().is_err();
        let all = generate_together(&mut engine, tokenizer, &tokens, &options, parallel, stopped)?;
        checkpoint.check_unchanged()?;
        let seeds = options.sampling.seed..;
        if args.json {
            return output::json(&all.iter().zip(seeds).map(|(one, seed)| report(one, seed)).collect());
        }
        for (generation, seed) in all.iter().zip(seeds) {
            output::line(&generation.text)?;
            output::note(&statistics(generation, seed, context));
        }
        return Ok(());
    }
    let mut session = Session::with_kv_type(model, capacity, args.cache.kv_type)?;
    let mut written = Ok(());
    let on_text = |text: &str| {
        if !args.json {
            written = output::text(text);
        }
        match written.is_err() || interrupt::pressed() || checkpoint.check_unchanged().is_err() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let generation = generate(&mut session, tokenizer, &tokens, &options, on_text)?;
    written?;
    checkpoint.check_unchanged()?;
    if args.json {
        return output::json(&report(&generation, options.sampling.seed));
    }
    output::line("")?;
    output::note(&statistics(&generation, options.sampling.seed, context));
    Ok(())
}

/// The line on standard error after a text.
fn statistics(g: &Generation, seed: u64, context: usize) -> String {
    let decode = g.decode_rate().map_or_else(String::new, |rate| format!(", {rate:.1} tokens/s"));
    let mut line = format!("prompt: {}, {:.1} tokens/s; ", counted(g.prompt_tokens, "token"), g.prompt_rate());
    line += &format!("decode: {}{decode}; seed {seed}", counted(g.tokens.len(), "token"));
    match g.finish {
        FinishReason::ContextFull => line += &format!("; stopped: the context of {context} tokens is full"),
        FinishReason::Interrupted => line += "; interrupted",
        _ => {}
    }
    line
}
