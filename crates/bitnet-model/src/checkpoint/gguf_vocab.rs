//! Reading and writing the vocabulary in a GGUF file's metadata.

use crate::Result;
use crate::gguf::{Array, Metadata, Value};
use crate::tokenizer::GgufVocab;

/// Reads the keys under `tokenizer.`.
pub(crate) fn read(metadata: &Metadata) -> Result<GgufVocab> {
    let text = |key: &str| metadata.find::<&str>(&format!("tokenizer.{key}")).map(|s| s.map(str::to_string));
    let strings = |key: &str| {
        metadata.find::<&[String]>(&format!("tokenizer.ggml.{key}")).map(|s| s.unwrap_or_default().to_vec())
    };
    let id = |key: &str| metadata.find::<u32>(&format!("tokenizer.ggml.{key}_token_id"));
    let flag = |key: &str| metadata.find::<bool>(&format!("tokenizer.ggml.{key}"));
    Ok(GgufVocab {
        model: metadata.require::<&str>("tokenizer.ggml.model")?.to_string(),
        pre: text("ggml.pre")?,
        tokens: strings("tokens")?,
        scores: metadata.find::<&[f32]>("tokenizer.ggml.scores")?.unwrap_or_default().to_vec(),
        token_types: metadata.find::<&[i32]>("tokenizer.ggml.token_type")?.unwrap_or_default().to_vec(),
        merges: strings("merges")?,
        bos: id("bos")?,
        eos: id("eos")?,
        eot: id("eot")?,
        unk: id("unknown")?,
        pad: id("padding")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
        precompiled_charsmap: match metadata.value("tokenizer.ggml.precompiled_charsmap") {
            Some(Value::Array(Array::U8(bytes))) => bytes.clone(),
            Some(Value::Array(Array::I8(bytes))) => bytes.iter().map(|&b| b as u8).collect(),
            _ => Vec::new(),
        },
        chat_template: text("chat_template")?,
    })
}

/// Writes the keys under `tokenizer.`.
pub(crate) fn write(vocab: &GgufVocab, metadata: &mut Metadata) {
    let mut set = |key: &str, value: Value| {
        metadata.insert(format!("tokenizer.{key}"), value);
    };
    set("ggml.model", Value::String(vocab.model.clone()));
    set("ggml.tokens", Value::Array(Array::String(vocab.tokens.clone())));
    if !vocab.scores.is_empty() {
        set("ggml.scores", Value::Array(Array::F32(vocab.scores.clone())));
    }
    if !vocab.token_types.is_empty() {
        set("ggml.token_type", Value::Array(Array::I32(vocab.token_types.clone())));
    }
    if !vocab.merges.is_empty() {
        set("ggml.merges", Value::Array(Array::String(vocab.merges.clone())));
    }
    for (key, text) in [("ggml.pre", &vocab.pre), ("chat_template", &vocab.chat_template)] {
        if let Some(text) = text {
            set(key, Value::String(text.clone()));
        }
    }
    let ids =
        [("bos", vocab.bos), ("eos", vocab.eos), ("eot", vocab.eot), ("unknown", vocab.unk), ("padding", vocab.pad)];
    for (key, id) in ids {
        if let Some(id) = id {
            set(&format!("ggml.{key}_token_id"), Value::U32(id));
        }
    }
    let flags = [
        ("add_bos_token", vocab.add_bos),
        ("add_eos_token", vocab.add_eos),
        ("add_space_prefix", vocab.add_space_prefix),
        ("remove_extra_whitespaces", vocab.remove_extra_whitespaces),
    ];
    for (key, flag) in flags {
        if let Some(flag) = flag {
            set(&format!("ggml.{key}"), Value::Bool(flag));
        }
    }
    if !vocab.precompiled_charsmap.is_empty() {
        set("ggml.precompiled_charsmap", Value::Array(Array::U8(vocab.precompiled_charsmap.clone())));
    }
}
