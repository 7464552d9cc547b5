//! `tokenizer.json`: what we check before the `tokenizers` crate sees it, and what we write.
//!
//! The crate trusts its input (a merge of absent tokens can make it panic, an added token can get
//! another id than the file says), so everything it relies on is checked here.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::error::{Result, TokenizerError};
use super::pieces::Spelling;

/// The parts of a `tokenizer.json` that are ours to interpret.
#[derive(Debug)]
pub(crate) struct Definition {
    /// What errors call the source: `tokenizer.json` or the GGUF vocabulary it was made from.
    pub what: &'static str,
    /// The file without post-processor, decoder, truncation and padding; safe to give to the crate.
    pub value: Value,
    pub spelling: Spelling,
    pub strip_leading_space: bool,
    /// Ids put before and after a text.
    pub prefix: Vec<u32>,
    pub suffix: Vec<u32>,
}

impl Definition {
    pub(crate) fn new(mut value: Value, what: &'static str) -> Result<Self> {
        let invalid = |why: &str| TokenizerError::invalid(what, why);
        let object = (value.as_object_mut()).ok_or_else(|| invalid("it is not a JSON object"))?;
        check_model(object.get("model").unwrap_or(&Value::Null), what)?;
        let model = &mut object["model"];
        // Random merges are for training only.
        model["dropout"] = Value::Null;
        // Checked above; the crate would insist on a borrowed string here.
        model.as_object_mut().map(|m| m.remove("type"));
        for part in ["normalizer", "pre_tokenizer"] {
            check_types(part, object.get(part).unwrap_or(&Value::Null))?;
        }
        let (spelling, strip_leading_space) = decoder(object.get("decoder"))?;
        let post = object.remove("post_processor").unwrap_or_default();
        let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
        if post_processor(&post, &mut prefix, &mut suffix)?.is_none() {
            return Err(invalid("its post-processor template is malformed"));
        }
        for key in ["decoder", "truncation", "padding"] {
            object.remove(key);
        }
        Ok(Self { what, value, spelling, strip_leading_space, prefix, suffix })
    }
}

/// BPE only, ids distinct and dense enough, merges of tokens that exist.
fn check_model(model: &Value, what: &str) -> Result<()> {
    let invalid = |why: String| TokenizerError::invalid(what, why);
    let model = (model.as_object()).ok_or_else(|| invalid("it has no model".into()))?;
    match model.get("type").and_then(Value::as_str) {
        Some("BPE") => {}
        None if model.contains_key("merges") => {}
        kind => {
            return Err(TokenizerError::Unsupported(format!(
                "the model of tokenizer.json is {}; only BPE (byte-level or SentencePiece) is handled",
                kind.unwrap_or("of no stated type")
            )));
        }
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model.get(key).and_then(Value::as_str).is_some_and(|s| !s.is_empty()) {
            return Err(TokenizerError::Unsupported(format!("tokenizer.json sets {key}")));
        }
    }
    let vocab = (model.get("vocab").and_then(Value::as_object))
        .filter(|v| !v.is_empty())
        .ok_or_else(|| invalid("its vocabulary is empty".into()))?;
    let mut ids = HashSet::with_capacity(vocab.len());
    for (token, id) in vocab {
        let id = (id.as_u64()).ok_or_else(|| invalid(format!("the id of {token:?} is {id}")))?;
        // Ids index tables: a stray large one must not size them.
        if id > 2 * vocab.len() as u64 + 65_536 {
            return Err(invalid(format!("token {token:?} has id {id} in a vocabulary of {} tokens", vocab.len())));
        }
        if !ids.insert(id) {
            return Err(invalid(format!("two tokens have id {id}; one is {token:?}")));
        }
    }
    if let Some(unk) = model.get("unk_token").and_then(Value::as_str)
        && !vocab.contains_key(unk)
    {
        return Err(invalid(format!("its unknown token {unk:?} is not in the vocabulary")));
    }
    let merges = (model.get("merges").and_then(Value::as_array))
        .ok_or_else(|| invalid("its model has no list of merges".into()))?;
    for (i, merge) in merges.iter().enumerate() {
        let (a, b) = merge_pair(merge).ok_or_else(|| invalid(format!("merge {i} is {merge}, not a pair of tokens")))?;
        for token in [a, b, &[a, b].concat()] {
            if !vocab.contains_key(token) {
                return Err(invalid(format!(
                    "merge {i} ({a:?}, {b:?}) needs the token {token:?}, which is not in the vocabulary"
                )));
            }
        }
    }
    Ok(())
}

/// `["a", "b"]` or `"a b"`.
pub(crate) fn merge_pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::Array(pair) if pair.len() == 2 => Some((pair[0].as_str()?, pair[1].as_str()?)),
        Value::String(text) => text.split_once(' ').filter(|(_, b)| !b.contains(' ')),
        _ => None,
    }
}

/// The steps of a normalizer, pre-tokenizer, decoder or post-processor, sequences flattened.
pub(crate) fn steps<'a>(value: &'a Value, out: &mut Vec<&'a Map<String, Value>>) {
    let Some(object) = value.as_object() else {
        return;
    };
    const LISTS: [&str; 4] = ["normalizers", "pretokenizers", "decoders", "processors"];
    match LISTS.iter().find_map(|key| object.get(*key)?.as_array()) {
        Some(list) => list.iter().for_each(|v| steps(v, out)),
        None => out.push(object),
    }
}

