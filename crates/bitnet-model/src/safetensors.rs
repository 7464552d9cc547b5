//! Checkpoints of one safetensors file, or several with an index. The format itself is in bitnet-core.

mod shards;

pub use bitnet_core::serialize::FileError;
pub use bitnet_core::serialize::safetensors::{Dtype, Safetensors, SafetensorsWriter, TensorInfo};
pub use shards::{Located, Shards, Tensors};

/// A safetensors file, or a set of them, that cannot be read or written. Messages are one line.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// One file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that cannot be read.
    #[error("cannot read {file}: {source}")]
    Io { file: String, source: std::io::Error },
    /// Neither `model.safetensors` nor an index exists.
    #[error("{0} has no model.safetensors and no model.safetensors.index.json; is it a Hugging Face checkpoint?")]
    NoModel(String),
    /// The index is damaged, unsafe or contradicts the files.
    #[error("model.safetensors.index.json: {0}")]
    Index(String),
    /// A required tensor is missing.
    #[error("tensor {0} is missing; the checkpoint is incomplete or of another architecture")]
    MissingTensor(String),
}
