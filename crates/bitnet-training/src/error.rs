//! What goes wrong while training.

use bitnet_core::BitNetError;
use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = TrainingError> = std::result::Result<T, E>;

/// What goes wrong while training.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// An operation on tensors.
    #[error(transparent)]
    Tensor(#[from] BitNetError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
