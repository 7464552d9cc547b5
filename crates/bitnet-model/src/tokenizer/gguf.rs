//! Reading vocabularies of GGUF files.

use std::collections::HashMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tokenizers::TokenizerBuilder;

use super::bpe::BpeParts;
use super::error::{Result, TokenizerError};
use super::json::{Definition, ModelParts};
use super::model::Model;
use super::pieces::{Pieces, Spelling, TokenKind, byte_token};
use super::pretokenizer::Kind;
use super::sentencepiece::SentencePiece;
use super::unigram::{UnigramParts, check_charsmap};
use super::{Tokenizer, add_tokens};

pub(super) const WHAT: &str = "GGUF vocabulary";

/// The tokenizer metadata of a GGUF file, key by key (`tokenizer.ggml.*`); `None` where a key is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE), `gemma4` (BPE of UTF-8 by lines), `llama` (SentencePiece BPE) or `t5`
    /// (Unigram).
    pub model: String,
    /// `tokenizer.ggml.pre`: the name of the pre-tokenizer, for `gpt2`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the spelling of each id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`: one for each token, for `llama` and `t5`; otherwise empty.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`: a [`TokenKind`] for each token, or empty.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`: `"left right"`, best first, for `gpt2` and `gemma4`; otherwise empty.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: end of turn.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`, for `llama` and `t5`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.ggml.remove_extra_whitespaces`, for `t5`.
    pub remove_extra_whitespaces: Option<bool>,
    /// `tokenizer.ggml.precompiled_charsmap`: SentencePiece's table of the normalizer, for `t5`; otherwise empty.
    pub precompiled_charsmap: Vec<u8>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

pub(super) fn invalid(why: impl Into<String>) -> TokenizerError {
    TokenizerError::Vocabulary(why.into())
}

impl Tokenizer {
    /// Builds the tokenizer of a GGUF file.
    ///
    /// A `gpt2` vocabulary without `pre` is read as llama.cpp reads it (`default`), except one that
    /// holds Llama 3's special tokens, which is `llama-bpe`: the converter of BitNet 2B4T omitted
    /// the key. [`warnings`](Self::warnings) reports it.
    ///
    /// # Errors
    /// `Vocabulary` when the lists contradict each other; `Unsupported` for an unknown model or
    /// pre-tokenizer, which it names.
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Self> {
        let (kinds, duplicates) = check(vocab)?;
        let mut tokenizer = match vocab.model.as_str() {
            "gpt2" | "gemma4" => merged(vocab, &kinds)?,
            "llama" => sentencepiece(vocab, kinds)?,
            "t5" => unigram(vocab, &kinds)?,
            other => {
                return Err(TokenizerError::Unsupported(format!(
                    "tokenizer.ggml.model is {other:?}; known are \"gpt2\", \"gemma4\", \"llama\" and \"t5\""
                )));
            }
        };
        if let Some((first, last)) = duplicates.first() {
            let more = if duplicates.len() > 1 {
                format!(", and so are {} more", duplicates.len() - 1)
            } else {
                String::new()
            };
            let text = &vocab.tokens[*first as usize];
            tokenizer
                .warnings
                .push(format!("tokens {first} and {last} are both {text:?}{more}; a text becomes the last"));
        }
        let spelled = duplicates.iter().map(|(id, _)| (*id, vocab.tokens[*id as usize].clone()));
        tokenizer.duplicates = spelled.collect();
        for id in [vocab.bos, vocab.eos, vocab.eot, vocab.unk, vocab.pad].into_iter().flatten() {
            tokenizer.check_id(id)?;
        }
        let special = &mut tokenizer.special;
        special.bos = vocab.bos.or(special.bos);
        special.eos = vocab.eos.or(special.eos);
        special.eot = vocab.eot.or(special.eot);
        special.unk = vocab.unk.or(special.unk);
        special.pad = vocab.pad.or(special.pad);
        for id in [special.eos, special.eot].into_iter().flatten() {
            special.add_stop(id);
        }
        tokenizer.chat_template = vocab.chat_template.clone();
        Ok(tokenizer)
    }
}

