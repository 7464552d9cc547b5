//! `bitnet bench`: speed, and the limits of the machine measured in the same run.

use crate::args::{ModelArgs, at_most_cores, cores};
use crate::error::{CliError, Result};
use crate::limits::Limits;
use crate::progress::Progress;
use crate::{load, memory, output};
use bitnet::core::device::Isa;
use bitnet::core::{BitNetError, Device};
use bitnet::inference::{CacheUsage, Engine, EngineOptions, KvType, Model, Request, Sampling, Session};
use bitnet::model::Config;
use bitnet::model::checkpoint::{RandomWeights, Weights};
use bitnet::model::config::{Architecture, Block, HiddenAct, QkNorm, QuantizationConfig, RopeConfig, RopeScaling};
use bitnet::quant::ActivationRule;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

mod roofline;

/// Repetitions of each test; the median is reported.
const REPEATS: usize = 3;
/// Tokens before a decode test begins.
const CONTEXT: usize = 16;
/// Prompt lengths without `-p`, those of them that fit the context.
const PROMPTS: [usize; 2] = [128, 512];
/// Seconds of each probe.
const SECONDS: f64 = 0.5;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet bench --shape 2b4t -t 1,2
  bitnet bench --model bitnet-2b4t.gguf -p 512 -n 128 --format markdown
  bitnet bench --shape 2b4t -b 1,2,4,8
  bitnet bench --shape 350m --profile

pp128 reads a prompt of 128 tokens at once, tg64 decodes 64 tokens one by one after a short context, without choosing \
them; each is the median of three. With -b as many sequences decode together, greedily, and tokens/s are those of all. \
The limit of prompts is the rate of 8-bit multiply-adds, that of decoding the \
bandwidth of memory.")]
pub struct BenchArgs {
    /// Random weights of a known shape, with a Q6_K embedding as head
    #[arg(long, value_name = "SHAPE", value_enum, conflicts_with = "model")]
    shape: Option<Shape>,
    /// Prompt lengths [default: 128,512]
    #[arg(short = 'p', long, value_name = "N,..", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..))]
    prompt: Vec<u32>,
    /// Tokens to generate
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    generate: u32,
    /// Numbers of sequences that decode together [default: 1]
    #[arg(short = 'b', long, value_name = "N,..", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=128))]
    batch: Vec<u16>,
    /// How keys and values are stored: f32, f16, bf16 or q8
    #[arg(long, value_name = "TYPE", default_value_t = KvType::F32)]
    kv_type: KvType,
    /// Numbers of threads [default: 1 and the number of cores]
    #[arg(short = 't', long, value_name = "N,..", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Output format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print one JSON object, as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print where the time of a step goes instead: each operation's bytes, operations, time and share of the limits
    #[arg(long, conflicts_with_all = ["json", "format"])]
    profile: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// A table in Markdown
    Markdown,
    /// Comma-separated values, a line for each test
    Csv,
    /// One JSON object
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shape {
    /// BitNet b1.58 2B4T
    #[value(name = "2b4t")]
    B2,
    /// 350 M parameters
    #[value(name = "350m")]
    M350,
    /// 125 M parameters
    #[value(name = "125m")]
    M125,
    /// Ternary Bonsai 8B, a Qwen3: a scale for every 128 weights of a row (Q2_0), activations by block32
    #[value(name = "bonsai-8b")]
    Bonsai8,
}

pub fn run(args: BenchArgs) -> Result<()> {
    let (random, checkpoint);
    let (name, weights): (String, &dyn Weights) = match args.shape {
        Some(shape) => {
            let config = shape.config();
            let activations = args.model.read.activations.unwrap_or(config.activations);
            let weights = RandomWeights::new(Config { activations, ..config }, 0);
            random = shape.group().into_iter().fold(weights, RandomWeights::with_groups);
            (format!("{}, random weights", shape.name()), &random)
        }
        None => {
            checkpoint = load::open(&load::path(&args.model)?, &args.model.read)?;
            (checkpoint.name().to_owned(), checkpoint.weights())
        }
    };
    let config = weights.config();
    let prompts = prompts(&args.prompt, config.max_positions)?;
    let generate = args.generate as usize;
    if CONTEXT + generate > config.max_positions {
        let most = config.max_positions.saturating_sub(CONTEXT);
        return Err(CliError::refused(format!("-n {generate} is too long for this model's context: at most {most}")));
    }
    let mut threads: Vec<usize> = match args.threads.is_empty() {
        true => vec![1, cores()],
        false => args.threads.iter().map(|&n| at_most_cores(n)).collect(),
    };
    threads.dedup();
    let batches: Vec<usize> = match args.batch.is_empty() {
        true => vec![1],
        false => args.batch.iter().map(|&n| usize::from(n)).collect(),
    };
    let kernel = Isa::selected().map_err(BitNetError::from)?.name();

    if args.profile {
        for &threads in &threads {
            let model = load::model(weights, &Device::cpu_with_threads(threads))?;
            let limits = Limits::measure(threads, SECONDS)?;
            output::text(&roofline::report(&model, &limits, &prompts, generate)?)?;
        }
        return Ok(());
    }
    let (mut runs, mut caches) = (Vec::new(), Vec::new());
    for &threads in &threads {
        // Weights are packed for a device with this number of threads: one model in memory at a time.
        let model = load::model(weights, &Device::cpu_with_threads(threads))?;
        caches = bench(&model, (threads, args.kv_type), &prompts, generate, &batches, &mut runs)?;
    }
    // Before the probes, whose buffers do not count.
    let peak = memory::peak_bytes();
    let limits = threads.iter().map(|&n| Limits::measure(n, SECONDS)).collect::<Result<Vec<_>>>()?;
    let report = Report { model: name, kernel, runs, limits, peak, caches };
    match args.format {
        _ if args.json => output::json(&report.json()),
        Format::Table => output::text(&report.table()),
        Format::Markdown => output::text(&report.markdown()),
        Format::Csv => output::text(&report.csv()),
        Format::Json => output::json(&report.json()),
    }
}

/// The lengths asked for, or those of the default that fit.
fn prompts(asked: &[u32], context: usize) -> Result<Vec<usize>> {
    if asked.is_empty() {
        return Ok(PROMPTS.into_iter().filter(|&n| n <= context).collect());
    }
    match asked.iter().find(|&&n| n as usize > context) {
        Some(n) => Err(CliError::refused(format!("-p {n} is more than the model's context of {context} tokens"))),
        None => Ok(asked.iter().map(|&n| n as usize).collect()),
    }
}

/// A test and its result.
struct Run {
    test: String,
    threads: usize,
    /// That run together.
    sequences: usize,
    tokens_per_second: f64,
    /// Whether it decodes: then memory is its limit, else arithmetic.
    decodes: bool,
    /// Of a token: 10^9 bytes that decoding reads, 10^9 operations of the blocks' products.
    work: f64,
}

impl Run {
    /// Name of the limit.
    fn limit(&self) -> &'static str {
        if self.decodes { "read" } else { "int8" }
    }
}

