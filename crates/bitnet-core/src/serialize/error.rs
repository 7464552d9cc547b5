//! Errors of tensor files.

use super::output::WriteError;
use super::safetensors::Dtype;

/// An error of reading or writing a tensor file. Messages are one line.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is damaged or inconsistent.
    #[error("{file} is not a readable {format} file ({reason}): it is cut short or damaged; fetch it again")]
    Damaged { file: String, format: &'static str, reason: String },
    /// The file may be valid, but its content cannot be a tensor.
    #[error("{file}: {problem}")]
    Unreadable {
        file: String,
        /// What is in it, and what to do.
        problem: String,
    },
    /// No tensor of the requested name.
    #[error("{file} has no tensor {tensor}")]
    MissingTensor { file: String, tensor: String },
    /// A tensor of a type that cannot be read as numbers.
    #[error("tensor {tensor} has type {dtype:?}, but {expected} is needed")]
    WrongDtype { tensor: String, dtype: Dtype, expected: &'static str },
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<FileError> for crate::BitNetError {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}

impl From<WriteError> for crate::BitNetError {
    fn from(error: WriteError) -> Self {
        FileError::from(error).into()
    }
}

/// Text from a file prepared for an error message: one line, truncated.
pub fn one_line(text: &str) -> String {
    let short: String = text.chars().take(160).collect();
    short.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}