/// Lists of equal length, known types; returns the kind of each token, and each id whose spelling a later id has too, with
/// the last such id.
#[allow(clippy::type_complexity)]
fn check(vocab: &GgufVocab) -> Result<(Vec<TokenKind>, Vec<(u32, u32)>)> {
    let n = vocab.tokens.len();
    if n == 0 {
        return Err(invalid("tokenizer.ggml.tokens is empty"));
    }
    for (key, len) in [("scores", vocab.scores.len()), ("token_type", vocab.token_types.len())] {
        if len != 0 && len != n {
            return Err(invalid(format!("tokenizer.ggml.{key} has {len} entries for {n} tokens")));
        }
    }
    if vocab.tokens.iter().map(String::len).sum::<usize>() > u32::MAX as usize || n > u32::MAX as usize {
        return Err(invalid("the tokens exceed 4 GiB of text"));
    }
    if let Some(at) = vocab.scores.iter().position(|s| s.is_nan()) {
        return Err(invalid(format!("the score of token {at} is not a number")));
    }
    let last: HashMap<&str, u32> = vocab.tokens.iter().map(String::as_str).zip(0u32..).collect();
    let pairs = vocab.tokens.iter().zip(0u32..).map(|(token, id)| (id, last[token.as_str()]));
    let duplicates = pairs.filter(|&(id, last)| id != last && !vocab.tokens[id as usize].is_empty()).collect();
    let kinds = (0..n).map(|id| {
        let number = vocab.token_types.get(id).copied().unwrap_or(1);
        let kind =
            TokenKind::from_gguf(number).ok_or_else(|| invalid(format!("token {id} has the unknown type {number}")))?;
        Ok(if vocab.tokens[id].is_empty() { TokenKind::Unused } else { kind })
    });
    Ok((kinds.collect::<Result<_>>()?, duplicates))
}

