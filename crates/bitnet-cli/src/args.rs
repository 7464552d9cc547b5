//! The flags that several commands share.

use crate::error::{CliError, Result};
use crate::output;
use bitnet::core::Device;
use bitnet::inference::{KvType, Sampling};
use bitnet::model::chat_template::ChatTemplate;
use bitnet::model::checkpoint::SamplingDefaults;
use bitnet::model::tokenizer::Tokenizer;
use bitnet::quant::ActivationRule;
use bitnet::quant::formats::i2_s::I2sOrder;
use clap::{Args, ValueEnum};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// How to read a checkpoint.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Block order of I2_S tensors in a GGUF file, which depends on the CPU that wrote it and is not stored [default: guessed
    /// from the model's norms]
    #[arg(long, value_name = "ORDER", value_enum, help_heading = "Model")]
    pub i2s_order: Option<Order>,
    /// How the inputs of ternary layers are rounded: token (8 bits, one scale), block32 or block256 (8 bits as llama.cpp's q8_0 or
    /// q8_K), or float [default: as the checkpoint says, else by its family]
    #[arg(long, value_name = "RULE", help_heading = "Model")]
    pub activations: Option<ActivationRule>,
}

/// Block order of I2_S.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Order {
    X86,
    Arm,
}

impl From<Order> for I2sOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::X86 => Self::X86,
            Order::Arm => Self::Arm,
        }
    }
}

/// Which model.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// A Hugging Face directory, a .gguf file, or owner/name of the hub [default: the first models/*.gguf from here upwards; for chat, one with a chat
    /// template, else one without]
    #[arg(long, short, value_name = "PATH", help_heading = "Model")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Adapters.
#[derive(Debug, Args)]
pub struct LoraArgs {
    /// Apply an adapter (LoRA), a directory of PEFT or a GGUF file, times SCALE where one is given (may be repeated)
    #[arg(long, value_name = "PATH[=SCALE]", value_parser = scaled_path, help_heading = "Model")]
    pub lora: Vec<(PathBuf, f32)>,
}

/// Parses `PATH[=SCALE]`.
fn scaled_path(text: &str) -> Result<(PathBuf, f32), String> {
    match text.rsplit_once('=') {
        Some((path, scale)) if !Path::new(text).exists() => match scale.parse::<f32>() {
            Ok(scale) if scale.is_finite() && !path.is_empty() => Ok((path.into(), scale)),
            _ => Err("it must be a path, or a path, `=` and a number, such as adapter=0.5".into()),
        },
        _ => Ok((text.into(), 1.)),
    }
}

/// How conversations become text.
#[derive(Debug, Args)]
#[command(next_help_heading = "Chat template")]
pub struct TemplateArgs {
    /// File with a chat template (Jinja) to use in place of the model's
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Variables of the chat template as a JSON object, such as '{"enable_thinking": false}'
    #[arg(long, value_name = "JSON")]
    template_kwargs: Option<String>,
}

impl TemplateArgs {
    /// The template, with its variables.
    pub fn load(&self, tokenizer: &Tokenizer, model: &Path) -> Result<ChatTemplate> {
        let template = match &self.chat_template {
            Some(path) => {
                let source = std::fs::read_to_string(path);
                let source = source.map_err(|source| CliError::File { path: path.clone(), source })?;
                ChatTemplate::for_tokenizer(&source, tokenizer)?
            }
            None => ChatTemplate::of(tokenizer)?.ok_or_else(|| {
                let model = model.display();
                CliError::refused(format!(
                    "{model} has no chat template: name one with --chat-template FILE, use bitnet generate, or a model with one"
                ))
            })?,
        };
        match &self.template_kwargs {
            Some(json) => Ok(template.with_variables(json)?),
            None => Ok(template),
        }
    }

    /// Whether a flag names a template or its variables.
    pub fn is_given(&self) -> bool {
        self.chat_template.is_some() || self.template_kwargs.is_some()
    }
}

/// How many threads.
#[derive(Debug, Args)]
pub struct ThreadArgs {
    /// Threads to compute with, at most the number of cores [default: the number of cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Model")]
    threads: Option<u16>,
}

