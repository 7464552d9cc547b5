//! The merge algorithm of a tokenizer, shared by its two encoders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{Model as HfModel, Token};

use super::sentencepiece::SentencePiece;

/// Byte-pair merges by rank (`tokenizers`) or by score (ours).
#[derive(Debug, Clone)]
pub(crate) enum Model {
    Bpe(Arc<BPE>),
    SentencePiece(Arc<SentencePiece>),
}

impl HfModel for Model {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Self::Bpe(m) => m.tokenize(sequence),
            Self::SentencePiece(m) => m.tokenize(sequence).map_err(Into::into),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Bpe(m) => m.token_to_id(token),
            Self::SentencePiece(m) => m.id_of(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::Bpe(m) => m.id_to_token(id),
            Self::SentencePiece(m) => m.text_of(id).map(str::to_owned),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Self::Bpe(m) => m.get_vocab(),
            Self::SentencePiece(m) => m.vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Self::Bpe(m) => m.get_vocab_size(),
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
            Self::Bpe(m) => m.serialize(serializer),
            Self::SentencePiece(m) => m.to_bpe_json().serialize(serializer),
        }
    }
}
