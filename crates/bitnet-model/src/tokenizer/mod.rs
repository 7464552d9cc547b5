//! Tokenizers: text to token ids and back.
//!
//! One type, [`Tokenizer`], over two sources: a Hugging Face `tokenizer.json` (byte-level BPE, SentencePiece-style BPE
//! with byte fallback, or Unigram) and the vocabulary inside a GGUF file. Either can be
//! written as the other. [`StreamDecoder`] decodes a stream of tokens, [`StopMatcher`] finds stop strings.

mod bpe;
mod error;
mod gguf;
mod gguf_write;
mod json;
mod model;
mod pieces;
mod pretokenizer;
mod sentencepiece;
mod special;
mod stop;
mod stream;
mod unigram;

use bitnet_core::serialize::output::AtomicFile;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;
use tokenizers::{
    DecoderWrapper, Model as _, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerBuilder,
    TokenizerImpl,
};

pub use error::TokenizerError;
pub use gguf::GgufVocab;
pub use pieces::TokenKind;
pub use special::SpecialTokens;
pub use stop::StopMatcher;
pub use stream::{StreamDecoder, StreamStart};

use error::Result;
use json::{Definition, ModelParts};
use model::Model;
use pieces::{Pieces, Spelling, byte_token};
use special::Siblings;

const FILE: &str = "tokenizer.json";

type Encoder = TokenizerImpl<Model, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Whether special tokens are recognised in a text to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseSpecial {
    /// `<|eot_id|>` in the text is ten characters; for text from users.
    No,
    /// `<|eot_id|>` in the text is the token; for rendered chat templates.
    Yes,
}