pub(crate) fn type_of(step: &Map<String, Value>) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("?")
}

/// Only kinds that are known to be safe on any input.
fn check_types(part: &str, value: &Value) -> Result<()> {
    let known: &[&str] = match part {
        "normalizer" => &["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "Strip"],
        _ => &["ByteLevel", "Split", "Digits", "Punctuation", "Metaspace", "Whitespace", "WhitespaceSplit"],
    };
    let mut list = Vec::new();
    steps(value, &mut list);
    match list.iter().map(|s| type_of(s)).find(|t| !known.contains(t)) {
        Some(other) => Err(TokenizerError::Unsupported(format!("{part} {other}; known are {}", known.join(", ")))),
        None => Ok(()),
    }
}

/// How tokens spell text, and whether the first space is artificial.
fn decoder(value: Option<&Value>) -> Result<(Spelling, bool)> {
    let mut list = Vec::new();
    steps(value.unwrap_or(&Value::Null), &mut list);
    let types: Vec<&str> = list.iter().map(|s| type_of(s)).collect();
    let unsupported = || {
        TokenizerError::Unsupported(format!(
            "decoder [{}]; known are ByteLevel, Metaspace and [Replace, ByteFallback, Fuse, Strip]",
            types.join(", ")
        ))
    };
    let text = |i: usize, key: &str| list[i].get(key).and_then(Value::as_str);
    match types[..] {
        ["ByteLevel"] => Ok((Spelling::ByteLevel, false)),
        ["Metaspace"] if text(0, "replacement") == Some("▁") => {
            Ok((Spelling::SentencePiece, text(0, "prepend_scheme") != Some("never")))
        }
        ["Replace", "ByteFallback", "Fuse"] | ["Replace", "ByteFallback", "Fuse", "Strip"] => {
            let replace = list[0].get("pattern").and_then(|p| p.get("String"));
            if replace.and_then(Value::as_str) != Some("▁") || text(0, "content") != Some(" ") {
                return Err(unsupported());
            }
            let Some(strip) = list.get(3) else {
                return Ok((Spelling::SentencePiece, false));
            };
            let number = |key: &str| strip.get(key).and_then(Value::as_u64);
            match (text(3, "content"), number("start"), number("stop")) {
                (Some(" "), Some(start @ 0..=1), Some(0)) => Ok((Spelling::SentencePiece, start == 1)),
                _ => Err(unsupported()),
            }
        }
        _ => Err(unsupported()),
    }
}

/// Collects the ids that a post-processor puts around a single text; `None` when it is malformed.
fn post_processor(value: &Value, prefix: &mut Vec<u32>, suffix: &mut Vec<u32>) -> Result<Option<()>> {
    let mut list = Vec::new();
    steps(value, &mut list);
    for step in list {
        match type_of(step) {
            "ByteLevel" => {}
            "TemplateProcessing" => {
                if template(step, prefix, suffix).is_none() {
                    return Ok(None);
                }
            }
            other => {
                return Err(TokenizerError::Unsupported(format!(
                    "post-processor {other}; known are ByteLevel and TemplateProcessing"
                )));
            }
        }
    }
    Ok(Some(()))
}

fn template(step: &Map<String, Value>, prefix: &mut Vec<u32>, suffix: &mut Vec<u32>) -> Option<()> {
    let mut seen_text = false;
    for item in step.get("single")?.as_array()? {
        if item.get("Sequence").is_some() {
            seen_text = true;
            continue;
        }
        let name = item.get("SpecialToken")?.get("id")?.as_str()?;
        let ids = step.get("special_tokens")?.get(name)?.get("ids")?.as_array()?;
        for id in ids {
            let id = u32::try_from(id.as_u64()?).ok()?;
            if seen_text { &mut *suffix } else { &mut *prefix }.push(id);
        }
    }
    seen_text.then_some(())
}

/// The post-processor that puts these tokens (id, text) around a text.
pub(crate) fn post_processor_json(prefix: &[(u32, String)], suffix: &[(u32, String)]) -> Value {
    let special = |(_, text): &(u32, String)| json!({"SpecialToken": {"id": text, "type_id": 0}});
    let around = |name: &str| -> Vec<Value> {
        let text = json!({"Sequence": {"id": name, "type_id": 0}});
        let before = prefix.iter().map(special);
        before.chain([text]).chain(suffix.iter().map(special)).collect()
    };
    let tokens: Map<String, Value> = (prefix.iter().chain(suffix))
        .map(|(id, text)| (text.clone(), json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    let pair = [around("A"), around("B")].concat();
    json!({
        "type": "TemplateProcessing",
        "single": around("A"),
        "pair": pair,
        "special_tokens": tokens,
    })
}

/// The decoder for a spelling.
pub(crate) fn decoder_json(spelling: Spelling, strip_leading_space: bool) -> Value {
    match spelling {
        Spelling::ByteLevel => json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
        }),
        Spelling::SentencePiece => json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": u8::from(strip_leading_space), "stop": 0},
        ]}),
    }
}