impl ThreadArgs {
    pub fn count(&self) -> usize {
        self.threads.map_or_else(cores, at_most_cores)
    }
}

/// Where to compute.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Device to compute on: cpu, cuda:0, metal:0, vulkan:0 or mlx
    #[arg(long, value_name = "DEVICE", default_value = CPU, help_heading = "Model")]
    device: String,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

const CPU: &str = "cpu";

impl DeviceArgs {
    /// The device; the threads are those of a CPU.
    pub fn device(&self) -> Result<Device> {
        if self.device == CPU {
            return Ok(Device::cpu_with_threads(self.threads.count()));
        }
        Ok(Device::named(&self.device)?)
    }
}

/// The cache of keys and values.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Tokens of a text at most, prompt and answer [default: the model's context]
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Model")]
    ctx_size: Option<u32>,
    /// How keys and values are stored: f32, f16, bf16 or q8
    #[arg(long, value_name = "TYPE", default_value_t = KvType::F32, help_heading = "Model")]
    pub kv_type: KvType,
}

impl CacheArgs {
    /// Tokens of a text at most, for a model made for texts of `most`.
    pub fn context(&self, most: usize) -> Result<usize> {
        let context = self.ctx_size.map_or(most, |n| n as usize);
        if context > most {
            let message = format!("--ctx-size {context} is more than the model's context of {most} tokens");
            return Err(CliError::refused(message));
        }
        Ok(context)
    }
}

/// Logical cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Threads wait for each other at every layer: more of them than cores are slower by orders of magnitude.
pub fn at_most_cores(threads: u16) -> usize {
    let (threads, cores) = (usize::from(threads), cores());
    if threads > cores {
        let cores = output::counted(cores, "core");
        output::note(&format!("note: {threads} threads on {cores} would wait for each other: each core gets one"));
    }
    threads.min(cores)
}

/// Seeds that JSON readers which compute in f64 (JavaScript) read exactly.
const MAX_SEED: u64 = (1 << 53) - 1;

/// How tokens are chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Randomness; 0 always chooses the most likely token [default: as the model asks (generation_config.json), else 0.7]
    #[arg(long, visible_alias = "temp", value_name = "F", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the N most likely tokens; 0 keeps all [default: as the model asks, else 0]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Keep the most likely tokens that together reach this probability [default: as the model asks, else 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep tokens at least F times as likely as the most likely
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Keep the tokens whose surprise is nearest to the entropy, up to this probability
    #[arg(long, visible_alias = "typical", value_name = "F", default_value_t = 1.0, allow_negative_numbers = true)]
    typical_p: f32,
    /// How often --xtc-threshold applies, 0 to 1
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    xtc_probability: f32,
    /// Exclude tokens of this probability or more, but the least likely of them
    #[arg(long, value_name = "F", default_value_t = 0.1, allow_negative_numbers = true)]
    xtc_threshold: f32,
    /// Keep logits at most F standard deviations below the largest; 0 keeps all
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    top_n_sigma: f32,
    /// Subtract F * base^(n - allowed length) from the logit of a token that repeats what followed the last n tokens
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    dry_multiplier: f32,
    /// Base of --dry-multiplier
    #[arg(long, value_name = "F", default_value_t = 1.75, allow_negative_numbers = true)]
    dry_base: f32,
    /// Fewest repeated tokens that count for --dry-multiplier
    #[arg(long, value_name = "N", default_value_t = 2)]
    dry_allowed_length: usize,
    /// No repetition contains a token with TEXT in it, for --dry-multiplier (may be repeated; empty: all may be in one)
    #[arg(long, value_name = "TEXT", default_values = ["\n", ":", "\"", "*"], hide_default_value = true)]
    dry_sequence_breaker: Vec<String>,
    /// Tokens at the end of the text in which --dry-multiplier looks for repetitions
    #[arg(long, value_name = "N", default_value_t = 4096)]
    dry_penalty_last_n: usize,
    /// 2 keeps the surprise of the text near --mirostat-tau; 0 does not
    #[arg(long, value_name = "N", default_value_t = 0)]
    mirostat: u8,
    /// Surprise in bits that mirostat aims at
    #[arg(
        long,
        visible_alias = "mirostat-ent",
        value_name = "F",
        default_value_t = 5.0,
        allow_negative_numbers = true
    )]
    mirostat_tau: f32,
    /// Rate at which mirostat follows
    #[arg(long, visible_alias = "mirostat-lr", value_name = "F", default_value_t = 0.1, allow_negative_numbers = true)]
    mirostat_eta: f32,
    /// Add BIAS to the logit of TOKEN, a number; -inf forbids it (may be repeated)
    #[arg(long, value_name = "TOKEN=BIAS", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Divide positive logits of tokens in the text by F and multiply negative ones; 1 changes nothing [default: as the model
    /// asks, else 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Subtract F from the logits of tokens that were generated
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Subtract F from the logit of a token for each time it was generated
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Equal seeds give equal texts; -1 is a random seed
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..=MAX_SEED as i64))]
    seed: i64,
}