/// A vocabulary with its rules for encoding and decoding. Immutable, `Send + Sync`.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// Encoders that treat special tokens in the text as text / as tokens; both share one model.
    plain: Encoder,
    parsing: Encoder,
    pieces: Pieces,
    spelling: Spelling,
    strip_leading_space: bool,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    special: SpecialTokens,
    chat_template: Option<String>,
    /// Ids whose spelling is also that of a later id, which text becomes.
    duplicates: HashMap<u32, String>,
    warnings: Vec<String>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the one in a directory, with the files beside it, as transformers does:
    /// `tokenizer_config.json`, `generation_config.json`, `chat_template.jinja`, and where `tokenizer_config.json` lists no added
    /// tokens, `added_tokens.json` and `special_tokens_map.json`.
    ///
    /// `add_bos_token` and `add_eos_token` have no effect: they are for tokenizers without a `tokenizer.json`, whose
    /// post-processor says what is put around a text.
    ///
    /// # Errors
    /// `Io`, `Invalid`, `Unsupported`, `Vocabulary`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = match path.is_dir() {
            true => path.join("tokenizer.json"),
            false => path.to_owned(),
        };
        let io = |source| TokenizerError::Io { path: file.clone(), source };
        // Before it is opened: opening a pipe waits for its writer.
        if !std::fs::metadata(&file).map_err(io)?.is_file() {
            return Err(io(std::io::Error::other("is a pipe or a device, not a file")));
        }
        let bytes = std::fs::read(&file).map_err(io)?;
        if bytes.starts_with(b"GGUF") {
            let problem = format!("{} is a GGUF file: name a tokenizer.json or its directory", file.display());
            return Err(TokenizerError::Unsupported(problem));
        }
        let value = serde_json::from_slice(&bytes).map_err(|e| TokenizerError::invalid(FILE, e))?;
        let mut definition = Definition::from_json(value, FILE)?;
        let siblings = Siblings::read(file.parent().unwrap_or(Path::new(".")))?;
        definition.later_tokens = siblings.tokens(&definition.added_tokens);
        let mut tokenizer = Self::from_definition(definition, None)?;
        tokenizer.take_roles(&siblings)?;
        Ok(tokenizer)
    }

    /// Reads the contents of a `tokenizer.json`. Begin and end tokens are then known only from its
    /// post-processor and the usual names of such tokens.
    ///
    /// # Errors
    /// `Invalid`, `Unsupported`, `Vocabulary`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let value = serde_json::from_slice(bytes).map_err(|e| TokenizerError::invalid(FILE, e))?;
        Self::from_definition(Definition::from_json(value, FILE)?, None)
    }

    /// `known`: spelling and kind of each id, if the source has them; otherwise derived from the definition.
    fn from_definition(definition: Definition, known: Option<(&[String], &[TokenKind])>) -> Result<Self> {
        let Definition { what, model, spelling, .. } = definition;
        let invalid = |e: serde_json::Error| TokenizerError::invalid(what, e);
        let (model, unk, byte_fallback, last) = match model {
            ModelParts::Bpe(parts) => {
                let (unk, byte_fallback) = (parts.unk_token.clone(), parts.byte_fallback);
                let last = parts.vocab.iter().map(|(_, id)| *id).max().unwrap_or_default();
                let newlines = parts.newlines_whole;
                let bpe = parts.build(what)?.into();
                (if newlines { Model::BpeOfLines(bpe) } else { Model::Bpe(bpe) }, unk, byte_fallback, last)
            }
            ModelParts::Unigram(parts) => {
                let unk = parts.unknown.and_then(|id| Some(parts.pieces.get(id)?.0.clone()));
                let (byte_fallback, last) = (parts.byte_fallback, parts.pieces.len().saturating_sub(1));
                let listed = definition.added_tokens.as_array().into_iter().flatten();
                let special = listed.filter(|token| token["special"] == true);
                let special = special.filter_map(|token| token["content"].as_str().map(str::to_owned));
                let later = definition.later_tokens.iter().filter(|token| token.special);
                let special: HashSet<String> = special.chain(later.map(|token| token.content.clone())).collect();
                let (model, special) = parts.build(&special, what)?;
                (Model::Unigram(model.into(), special.into()), unk, byte_fallback, last as u32)
            }
        };
        let mut encoder = TokenizerBuilder::new()
            .with_model(model)
            .with_normalizer(serde_json::from_value(definition.normalizer).map_err(invalid)?)
            .with_pre_tokenizer(serde_json::from_value(definition.pre_tokenizer).map_err(invalid)?)
            .build()
            .map_err(|e| TokenizerError::invalid(what, e))?;
        add_tokens(&mut encoder, &definition.added_tokens, what)?;
        encoder.add_tokens(definition.later_tokens).map_err(|e| TokenizerError::invalid(what, e))?;

        let added = encoder.get_added_vocabulary().get_added_tokens_decoder();
        let last = added.keys().copied().max().unwrap_or_default().max(last);
        let size = known.map_or(last as usize + 1, |(_, kinds)| kinds.len());
        let mut pieces = Pieces::new();
        for id in 0..size as u32 {
            if let Some((texts, kinds)) = known {
                pieces.push(&texts[id as usize], kinds[id as usize], spelling);
                continue;
            }
            let (text, kind) = match (added.get(&id), encoder.get_model().id_to_token(id)) {
                (Some(token), _) => {
                    let kind = match token.special {
                        true if unk.as_ref() == Some(&token.content) => TokenKind::Unknown,
                        true => TokenKind::Control,
                        false => TokenKind::UserDefined,
                    };
                    (token.content.clone(), kind)
                }
                (None, Some(text)) if byte_fallback && byte_token(&text).is_some() => (text, TokenKind::Byte),
                (None, Some(text)) => (text, TokenKind::Normal),
                (None, None) => (String::new(), TokenKind::Unused),
            };
            pieces.push(&text, kind, spelling);
        }
        Self::assemble(encoder, pieces, spelling, definition.strip_leading_space)?
            .with_affixes(definition.prefix, definition.suffix)
    }

    /// The construction common to all sources.
    fn assemble(encoder: Encoder, pieces: Pieces, spelling: Spelling, strip_leading_space: bool) -> Result<Self> {
        let mut plain = encoder.clone();
        plain.set_encode_special_tokens(true);
        let mut tokenizer = Self {
            plain,
            parsing: encoder,
            pieces,
            spelling,
            strip_leading_space,
            prefix: Vec::new(),
            suffix: Vec::new(),
            special: SpecialTokens::default(),
            chat_template: None,
            duplicates: HashMap::new(),
            warnings: Vec::new(),
        };
        tokenizer.roles_by_name();
        Ok(tokenizer)
    }

    fn with_affixes(mut self, prefix: Vec<u32>, suffix: Vec<u32>) -> Result<Self> {
        for &id in prefix.iter().chain(&suffix) {
            self.check_id(id)?;
        }
        if let [bos] = prefix[..] {
            self.special.bos.get_or_insert(bos);
        }
        (self.prefix, self.suffix) = (prefix, suffix);
        Ok(self)
    }

    fn check_id(&self, id: u32) -> Result<()> {
        let vocab_size = self.vocab_size();
        match (id as usize) < vocab_size {
            true => Ok(()),
            false => Err(TokenizerError::TokenId { id, vocab_size }),
        }
    }

    /// Token ids of a text. `add_special` puts the tokens around it that the model expects
    /// (usually the begin token); `parse` says whether special tokens are recognised inside it.
    ///
    /// # Errors
    /// `Encode` when the vocabulary cannot express the text (never with byte-level vocabularies).
    pub fn encode_with(&self, text: &str, add_special: bool, parse: ParseSpecial) -> Result<Vec<u32>> {
        let encoder = match parse {
            ParseSpecial::No => &self.plain,
            ParseSpecial::Yes => &self.parsing,
        };
        let encoding = (encoder.encode_fast(text, false)).map_err(|e| TokenizerError::Encode(e.to_string()))?;
        let ids = encoding.get_ids();
        Ok(match add_special {
            true => [&self.prefix, ids, &self.suffix].concat(),
            false => ids.to_vec(),
        })
    }

    /// [`encode_with`](Self::encode_with), special tokens in the text recognised, as Hugging Face does.
    ///
    /// # Errors
    /// As there.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.encode_with(text, add_special, ParseSpecial::Yes)
    }

    /// The text of tokens, without special ones. Equal to the output of a [`StreamDecoder`].
    ///
    /// # Errors
    /// `TokenId` for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_by(StreamDecoder::new(StreamStart::Text), ids)
    }

    /// The text of tokens, including special ones.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        self.decode_by(StreamDecoder::new(StreamStart::Text).with_special(), ids)
    }

    fn decode_by(&self, mut stream: StreamDecoder, ids: &[u32]) -> Result<String> {
        let mut text = String::with_capacity(4 * ids.len());
        for &id in ids {
            text.push_str(stream.push(self, id)?);
        }
        text.push_str(stream.finish());
        Ok(text)
    }

    /// Number of ids; every id of a token is smaller. A model may have more rows (padding).
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The bytes of a token (not always valid UTF-8 on their own).
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.pieces.get(id).map(|(bytes, _)| bytes)
    }

    /// The kind of a token.
    pub fn token_kind(&self, id: u32) -> Option<TokenKind> {
        self.pieces.get(id).map(|(_, kind)| kind)
    }

    /// The token as the vocabulary spells it (`Ġthe`, `▁the`, `<0x0A>`).
    pub fn token_text(&self, id: u32) -> Option<String> {
        let added = self.parsing.get_added_vocabulary().get_added_tokens_decoder();
        match added.get(&id) {
            Some(token) => Some(token.content.clone()),
            None => self.duplicates.get(&id).cloned().or_else(|| self.parsing.get_model().id_to_token(id)),
        }
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.parsing.token_to_id(text)
    }

    /// The tokens with a role: begin, end, where to stop.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Whether generation ends at this token (end of text, of turn, of message).
    pub fn is_stop(&self, id: u32) -> bool {
        self.special.stop.contains(&id)
    }

    /// The tokens that encoding adds before and after a text with `add_special`.
    pub fn affixes(&self) -> (&[u32], &[u32]) {
        (&self.prefix, &self.suffix)
    }

    /// The Jinja source of the chat template, where the checkpoint has one.
    pub fn chat_template_source(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Warnings about the source, for users.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Writes a `tokenizer.json` that Hugging Face reads.
    ///
    /// # Errors
    /// `Io`.
    pub fn save_json(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let json = serde_json::to_vec_pretty(&self.to_json()?).map_err(|e| TokenizerError::invalid("tokenizer", e))?;
        AtomicFile::write_bytes(path, &json).map_err(TokenizerError::Write)?;
        Ok(())
    }

    /// The value of a `tokenizer.json`.
    fn to_json(&self) -> Result<Value> {
        let named = |ids: &[u32]| -> Vec<(u32, String)> {
            (ids.iter().map(|&id| (id, self.token_text(id).unwrap_or_default()))).collect()
        };
        let mut value = serde_json::to_value(&self.parsing).map_err(|e| TokenizerError::invalid("tokenizer", e))?;
        value["post_processor"] = json::post_processor_json(&named(&self.prefix), &named(&self.suffix));
        value["decoder"] = json::decoder_json(self.spelling, self.strip_leading_space);
        // Pieces that are special tokens were left out of the model.
        if let (Model::Unigram(..), Some(vocab)) = (self.parsing.get_model(), value["model"]["vocab"].as_array_mut()) {
            for (id, piece) in (0u32..).zip(vocab).filter(|(_, piece)| piece[0] == "") {
                piece[0] = self.token_text(id).unwrap_or_default().into();
            }
        }
        Ok(value)
    }
}

