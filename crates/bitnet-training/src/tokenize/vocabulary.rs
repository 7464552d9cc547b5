//! Making a tokenizer from text.

use super::OnProgress;
use super::texts::{TextPart, Texts};
use crate::config::TokenizerKind;
use crate::error::{Result, TrainingError};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerBuilder, TokenizerImpl,
};

/// What tokenizer to make.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTokenizer {
    /// Which merges it has.
    pub kind: TokenizerKind,
    /// Of `bpe`: tokens, special ones included.
    pub vocab_size: usize,
    /// Special tokens, numbered after all others; the first ends a document.
    pub special: Vec<String>,
    /// A string that ends a document in the texts, and is no text.
    pub document_end: Option<String>,
}

/// A tokenizer, as its files.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeTokenizer {
    /// `tokenizer.json`.
    pub json: String,
    /// `tokenizer_config.json`, from which transformers knows the class and the end of a document.
    pub config: String,
    /// Tokens.
    pub vocab_size: usize,
}

impl MadeTokenizer {
    /// Writes both files into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        crate::run_directory::write(&folder.join("tokenizer.json"), self.json.as_bytes())?;
        crate::run_directory::write(&folder.join("tokenizer_config.json"), self.config.as_bytes())
    }
}

/// Tokens in the order of their numbers, spelled as byte-level BPE spells them, and merges, best first.
struct Vocabulary {
    tokens: Vec<String>,
    merges: Vec<(String, String)>,
}

/// Makes a tokenizer from texts; `bytes` does not read them.
///
/// # Errors
/// When a text cannot be read or is not UTF-8, has no character, or the vocabulary is too small for its bytes.
pub fn make(paths: &[impl AsRef<Path>], new: &NewTokenizer, on_progress: OnProgress) -> Result<MadeTokenizer> {
    let mark = new.document_end.as_deref();
    let texts = || paths.iter().map(|path| TextPart::whole(path.as_ref())).collect::<Result<Vec<_>>>();
    let mut vocabulary = match new.kind {
        TokenizerKind::Bytes => {
            Vocabulary { tokens: (0..=255).map(|b| SPELLING[b].to_string()).collect(), merges: vec![] }
        }
        TokenizerKind::Char => characters(Texts::open(&texts()?, mark, 1 << 20, on_progress))?,
        TokenizerKind::Bpe => {
            let size = new.vocab_size.saturating_sub(new.special.len());
            if size < 256 {
                return Err(TrainingError::Invalid(format!(
                    "a vocabulary of {} tokens has no room for 256 bytes and {} special tokens",
                    new.vocab_size,
                    new.special.len()
                )));
            }
            pairs(Texts::open(&texts()?, mark, 1 << 20, on_progress), size)?
        }
    };
    if vocabulary.tokens.is_empty() {
        return Err(TrainingError::Invalid("the texts have no character to make a tokenizer from".into()));
    }
    let first = vocabulary.tokens.len();
    for special in &new.special {
        if vocabulary.tokens.contains(special) {
            return Err(TrainingError::Invalid(format!("the special token {special:?} is a token already")));
        }
        vocabulary.tokens.push(special.clone());
    }
    let special: Vec<Value> = (first..).zip(&new.special).map(|(id, content)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    }).collect();
    let vocab_size = vocabulary.tokens.len();
    let ids = vocabulary.tokens.into_iter().take(first).zip(0..).map(|(token, id): (_, u32)| (token, id.into()));
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": ids.collect::<Map<String, Value>>(), "merges": vocabulary.merges,
        },
    });
    let mut config = json!({ "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false });
    if let Some(end) = new.special.first() {
        config["eos_token"] = end.as_str().into();
    }
    Ok(MadeTokenizer { json: format!("{tokenizer:#}\n"), config: format!("{config:#}\n"), vocab_size })
}

/// The characters of GPT-2's byte-level alphabet: printable Latin-1 stands for itself, the other 68 bytes, in order, for
/// U+0100 and on.
static SPELLING: std::sync::LazyLock<Vec<char>> = std::sync::LazyLock::new(|| {
    let mut next = 0x100;
    let mut spell = |b: u8| {
        let printable = matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable { u32::from(b) } else { next };
        next += u32::from(!printable);
        char::from_u32(code).unwrap_or_default()
    };
    (0..=255).map(&mut spell).collect()
});

fn spelled(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| SPELLING[usize::from(b)]).collect()
}

/// A token for each character, and for what its bytes are put together from: bytes first, then longer ones.
///
/// Merges start with the first byte of a character, so that none crosses two characters.
fn characters(mut texts: Texts) -> Result<Vocabulary> {
    let mut found = BTreeSet::new();
    let mut known = Vec::new();
    while let Some(piece) = texts.next()? {
        for c in piece.texts().into_iter().flat_map(str::chars) {
            let at = c as usize;
            if at >= known.len() {
                known.resize(at + 1, false);
            }
            if !std::mem::replace(&mut known[at], true) {
                found.insert(c);
            }
        }
    }
    let mut by_length: [BTreeSet<Vec<u8>>; 4] = Default::default();
    for c in found {
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        by_length[0].extend(bytes.iter().map(|&b| vec![b]));
        (2..=bytes.len()).for_each(|len| by_length[len - 1].extend([bytes[..len].to_vec()]));
    }
    let longer = by_length[1..].iter().flatten();
    let merges = longer.map(|b| (spelled(&b[..b.len() - 1]), spelled(&b[b.len() - 1..]))).collect();
    Ok(Vocabulary { tokens: by_length.iter().flatten().map(|b| spelled(b)).collect(), merges })
}

/// Byte-pair encoding of `size` tokens, or fewer where the text has no more pairs.
fn pairs(mut texts: Texts, size: usize) -> Result<Vocabulary> {
    // The trainer uses rayon's threads.
    #[cfg(feature = "parallel")]
    let threads = bitnet_core::start_rayon();
    #[cfg(not(feature = "parallel"))]
    let threads = false;
    if !threads {
        tokenizers::parallelism::set_parallelism(false);
    }
    let invalid = |e: tokenizers::Error| TrainingError::Invalid(format!("training the tokenizer: {e}"));
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainer::builder().vocab_size(size).initial_alphabet(alphabet).min_frequency(2);
    let mut trainer = trainer.show_progress(false).build();
    let mut tokenizer: TokenizerImpl<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    > = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true).into()))
        .build()
        .map_err(invalid)?;
    // The trainer asks for pieces until there are none, and cannot return our errors.
    let failure = Mutex::new(None);
    let pieces = std::iter::from_fn(|| match texts.next() {
        Ok(piece) => piece.map(|p| p.texts().join("\n")),
        Err(e) => {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            None
        }
    });
    let trained = tokenizer.train(&mut trainer, pieces).map(drop).map_err(invalid);
    if let Some(e) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(e);
    }
    trained?;
    let model = serde_json::to_value(tokenizer.get_model()).map_err(|e| TrainingError::Invalid(e.to_string()))?;
    let vocab: HashMap<String, usize> = serde_json::from_value(model["vocab"].clone()).unwrap_or_default();
    let mut tokens = vec![String::new(); vocab.len()];
    vocab.into_iter().for_each(|(token, id)| tokens[id] = token);
    let merges = serde_json::from_value(model["merges"].clone()).unwrap_or_default();
    Ok(Vocabulary { tokens, merges })
}