impl SamplingArgs {
    /// An error if a parameter is out of range; before a model is loaded, not after.
    pub fn check(&self) -> Result<()> {
        self.sampling(SamplingDefaults::default(), None).map(|_| ())
    }

    /// The checked parameters: those given, else the model's, with a random seed if none was given.
    pub fn sampling(&self, model: SamplingDefaults, tokenizer: Option<&Tokenizer>) -> Result<Sampling> {
        let sampling = Sampling {
            temperature: self.temperature.or(model.temperature).unwrap_or(0.7),
            top_k: self.top_k.or(model.top_k).unwrap_or(0),
            top_p: self.top_p.or(model.top_p).unwrap_or(1.),
            min_p: self.min_p,
            typical_p: self.typical_p,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            top_n_sigma: self.top_n_sigma,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_penalty_last_n: self.dry_penalty_last_n,
            dry_sequence_breakers: tokenizer.map_or_else(Vec::new, |tokenizer| self.breakers(tokenizer)),
            mirostat: self.mirostat,
            mirostat_tau: self.mirostat_tau,
            mirostat_eta: self.mirostat_eta,
            logit_bias: self.logit_bias.clone(),
            repeat_penalty: self.repeat_penalty.or(model.repeat_penalty).unwrap_or(1.),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            // The standard library seeds its hash maps from the system.
            seed: u64::try_from(self.seed).unwrap_or_else(|_| RandomState::new().build_hasher().finish() & MAX_SEED),
        };
        sampling.validate()?;
        Ok(sampling)
    }

    /// The tokens with a text of --dry-sequence-breaker in them, where they matter.
    fn breakers(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        if self.dry_multiplier == 0. {
            return Vec::new();
        }
        let texts = || self.dry_sequence_breaker.iter().filter(|text| !text.is_empty());
        let breaks = |token: &u32| {
            let bytes = tokenizer.token_bytes(*token).unwrap_or_default();
            texts().any(|text| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        };
        (0..tokenizer.vocab_size() as u32).filter(breaks).collect()
    }
}

/// Parses `TOKEN=BIAS`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let pair = text.split_once('=').and_then(|(token, bias)| Some((token.parse().ok()?, bias.parse().ok()?)));
    pair.ok_or_else(|| "it must be the number of a token, `=` and a number, such as 42=-1.5 or 42=-inf".into())
}

/// Parses a number of tokens to generate; -1 is no limit but the context and the model's end of text.
pub fn token_limit(text: &str) -> Result<usize, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(usize::MAX),
        Ok(n @ 1..) => Ok(usize::try_from(n).unwrap_or(usize::MAX)),
        _ => Err("it must be 1 or more, or -1 for as many as the context holds".into()),
    }
}

/// Strings that end a text.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Stop before TEXT would appear (may be repeated)
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
}

/// How a text is cut.
#[derive(Debug, Args)]
pub struct WindowArgs {
    /// Tokens of a window of the text [default: 256, or the model's context where that is less]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    window: Option<u32>,
}

impl WindowArgs {
    /// Tokens of a window for a model of this context.
    pub fn tokens(&self, context: usize) -> Result<usize> {
        let window = self.window.map_or(context.min(256), |n| n as usize);
        if window > context {
            let message = format!("--window {window} is more than the model's context of {context} tokens");
            return Err(CliError::refused(message));
        }
        Ok(window)
    }
}
