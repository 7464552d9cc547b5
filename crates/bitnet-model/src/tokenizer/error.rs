//! Errors of tokenizers and chat templates.

use std::path::PathBuf;

/// An error of reading, building or using a tokenizer or a chat template.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// A file that is not valid JSON or is incomplete.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// The file or the part of it, e.g. `tokenizer.json`.
        what: String,
        why: String,
    },
    /// An inconsistent vocabulary.
    #[error("vocabulary is not valid: {0}")]
    Vocabulary(String),
    /// A valid tokenizer of an unsupported kind.
    #[error("unsupported tokenizer: {0}")]
    Unsupported(String),
    /// The text cannot be expressed in this vocabulary.
    #[error("cannot tokenize this text: {0}")]
    Encode(String),
    /// A token id that the vocabulary does not have.
    #[error("token id {id} is outside the vocabulary of {vocab_size} tokens")]
    TokenId { id: u32, vocab_size: usize },
    /// A file could not be written whole; what was there before is still there.
    #[error(transparent)]
    Write(bitnet_core::serialize::WriteError),
    /// A chat template that does not compile or does not render.
    #[error("chat template: {0}")]
    Template(String),
}

impl TokenizerError {
    pub(crate) fn invalid(what: &str, why: impl ToString) -> Self {
        Self::Invalid { what: what.to_owned(), why: why.to_string() }
    }
}

pub(crate) type Result<T> = std::result::Result<T, TokenizerError>;
