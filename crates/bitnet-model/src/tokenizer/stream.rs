//! Streaming decoder: text from tokens, in whole characters.

use super::error::Result;
use super::{Tokenizer, TokenizerError};

/// What precedes the first token of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStart {
    /// Nothing: SentencePiece's artificial leading space is removed.
    Text,
    /// Other text (a prompt): a leading space is kept.
    Continuation,
}

/// Decodes a stream of token ids to text.
///
/// Bytes of an incomplete character are withheld until it is complete. The texts of
/// all pushes and of [`finish`](Self::finish) together are exactly [`Tokenizer::decode`] of all ids.
/// Bytes that are not UTF-8 become U+FFFD as in [`String::from_utf8_lossy`].
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    pending: Vec<u8>,
    text: String,
    strip_space: bool,
    special: bool,
}

impl StreamDecoder {
    /// A decoder that skips special tokens.
    pub fn new(start: StreamStart) -> Self {
        Self {
            pending: Vec::with_capacity(32),
            text: String::with_capacity(32),
            strip_space: start == StreamStart::Text,
            special: false,
        }
    }

    /// A decoder that includes special tokens.
    pub fn with_special(mut self) -> Self {
        self.special = true;
        self
    }

    /// Takes one token and returns the text that it completes (often empty).
    ///
    /// # Errors
    /// `TokenId` for an id that `tokenizer` does not have; the state is then unchanged.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<&str> {
        let (bytes, kind) =
            tokenizer.pieces.get(id).ok_or(TokenizerError::TokenId { id, vocab_size: tokenizer.vocab_size() })?;
        self.text.clear();
        if kind.is_special() && !self.special {
            return Ok(&self.text);
        }
        let mut bytes = bytes;
        if self.strip_space && !bytes.is_empty() {
            if tokenizer.strip_leading_space {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
            self.strip_space = false;
        }
        self.pending.extend_from_slice(bytes);
        self.drain(false);
        Ok(&self.text)
    }

    /// The end of the stream: an incomplete character, if any, as U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        self.drain(true);
        &self.text
    }

    /// Moves what is complete from `pending` to `text`.
    fn drain(&mut self, end: bool) {
        let mut used = 0;
        loop {
            let rest = &self.pending[used..];
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    used += valid.len();
                    break;
                }
                Err(error) => error,
            };
            let valid = error.valid_up_to();
            // The prefix was just found valid; lossy borrows it unchanged.
            self.text.push_str(&String::from_utf8_lossy(&rest[..valid]));
            used += valid;
            match error.error_len() {
                Some(bad) => used += bad,
                None if end => used = self.pending.len(),
                None => break,
            }
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        self.pending.drain(..used);
    }
}