/// All measurements.
struct Report {
    model: String,
    kernel: &'static str,
    runs: Vec<Run>,
    limits: Vec<Limits>,
    /// Bytes.
    peak: Option<u64>,
    /// What the pages of sequences that decoded together held.
    caches: Vec<String>,
}

impl Report {
    /// What a run reaches of the limit of its threads.
    fn fraction(&self, run: &Run) -> Option<f64> {
        let limit = self.limits.iter().find(|l| l.threads == run.threads)?;
        Some(run.work * run.tokens_per_second / if run.decodes { limit.read } else { limit.int8 })
    }

    /// A heading, and a row for each run.
    fn rows(&self) -> Vec<Vec<String>> {
        let head = ["model", "test", "threads", "sequences", "tokens/s", "of the limit", "kernel"];
        let row = |run: &Run| {
            let of = self.fraction(run).unwrap_or(0.) * 100.;
            let of = format!("{of:.0} % of {}", run.limit());
            let rate = format!("{:.1}", run.tokens_per_second);
            let (threads, sequences) = (run.threads.to_string(), run.sequences.to_string());
            vec![self.model.clone(), run.test.clone(), threads, sequences, rate, of, self.kernel.into()]
        };
        std::iter::once(head.map(String::from).to_vec()).chain(self.runs.iter().map(row)).collect()
    }

    /// Limits and memory, a line each.
    fn notes(&self) -> Vec<String> {
        let limits = self.limits.iter().map(|limit| format!("limits, {limit}"));
        let peak = self.peak.map_or_else(|| "unknown".into(), output::bytes);
        limits.chain(self.caches.iter().cloned()).chain([format!("peak memory: {peak}")]).collect()
    }

