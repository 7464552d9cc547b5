//! `tokenizer.json`: checks before it is passed to the `tokenizers` crate, and writing.
//!
//! Only components of known types are passed on; decoder and post-processor are implemented here.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::bpe::BpeParts;
use super::error::{Result, TokenizerError};
use super::pieces::Spelling;
use super::unigram::{UnigramParts, check_charsmap};

/// A model as read from its source.
#[derive(Debug)]
pub(crate) enum ModelParts {
    Bpe(BpeParts),
    Unigram(UnigramParts),
}

/// The components of a `tokenizer.json`.
#[derive(Debug)]
pub(crate) struct Definition {
    /// Name of the source for errors: `tokenizer.json` or a GGUF vocabulary.
    pub what: &'static str,
    pub model: ModelParts,
    /// As in the file; of types that are known to be safe on any input.
    pub added_tokens: Value,
    /// Tokens that files beside it add, in order; new ones follow the last id.
    pub later_tokens: Vec<AddedToken>,
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
        let model = take("model");
        let model = match model["type"].as_str() {
            Some("Unigram") => ModelParts::Unigram(UnigramParts::from_json(model, what)?),
            _ => ModelParts::Bpe(BpeParts::from_json(model, what)?),
        };
        let (normalizer, pre_tokenizer) = (take("normalizer"), take("pre_tokenizer"));
        check_steps("normalizer", &normalizer)?;
        check_steps("pre_tokenizer", &pre_tokenizer)?;
        let (spelling, strip_leading_space) = decoder(&take("decoder"))?;
        let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
        if post_processor(&take("post_processor"), &mut prefix, &mut suffix)?.is_none() {
            return Err(invalid("its post-processor template is malformed"));
        }
        let added_tokens = take("added_tokens");
        let later_tokens = Vec::new();
        Ok(Self {
            what,
            model,
            added_tokens,
            later_tokens,
            normalizer,
            pre_tokenizer,
            spelling,
            strip_leading_space,
            prefix,
            suffix,
        })
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
fn check_steps(part: &str, value: &Value) -> Result<()> {
    let known = match part {
        "normalizer" => {
            "NFC, NFD, NFKC, NFKD, Nmt, Lowercase, StripAccents, Strip, Prepend, Replace, Precompiled, ByteLevel, BertNormalizer"
        }
        _ => {
            "ByteLevel, Split, Digits, Punctuation, Metaspace, Whitespace, WhitespaceSplit, CharDelimiterSplit, UnicodeScripts, \
             BertPreTokenizer"
        }
    };
    let mut list = Vec::new();
    steps(value, &mut list);
    for step in list {
        let kind = type_of(step);
        if !known.split(", ").any(|name| name == kind) {
            return Err(TokenizerError::Unsupported(format!("{part} {kind}; known are {known}")));
        }
        if kind == "Precompiled" {
            let table = step.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
            let bytes = BASE64_STANDARD.decode(table).map_err(|e| TokenizerError::invalid(part, e))?;
            check_charsmap(&bytes, part)?;
        }
    }
    Ok(())
}

/// How tokens encode text, and whether the first space is artificial.
fn decoder(value: &Value) -> Result<(Spelling, bool)> {
    let mut list = Vec::new();
    steps(value, &mut list);
    let types: Vec<&str> = list.iter().map(|s| type_of(s)).collect();
    let unsupported = || {
        TokenizerError::Unsupported(format!(
            "decoder [{}]; known are ByteLevel, and Replace or Metaspace of ▁ with ByteFallback, Fuse and Strip",
            types.join(", ")
        ))
    };
    if types.contains(&"ByteLevel") && types.iter().all(|kind| matches!(*kind, "ByteLevel" | "Fuse")) {
        return Ok((Spelling::ByteLevel, false));
    }
    // In any order: each step leaves the others' characters alone.
    let (mut spaces, mut fused, mut strip_leading) = (false, false, false);
    for step in &list {
        let field = |key: &str| step.get(key).unwrap_or(&Value::Null);
        match type_of(step) {
            "Replace" if field("pattern")["String"] == "▁" && field("content") == " " => spaces = true,
            "Metaspace" if field("replacement") == "▁" => {
                spaces = true;
                strip_leading = field("prepend_scheme") != "never";
            }
            "ByteFallback" => {}
            "Fuse" => fused = true,
            "Strip" if field("content") == " " && field("stop") == 0 => match field("start").as_u64() {
                Some(0) => {}
                // Before the tokens are joined it would take a space from each.
                Some(1) if fused => strip_leading = true,
                _ => return Err(unsupported()),
            },
            _ => return Err(unsupported()),
        }
    }
    if spaces { Ok((Spelling::SentencePiece, strip_leading)) } else { Err(unsupported()) }
}

/// Collects the ids that a post-processor puts around a single text, each step around what those before it made; `None` when
/// it is malformed.
fn post_processor(value: &Value, prefix: &mut Vec<u32>, suffix: &mut Vec<u32>) -> Result<Option<()>> {
    let mut list = Vec::new();
    steps(value, &mut list);
    for step in list {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let well_formed = match type_of(step) {
            "ByteLevel" => Some(()),
            "TemplateProcessing" => template(step, &mut before, &mut after),
            "RobertaProcessing" | "BertProcessing" => around(step, &mut before, &mut after),
            other => {
                return Err(TokenizerError::Unsupported(format!(
                    "post-processor {other}; known are ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing"
                )));
            }
        };
        if well_formed.is_none() {
            return Ok(None);
        }
        prefix.splice(..0, before);
        suffix.extend(after);
    }
    Ok(Some(()))
}

/// `"cls": ["<s>", 0], "sep": ["</s>", 2]`.
fn around(step: &Map<String, Value>, before: &mut Vec<u32>, after: &mut Vec<u32>) -> Option<()> {
    let id = |key: &str| u32::try_from(step.get(key)?.get(1)?.as_u64()?).ok();
    before.push(id("cls")?);
    after.push(id("sep")?);
    Some(())
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
