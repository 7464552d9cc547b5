//! Writing vocabularies of GGUF files, and what they cannot keep.

use std::collections::HashMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value};
use tokenizers::Model as _;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;

use super::Tokenizer;
use super::bpe::BpeParts;
use super::error::{Result, TokenizerError};
use super::gguf::{GgufVocab, WHAT, invalid};
use super::json::{steps, type_of};
use super::model::Model;
use super::pieces::{Spelling, TokenKind};
use super::pretokenizer::Kind;

impl Tokenizer {
    /// The vocabulary for a GGUF file, of `vocab_size` tokens: as many as the model has rows, the
    /// surplus as unused `[PADn]`.
    ///
    /// # Errors
    /// `Unsupported` if GGUF cannot express this tokenizer (an unknown pre-tokenizer, merges without
    /// equivalent scores, other tokens around a text than begin and end), `Vocabulary` if
    /// `vocab_size` is less than [`vocab_size`](Self::vocab_size).
    pub fn to_gguf(&self, vocab_size: usize) -> Result<GgufVocab> {
        // Added tokens that the model has no row for; `lost_in_gguf` names them.
        let needed = (0..self.vocab_size() as u32).rev().find(|&id| !self.is_added(id)).map_or(0, |id| id as usize + 1);
        if vocab_size < needed {
            return Err(invalid(format!("the tokenizer has {needed} tokens, the model only {vocab_size} rows")));
        }
        let with_row = |id: Option<u32>| id.filter(|&id| (id as usize) < vocab_size);
        let mut vocab = GgufVocab {
            bos: with_row(self.special.bos),
            eos: with_row(self.special.eos),
            eot: with_row(self.special.eot),
            unk: with_row(self.special.unk),
            pad: with_row(self.special.pad),
            add_bos: Some(affix(&self.prefix, with_row(self.special.bos), "before")?),
            add_eos: Some(affix(&self.suffix, with_row(self.special.eos), "after")?),
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
            (_, Model::Unigram(model, _)) => self.write_unigram(model, &mut vocab)?,
            (_, Model::BpeOfLines(bpe)) => {
                vocab.model = "gemma4".into();
                vocab.merges = ranked_merges(bpe)?.iter().map(|(a, b)| format!("{a} {b}")).collect();
            }
            (Spelling::SentencePiece, model) => {
                vocab.model = "llama".into();
                vocab.add_space_prefix = Some(self.space_prefix()?);
                vocab.scores = match model {
                    Model::SentencePiece(m) => (0..vocab_size as u32).map(|id| m.score_of(id).unwrap_or(0.0)).collect(),
                    model => self.scores_from_merges(model, vocab_size)?,
                };
            }
            (Spelling::ByteLevel, Model::SentencePiece(_)) => {
                return Err(TokenizerError::Unsupported("scores with a byte-level vocabulary".into()));
            }
        }
        Ok(vocab)
    }

    /// What [`to_gguf`](Self::to_gguf) cannot keep, a line each.
    pub fn lost_in_gguf(&self, vocab_size: usize) -> Vec<String> {
        let mut lost = Vec::new();
        let mut note = |what: &str, tokens: Vec<String>| match &tokens[..] {
            [] => {}
            [one] => lost.push(format!("GGUF cannot keep that the token {one} {what}")),
            [one, rest @ ..] => {
                lost.push(format!("GGUF cannot keep that the token {one} and {} more {what}", rest.len()))
            }
        };
        let added = self.parsing.get_added_vocabulary().get_added_tokens_decoder();
        let with = |property: &dyn Fn(u32, &tokenizers::AddedToken) -> bool| {
            let tokens = added.iter().filter(|(id, token)| property(**id, token));
            tokens.map(|(_, token)| format!("{:?}", token.content)).collect()
        };
        note("takes the white space before it (lstrip)", with(&|_, token| token.lstrip));
        note("takes the white space after it (rstrip)", with(&|_, token| token.rstrip));
        note("is found as a whole word only (single_word)", with(&|_, token| token.single_word));
        note("has an id: the model has no row for it", with(&|id, _| id as usize >= vocab_size));
        let normalizer = serde_json::to_value(self.parsing.get_normalizer()).unwrap_or_default();
        if normalizer["type"] == "NFC" {
            lost.push("GGUF cannot keep that texts are normalized (NFC)".into());
        }
        lost
    }