    fn table(&self) -> String {
        output::columns(&self.rows(), "llrrrrl") + &self.notes().join("\n") + "\n"
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut rows = self.rows();
        rows.iter_mut()
            .flatten()
            .for_each(|cell| *cell = output::printable(cell).replace('\n', " ").replace('|', "\\|"));
        rows.insert(1, ["---", "---", "---:", "---:", "---:", "---:", "---"].map(String::from).to_vec());
        let notes: String = self.notes().iter().map(|note| format!("- {note}\n")).collect();
        rows.iter().map(|row| line(row)).collect::<String>() + "\n" + &notes
    }

    fn csv(&self) -> String {
        let quoted = format!("\"{}\"", self.model.replace('"', "\"\""));
        let mut text =
            "model,test,threads,sequences,tokens_per_second,limit,fraction_of_limit,kernel,peak_rss_bytes\n".to_owned();
        for run in &self.runs {
            let fraction = self.fraction(run).map_or_else(String::new, |f| f.to_string());
            let peak = self.peak.map_or_else(String::new, |bytes| bytes.to_string());
            let (test, threads, sequences) = (&run.test, run.threads, run.sequences);
            let (rate, limit, kernel) = (run.tokens_per_second, run.limit(), self.kernel);
            text += &format!("{quoted},{test},{threads},{sequences},{rate},{limit},{fraction},{kernel},{peak}\n");
        }
        text
    }

    fn json(&self) -> Value {
        let run = |run: &Run| {
            json!({
                "test": run.test,
                "threads": run.threads,
                "sequences": run.sequences,
                "tokens_per_second": run.tokens_per_second,
                "kernel": self.kernel,
                "limit": run.limit(),
                "fraction_of_limit": self.fraction(run),
            })
        };
        json!({
            "model": self.model,
            "runs": self.runs.iter().map(run).collect::<Vec<Value>>(),
            "limits": self.limits.iter().map(Limits::json).collect::<Vec<Value>>(),
            "peak_rss_bytes": self.peak,
        })
    }
}

fn bench(
    model: &Arc<Model>,
    (threads, kv_type): (usize, KvType),
    prompts: &[usize],
    generate: usize,
    batches: &[usize],
    runs: &mut Vec<Run>,
) -> Result<Vec<String>> {
    let config = model.config();
    let tokens = |count| tokens(config, count);
    let longest = prompts.iter().copied().max().unwrap_or(0).max(CONTEXT + generate);
    let mut session = Session::with_kv_type(model.clone(), longest, kv_type)?;
    session.feed(&tokens(CONTEXT))?; // page faults happen here
    let mut progress = Progress::new("measuring");

    let operations = 2. * config.block_parameters() as f64 / 1e9;
    for (done, &count) in prompts.iter().enumerate() {
        progress.update(done, prompts.len() + 1);
        let prompt = tokens(count);
        let tokens_per_second = median(count, || {
            session.truncate(0);
            let start = Instant::now();
            session.feed(&prompt)?;
            Ok(start.elapsed().as_secs_f64())
        })?;
        let test = format!("pp{count}");
        runs.push(Run { test, threads, sequences: 1, tokens_per_second, decodes: false, work: operations });
    }
    progress.update(prompts.len(), prompts.len() + 1);
    let work = model.bytes_per_token() as f64 / 1e9;
    let (context, decoded) = (tokens(CONTEXT), tokens(generate));
    let mut caches = Vec::new();
    for &sequences in batches {
        let tokens_per_second = if sequences == 1 {
            median(generate, || {
                session.truncate(0);
                session.feed(&context)?;
                let start = Instant::now();
                for token in &decoded {
                    session.feed(std::slice::from_ref(token))?;
                }
                Ok(start.elapsed().as_secs_f64())
            })?
        } else {
            let (rate, usage) = together(model, kv_type, sequences, generate)?;
            let CacheUsage { page_tokens, page_bytes, used, .. } = usage;
            let bytes = output::bytes((used * page_bytes) as u64);
            caches.push(format!("KV cache of {sequences} sequences: {used} pages of {page_tokens} tokens, {bytes}"));
            rate
        };
        // Weights are read once for all.
        let work = work / sequences as f64;
        let test = format!("tg{generate}");
        runs.push(Run { test, threads, sequences, tokens_per_second, decodes: true, work });
    }
    Ok(caches)
}

