//! `bitnet inspect`: the contents of a checkpoint, without loading it.

use crate::args::{ModelArgs, ReadArgs};
use crate::error::Result;
use crate::{load, output};
use bitnet::model::checkpoint::{Checkpoint, LinearSource, Norm, Projection, TensorSummary, WeightSource, Weights};
use bitnet::model::tokenizer::Tokenizer;
use bitnet::model::{Config, ModelError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Positions of the cache whose memory is reported.
const CACHE_POSITIONS: usize = 1000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bitnet inspect bitnet-2b4t.gguf
  bitnet inspect hf-folder --tensors
  bitnet inspect owner/name:Q2_0                       a GGUF file of a repository of the hub
  bitnet inspect hf-folder --json | jq .parameters
  bitnet inspect bitnet-2b4t.gguf --tokenize \"Hello world\"")]
pub struct InspectArgs {
    /// A Hugging Face directory, a .gguf file, or owner/name of the hub [default: the first models/*.gguf from here upwards]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Print the tokens of TEXT as a prompt, ids and pieces, and nothing else
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "tensors")]
    tokenize: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArgs,
}

pub fn run(args: InspectArgs) -> Result<()> {
    let model = ModelArgs { model: args.path, read: args.read };
    let path = load::path(&model)?;
    let checkpoint = load::open_to_inspect(&path, &model.read)?;
    if let Some(text) = &args.tokenize {
        return tokens(checkpoint.tokenizer()?, text, args.json);
    }
    let report = Report::new(&checkpoint);
    if args.json {
        return output::json(&report.json(&path, args.tensors));
    }
    output::text(&report.text(&path, args.tensors))
}

/// Prints the tokens of a prompt.
fn tokens(tokenizer: &Tokenizer, text: &str, as_json: bool) -> Result<()> {
    let ids = tokenizer.encode(text, true)?;
    let pieces = ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default()));
    if as_json {
        return output::json(&json!({ "ids": ids, "pieces": pieces.collect::<Vec<_>>() }));
    }
    let row = |(id, piece): (&u32, _)| vec![id.to_string(), format!("{piece:?}")];
    output::text(&output::columns(&ids.iter().zip(pieces).map(row).collect::<Vec<_>>(), "rl"))
}

/// The report, as text and as JSON.
struct Report<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    tokenizer: Result<&'a Tokenizer, ModelError>,
    /// Type: tensors and bytes.
    types: BTreeMap<&'a str, (usize, u64)>,
    parameters: usize,
    /// Bytes of the weights in memory; `None` if they cannot be read; `notes` then says why.
    weight_bytes: Option<usize>,
    notes: Vec<String>,
}

