//! What goes wrong while training.

use bitnet_core::BitNetError;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = TrainingError> = std::result::Result<T, E>;

/// What goes wrong while training.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// An operation on tensors.
    #[error(transparent)]
    Tensor(#[from] BitNetError),
    /// A tokenizer could not be read or used.
    #[error(transparent)]
    Tokenizer(#[from] bitnet_model::tokenizer::TokenizerError),
    /// A configuration or checkpoint of a model.
    #[error(transparent)]
    Model(#[from] bitnet_model::ModelError),
    /// A parameter that a model needs.
    #[error("tensor {name} is missing: is this a checkpoint of another model?")]
    MissingTensor {
        /// Of the parameter.
        name: String,
    },
    /// A tensor that no parameter takes.
    #[error("tensor {name} belongs to no parameter: is this a checkpoint of another model?")]
    UnexpectedTensor {
        /// Of the tensor.
        name: String,
    },
    /// A tensor of another shape.
    #[error("{name} is {got:?}, needed {needed:?}")]
    TensorShape {
        /// Of the tensor.
        name: String,
        /// Its extents.
        got: Vec<usize>,
        /// What they should be.
        needed: Vec<usize>,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A configuration that cannot be.
    #[error("{file}{line}: {key}{problem}")]
    Config {
        /// Name of the file.
        file: String,
        /// `:12`, or nothing where no line is at fault.
        line: String,
        /// `model.heads: `, or nothing where no key is at fault.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file of tokens or texts that cannot be used.
    #[error("{path}: {problem}")]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A checkpoint or run directory that cannot be used.
    #[error("{path}: {problem}")]
    Run {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Something that was asked for cannot be; says what can.
    #[error("{0}")]
    Invalid(String),
}

impl TrainingError {
    /// What the system said about a file.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn data(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    pub(crate) fn run(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Run { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}
