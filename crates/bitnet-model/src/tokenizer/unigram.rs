//! The Unigram model (T5, XLM-R), checked before the `tokenizers` crate builds it, and the table of its normalizer.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokenizers::models::unigram::Unigram;

use super::error::{Result, TokenizerError};

/// A Unigram model as read from its source: pieces with logarithms of their probabilities, by id.
#[derive(Debug, Default)]
pub(crate) struct UnigramParts {
    pub pieces: Vec<(String, f64)>,
    pub unknown: Option<usize>,
    pub byte_fallback: bool,
}

impl UnigramParts {
    /// The `model` of a `tokenizer.json`.
    pub(crate) fn from_json(mut model: Value, what: &str) -> Result<Self> {
        let pieces = serde_json::from_value(model["vocab"].take());
        let pieces: Vec<(String, f64)> =
            pieces.map_err(|e| TokenizerError::invalid(what, format!("its vocabulary: {e}")))?;
        let unknown = model["unk_id"].as_u64().map(|id| id as usize);
        Ok(Self { pieces, unknown, byte_fallback: model["byte_fallback"] == true })
    }

    /// Builds the model, and the ids of the `special` tokens among its pieces. These are never found in a text: the crate would
    /// take a piece that is spelled like one, also where special tokens are text.
    pub(crate) fn build(mut self, special: &HashSet<String>, what: &str) -> Result<(Unigram, HashMap<String, u32>)> {
        if let Some((piece, score)) = self.pieces.iter().find(|(_, score)| !score.is_finite()) {
            return Err(TokenizerError::invalid(what, format!("the score of {piece:?} is {score}")));
        }
        if self.pieces.is_empty() {
            return Err(TokenizerError::invalid(what, "its vocabulary is empty"));
        }
        let named = (0u32..).zip(&mut self.pieces).filter(|(_, (piece, _))| special.contains(piece));
        let named = named.map(|(id, (piece, _))| (std::mem::take(piece), id)).collect();
        let model = Unigram::from(self.pieces, self.unknown, self.byte_fallback);
        Ok((model.map_err(|e| TokenizerError::invalid(what, e))?, named))
    }
}

/// An error unless every lookup in this table of SentencePiece (`precompiled_charsmap`) stays inside it: a number of bytes, a
/// double array of that size, and the texts that its leaves name, each ended by a zero byte. The crate does not check.
pub(crate) fn check_charsmap(bytes: &[u8], what: &str) -> Result<()> {
    let invalid =
        |why: &str| TokenizerError::invalid(what, format!("its table of characters (precompiled_charsmap) {why}"));
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| invalid("is cut short"))?;
    let size = u32::from_le_bytes(*size) as usize / 4 * 4;
    let (array, texts) = rest.split_at_checked(size).ok_or_else(|| invalid("is cut short"))?;
    let texts = std::str::from_utf8(texts).map_err(|_| invalid("has texts that are not UTF-8"))?;
    let units: Vec<u32> = array.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let inside = |(at, &unit): (usize, &u32)| {
        let offset = (unit as usize >> 10) << ((unit as usize & (1 << 9)) >> 6);
        // From a leaf's value nothing goes on, but at the root.
        let value = unit >> 31 == 1 && at > 0;
        match value {
            true => texts.is_char_boundary((unit & !(1 << 31)) as usize),
            false => (at ^ offset) | 0xFF < units.len(),
        }
    };
    match units.is_empty() || !units.iter().enumerate().all(inside) {
        true => Err(invalid("points outside itself")),
        false => Ok(()),
    }
}
