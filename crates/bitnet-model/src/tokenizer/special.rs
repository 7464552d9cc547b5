//! Tokens with a role: begin and end of text, end of turn.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::AddedToken;

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
    pub(super) fn take_roles(&mut self, siblings: &Siblings) -> Result<()> {
        let Siblings { folder, config, .. } = siblings;
        let id_of = |key: &str| self.token_id(&added_token(&config[key], true)?.content);
        let [bos, eos, unk, pad] = ["bos_token", "eos_token", "unk_token", "pad_token"].map(id_of);
        self.special.bos = bos.or(self.special.bos);
        self.special.eos = eos.or(self.special.eos);
        self.special.unk = unk.or(self.special.unk);
        self.special.pad = pad.or(self.special.pad);

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
        self.chat_template = crate::chat_template::source_in(folder, config)?;
        Ok(())
    }

    /// Adds a stop id that the model's configuration names.
    fn add_model_stop(&mut self, id: u32, file: &str) {
        match self.check_id(id) {
            Ok(()) => self.special.add_stop(id),
            Err(e) => self.warnings.push(format!("{file}: eos_token_id: {e}; ignored")),
        }
    }
}

/// The files beside a `tokenizer.json`.
pub(super) struct Siblings {
    folder: PathBuf,
    config: Value,
    /// Tokens by id.
    added: BTreeMap<u64, AddedToken>,
}

/// The roles of transformers, in its order.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Lists of further special tokens.
const MORE: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

impl Siblings {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let config = read_json(&folder.join("tokenizer_config.json"))?;
        let mut config = config.filter(Value::is_object).unwrap_or_default();
        let mut added = BTreeMap::new();
        match config["added_tokens_decoder"].as_object() {
            Some(tokens) => {
                added.extend(tokens.iter().filter_map(|(id, t)| Some((id.parse().ok()?, added_token(t, false)?))))
            }
            // As older versions wrote them.
            None => {
                if let Some(Value::Object(map)) = read_json(&folder.join("special_tokens_map.json"))? {
                    map.into_iter().for_each(|(key, value)| config[key] = value);
                }
                let special: Vec<String> = special_tokens(&config).map(|token| token.content).collect();
                if let Some(Value::Object(tokens)) = read_json(&folder.join("added_tokens.json"))? {
                    added.extend(tokens.iter().filter_map(|(text, id)| {
                        Some((id.as_u64()?, added_token(&text.as_str().into(), special.contains(text))?))
                    }));
                }
            }
        }
        Ok(Self { folder: folder.to_owned(), config, added })
    }

    /// The tokens that are added to those of `tokenizer.json`, or replace one of the same text.
    pub(super) fn tokens(&self, listed: &Value) -> Vec<AddedToken> {
        let listed: HashSet<&str> =
            listed.as_array().into_iter().flatten().filter_map(|t| t["content"].as_str()).collect();
        let special: Vec<AddedToken> = special_tokens(&self.config).collect();
        let mut tokens: Vec<AddedToken> = self.added.values().cloned().collect();
        for token in &mut tokens {
            token.special |= special.iter().any(|s| s.content == token.content);
        }
        for token in special {
            if !listed.contains(token.content.as_str()) && tokens.iter().all(|t| t.content != token.content) {
                tokens.push(token);
            }
        }
        tokens
    }
}

/// The tokens that a configuration names as special.
fn special_tokens(config: &Value) -> impl Iterator<Item = AddedToken> {
    let more = MORE.into_iter().flat_map(|key| config[key].as_array().into_iter().flatten());
    ROLES.into_iter().map(|key| &config[key]).chain(more).filter_map(|token| added_token(token, true))
}

/// `"<s>"` or `{"content": "<s>", "lstrip": false, ...}`.
fn added_token(value: &Value, special: bool) -> Option<AddedToken> {
    let content = value.as_str().or_else(|| value["content"].as_str()).filter(|text| !text.is_empty())?;
    let flag = |key: &str, default: bool| value[key].as_bool().unwrap_or(default);
    let special = special || flag("special", false);
    let token = AddedToken::from(content, special).normalized(flag("normalized", !special));
    Some(token.lstrip(flag("lstrip", false)).rstrip(flag("rstrip", false)).single_word(flag("single_word", false)))
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