impl<'a> Report<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Self {
        let config = checkpoint.weights().config();
        let tokenizer = checkpoint.tokenizer();
        let mut notes = checkpoint.notes().to_vec();
        let weight_bytes = memory_of_weights(checkpoint.weights());
        if let Err(e) = &weight_bytes {
            notes.push(format!("cannot run: {e}"));
        }
        let mut types = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            let entry: &mut (usize, u64) = types.entry(tensor.kind.as_str()).or_default();
            *entry = (entry.0 + 1, entry.1 + tensor.bytes as u64);
        }
        let embeddings = config.vocab_size * config.hidden_size * if config.tied { 1 } else { 2 };
        let norms: usize = Norm::all(config).map(|norm| norm.len(config)).sum();
        let parameters = config.block_parameters() + embeddings + norms;
        Self { checkpoint, config, tokenizer, types, parameters, weight_bytes: weight_bytes.ok(), notes }
    }

    /// Bytes of keys and values of [`CACHE_POSITIONS`] positions, f32.
    fn cache_bytes(&self) -> usize {
        let attending = (0..self.config.layers).filter(|&layer| self.config.block.delta(layer).is_none()).count();
        2 * attending * self.config.kv_size() * CACHE_POSITIONS * size_of::<f32>()
    }

    fn file_bytes(&self) -> u64 {
        self.types.values().map(|(_, bytes)| bytes).sum()
    }

    fn text(&self, path: &Path, tensors: bool) -> String {
        let c = self.config;
        let mut rows = vec![
            ("path", path.display().to_string()),
            ("format", self.checkpoint.format().to_string()),
            ("architecture", format!("{}, {} gate", self.config.architecture.name(), c.hidden_act.name())),
            (
                "parameters",
                format!(
                    "{}, {} of them in {}",
                    output::count(self.parameters as u64),
                    output::count(c.block_parameters() as u64),
                    output::counted(c.layers, "block")
                ),
            ),
            ("width", format!("hidden {}, intermediate {}", c.hidden_size, c.intermediate_size)),
            ("heads", format!("{} of {}, {} for keys and values", c.heads, c.head_dim, c.kv_heads)),
            ("activations", format!("{} in ternary layers", c.activations)),
            ("context", format!("{} tokens, rope base {}", c.max_positions, c.rope.theta)),
            ("vocabulary", format!("{} tokens, {} head", c.vocab_size, if c.tied { "tied" } else { "separate" })),
            ("tokenizer", self.tokenizer.as_ref().map_or_else(|_| "none".into(), |t| describe(t))),
        ];
        let types = self.types.iter().map(|(kind, (n, bytes))| format!("{n} {kind} ({})", output::bytes(*bytes)));
        rows.push(("tensors", types.collect::<Vec<_>>().join(", ")));
        let cache = output::bytes(self.cache_bytes() as u64);
        let weights = self.weight_bytes.map_or_else(|| "unknown".into(), |n| output::bytes(n as u64));
        rows.push(("memory", format!("{weights} for weights, {cache} for {CACHE_POSITIONS} tokens of context")));
        rows.extend(self.notes.iter().map(|note| ("note", note.clone())));
        let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
        let mut text = output::columns(&rows, "ll");
        if tensors {
            let row = |t: &TensorSummary| vec![t.name.clone(), t.kind.clone(), shape(t), t.bytes.to_string()];
            text.push('\n');
            text += &output::columns(&self.checkpoint.tensors().iter().map(row).collect::<Vec<_>>(), "lllr");
        }
        text
    }

    fn json(&self, path: &Path, tensors: bool) -> Value {
        let c = self.config;
        let mut value = json!({
            "path": path.display().to_string(),
            "format": self.checkpoint.format(),
            "architecture": self.config.architecture.name(),
            "activations": c.activations.name(),
            "hidden_act": c.hidden_act.name(),
            "hidden_size": c.hidden_size,
            "intermediate_size": c.intermediate_size,
            "layers": c.layers,
            "heads": c.heads,
            "kv_heads": c.kv_heads,
            "head_dim": c.head_dim,
            "vocab_size": c.vocab_size,
            "max_positions": c.max_positions,
            "tied": c.tied,
            "parameters": { "total": self.parameters, "blocks": c.block_parameters() },
            "tensor_types": self.types.iter()
                .map(|(kind, (n, bytes))| (kind.to_string(), json!({ "tensors": n, "bytes": bytes })))
                .collect::<serde_json::Map<_, _>>(),
            "tensor_bytes": self.file_bytes(),
            "tokenizer": self.tokenizer.as_ref().ok().map(|t| json!({
                "vocab_size": t.vocab_size(),
                "bos": t.special().bos,
                "eos": t.special().eos,
                "stop": t.special().stop,
                "chat_template": t.chat_template_source().is_some(),
            })),
            "memory": { "weight_bytes": self.weight_bytes, "cache_bytes_per_1000_tokens": self.cache_bytes() },
            "notes": self.notes,
        });
        if tensors {
            let row = |t: &TensorSummary| json!({ "name": t.name, "type": t.kind, "shape": t.shape, "bytes": t.bytes });
            value["tensors"] = self.checkpoint.tensors().iter().map(row).collect();
        }
        value
    }
}

fn describe(t: &Tokenizer) -> String {
    let id = |name: &str, id: Option<u32>| id.map(|id| format!(", {name} {id}")).unwrap_or_default();
    let template = if t.chat_template_source().is_some() { "with" } else { "without" };
    let special = t.special();
    let roles = id("begin", special.bos) + &id("end", special.eos);
    format!("{} tokens{roles}, {template} chat template", t.vocab_size())
}

fn shape(t: &TensorSummary) -> String {
    t.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
}

/// Bytes of all weights once loaded, estimated from the first and the last block of each kind.
fn memory_of_weights(weights: &dyn Weights) -> Result<usize, ModelError> {
    let config = weights.config();
    let mut blocks = 0;
    for delta in [false, true] {
        let layers: Vec<usize> =
            (0..config.layers).filter(|&layer| config.block.delta(layer).is_some() == delta).collect();
        let (Some(&first), Some(&last)) = (layers.first(), layers.last()) else { continue };
        for projection in Projection::of_layer(&config.block, first) {
            let [first, last] = [first, last].map(|layer| weights.linear(layer, projection).map(|l| memory_of(&l)));
            blocks += layers.len() * first?.midpoint(last?);
        }
    }
    let head = weights.head()?.map_or(0, |head| memory_of(&head));
    let norms: usize = Norm::all(config).map(|norm| norm.len(config) * size_of::<f32>()).sum();
    Ok(blocks + head + weights.embedding()?.bytes().len() + norms)
}

/// Ternary weights take 2 bits, others what the file gives them.
fn memory_of(linear: &LinearSource) -> usize {
    let weight = match &linear.weight {
        WeightSource::Ternary { codes, .. } => codes.as_bytes().len(),
        WeightSource::Dense(dense) => dense.bytes().len(),
    };
    let vector = |v: Option<usize>| v.unwrap_or(0) * size_of::<f32>();
    weight + vector(linear.bias.as_ref().map(Vec::len)) + vector(linear.inner_norm.as_ref().map(|(w, _)| w.len()))
}
