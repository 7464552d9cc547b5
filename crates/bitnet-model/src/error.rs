//! Errors of checkpoints.

use std::path::PathBuf;

/// Result of everything in this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// An error of a checkpoint's files. Every message is one line that says what is wrong and, if possible, what to do.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// What is wrong in one file.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: Box<ModelError> },
    /// A GGUF file is malformed or holds what cannot be read.
    #[error(transparent)]
    Gguf(#[from] crate::gguf::GgufError),
    /// A safetensors file or its index is malformed.
    #[error(transparent)]
    Safetensors(#[from] crate::safetensors::SafetensorsError),
    /// A file could not be written; an existing file was kept.
    #[error(transparent)]
    Write(#[from] bitnet_core::serialize::WriteError),
    /// A configuration is malformed, contradictory or of another kind of model.
    #[error("config: {0}")]
    Config(String),
    /// A tokenizer, vocabulary or chat template.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// A tensor is missing, or its shape or type is not the one the model needs.
    #[error("tensor {name}: {problem}")]
    Tensor { name: String, problem: String },
    /// A checkpoint without a tokenizer that can be used.
    #[error(
        "the checkpoint has no usable tokenizer ({0}): use a checkpoint that has one, or give token ids where the command takes them"
    )]
    NoTokenizer(String),
    /// A model of the hub that cannot be had.
    #[error("there is no path {repository}, and as a model of the Hugging Face hub: {problem}")]
    Hub { repository: String, problem: String },
    /// A conversion that the target format cannot hold.
    #[error("cannot convert: {0}")]
    Convert(String),
    /// A ternary format.
    #[error(transparent)]
    Quant(#[from] bitnet_quant::QuantError),
    /// Memory, devices, tensors.
    #[error(transparent)]
    Core(#[from] bitnet_core::BitNetError),
}

impl From<bitnet_core::serialize::FileError> for ModelError {
    fn from(error: bitnet_core::serialize::FileError) -> Self {
        Self::Safetensors(error.into())
    }
}

impl ModelError {
    /// This error with its file.
    pub fn in_file(self, path: impl Into<PathBuf>) -> Self {
        match self {
            Self::Io { .. } | Self::File { .. } => self,
            source => Self::File { path: path.into(), source: Box::new(source) },
        }
    }

    /// An error of a named tensor.
    pub fn tensor(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Tensor { name: name.into(), problem: problem.into() }
    }
}