/// Tokens per second of all of `sequences` that decode together, and what the cache held at the end.
fn together(model: &Arc<Model>, kv_type: KvType, sequences: usize, generate: usize) -> Result<(f64, CacheUsage)> {
    let context = CONTEXT + generate + 1;
    let options = EngineOptions { context, parallel: sequences, kv_type, cache_tokens: None };
    let mut engine = Engine::new(model.clone(), options)?;
    let mut usage = engine.cache_usage();
    let rate = median(sequences * generate, || {
        for sequence in 0..sequences {
            // No common beginning.
            let prompt =
                (0..CONTEXT).map(|i| ((i * 7919 + sequence * 31) % model.config().vocab_size) as u32).collect();
            engine.submit(Request {
                tokens: prompt,
                sampling: Sampling::greedy(),
                max_tokens: generate + 1,
                ignore_eos: true,
                ..Request::default()
            })?;
        }
        // Prompts, until each has its first token.
        let mut started = 0;
        while started < sequences {
            started += engine.step()?.iter().filter(|event| event.cached_tokens.is_some()).count();
        }
        let start = Instant::now();
        while !engine.is_idle() {
            usage = engine.cache_usage();
            engine.step()?;
        }
        Ok(start.elapsed().as_secs_f64())
    })?;
    Ok((rate, usage))
}

/// A text of the vocabulary.
fn tokens(config: &Config, count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % config.vocab_size) as u32).collect()
}

/// `count` over the median of the seconds that `run` gives.
fn median(count: usize, mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut seconds = (0..REPEATS).map(|_| run()).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(count as f64 / seconds[REPEATS / 2])
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::B2 => "2b4t",
            Self::M350 => "350m",
            Self::M125 => "125m",
            Self::Bonsai8 => "bonsai-8b",
        }
    }

    /// Columns that share a scale; `None`: all weights of a matrix do.
    fn group(self) -> Option<usize> {
        matches!(self, Self::Bonsai8).then_some(128)
    }

    /// A BitNet b1.58 of this shape, tied, with the constants of 2B4T; for Bonsai a Qwen3.
    fn config(self) -> Config {
        let (hidden_size, intermediate_size, layers, heads, kv_heads, vocab_size) = match self {
            Self::B2 => (2560, 6912, 30, 20, 5, 128256),
            Self::M350 => (1024, 4096, 24, 16, 16, 32000),
            Self::M125 => (768, 3072, 12, 12, 12, 32000),
            Self::Bonsai8 => (4096, 12288, 36, 32, 8, 151_936),
        };
        let qwen = matches!(self, Self::Bonsai8);
        Config {
            architecture: if qwen { Architecture::Qwen3 } else { Architecture::BitNet },
            block: Block { inner_norms: !qwen, qk_norm: qwen.then_some(QkNorm::Head), ..Block::default() },
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim: hidden_size / heads,
            vocab_size,
            max_positions: 4096,
            norm_eps: 1e-5,
            rope: RopeConfig { theta: 500_000., scaling: RopeScaling::None },
            hidden_act: if qwen { HiddenAct::Silu } else { HiddenAct::Relu2 },
            tied: true,
            bos: None,
            eos: Vec::new(),
            quantization: (!qwen).then(QuantizationConfig::default),
            activations: if qwen { ActivationRule::Block32 } else { ActivationRule::Token },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_names_the_model() {
        let run = |test: &str, rate, decodes| Run {
            test: test.into(),
            threads: 2,
            sequences: 1,
            tokens_per_second: rate,
            decodes,
            work: 0.5,
        };
        let report = Report {
            model: "a, \"b\" | c".into(),
            kernel: "avx2",
            runs: vec![run("pp128", 100., false), run("tg64", 10., true)],
            limits: vec![Limits { threads: 2, read: 20., int8: 200. }],
            peak: Some(1_000_000),
            caches: Vec::new(),
        };
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            lines(&report.markdown())[..4],
            [
                "| model | test | threads | sequences | tokens/s | of the limit | kernel |",
                "| --- | --- | ---: | ---: | ---: | ---: | --- |",
                "| a, \"b\" \\| c | pp128 | 2 | 1 | 100.0 | 25 % of int8 | avx2 |",
                "| a, \"b\" \\| c | tg64 | 2 | 1 | 10.0 | 25 % of read | avx2 |",
            ]
        );
        assert_eq!(
            lines(&report.csv()),
            [
                "model,test,threads,sequences,tokens_per_second,limit,fraction_of_limit,kernel,peak_rss_bytes",
                "\"a, \"\"b\"\" | c\",pp128,2,1,100,int8,0.25,avx2,1000000",
                "\"a, \"\"b\"\" | c\",tg64,2,1,10,read,0.25,avx2,1000000",
            ]
        );
        assert_eq!(report.json()["model"], "a, \"b\" | c");
        let table = report.table();
        assert!(table.starts_with("model") && table.ends_with("peak memory: 1.00 MB\n"), "{table}");
    }
}
