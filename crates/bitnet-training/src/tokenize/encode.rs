//! Texts into a token file.

use super::OnProgress;
use super::chat::encode_chat;
use super::source::{self, Form, Record};
use super::texts::{Piece, TextPart, Texts};
use crate::data::TokenWriter;
use crate::error::{Result, TrainingError};
use bitnet_kernels::threads::for_each_part;
use bitnet_model::chat_template::ChatTemplate;
use bitnet_model::tokenizer::{ParseSpecial, Tokenizer};
use std::path::Path;

/// Bytes of text that a thread encodes at a time.
const PIECE: usize = 1 << 20;

/// A number that tells tokenizers apart: FNV-1a (64 bits) over the length and the bytes of each token.
pub fn fingerprint(tokenizer: &Tokenizer) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for id in 0..tokenizer.vocab_size() as u32 {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        let length = (bytes.len() as u32).to_le_bytes();
        for &byte in length.iter().chain(bytes) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// Writes the tokens of some texts, one after the other, as the token file `out`; gives their number.
///
/// The tokenizer's end token, if it has one, follows each document: a text, or a part of one up to `document_end`, which
/// is no text. Text that looks like a special token is text. At most a few MB of text are in memory for each of
/// `threads`, unless the tokenizer treats the start of a text differently (SentencePiece): then documents are read whole.
///
/// A chat (`messages` in a record) is written out by the tokenizer's chat template and is a document; only what the assistant
/// writes are targets ([`ChatTemplate::render_spans`]).
///
/// # Errors
/// When a text cannot be read, is not UTF-8 or has a character that the tokenizer has no tokens for, there are chats but no
/// chat template, or the file cannot be written: then what stood there still does.
pub fn encode_texts(
    parts: &[TextPart],
    tokenizer: &Tokenizer,
    out: &Path,
    document_end: Option<&str>,
    threads: usize,
    on_progress: OnProgress,
) -> Result<u64> {
    let end = tokenizer.special().eos;
    let least = if may_be_cut(tokenizer)? { PIECE } else { usize::MAX };
    let whole = knows_all_bytes(tokenizer);
    let mut texts = Texts::open(parts, document_end, least, on_progress);
    let forms = parts.iter().map(|part| source::form(&part.path)).collect::<Result<Vec<_>>>()?;
    let marked = forms.iter().any(|form| *form != Form::Text);
    let create = if marked { TokenWriter::create_marked } else { TokenWriter::create };
    let mut writer = create(out, tokenizer.vocab_size(), end, fingerprint(tokenizer))?;
    let template = ChatTemplate::of(tokenizer)?;
    let mut pieces: Vec<Piece> = Vec::new();
    loop {
        pieces.clear();
        // Short documents do not take turns: a group is as long as its pieces would be.
        let mut length = 0;
        while length < threads.max(1) * PIECE {
            let Some(piece) = texts.next()? else { break };
            length += piece.len();
            pieces.push(piece);
        }
        if pieces.is_empty() {
            return writer.finish();
        }
        for (tokens, piece) in encode(&pieces, tokenizer, template.as_ref(), whole, threads)?.into_iter().zip(&pieces) {
            match (tokens, end.filter(|_| piece.ends)) {
                (Encoded::Chat(tokens, counted), _) => writer.put_document(&tokens, &counted)?,
                (Encoded::Text(tokens), Some(end)) if marked => {
                    let tokens = [tokens, vec![end]].concat();
                    writer.put_document(&tokens, &vec![true; tokens.len()])?;
                }
                (Encoded::Text(tokens), None) if marked && piece.ends => {
                    writer.put_document(&tokens, &vec![true; tokens.len()])?;
                }
                (Encoded::Text(tokens), end) => {
                    writer.put(&tokens)?;
                    writer.put(end.as_slice())?;
                }
            }
        }
    }
}

/// Tokens of a piece; of a chat, also which of them are targets.
enum Encoded {
    Text(Vec<u32>),
    Chat(Vec<u32>, Vec<bool>),
}

/// The tokens of each piece, encoded by several threads.
fn encode(
    pieces: &[Piece],
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    whole: bool,
    threads: usize,
) -> Result<Vec<Encoded>> {
    let one = |piece: &Piece| -> Result<Encoded> {
        match &piece.content {
            Record::Text(text) => {
                let ids = tokenizer.encode_with(text, false, ParseSpecial::No)?;
                if !whole {
                    check(text, &ids, tokenizer)?;
                }
                Ok(Encoded::Text(ids))
            }
            Record::Chat(messages) => {
                let (ids, counted) = encode_chat(messages, tokenizer, template)?;
                Ok(Encoded::Chat(ids, counted))
            }
        }
    };
    let parts = pieces.chunks(pieces.len().div_ceil(threads.max(1)).max(1));
    let mut encoded: Vec<Result<Vec<_>>> = parts.clone().map(|_| Ok(Vec::new())).collect();
    for_each_part(threads, parts.zip(&mut encoded), |(part, encoded)| *encoded = part.iter().map(one).collect());
    let mut all = Vec::with_capacity(pieces.len());
    for part in encoded {
        all.extend(part?);
    }
    Ok(all)
}

/// Whether each byte is a token or a part of the alphabet, so that no text is lost.
fn knows_all_bytes(tokenizer: &Tokenizer) -> bool {
    let mut known = [false; 256];
    for id in 0..tokenizer.vocab_size() as u32 {
        if let Some([byte]) = tokenizer.token_bytes(id) {
            known[usize::from(*byte)] = true;
        }
    }
    known.iter().all(|known| *known)
}

/// Refuses text of which something was left out, which byte-pair encoding does silently.
fn check(text: &str, ids: &[u32], tokenizer: &Tokenizer) -> Result<()> {
    let bytes =
        |ids: &[u32]| -> usize { ids.iter().filter_map(|&id| tokenizer.token_bytes(id)).map(<[u8]>::len).sum() };
    if bytes(ids) >= text.len() {
        return Ok(());
    }
    for c in text.chars() {
        let one = tokenizer.encode_with(c.encode_utf8(&mut [0; 4]), false, ParseSpecial::No)?;
        if bytes(&one) < c.len_utf8() {
            return Err(TrainingError::Invalid(format!(
                "the tokenizer has no token for {c:?} (U+{:04X}): make one from a text that has it, or one of the kind \
                 bytes or bpe, which have them all",
                c as u32
            )));
        }
    }
    // Each character by itself is there: a normalizer shortened the text.
    Ok(())
}

/// Whether the tokens of a text are those of its parts, cut between two lines or before a space: no token reaches over
/// such a place, and the start of a text is nothing special.
fn may_be_cut(tokenizer: &Tokenizer) -> Result<bool> {
    let reaches_over = |bytes: &[u8]| {
        bytes.windows(2).any(|pair| pair[0] == b'\n' && !pair[1].is_ascii_whitespace())
            || bytes.windows(2).any(|pair| pair[1] == b' ' && !pair[0].is_ascii_whitespace())
    };
    if (0..tokenizer.vocab_size() as u32).filter_map(|id| tokenizer.token_bytes(id)).any(reaches_over) {
        return Ok(false);
    }
    let encode = |text: &str| tokenizer.encode_with(text, false, ParseSpecial::No);
    for (a, b) in [("one\n", "two"), ("1\n", "2"), (".\n", "A"), ("one", " two"), ("a,", " 1")] {
        if encode(&format!("{a}{b}"))? != [encode(a)?, encode(b)?].concat() {
            return Ok(false);
        }
    }
    Ok(true)
}
