//! Reading and writing vocabularies of GGUF files.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::{Model as _, TokenizerBuilder};

use super::bpe::BpeParts;
use super::error::{Result, TokenizerError};
use super::json::{Definition, steps, type_of};
use super::model::Model;
use super::pieces::{Pieces, Spelling, TokenKind, byte_token};
use super::pretokenizer::Kind;
use super::sentencepiece::SentencePiece;
use super::{Tokenizer, add_tokens};

const WHAT: &str = "GGUF vocabulary";

/// The tokenizer metadata of a GGUF file, key by key (`tokenizer.ggml.*`); `None` where a key is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// `tokenizer.ggml.pre`: the name of the pre-tokenizer, for `gpt2`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the spelling of each id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`: one for each token, for `llama`; otherwise empty.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`: a [`TokenKind`] for each token, or empty.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`: `"left right"`, best first, for `gpt2`; otherwise empty.
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
    /// `tokenizer.ggml.add_space_prefix`, for `llama`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

fn invalid(why: impl Into<String>) -> TokenizerError {
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
        let kinds = check(vocab)?;
        let mut tokenizer = match vocab.model.as_str() {
            "gpt2" => byte_level(vocab, &kinds)?,
            "llama" => sentencepiece(vocab, kinds)?,
            other => {
                return Err(TokenizerError::Unsupported(format!(
                    "tokenizer.ggml.model is {other:?}; known are \"gpt2\" and \"llama\""
                )));
            }
        };
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

    /// The vocabulary for a GGUF file, of `vocab_size` tokens: as many as the model has rows, the
    /// surplus as unused `[PADn]`.
    ///
    /// # Errors
    /// `Unsupported` if GGUF cannot express this tokenizer (an unknown pre-tokenizer, merges without
    /// equivalent scores, other tokens around a text than begin and end), `Vocabulary` if
    /// `vocab_size` is less than [`vocab_size`](Self::vocab_size).
    pub fn to_gguf(&self, vocab_size: usize) -> Result<GgufVocab> {
        if vocab_size < self.vocab_size() {
            return Err(invalid(format!(
                "the tokenizer has {} tokens, the model only {vocab_size} rows",
                self.vocab_size()
            )));
        }
        let mut vocab = GgufVocab {
            bos: self.special.bos,
            eos: self.special.eos,
            eot: self.special.eot,
            unk: self.special.unk,
            pad: self.special.pad,
            add_bos: Some(affix(&self.prefix, self.special.bos, "before")?),
            add_eos: Some(affix(&self.suffix, self.special.eos, "after")?),
            chat_template: self.chat_template.clone(),
            ..GgufVocab::default()
        };
        for id in 0..vocab_size as u32 {
            let text = self.token_text(id).filter(|t| !t.is_empty());
            let kind = self.token_kind(id).filter(|_| text.is_some());
            vocab.token_types.push(kind.unwrap_or(TokenKind::Unused) as i32);
            vocab.tokens.push(text.unwrap_or_else(|| format!("[PAD{id}]")));
        }
        match (self.spelling, self.parsing.get_model()) {
            (Spelling::ByteLevel, Model::Bpe(bpe)) => self.write_byte_level(bpe, &mut vocab)?,
            (Spelling::SentencePiece, model) => {
                vocab.model = "llama".into();
                vocab.add_space_prefix = Some(self.space_prefix()?);
                vocab.scores = match model {
                    Model::SentencePiece(m) => (0..vocab_size as u32).map(|id| m.score_of(id).unwrap_or(0.0)).collect(),
                    Model::Bpe(bpe) => self.scores_from_merges(bpe, vocab_size)?,
                };
            }
            (Spelling::ByteLevel, Model::SentencePiece(_)) => {
                return Err(TokenizerError::Unsupported("scores with a byte-level vocabulary".into()));
            }
        }
        Ok(vocab)
    }

    fn write_byte_level(&self, bpe: &BPE, vocab: &mut GgufVocab) -> Result<()> {
        // Qwen's files ask for NFC, which no GGUF reader applies.
        let normalizer = serde_json::to_value(self.parsing.get_normalizer()).unwrap_or_default();
        if !(normalizer.is_null() || normalizer["type"] == "NFC") {
            return Err(TokenizerError::Unsupported(format!("GGUF cannot express the normalizer {normalizer}")));
        }
        let pre = self.parsing.get_pre_tokenizer();
        let kinds = Kind::equal_to(pre)?;
        let same = kinds.iter().find(|k| k.ignore_merges == bpe.ignore_merges);
        let kind = same.or_else(|| kinds.first().filter(|_| self.merges_reach_every_token(bpe)));
        let Some(kind) = kind else {
            return Err(TokenizerError::Unsupported(format!(
                "no GGUF pre-tokenizer (tokenizer.ggml.pre) cuts text as this tokenizer.json does: {} with ignore_merges {}",
                serde_json::to_value(pre).unwrap_or_default(),
                bpe.ignore_merges
            )));
        };
        vocab.model = "gpt2".into();
        vocab.pre = Some(kind.names[0].into());
        vocab.merges = ranked_merges(bpe)?.iter().map(|(a, b)| format!("{a} {b}")).collect();
        Ok(())
    }

    /// Whether whole tokens can be taken without merging: merges reach each of them.
    fn merges_reach_every_token(&self, bpe: &BPE) -> bool {
        let mut bpe = bpe.clone();
        bpe.ignore_merges = false;
        bpe.resize_cache(0);
        (0u32..).zip(self.pieces.kinds()).all(|(id, kind)| {
            let text = bpe.id_to_token(id).filter(|_| *kind == TokenKind::Normal);
            text.is_none_or(|t| bpe.tokenize(&t).is_ok_and(|ids| matches!(&ids[..], [one] if one.id == id)))
        })
    }

    /// Whether a space is put before a text, from the normalizer or the pre-tokenizer.
    fn space_prefix(&self) -> Result<bool> {
        let normalizer = serde_json::to_value(self.parsing.get_normalizer()).unwrap_or_default();
        let pre = serde_json::to_value(self.parsing.get_pre_tokenizer()).unwrap_or_default();
        let mut list = Vec::new();
        steps(&normalizer, &mut list);
        steps(&pre, &mut list);
        let replace = |s: &Map<String, Value>| s["content"] == "▁" && s["pattern"]["String"] == " ";
        let types: Vec<&str> = list.iter().map(|s| type_of(s)).collect();
        match types[..] {
            ["Prepend", "Replace"] if list[0]["prepend"] == "▁" && replace(list[1]) => Ok(true),
            ["Replace"] if replace(list[0]) => Ok(false),
            ["Metaspace"] if list[0]["replacement"] == "▁" && list[0]["split"] == false => {
                Ok(list[0]["prepend_scheme"] != "never")
            }
            _ => Err(TokenizerError::Unsupported(format!(
                "GGUF's SentencePiece cannot express the steps [{}] of this tokenizer.json",
                types.join(", ")
            ))),
        }
    }

    /// Scores equivalent to ranks: minus the rank of a token's first merge.
    ///
    /// Scores belong to tokens, ranks to pairs, so this needs what files converted from SentencePiece
    /// have: every pair that makes a token is a merge, and the merges of a token are adjacent.
    fn scores_from_merges(&self, bpe: &BPE, vocab_size: usize) -> Result<Vec<f32>> {
        let merges = ranked_merges(bpe)?;
        let mut groups: HashMap<u32, (usize, usize)> = HashMap::new();
        let mut last = None;
        let refuse = |why: String| {
            TokenizerError::Unsupported(format!("these merges cannot be written as SentencePiece scores: {why}"))
        };
        let mut scores = vec![0.0; vocab_size];
        for (rank, (a, b)) in merges.iter().enumerate() {
            let text = [a.as_str(), b].concat();
            let id = bpe.token_to_id(&text).unwrap_or_default();
            let group = groups.entry(id).or_insert((rank, 0));
            if group.1 > 0 && last != Some(id) {
                return Err(refuse(format!("those of {text:?} are not adjacent")));
            }
            group.1 += 1;
            last = Some(id);
            scores[id as usize] = -(group.0 as f32);
        }
        for (id, kind) in (0u32..).zip(self.pieces.kinds()) {
            let Some(text) = bpe.id_to_token(id).filter(|_| *kind == TokenKind::Normal) else {
                continue;
            };
            let normal = |part: &str| {
                let id = bpe.token_to_id(part);
                id.is_some_and(|id| self.token_kind(id) == Some(TokenKind::Normal))
            };
            let pairs =
                (text.char_indices().skip(1)).filter(|&(at, _)| normal(&text[..at]) && normal(&text[at..])).count();
            let listed = groups.get(&id).map_or(0, |g| g.1);
            if pairs > listed {
                return Err(refuse(format!("{pairs} pairs make {text:?}, {listed} of them are merges")));
            }
        }
        Ok(scores)
    }
}

