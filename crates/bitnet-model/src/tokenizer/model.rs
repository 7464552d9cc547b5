//! The merge algorithm of a tokenizer, shared by its two encoders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::Unigram;
use tokenizers::{Model as HfModel, Token};

use super::sentencepiece::SentencePiece;

/// Byte-pair merges by rank (`tokenizers`) or by score (ours), or the likeliest pieces (`tokenizers`).
#[derive(Debug, Clone)]
pub(crate) enum Model {
    Bpe(Arc<BPE>),
    /// Gemma 4 as llama.cpp reads it: a run of newlines that is a token is taken whole.
    BpeOfLines(Arc<BPE>),
    SentencePiece(Arc<SentencePiece>),
    /// With the special pieces, which it does not find in a text.
    Unigram(Arc<Unigram>, Arc<HashMap<String, u32>>),
}

impl Model {
    /// The merges by rank, if it has them.
    pub(crate) fn bpe(&self) -> Option<&BPE> {
        match self {
            Self::Bpe(m) | Self::BpeOfLines(m) => Some(m),
            Self::SentencePiece(_) | Self::Unigram(..) => None,
        }
    }
}

impl HfModel for Model {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Self::BpeOfLines(m) => {
                let newlines = sequence.bytes().all(|b| b == b'\n');
                match m.token_to_id(sequence).filter(|_| newlines) {
                    Some(id) => Ok(vec![Token::new(id, sequence.to_owned(), (0, sequence.len()))]),
                    None => m.tokenize(sequence),
                }
            }
            Self::Bpe(m) => m.tokenize(sequence),
            Self::SentencePiece(m) => m.tokenize(sequence).map_err(Into::into),
            Self::Unigram(m, _) => m.tokenize(sequence),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Bpe(m) | Self::BpeOfLines(m) => m.token_to_id(token),
            Self::Unigram(m, special) => special.get(token).copied().or_else(|| m.token_to_id(token)),
            Self::SentencePiece(m) => m.id_of(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::Bpe(m) | Self::BpeOfLines(m) => m.id_to_token(id),
            Self::Unigram(m, special) => {
                let named = special.iter().find(|(_, special)| **special == id);
                named.map(|(text, _)| text.clone()).or_else(|| m.id_to_token(id))
            }
            Self::SentencePiece(m) => m.text_of(id).map(str::to_owned),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Self::Bpe(m) | Self::BpeOfLines(m) => m.get_vocab(),
            Self::Unigram(m, _) => m.get_vocab(),
            Self::SentencePiece(m) => m.vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Self::Bpe(m) | Self::BpeOfLines(m) => m.get_vocab_size(),
            Self::Unigram(m, _) => m.get_vocab_size(),
            Self::SentencePiece(m) => m.len(),
        }
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("written as tokenizer.json only".into())
    }

    fn get_trainer(&self) -> TrainerWrapper {
        BpeTrainer::default().into()
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bpe(m) | Self::BpeOfLines(m) => m.serialize(serializer),
            Self::Unigram(m, _) => m.serialize(serializer),
            Self::SentencePiece(m) => m.to_bpe_json().serialize(serializer),
        }
    }
}
