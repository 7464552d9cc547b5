//! `bitnet quantize`: makes a dense checkpoint ternary, without training.

use super::convert::{self, EmbeddingType, Format};
use crate::args::{ReadArgs, ThreadArgs, WindowArgs};
use crate::error::{CliError, Result};
use crate::overwrite::OverwriteArgs;
use crate::progress::Progress;
use crate::{load, output, text};
use bitnet::core::BitNetError;
use bitnet::core::Device;
use bitnet::core::serialize::output::AtomicFile;
use bitnet::inference::{CalibrationData, Method, QuantizeOptions, QuantizedWeights, quantize};
use bitnet::model::checkpoint::Checkpoint;
use bitnet::model::tokenizer::ParseSpecial;
use bitnet::quant::analysis::LayerReport;
use bitnet::quant::{ActivationRule, PackedFormat};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet quantize hf-folder                                    only the report: the loss by rounding
  bitnet quantize hf-folder out.gguf --method gptq --calibration text.txt
  bitnet quantize f16.gguf out-folder --keep '*.down_proj' --keep-sensitive 4 --report report.json --plot report.svg

The linear layers of the blocks become ternary; embeddings, norms and head stay. `rtn` rounds each weight by the mean \
magnitude of its matrix. `gptq` rounds column by column and compensates each error in the remaining columns, so that the \
outputs on the calibration text change least. For the master weights of a model that was trained ternary use `rtn`, which \
rounds as its training did, without loss; `gptq` would ruin it.

Layers are named as in a Hugging Face checkpoint: model.layers.0.self_attn.q_proj.")]
pub struct QuantizeArgs {
    /// A Hugging Face directory with dense weights, or a .gguf file of floats
    #[arg(value_name = "MODEL")]
    input: PathBuf,
    /// File to write (`-` is standard output), or directory for --to hf; without it only the report is made
    #[arg(value_name = "OUT")]
    output: Option<PathBuf>,
    /// How weights are rounded
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = MethodArg::Rtn)]
    method: MethodArg,
    /// UTF-8 text to calibrate with, needed by gptq and for the column "outputs lost"; `-` is standard input
    #[arg(long, value_name = "TEXT")]
    calibration: Option<PathBuf>,
    #[command(flatten)]
    window: WindowArgs,
    /// Stop reading the text after N windows
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    max_windows: u32,
    /// Keep layers whose names match dense; `*` matches anything (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<String>,
    /// Keep the N most sensitive layers dense
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_sensitive: usize,
    /// Format of the ternary weights [default: i2_s for a .gguf file, else hf]
    #[arg(long, value_name = "FORMAT", value_enum)]
    to: Option<Format>,
    /// Type of the embeddings and of an untied head in a .gguf file
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = EmbeddingType::F16)]
    embeddings: EmbeddingType,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the report as an SVG picture
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteArgs,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    /// Round to nearest
    Rtn,
    /// Round with error feedback
    Gptq,
}

