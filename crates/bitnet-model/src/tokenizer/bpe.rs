//! Byte-pair merges by rank, checked before the `tokenizers` crate builds its model.
//!
//! The crate trusts its input: a merge of absent tokens can make it panic.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};

use super::error::{Result, TokenizerError};

/// A BPE model as read from its source.
#[derive(Debug, Default)]
pub(crate) struct BpeParts {
    pub vocab: Vec<(String, u32)>,
    /// Best first.
    pub merges: Vec<(String, String)>,
    pub unk_token: Option<String>,
    pub fuse_unk: bool,
    pub byte_fallback: bool,
    pub ignore_merges: bool,
    /// Whether a run of newlines that is a token is taken whole.
    pub newlines_whole: bool,
}

impl BpeParts {
    /// The `model` of a `tokenizer.json`. Dropout is left out, since random merges are only for training.
    pub(crate) fn from_json(model: Value, what: &str) -> Result<Self> {
        let invalid = |why: String| TokenizerError::invalid(what, why);
        let Value::Object(mut model) = model else {
            return Err(invalid("it has no model".into()));
        };
        match model.get("type").and_then(Value::as_str) {
            Some("BPE") => {}
            None if model.contains_key("merges") => {}
            kind => {
                return Err(TokenizerError::Unsupported(format!(
                    "the model of tokenizer.json is {}; BPE (byte-level or SentencePiece) and Unigram are handled",
                    kind.unwrap_or("of no stated type")
                )));
            }
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if model.get(key).and_then(Value::as_str).is_some_and(|s| !s.is_empty()) {
                return Err(TokenizerError::Unsupported(format!("tokenizer.json sets {key}")));
            }
        }
        let Some(Value::Object(vocab)) = model.remove("vocab") else {
            return Err(invalid("its model has no vocabulary".into()));
        };
        let Some(Value::Array(merges)) = model.remove("merges") else {
            return Err(invalid("its model has no list of merges".into()));
        };
        let id = |id: Value| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or(id);
        let vocab = vocab.into_iter().map(|(token, value)| match id(value) {
            Ok(id) => Ok((token, id)),
            Err(value) => Err(invalid(format!("the id of {token:?} is {value}"))),
        });
        let merges = merges.into_iter().enumerate().map(|(i, merge)| {
            merge_pair(merge).map_err(|merge| invalid(format!("merge {i} is {merge}, not a pair of tokens")))
        });
        Ok(Self {
            vocab: vocab.collect::<Result<_>>()?,
            merges: merges.collect::<Result<_>>()?,
            unk_token: model.get("unk_token").and_then(Value::as_str).map(str::to_owned),
            fuse_unk: flag(&model, "fuse_unk"),
            byte_fallback: flag(&model, "byte_fallback"),
            ignore_merges: flag(&model, "ignore_merges"),
            newlines_whole: false,
        })
    }

    /// Checks that ids are distinct and dense enough to index tables, and that every merge is of
    /// tokens and makes a token; then builds the model.
    pub(crate) fn build(self, what: &str) -> Result<BPE> {
        let invalid = |why: String| TokenizerError::invalid(what, why);
        let count = self.vocab.len();
        if count == 0 {
            return Err(invalid("its vocabulary is empty".into()));
        }
        let mut ids = HashSet::with_capacity(count);
        for (token, id) in &self.vocab {
            if *id as usize > 2 * count + 65_536 {
                return Err(invalid(format!("token {token:?} has id {id} in a vocabulary of {count} tokens")));
            }
            if !ids.insert(*id) {
                return Err(invalid(format!("two tokens have id {id}; one is {token:?}")));
            }
        }
        let vocab: Vocab = self.vocab.into_iter().collect();
        if let Some(unk) = self.unk_token.as_ref().filter(|unk| !vocab.contains_key(*unk)) {
            return Err(invalid(format!("its unknown token {unk:?} is not in the vocabulary")));
        }
        let mut union = String::new();
        for (i, (a, b)) in self.merges.iter().enumerate() {
            union.clear();
            union.push_str(a);
            union.push_str(b);
            for token in [a, b, &union] {
                if !vocab.contains_key(token) {
                    return Err(invalid(format!(
                        "merge {i} ({a:?}, {b:?}) needs the token {token:?}, which is not in the vocabulary"
                    )));
                }
            }
        }
        let mut builder = BPE::builder()
            .vocab_and_merges(vocab, self.merges)
            .fuse_unk(self.fuse_unk)
            .byte_fallback(self.byte_fallback)
            .ignore_merges(self.ignore_merges);
        if let Some(unk) = self.unk_token {
            builder = builder.unk_token(unk);
        }
        builder.build().map_err(|e| invalid(e.to_string()))
    }
}

fn flag(model: &Map<String, Value>, key: &str) -> bool {
    model.get(key).and_then(Value::as_bool) == Some(true)
}

/// `["a", "b"]` or `"a b"`; anything else comes back.
fn merge_pair(merge: Value) -> std::result::Result<(String, String), Value> {
    match merge {
        Value::Array(pair) => match <[Value; 2]>::try_from(pair) {
            Ok([Value::String(a), Value::String(b)]) => Ok((a, b)),
            Ok(pair) => Err(Value::from(pair.to_vec())),
            Err(pair) => Err(pair.into()),
        },
        Value::String(text) => match text.split_once(' ') {
            Some((a, b)) if !b.contains(' ') => Ok((a.to_owned(), b.to_owned())),
            _ => Err(Value::String(text)),
        },
        other => Err(other),
    }
}