/// The `added_tokens` of a `tokenizer.json`: those that are split off from a text first.
fn added_tokens(vocab: &GgufVocab, kinds: &[TokenKind]) -> Value {
    let added = |kind: TokenKind| kind.is_special() || kind == TokenKind::UserDefined;
    let last: HashMap<&str, usize> = vocab.tokens.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    (vocab.tokens.iter().zip(kinds).enumerate())
        .filter(|(id, (text, kind))| added(**kind) && last[text.as_str()] == *id)
        .map(|(id, (text, kind))| {
            json!({
                "id": id, "content": text, "special": kind.is_special(),
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect()
}

fn merged(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Tokenizer> {
    let mut warnings = Vec::new();
    let has = |text: &str| vocab.tokens.iter().any(|t| t == text);
    let name = match vocab.pre.as_deref() {
        _ if vocab.model == "gemma4" => "gemma4",
        Some(name) if name != "default" => name,
        stated => {
            let llama3 = has("<|begin_of_text|>") && has("<|eot_id|>") && vocab.tokens.len() >= 128_000;
            let name = if llama3 { "llama-bpe" } else { "default" };
            if llama3 || stated.is_none() {
                warnings
                    .push(format!("the file does not name its pre-tokenizer (tokenizer.ggml.pre); read as {name:?}"));
            }
            name
        }
    };
    let kind = Kind::named(name)?;
    let tokens = (0u32..).zip(&vocab.tokens).filter(|(_, text)| !text.is_empty());
    let merges = vocab.merges.iter().enumerate().map(|(i, merge)| {
        // A token may begin with a space but not contain one elsewhere, as in llama.cpp.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let at = merge[first..].find(' ').map(|at| at + first);
        let at = at.ok_or_else(|| invalid(format!("merge {i} is {merge:?}, not two tokens")))?;
        Ok((merge[..at].to_owned(), merge[at + 1..].to_owned()))
    });
    let definition = Definition {
        what: WHAT,
        model: ModelParts::Bpe(BpeParts {
            vocab: tokens.map(|(id, text)| (text.clone(), id)).collect(),
            merges: merges.collect::<Result<_>>()?,
            ignore_merges: kind.ignore_merges,
            byte_fallback: kind.raw,
            newlines_whole: matches!(name, "gemma4" | "granite-embed-multi-311m"),
            ..BpeParts::default()
        }),
        added_tokens: added_tokens(vocab, kinds),
        later_tokens: Vec::new(),
        normalizer: kind.normalizer_json(),
        pre_tokenizer: kind.to_json(),
        spelling: if kind.raw { Spelling::SentencePiece } else { Spelling::ByteLevel },
        strip_leading_space: false,
        prefix: Vec::new(),
        suffix: Vec::new(),
    };
    let mut tokenizer = Tokenizer::from_definition(definition, Some((&vocab.tokens, kinds)))?;
    tokenizer.warnings = warnings;
    set_affixes(tokenizer, vocab, (kind.add_bos, false), vocab.bos, vocab.eos)
}

fn unigram(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Tokenizer> {
    if vocab.scores.is_empty() {
        return Err(invalid("tokenizer.ggml.scores is absent, but a \"t5\" vocabulary needs it"));
    }
    // llama.cpp's defaults.
    let (eos, unknown) = (vocab.eos.or(Some(1)), vocab.unk.unwrap_or(2));
    let fewer = vocab.remove_extra_whitespaces == Some(true);
    let space = vocab.add_space_prefix.unwrap_or(false) || fewer;
    let mut normalizers = Vec::new();
    if !vocab.precompiled_charsmap.is_empty() {
        check_charsmap(&vocab.precompiled_charsmap, WHAT)?;
        let table = BASE64_STANDARD.encode(&vocab.precompiled_charsmap);
        normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": table}));
    }
    if fewer {
        normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        normalizers.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    let pieces = vocab.tokens.iter().zip(&vocab.scores).map(|(text, score)| (text.clone(), f64::from(*score)));
    let definition = Definition {
        what: WHAT,
        model: ModelParts::Unigram(UnigramParts {
            pieces: pieces.collect(),
            unknown: Some(unknown as usize),
            byte_fallback: kinds.contains(&TokenKind::Byte),
        }),
        added_tokens: added_tokens(vocab, kinds),
        later_tokens: Vec::new(),
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: json!({
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": if space { "always" } else { "never" }, "split": false
        }),
        spelling: Spelling::SentencePiece,
        strip_leading_space: space,
        prefix: Vec::new(),
        suffix: Vec::new(),
    };
    let mut tokenizer = Tokenizer::from_definition(definition, Some((&vocab.tokens, kinds)))?;
    tokenizer.special.unk = Some(unknown);
    set_affixes(tokenizer, vocab, (false, true), vocab.bos, eos.filter(|&id| (id as usize) < kinds.len()))
}

fn sentencepiece(vocab: &GgufVocab, kinds: Vec<TokenKind>) -> Result<Tokenizer> {
    if vocab.scores.is_empty() {
        return Err(invalid("tokenizer.ggml.scores is absent, but a \"llama\" vocabulary needs it"));
    }
    let find = |text: &str| vocab.tokens.iter().position(|t| t == text).map(|id| id as u32);
    let unknown = vocab.unk.or_else(|| kinds.iter().position(|k| *k == TokenKind::Unknown).map(|id| id as u32));
    let unknown = unknown.filter(|&id| (id as usize) < kinds.len());
    let mut pieces = Pieces::new();
    for (text, kind) in vocab.tokens.iter().zip(&kinds) {
        if *kind == TokenKind::Byte && byte_token(text).is_none() {
            return Err(invalid(format!("{text:?} has the type of a byte token")));
        }
        pieces.push(text, *kind, Spelling::SentencePiece);
    }
    let added = added_tokens(vocab, &kinds);
    let tokens = (vocab.tokens.iter().cloned().zip(vocab.scores.iter().copied()).zip(kinds))
        .map(|((text, score), kind)| (text, score, kind))
        .collect();
    let space_prefix = vocab.add_space_prefix.unwrap_or(true);
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    if space_prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
    }
    let invalid_part = |e: serde_json::Error| TokenizerError::invalid(WHAT, e);
    let mut encoder = TokenizerBuilder::new()
        .with_model(Model::SentencePiece(SentencePiece::new(tokens, unknown).into()))
        .with_normalizer(
            serde_json::from_value(json!({"type": "Sequence", "normalizers": normalizers})).map_err(invalid_part)?,
        )
        .build()
        .map_err(|e| TokenizerError::invalid(WHAT, e))?;
    add_tokens(&mut encoder, &added, WHAT)?;
    let mut tokenizer = Tokenizer::assemble(encoder, pieces, Spelling::SentencePiece, space_prefix)?;
    tokenizer.special.unk = unknown;
    // SentencePiece's own names, if the file has no ids.
    let (bos, eos) = (vocab.bos.or_else(|| find("<s>")), vocab.eos.or_else(|| find("</s>")));
    set_affixes(tokenizer, vocab, (true, false), bos, eos)
}

/// Begin and end tokens around a text, as the file says or else as the kind does.
fn set_affixes(
    mut tokenizer: Tokenizer,
    vocab: &GgufVocab,
    (add_bos, add_eos): (bool, bool),
    bos: Option<u32>,
    eos: Option<u32>,
) -> Result<Tokenizer> {
    let (stated_bos, stated_eos) = (vocab.add_bos == Some(true), vocab.add_eos == Some(true));
    if (stated_bos && bos.is_none()) || (stated_eos && eos.is_none()) {
        return Err(invalid("a begin or end token is to be added, but the file does not say which"));
    }
    tokenizer.special.bos = bos;
    tokenizer.special.eos = eos;
    let prefix = bos.filter(|_| vocab.add_bos.unwrap_or(add_bos));
    let suffix = eos.filter(|_| vocab.add_eos.unwrap_or(add_eos));
    tokenizer.with_affixes(prefix.into_iter().collect(), suffix.into_iter().collect())
}