pub fn run(args: QuantizeArgs) -> Result<()> {
    if args.method == MethodArg::Gptq && args.calibration.is_none() {
        return Err(CliError::refused("--method gptq needs a text to calibrate with: name one with --calibration"));
    }
    args.calibration.as_deref().map_or(Ok(()), text::check)?;
    let masters = load::open_masters(&args.input, &args.read)?;
    let to = args.to.unwrap_or_else(|| format_of(args.output.as_deref()));
    if let Some(out) = &args.output {
        convert::refuse_itself(&args.input, out)?;
        convert::check_output(out, to, args.overwrite)?;
    }
    [&args.report, &args.plot].into_iter().flatten().try_for_each(|path| args.overwrite.check_file(path))?;
    let trained_ternary = masters.weights().config().quantization.is_some();
    let options = QuantizeOptions {
        method: match args.method {
            MethodArg::Rtn => Method::RoundToNearest,
            MethodArg::Gptq => Method::ErrorFeedback,
        },
        keep: args.keep.clone(),
        keep_most_sensitive: args.keep_sensitive,
        format: match to {
            Format::I2S => PackedFormat::I2S,
            Format::Tq1_0 => PackedFormat::Tq1_0,
            Format::Tq2_0 => PackedFormat::Tq2_0,
            Format::Q2_0 => PackedFormat::Q2_0G64,
            Format::Pq2_0 => PackedFormat::Q2_0G128,
            Format::Hf => PackedFormat::HuggingFace,
            Format::Ptq1_0 | Format::Q1_0 | Format::Mlx => {
                let message = "a dense model is quantized to i2_s, tq1_0, tq2_0, q2_0, pq2_0 or hf: bitnet convert makes others of it";
                return Err(CliError::refused(message));
            }
        },
    };

    let tokens = args.calibration.as_deref().map(|path| calibration_tokens(&args, path, &masters)).transpose()?;
    let data = tokens.as_deref().map(|tokens| calibration(&args, tokens)).transpose()?;
    let mut progress = Progress::new("quantizing");
    let result = quantize(masters.weights(), data.as_ref(), &options, |done, total| progress.update(done, total))?;
    drop((progress, data));
    masters.check_unchanged()?;

    // Standard output may be the model's.
    let show = |text: &str| if args.output.as_deref() == Some(Path::new("-")) { Ok(()) } else { output::line(text) };
    show(&result.report.to_string())?;
    let write = |path: &Path, text: String| AtomicFile::write_bytes(path, text.as_bytes()).map_err(BitNetError::from);
    if let Some(path) = &args.report {
        write(path, format!("{:#}\n", result.report.to_json()))?;
    }
    if let Some(path) = &args.plot {
        write(path, result.report.to_svg())?;
    }
    let summary = summary(&result.report.layers, args.method);
    if let Some(out) = &args.output {
        let rule = args.read.activations.unwrap_or(ActivationRule::Token);
        let checkpoint = masters.map_weights(|source| Box::new(QuantizedWeights::new(source, result, rule)));
        convert::write(&checkpoint, out, to, args.embeddings)?;
    }
    output::note(&summary);
    if trained_ternary && args.method == MethodArg::Gptq {
        output::note(TRAINED_TERNARY);
    }
    Ok(())
}

const TRAINED_TERNARY: &str = "\
warning: this model was trained ternary: `--method rtn` rounds its master weights as its training did and loses nothing, \
gptq makes it worse (perplexity 34 became 83 on one model): compare with bitnet perplexity";

/// The outcome on one line.
fn summary(layers: &[LayerReport], method: MethodArg) -> String {
    let ternary: Vec<&LayerReport> = layers.iter().filter(|layer| layer.weights.is_some()).collect();
    let method = match method {
        MethodArg::Rtn => "rtn",
        MethodArg::Gptq => "gptq",
    };
    let mut text =
        format!("{} of {} made ternary by {method}", ternary.len(), output::counted(layers.len(), "linear layer"));
    let worst = ternary.iter().max_by(|a, b| a.sensitivity().total_cmp(&b.sensitivity()));
    if let Some(worst) = worst {
        text += &match worst.output_error {
            Some(lost) => format!("; most lost: {:.1} % of the outputs of {}", lost * 100., worst.name),
            None => format!("; most lost: {:.1} % of the weights of {}", worst.sensitivity() * 100., worst.name),
        };
    }
    text
}

fn format_of(out: Option<&Path>) -> Format {
    let gguf = |out: &Path| out.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    if out.is_some_and(gguf) { Format::I2S } else { Format::Hf }
}

/// The start of the calibration text, as much as will be read.
fn calibration_tokens(args: &QuantizeArgs, path: &Path, masters: &Checkpoint) -> Result<Vec<u32>> {
    let tokenizer = masters.tokenizer()?;
    let window = args.window.tokens(masters.weights().config().max_positions)?;
    let text = text::read_start(path, tokenizer, window.saturating_mul(args.max_windows as usize))?;
    Ok(tokenizer.encode_with(&text, false, ParseSpecial::No)?)
}

/// The model as it runs before it is quantized, and the windows of the text.
fn calibration<'a>(args: &QuantizeArgs, tokens: &'a [u32]) -> Result<CalibrationData<'a>> {
    let checkpoint = load::open(&args.input, &args.read)?;
    let window = args.window.tokens(checkpoint.weights().config().max_positions)?;
    let model = load::model(checkpoint.weights(), &Device::cpu_with_threads(args.threads.count()))?;
    let most = window.saturating_mul(args.max_windows as usize).min(tokens.len());
    if most == 0 {
        return Err(CliError::refused("the calibration text is empty"));
    }
    Ok(CalibrationData { model, tokens: &tokens[..most], window })
}