/// The merges of a model, best first.
fn ranked_merges(bpe: &BPE) -> Result<Vec<(String, String)>> {
    let model = serde_json::to_value(bpe).map_err(|e| TokenizerError::invalid(WHAT, e))?;
    Ok(BpeParts::from_json(model, WHAT)?.merges)
}

/// Whether the tokens around a text are exactly this one, or none.
fn affix(ids: &[u32], token: Option<u32>, place: &str) -> Result<bool> {
    match ids {
        [] => Ok(false),
        [id] if Some(*id) == token => Ok(true),
        _ => Err(TokenizerError::Unsupported(format!(
            "GGUF cannot express that the tokens {ids:?} are put {place} a text"
        ))),
    }
}

/// Lists of equal length, known types, distinct tokens; returns the kind of each.
fn check(vocab: &GgufVocab) -> Result<Vec<TokenKind>> {
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
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(n);
    for (id, token) in vocab.tokens.iter().enumerate() {
        if let Some(first) = seen.insert(token, id)
            && !token.is_empty()
        {
            return Err(invalid(format!("tokens {first} and {id} are both {token:?}")));
        }
    }
    (0..n)
        .map(|id| {
            let number = vocab.token_types.get(id).copied().unwrap_or(1);
            let kind = TokenKind::from_gguf(number)
                .ok_or_else(|| invalid(format!("token {id} has the unknown type {number}")))?;
            Ok(if vocab.tokens[id].is_empty() { TokenKind::Unused } else { kind })
        })
        .collect()
}

