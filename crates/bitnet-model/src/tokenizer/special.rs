//! Tokens with a role: begin and end of text, end of turn.

use std::path::Path;

use serde_json::Value;

use super::error::{Result, TokenizerError};
use super::{TokenKind, Tokenizer};

/// Ids of the tokens with a role; `None` where the checkpoint has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begin of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
    /// Replaces text that the vocabulary cannot express.
    pub unk: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// End of a turn of a conversation.
    pub eot: Option<u32>,
    /// Every token at which generation ends: end of text, of turn, of message. Ascending.
    pub stop: Vec<u32>,
}

/// Names of end-of-turn tokens in published models; the first that exists is used.
const TURN_ENDS: [&str; 10] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|end|>",
    "<end_of_utterance>",
    "<|eot|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
];
/// Names of tokens that end a text or a message.
const OTHER_ENDS: [&str; 6] =
    ["<|eom_id|>", "<|eom|>", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "[EOS]"];

impl SpecialTokens {
    pub(super) fn add_stop(&mut self, id: u32) {
        if let Err(at) = self.stop.binary_search(&id) {
            self.stop.insert(at, id);
        }
    }
}

impl Tokenizer {
    /// Roles inferred from names. A normal token with such a name is text.
    pub(super) fn roles_by_name(&mut self) {
        let added = |name: &&str| {
            let id = self.token_id(name)?;
            let kind = self.token_kind(id)?;
            matches!(kind, TokenKind::Control | TokenKind::UserDefined).then_some(id)
        };
        let turns: Vec<u32> = TURN_ENDS.iter().filter_map(added).collect();
        let others: Vec<u32> = OTHER_ENDS.iter().filter_map(added).collect();
        self.special.eot = turns.first().copied();
        for id in turns.into_iter().chain(others) {
            self.special.add_stop(id);
        }
    }

    /// Takes roles and the chat template from the files beside a `tokenizer.json`.
    pub(super) fn read_siblings(&mut self, folder: &Path) -> Result<()> {
        let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let id_of = |key: &str| self.named_token(&config, key);
        let (bos, eos) = (id_of("bos_token")?, id_of("eos_token")?);
        let (unk, pad) = (id_of("unk_token")?, id_of("pad_token")?);
        self.special.bos = bos.or(self.special.bos);
        self.special.eos = eos.or(self.special.eos);
        self.special.unk = unk.or(self.special.unk);
        self.special.pad = pad.or(self.special.pad);

        // If present, these two replace the post-processor (transformers 5, tokenization_utils_tokenizers.py).
        let flag = |key: &str| config.get(key).and_then(Value::as_bool);
        let (add_bos, add_eos) = (flag("add_bos_token"), flag("add_eos_token"));
        if add_bos.is_some() || add_eos.is_some() {
            self.prefix = self.special.bos.filter(|_| add_bos == Some(true)).into_iter().collect();
            self.suffix = self.special.eos.filter(|_| add_eos == Some(true)).into_iter().collect();
        }

        for name in ["generation_config.json", "config.json"] {
            let Some(value) = read_json(&folder.join(name))? else {
                continue;
            };
            for id in ids(&value["eos_token_id"]) {
                self.add_model_stop(id, name);
            }
            if let (None, Some(id)) = (self.special.bos, ids(&value["bos_token_id"]).next()) {
                self.special.bos = Some(id).filter(|&id| self.check_id(id).is_ok());
            }
            if let (None, Some(id)) = (self.special.eos, ids(&value["eos_token_id"]).next()) {
                self.special.eos = Some(id).filter(|&id| self.check_id(id).is_ok());
            }
        }
        if let Some(id) = self.special.eos {
            self.special.add_stop(id);
        }
        self.chat_template = crate::chat_template::source_in(folder, &config)?;
        Ok(())
    }

    /// Adds a stop id that the model's configuration names.
    fn add_model_stop(&mut self, id: u32, file: &str) {
        match self.check_id(id) {
            Ok(()) => self.special.add_stop(id),
            Err(e) => self.warnings.push(format!("{file}: eos_token_id: {e}; ignored")),
        }
    }

    /// The id of `"bos_token": "<s>"` or `"bos_token": {"content": "<s>"}`.
    fn named_token(&self, config: &Value, key: &str) -> Result<Option<u32>> {
        let value = &config[key];
        let Some(text) = value.as_str().or_else(|| value["content"].as_str()) else {
            return Ok(None);
        };
        match self.token_id(text) {
            Some(id) => Ok(Some(id)),
            None => Err(TokenizerError::Vocabulary(format!(
                "tokenizer_config.json names {text:?} as {key}, but tokenizer.json has no such token"
            ))),
        }
    }
}

/// An id or a list of ids.
fn ids(value: &Value) -> impl Iterator<Item = u32> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        other => std::slice::from_ref(other),
    };
    list.iter().filter_map(|v| u32::try_from(v.as_u64()?).ok())
}

/// A JSON object in an optional file.
fn read_json(path: &Path) -> Result<Option<Value>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| TokenizerError::invalid(&path.display().to_string(), e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Io { path: path.to_owned(), source }),
    }
}
