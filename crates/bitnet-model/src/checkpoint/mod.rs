//! Checkpoints of all formats, through one interface.

mod adapter;
mod gguf;
pub(crate) mod gguf_config;
pub mod gguf_names;
pub(crate) mod gguf_vocab;
pub(crate) mod hf;
pub(crate) mod mlx;
mod pooling;
mod random;
mod sampling;
mod weights;

pub use adapter::{AdaptedWeights, Adapter, LowRank, Place};
pub use bitnet_quant::formats::i2_s::I2sOrder;
pub use pooling::Pooling;
pub use random::RandomWeights;
pub use sampling::SamplingDefaults;
pub use weights::{DeltaSource, DenseTensor, LinearSource, Norm, Projection, WeightSource, Weights};

use crate::tokenizer::Tokenizer;
use crate::{ModelError, Result};
use bitnet_core::MappedFile;
use bitnet_core::backend::ActivationRule;
use std::path::Path;
use std::sync::Arc;

/// Options for what a checkpoint does not record.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Order of blocks in I2_S tensors. `None`: inferred from the preceding norms
    /// ([`OrderHint`](bitnet_quant::formats::i2s_order::OrderHint)), x86 without evidence.
    pub i2s_order: Option<I2sOrder>,
    /// How the inputs of ternary layers are rounded. `None`: as the checkpoint says.
    pub activations: Option<ActivationRule>,
    /// Whether master weights (`quantization_mode: "online"`) are kept dense, to be quantized in another way.
    pub keep_master_weights: bool,
}

/// An entry of the checkpoint's list of tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSummary {
    /// Name.
    pub name: String,
    /// Type, as named by the format.
    pub kind: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub bytes: usize,
}

/// A checkpoint: weights, tokenizer and warnings. Opening maps the files and reads only headers.
pub struct Checkpoint {
    weights: Box<dyn Weights>,
    /// `None`: the checkpoint has none; an error: it cannot be used.
    tokenizer: Option<std::result::Result<Tokenizer, String>>,
    name: String,
    format: String,
    tensors: Vec<TensorSummary>,
    notes: Vec<String>,
    guesses: Vec<String>,
    files: Vec<Arc<MappedFile>>,
    sampling: SamplingDefaults,
    pooling: Option<Pooling>,
}

impl Checkpoint {
    /// Opens a Hugging Face directory or a GGUF file. A safetensors file stands for the directory that it lies in.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let path = folder_of_weights(path).unwrap_or(path);
        let metadata = std::fs::metadata(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
        let mut checkpoint =
            if metadata.is_dir() { Self::open_folder(path, options) } else { Self::open_gguf(path, options) }?;
        let name = if metadata.is_dir() { path.file_name() } else { path.file_stem() };
        checkpoint.name = name.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(checkpoint)
    }

    fn open_folder(path: &Path, options: &OpenOptions) -> Result<Self> {
        if !path.join("config.json").is_file() {
            let problem = "is no checkpoint: it has no config.json (pass a Hugging Face directory or a .gguf file)";
            return Err(ModelError::Config(problem.into()).in_file(path));
        }
        let hf = hf::HuggingFace::open(path, options)?;
        let mut notes = hf.notes();
        let unused = hf.unused();
        if let Some(first) = unused.first() {
            notes.push(match unused.len() {
                1 => format!("the tensor {first} is not used by this architecture"),
                n => format!("{n} tensors are not used by this architecture, {first} for one"),
            });
        }
        let tokenizer = match path.join("tokenizer.json").is_file() {
            true => Some(Tokenizer::from_file(path).map_err(|e| e.to_string())),
            false => None,
        };
        let files = hf.files().to_vec();
        let sampling = SamplingDefaults::of_folder(path)?;
        let pooling = Pooling::of_folder(path)?.or(hf.has_own_norms().then_some(Pooling::Last));
        Ok(Self { sampling, pooling, ..Self::new(hf.format(), hf.summaries(), tokenizer, notes, files, Box::new(hf)) })
    }

