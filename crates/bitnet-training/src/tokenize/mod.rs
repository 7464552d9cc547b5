//! Tokenizers made from text, and texts made into token files.
//!
//! A tokenizer that is made here is a byte-level BPE in a `tokenizer.json` that transformers and [`Tokenizer`] read: the
//! kinds differ in their merges. `char` has those that make each character of the text one token, `bytes` none, `bpe` the
//! most frequent ones.
//!
//! ```
//! use bitnet_model::tokenizer::Tokenizer;
//! use bitnet_training::config::TokenizerKind;
//! use bitnet_training::tokenize::{make, NewTokenizer};
//! # let path = std::env::temp_dir().join(format!("bitnet-doc-{}.txt", std::process::id()));
//! # let path = &path;
//! std::fs::write(path, "to be, or not to be")?;
//! let new = NewTokenizer { kind: TokenizerKind::Char, vocab_size: 0, special: vec![], document_end: None };
//! let made = make(&[path], &new, &mut |_, _| Ok(()))?;
//! let tokenizer = Tokenizer::from_json(made.json.as_bytes())?;
//! assert_eq!(tokenizer.vocab_size(), 8); // space and comma, b e n o r t
//! assert_eq!(tokenizer.encode("bet", false)?, [2, 3, 7]);
//! # std::fs::remove_file(path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chat;
mod encode;
#[cfg(feature = "parquet")]
mod parquet;
mod source;
mod texts;
mod vocabulary;

pub use chat::holds_chats;
pub use encode::{encode_texts, fingerprint};
pub use texts::TextPart;
pub use vocabulary::{MadeTokenizer, NewTokenizer, make};

use crate::error::Result;

/// Is told how many bytes of how many are done, and may stop the work with an error.
pub type OnProgress<'a> = &'a mut (dyn FnMut(u64, u64) -> Result<()> + Send);

#[cfg(doc)]
use bitnet_model::tokenizer::Tokenizer;

#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod tests;
