//! Errors of tensor files.

use super::output::WriteError;
use super::safetensors::Dtype;

/// An error of reading or writing a tensor file. Messages are one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is damaged or inconsistent.
    #[error("{file} is not a readable {format} file ({reason}): it is cut short or damaged; fetch it again")]
    Damaged {
        /// Name of the file.
        file: String,
        /// The format it should have.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The file may be valid, but its content cannot be a tensor.
    #[error("{file}: {problem}")]
    Unreadable {
        /// Name of the file.
        file: String,
        /// What is in it, and what to do.
        problem: String,
    },
    /// No tensor of the requested name.
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
        /// The types that can.
        expected: &'static str,
    },
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Text from a file prepared for an error message: one line, truncated.
pub fn one_line(text: &str) -> String {
    let short: String = text.chars().take(160).collect();
    short.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}
