//! Texts that commands read: prompts, and files to predict or to calibrate with.

use crate::error::{CliError, Result};
use bitnet::inference::InferenceError;
use bitnet::model::chat_template::Conversation;
use bitnet::model::tokenizer::{ParseSpecial, Tokenizer};
use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

/// An error if there is no such text; before a model is loaded, not after.
pub fn check(path: &Path) -> Result<()> {
    if path != Path::new("-") {
        std::fs::metadata(path).map_err(|source| CliError::File { path: path.into(), source })?;
    }
    Ok(())
}

/// The text of a prompt for a context of so many tokens. What cannot fit is refused before it is read to its end, since
/// tokenizing takes a hundred times its size in memory.
pub fn read_prompt(path: &Path, tokenizer: &Tokenizer, context: usize) -> Result<String> {
    let most = most_bytes(tokenizer, context);
    let (bytes, longer) = bytes(path, most)?;
    if longer {
        return Err(too_long(most, context));
    }
    utf8(path, bytes)
}

/// As much of a text as `tokens` tokens can be made of, and some more, so that its end does not change them.
pub fn read_start(path: &Path, tokenizer: &Tokenizer, tokens: usize) -> Result<String> {
    const MORE: u64 = 1 << 16;
    let (mut bytes, longer) = bytes(path, most_bytes(tokenizer, tokens).saturating_add(MORE))?;
    if longer
        && let Err(e) = std::str::from_utf8(&bytes)
        && e.error_len().is_none()
    {
        bytes.truncate(e.valid_up_to()); // the cut went through a character
    }
    utf8(path, bytes)
}

/// The tokens of a prompt; an empty one is the begin token, where the model has one.
pub fn encode_prompt(text: &str, tokenizer: &Tokenizer, context: usize) -> Result<Vec<u32>> {
    let most = most_bytes(tokenizer, context);
    if text.len() as u64 > most {
        return Err(too_long(most, context));
    }
    let mut tokens = tokenizer.encode(text, true)?;
    if tokens.is_empty() {
        let begin = tokenizer.special().bos;
        let none = "the prompt is empty, and the model has no begin token to start from: give a text to continue";
        tokens.push(begin.ok_or_else(|| CliError::refused(none))?);
    }
    if tokens.len() > context {
        return Err(InferenceError::ContextFull { needed: tokens.len(), capacity: context }.into());
    }
    Ok(tokens)
}

/// Most bytes of a file with messages.
const MOST_MESSAGES: u64 = 64 << 20;

/// The conversation in a file of JSON.
pub fn read_messages(path: &Path) -> Result<Conversation> {
    let (bytes, longer) = bytes(path, MOST_MESSAGES)?;
    if longer {
        return Err(CliError::refused(format!("{} has more than {MOST_MESSAGES} bytes of messages", name(path))));
    }
    let text = utf8(path, bytes)?;
    Conversation::from_json(&text).map_err(|e| CliError::refused(format!("{}: {e}", name(path))))
}

/// A conversation of one message of the user.
pub fn one_message(text: &str) -> Result<Conversation> {
    Ok(Conversation::from_json(&serde_json::json!([{ "role": "user", "content": text }]).to_string())?)
}

/// The tokens of a rendered conversation, which holds its special tokens.
pub fn encode_rendered(text: &str, tokenizer: &Tokenizer, context: usize) -> Result<Vec<u32>> {
    let tokens = tokenizer.encode_with(text, false, ParseSpecial::Yes)?;
    match tokens.len() {
        0 => Err(CliError::refused("the chat template makes no text of these messages")),
        needed if needed > context => Err(InferenceError::ContextFull { needed, capacity: context }.into()),
        _ => Ok(tokens),
    }
}

/// The longest text that so many tokens can stand for.
fn most_bytes(tokenizer: &Tokenizer, tokens: usize) -> u64 {
    let ids = 0..tokenizer.vocab_size() as u32;
    let longest = ids.filter_map(|id| tokenizer.token_bytes(id)).map(<[u8]>::len).max().unwrap_or(0);
    // A character that is not in the vocabulary is one token and up to 4 bytes.
    (tokens as u64).saturating_mul(longest.max(4) as u64)
}

fn too_long(most: u64, context: usize) -> CliError {
    CliError::refused(format!(
        "the prompt has more than {most} bytes, the most that a context of {context} tokens holds: shorten the prompt"
    ))
}

/// At most `most` bytes, and whether there are more.
fn bytes(path: &Path, most: u64) -> Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let limit = most.saturating_add(1);
    let read = match path == Path::new("-") {
        true => stdin().lock().take(limit).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    };
    read.map_err(|source| CliError::File { path: name(path).into(), source })?;
    let longer = bytes.len() as u64 > most;
    bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok((bytes, longer))
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let (name, at) = (name(path), e.utf8_error().valid_up_to());
        CliError::refused(format!("{name} is not UTF-8 from byte {at} on: convert it first"))
    })
}

fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".into() } else { path.display().to_string() }
}
