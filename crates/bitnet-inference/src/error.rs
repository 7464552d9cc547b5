//! Errors of inference.

/// Result of everything in this crate.
pub type Result<T, E = InferenceError> = std::result::Result<T, E>;

/// An error of inference.
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
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// Tokens of the model.
        vocab: usize,
    },
    /// More tokens than the context holds.
    #[error("{needed} tokens do not fit the context of {capacity}: shorten the prompt or generate fewer tokens")]
    ContextFull {
        /// Tokens asked for, those before included.
        needed: usize,
        /// Room of the session.
        capacity: usize,
    },
    /// A sampling parameter outside its range.
    #[error("{name} is {value}; it must be {range}")]
    Sampling {
        /// Parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
    /// No finite logits.
    #[error("the model produced no finite logits: its weights are damaged or not of this architecture")]
    NoFiniteLogits,
    /// A text too short to score.
    #[error("the text has {tokens} tokens, but a window needs {needed}: give a longer text or a smaller --window")]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window and its last target.
        needed: usize,
    },
}
