//! What can go wrong with a file of tensors.

use super::output::WriteError;
use super::safetensors::Dtype;

/// A file of tensors that cannot be read or written. Messages are one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is damaged or contradicts itself.
    #[error("{file} is not a readable {format} file ({reason}): it is cut short or damaged; fetch it again")]
    Damaged {
        /// Name of the file.
        file: String,
        /// The format it should have.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The file may be sound, but holds what a tensor cannot.
    #[error("{file}: {problem}")]
    Unreadable {
        /// Name of the file.
        file: String,
        /// What is in it, and what to do.
        problem: String,
    },
    /// A tensor that was asked for is not there.
    #[error("{file} has no tensor {tensor}")]
    MissingTensor {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor of a type that cannot be read as numbers.
    #[error("tensor {tensor} has type {dtype:?}, but {expected} is needed")]
    WrongDtype {
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
        /// What would do.
        expected: &'static str,
    },
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Text from a file as an error may show it: one line, not too long.
pub fn one_line(text: &str) -> String {
    let short: String = text.chars().take(160).collect();
    short.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}