    /// What [`save_json`](Self::save_json) cannot keep, a line each.
    pub fn lost_in_json(&self) -> Vec<String> {
        let ids = self.duplicates.keys().min();
        let lost = ids.map(|id| {
            let text = self.duplicates.get(id).map(String::as_str).unwrap_or_default();
            format!("tokenizer.json has one id for {text:?}: {id} is without a token ({} such)", self.duplicates.len())
        });
        lost.into_iter().collect()
    }

    fn is_added(&self, id: u32) -> bool {
        self.parsing.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    fn write_unigram(&self, model: &Unigram, vocab: &mut GgufVocab) -> Result<()> {
        let parts = [
            serde_json::to_value(self.parsing.get_normalizer()),
            serde_json::to_value(self.parsing.get_pre_tokenizer()),
        ];
        let parts = parts.map(|part| part.unwrap_or_default());
        let mut list = Vec::new();
        parts.iter().for_each(|part| steps(part, &mut list));
        let (mut space, mut fewer) = (None, false);
        for step in list {
            match type_of(step) {
                "Precompiled" => {
                    let table = step.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
                    vocab.precompiled_charsmap =
                        BASE64_STANDARD.decode(table).map_err(|e| TokenizerError::invalid(WHAT, e))?;
                }
                "Strip" | "WhitespaceSplit" => fewer = true,
                "Replace" if step.get("pattern").is_some_and(|pattern| pattern["Regex"] == " {2,}") => fewer = true,
                "Metaspace" if step.get("replacement").is_some_and(|c| c == "▁") => {
                    space = Some(step.get("prepend_scheme").is_none_or(|scheme| scheme != "never"));
                }
                other => {
                    return Err(TokenizerError::Unsupported(format!(
                        "GGUF's t5 vocabulary cannot express the step {other}"
                    )));
                }
            }
        }
        let space =
            space.ok_or_else(|| TokenizerError::Unsupported("GGUF's t5 vocabulary needs the step Metaspace".into()))?;
        vocab.model = "t5".into();
        vocab.pre = Some("default".into());
        vocab.add_space_prefix = Some(space);
        vocab.remove_extra_whitespaces = Some(fewer);
        let model = serde_json::to_value(model).map_err(|e| TokenizerError::invalid(WHAT, e))?;
        let score = |id: usize| model["vocab"][id][1].as_f64().unwrap_or_default() as f32;
        vocab.scores = (0..vocab.tokens.len()).map(score).collect();
        Ok(())
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
    /// Scores belong to tokens, ranks to pairs, so this needs what files converted from SentencePiece have: every pair that
    /// makes a token is a merge, and the merges of a token are adjacent, or mixed with those of others that had the same score,
    /// which transformers orders by the lengths of the parts.
    fn scores_from_merges(&self, model: &Model, vocab_size: usize) -> Result<Vec<f32>> {
        let refuse = |why: String| {
            TokenizerError::Unsupported(format!("these merges cannot be written as SentencePiece scores: {why}"))
        };
        let bpe = model.bpe().ok_or_else(|| refuse("there are none".into()))?;
        let merges = ranked_merges(bpe)?;
        let id_of = |(a, b): &(String, String)| bpe.token_to_id(&[a.as_str(), b].concat()).unwrap_or_default();
        let ids: Vec<u32> = merges.iter().map(id_of).collect();
        // The last rank of each token, and how many merges make it.
        let mut groups: HashMap<u32, (usize, usize)> = HashMap::new();
        for (rank, &id) in ids.iter().enumerate() {
            let (last, count) = groups.entry(id).or_default();
            (*last, *count) = (rank, *count + 1);
        }
        let mut scores = vec![0.0; vocab_size];
        let mut from = 0;
        while from < merges.len() {
            // Up to the last merge of every token that has begun.
            let (mut at, mut end) = (from, from);
            while at <= end {
                end = end.max(groups[&ids[at]].0);
                scores[ids[at] as usize] = -(from as f32);
                at += 1;
            }
            let tied = ids[from..at].iter().any(|id| *id != ids[from]);
            let lengths = |(a, b): &(String, String)| (a.chars().count(), b.chars().count());
            if tied && !merges[from..at].is_sorted_by(|x, y| lengths(x) >= lengths(y)) {
                let (a, b) = &merges[from];
                return Err(refuse(format!("those of {:?} do not stand together", [a.as_str(), b].concat())));
            }
            from = at;
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
