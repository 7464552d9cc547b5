//! Errors of GGUF files.

use bitnet_core::serialize::WriteError;

/// A GGUF file that cannot be read or written. Messages are one line.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file does not start with `GGUF`.
    #[error("not a GGUF file: it starts with \"{}\" instead of \"GGUF\"", .0.escape_ascii())]
    NotGguf(Vec<u8>),
    /// A byte order that is not read.
    #[error("a big-endian GGUF file; convert it to little-endian (gguf-py has gguf_convert_endian)")]
    BigEndian,
    /// A version that is not read.
    #[error("GGUF version {0} is not supported (2 and 3 are); convert the model again from its original checkpoint")]
    Version(u32),
    /// The file is truncated.
    #[error(
        "the file ends at byte {have} inside {what}, which takes {need} bytes from byte {at}: \
         it is cut short or damaged; fetch it again"
    )]
    Truncated {
        what: String,
        at: usize,
        need: u64,
        /// The length of the file.
        have: usize,
    },
    /// Something contradicts the format.
    #[error("{what}: {problem}; the file is damaged, fetch or convert it again")]
    Malformed { what: String, problem: String },
    /// A tensor of an unsupported or unknown type.
    #[error("tensor {tensor} has type {name} (number {number}), which is not supported: {advice}")]
    UnsupportedType { tensor: String, name: &'static str, number: u32, advice: &'static str },
    /// A required tensor is missing.
    #[error("tensor {0} is missing; the file is incomplete or of another architecture")]
    MissingTensor(String),
    /// A required metadata key is missing.
    #[error("metadata key {0} is missing; convert the model again with a complete converter")]
    MissingKey(String),
    /// A metadata value of another kind than expected.
    #[error("metadata key {key} should be {expected}, but is {found}")]
    WrongKind { key: String, expected: &'static str, found: String },
    /// A tensor whose rows are not whole blocks of its type.
    #[error("tensor {tensor}: rows of {cols} are not whole blocks of {block} of type {name}")]
    RowNotBlocks {
        tensor: String,
        /// Length of its rows.
        cols: usize,
        block: usize,
        name: &'static str,
    },
    /// A file that is a part of a model.
    #[error("{0}")]
    Split(String),
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A name from a file prepared for an error message: one line, truncated.
pub(super) fn one_line(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    let more = if short.len() < name.len() { "..." } else { "" };
    format!("\"{}{more}\"", short.escape_debug())
}