/// Adds the tokens of `added_tokens`, each with the id that its source (`what`) says.
fn add_tokens(encoder: &mut Encoder, added: &Value, what: &str) -> Result<()> {
    let invalid = |why: String| TokenizerError::invalid(what, why);
    let Value::Array(list) = added else {
        return match added {
            Value::Null => Ok(()),
            _ => Err(invalid("added_tokens is not a list".into())),
        };
    };
    let mut tokens = Vec::with_capacity(list.len());
    for entry in list {
        let id = entry["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let token: tokenizers::AddedToken =
            serde_json::from_value(entry.clone()).map_err(|e| invalid(format!("added token {entry}: {e}")))?;
        let id = id.ok_or_else(|| invalid(format!("added token {entry} has no id")))?;
        if token.content.is_empty() {
            return Err(invalid(format!("added token {id} is empty")));
        }
        tokens.push((id, token));
    }
    // The crate numbers tokens that its model lacks in the order given.
    tokens.sort_by_key(|(id, _)| *id);
    encoder
        .add_tokens(tokens.iter().map(|(_, token)| token.clone()))
        .map_err(|e| invalid(format!("added tokens: {e}")))?;
    for (id, token) in tokens {
        let got = encoder.token_to_id(&token.content);
        if got != Some(id) {
            return Err(invalid(format!(
                "added token {:?} has id {id}, but its place in the vocabulary is {}",
                token.content,
                got.unwrap_or_default()
            )));
        }
    }
    Ok(())
}