    fn open_gguf(path: &Path, options: &OpenOptions) -> Result<Self> {
        let gguf = gguf::GgufCheckpoint::open(path, options)?;
        let tokenizer = gguf.vocab().transpose();
        let tokenizer = tokenizer.map(|v| v.and_then(|v| Ok(Tokenizer::from_gguf(&v)?)).map_err(|e| e.to_string()));
        let files = gguf.files().to_vec();
        let sampling = SamplingDefaults::of_gguf(gguf.metadata());
        // BitNet-embedding takes the last token, whatever its converter writes.
        let own_norms = gguf.has_own_norms().then_some(Pooling::Last);
        let pooling = own_norms.map_or_else(|| Pooling::of_gguf(gguf.metadata()), |last| Ok(Some(last)))?;
        Ok(Self {
            sampling,
            pooling,
            guesses: gguf.guesses(),
            ..Self::new(gguf.format(), gguf.summaries(), tokenizer, gguf.notes(), files, Box::new(gguf))
        })
    }

    fn new(
        format: String,
        tensors: Vec<TensorSummary>,
        tokenizer: Option<std::result::Result<Tokenizer, String>>,
        mut notes: Vec<String>,
        files: Vec<Arc<MappedFile>>,
        weights: Box<dyn Weights>,
    ) -> Self {
        match &tokenizer {
            Some(Ok(tokenizer)) => {
                notes.extend(tokenizer.warnings().iter().cloned());
                let (have, model) = (tokenizer.vocab_size(), weights.config().vocab_size);
                if have > model {
                    notes.push(format!("the tokenizer has {have} tokens, the model {model}"));
                }
            }
            Some(Err(why)) => notes.push(format!("the tokenizer cannot be used: {why}")),
            None => notes.push("no tokenizer".into()),
        }
        let sampling = SamplingDefaults::default();
        Self {
            weights,
            tokenizer,
            name: String::new(),
            format,
            tensors,
            notes,
            guesses: Vec::new(),
            files,
            sampling,
            pooling: None,
        }
    }

    /// The weights, with their configuration.
    pub fn weights(&self) -> &dyn Weights {
        &*self.weights
    }

    /// The same checkpoint with weights derived from its own.
    pub fn map_weights(self, change: impl FnOnce(Box<dyn Weights>) -> Box<dyn Weights>) -> Self {
        Self { weights: change(self.weights), ..self }
    }

    /// The same checkpoint with adapters, beside its weights or merged into them.
    ///
    /// # Errors
    /// As [`AdaptedWeights::new`].
    pub fn with_adapters(self, adapters: Vec<Adapter>, merged: bool) -> Result<Self> {
        Ok(Self { weights: Box::new(AdaptedWeights::new(self.weights, adapters, merged)?), ..self })
    }

    /// The tokenizer, or why there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.source_tokenizer().unwrap_or_else(|| Err(ModelError::NoTokenizer("it has none".into())))
    }

    /// As [`tokenizer`](Self::tokenizer), with `None` for a checkpoint that has none.
    pub(crate) fn source_tokenizer(&self) -> Option<Result<&Tokenizer>> {
        Some(self.tokenizer.as_ref()?.as_ref().map_err(|why| ModelError::NoTokenizer(why.clone())))
    }

    /// Name of its file or directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Description of the file format and the form of the weights.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// Its list of tensors.
    pub fn tensors(&self) -> &[TensorSummary] {
        &self.tensors
    }

    /// An error if one of its files was written to since it was opened, so that weights may not be what they were.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| Ok(file.check_unchanged()?))
    }

    /// How it asks to be sampled.
    pub fn sampling(&self) -> SamplingDefaults {
        self.sampling
    }

    /// Those of its [`notes`](Self::notes) that the text which it makes depends on and that may be wrong.
    pub fn guesses(&self) -> &[String] {
        &self.guesses
    }

    /// How it asks for the vector of a text; `None`: it does not say.
    pub fn pooling(&self) -> Option<Pooling> {
        self.pooling
    }

    /// Warnings, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The directory of a safetensors file or its index.
fn folder_of_weights(path: &Path) -> Option<&Path> {
    let name = path.file_name()?.to_str()?;
    let weights = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
    let folder = path.parent().filter(|_| weights && path.is_file())?;
    Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}
