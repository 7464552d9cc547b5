//! `tokenizer.json`: checks before it is passed to the `tokenizers` crate, and writing.
//!
//! Only components of known types are passed on; decoder and post-processor are implemented here.

use serde_json::{Map, Value, json};

use super::bpe::BpeParts;
use super::error::{Result, TokenizerError};
use super::pieces::Spelling;

/// The components of a `tokenizer.json`.
#[derive(Debug)]
pub(crate) struct Definition {
    /// Name of the source for errors: `tokenizer.json` or a GGUF vocabulary.
    pub what: &'static str,
    pub model: BpeParts,
    /// As in the file; of types that are known to be safe on any input.
    pub added_tokens: Value,
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub spelling: Spelling,
    pub strip_leading_space: bool,
    /// Ids put before and after a text.
    pub prefix: Vec<u32>,
    pub suffix: Vec<u32>,
}

impl Definition {
    /// From the contents of a `tokenizer.json`; its truncation and padding are ignored.
    pub(crate) fn from_json(mut value: Value, what: &'static str) -> Result<Self> {
        let invalid = |why: &str| TokenizerError::invalid(what, why);
        let object = (value.as_object_mut()).ok_or_else(|| invalid("it is not a JSON object"))?;
        let mut take = |key: &str| object.remove(key).unwrap_or_default();
        let model = BpeParts::from_json(take("model"), what)?;
        let (normalizer, pre_tokenizer) = (take("normalizer"), take("pre_tokenizer"));
        check_types("normalizer", &normalizer)?;
        check_types("pre_tokenizer", &pre_tokenizer)?;
        let (spelling, strip_leading_space) = decoder(&take("decoder"))?;
        let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
        if post_processor(&take("post_processor"), &mut prefix, &mut suffix)?.is_none() {
            return Err(invalid("its post-processor template is malformed"));
        }
        let added_tokens = take("added_tokens");
        Ok(Self { what, model, added_tokens, normalizer, pre_tokenizer, spelling, strip_leading_space, prefix, suffix })
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

/// How tokens encode text, and whether the first space is artificial.
fn decoder(value: &Value) -> Result<(Spelling, bool)> {
    let mut list = Vec::new();
    steps(value, &mut list);
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
