//! Errors of inference.

/// Result of everything in this crate.
pub type Result<T, E = InferenceError> = std::result::Result<T, E>;

/// An error of inference.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// A tensor operation or a device.
    #[error(transparent)]
    Core(#[from] bitnet_core::BitNetError),
    /// A checkpoint.
    #[error(transparent)]
    Model(#[from] bitnet_model::ModelError),
    /// Encoding or decoding of text.
    #[error(transparent)]
    Tokenizer(#[from] bitnet_model::tokenizer::TokenizerError),
    /// Quantization of weights.
    #[error(transparent)]
    Quant(#[from] bitnet_quant::QuantError),
    /// A model cannot be quantized with the given options.
    #[error("{0}")]
    Quantize(String),
    /// An empty prompt.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// A token outside the vocabulary.
    #[error("token {id} is outside the model's vocabulary of {vocab} tokens: is the tokenizer another model's?")]
    TokenOutOfRange { id: u32, vocab: usize },
    /// More tokens than the context holds.
    #[error("{needed} tokens do not fit the context of {capacity}: shorten the prompt or generate fewer tokens")]
    ContextFull { needed: usize, capacity: usize },
    /// No page of the cache is left.
    #[error("all {pages} pages of the KV cache are in use: wait for a sequence to end, or give more memory")]
    CacheFull { pages: usize },
    /// Too many sequences at once, or none.
    #[error("{given} sequences at once; it must be between 1 and {most}")]
    Parallel { given: usize, most: usize },
    /// A sampling parameter outside its range.
    #[error("{name} is {value}; it must be {range}")]
    Sampling { name: &'static str, value: f64, range: &'static str },
    /// No finite logits.
    #[error(
        "no token has a finite logit: the model's weights are damaged or not of this architecture, or all tokens are forbidden"
    )]
    NoFiniteLogits,
    /// A text too short to score.
    #[error("the text has {tokens} tokens, but a window needs {needed}: give a longer text or a smaller --window")]
    TextTooShort {
        tokens: usize,
        /// Tokens of a window and its last target.
        needed: usize,
    },
}
