//! `bitnet perplexity`: how well a model predicts a text.

use crate::args::{DeviceArgs, LoraArgs, ModelArgs, WindowArgs};
use crate::error::Result;
use crate::progress::Progress;
use crate::{load, output, text};
use bitnet::inference::{Engine, EngineOptions, KvType, Perplexity, count_windows, perplexity};
use bitnet::model::tokenizer::ParseSpecial;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet perplexity --file wikitext.txt
  zcat wikitext.gz | bitnet perplexity --file -
  bitnet perplexity --model bitnet-2b4t.gguf --file wikitext.txt --window 2048 --max-windows 20 --json

The tokens of the text are cut into consecutive windows; every window starts from an empty context and predicts each of \
its tokens' successors. What does not fill the last window is left out. Bits a byte compare models of different \
tokenizers.")]
pub struct PerplexityArgs {
    /// Text to predict, UTF-8; `-` is standard input
    #[arg(long, short, value_name = "TEXT")]
    file: PathBuf,
    #[command(flatten)]
    window: WindowArgs,
    /// Stop after N windows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_windows: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Windows that are computed together
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=128))]
    parallel: u16,
    /// How keys and values are stored: f32, f16, bf16 or q8
    #[arg(long, value_name = "TYPE", default_value_t = KvType::F32)]
    kv_type: KvType,
}

pub fn run(args: PerplexityArgs) -> Result<()> {
    text::check(&args.file)?;
    let checkpoint = load::adapt(load::open(&load::path(&args.model)?, &args.model.read)?, &args.lora, false)?;
    let tokenizer = checkpoint.tokenizer()?;
    let window = args.window.tokens(checkpoint.weights().config().max_positions)?;
    let most = args.max_windows.map_or(usize::MAX, |n| n as usize);
    let text = text::read_start(&args.file, tokenizer, most.saturating_mul(window).saturating_add(1))?;
    let tokens = tokenizer.encode_with(&text, false, ParseSpecial::No)?;
    let total = count_windows(tokens.len(), window).min(most);
    let model = load::model(checkpoint.weights(), &args.device.device()?)?;
    let parallel = usize::from(args.parallel);
    let options = EngineOptions { context: window, parallel, kv_type: args.kv_type, cache_tokens: None };
    let mut engine = Engine::new(model, options)?;
    let mut progress = Progress::new("windows");
    let show = |done, _: &Perplexity| progress.update(done, total);
    let sum = perplexity(&mut engine, tokenizer, &tokens, (window, most), parallel, show)?;
    drop(progress);
    checkpoint.check_unchanged()?;
    if args.json {
        return output::json(&json!({
            "mean_nll": sum.mean_nll(),
            "perplexity": sum.perplexity(),
            "bits_per_byte": sum.bits_per_byte(),
            "tokens": sum.tokens,
            "windows": sum.windows,
        }));
    }
    let rows = [
        ("perplexity", format!("{:.4}", sum.perplexity())),
        ("nats a token", format!("{:.4}", sum.mean_nll())),
        ("bits a byte", format!("{:.4}", sum.bits_per_byte())),
        ("tokens", format!("{} in {} of {window}", sum.tokens, output::counted(sum.windows, "window"))),
    ];
    output::text(&output::columns(&rows.map(|(name, value)| vec![name.to_string(), value]), "ll"))
}