/// The `added_tokens` of a `tokenizer.json`: those that are split off from a text first.
fn added_tokens(vocab: &GgufVocab, kinds: &[TokenKind]) -> Value {
    let added = |kind: TokenKind| kind.is_special() || kind == TokenKind::UserDefined;
    (vocab.tokens.iter().zip(kinds).enumerate())
        .filter(|(_, (_, kind))| added(**kind))
        .map(|(id, (text, kind))| {
            json!({
                "id": id, "content": text, "special": kind.is_special(),
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect()
}

fn byte_level(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Tokenizer> {
    let mut warnings = Vec::new();
    let has = |text: &str| vocab.tokens.iter().any(|t| t == text);
    let name = match vocab.pre.as_deref() {
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
        model: BpeParts {
            vocab: tokens.map(|(id, text)| (text.clone(), id)).collect(),
            merges: merges.collect::<Result<_>>()?,
            ignore_merges: kind.ignore_merges,
            ..BpeParts::default()
        },
        added_tokens: added_tokens(vocab, kinds),
        normalizer: Value::Null,
        pre_tokenizer: kind.to_json(),
        spelling: Spelling::ByteLevel,
        strip_leading_space: false,
        prefix: Vec::new(),
        suffix: Vec::new(),
    };
    let mut tokenizer = Tokenizer::from_definition(definition, Some(kinds))?;
    tokenizer.warnings = warnings;
    set_affixes(tokenizer, vocab, kind.add_bos, vocab.bos, vocab.eos)
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
    set_affixes(tokenizer, vocab, true, bos, eos)
}

/// Begin and end tokens around a text, as the file says or else as the kind does.
fn set_affixes(
    mut tokenizer: Tokenizer,
    vocab: &GgufVocab,
    add_bos: bool,
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
    let suffix = eos.filter(|_| stated_eos);
    tokenizer.with_affixes(prefix.into_iter().collect(), suffix.into_iter().collect())
}
