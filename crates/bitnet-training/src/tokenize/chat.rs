//! Chats into tokens, of which only what the assistant writes are targets.

use super::source::{Form, Record, Records, form};
use crate::data::{TokenFile, expand};
use crate::error::{Result, TrainingError};
use bitnet_model::chat_template::{ChatMessage, ChatTemplate};
use bitnet_model::tokenizer::{ParseSpecial, TokenKind, Tokenizer};
use std::path::Path;

/// The tokens of a chat as its template writes it, and which of them the assistant writes.
///
/// The whole is encoded at once, as a conversation is when it goes on. A token that the beginning of an answer shares with
/// what is before it is not the assistant's, for an answer cannot begin within a token.
///
/// # Errors
/// When there is no template, it refuses the chat, the assistant says nothing in it, or the text of the tokens is another than
/// that of the template, so that it cannot be told which are the assistant's.
pub(super) fn encode_chat(
    messages: &[ChatMessage],
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Result<(Vec<u32>, Vec<bool>)> {
    let template = template.ok_or_else(|| {
        let problem = "there are chats in the data, but the tokenizer has no chat template: put a chat_template.jinja \
                       beside its tokenizer.json";
        TrainingError::Invalid(problem.to_owned())
    })?;
    let spans = template.render_spans(messages)?;
    if !spans.iter().any(|span| span.by_assistant) {
        let problem = "there is a chat without an answer, from which nothing is learned: remove it";
        return Err(TrainingError::Invalid(problem.to_owned()));
    }
    let text: String = spans.iter().map(|span| span.text.as_str()).collect();
    let mut end = 0;
    let answers = spans.iter().filter_map(|span| {
        let start = end;
        end += span.text.len();
        span.by_assistant.then_some(start..end)
    });
    let answers = answers.collect::<Vec<_>>();
    let tokens = tokenizer.encode_with(&text, false, ParseSpecial::Yes)?;
    let (mut counted, mut at) = (Vec::with_capacity(tokens.len()), 0);
    let mut answer = answers.iter().peekable();
    for &token in &tokens {
        let written = spelled(tokenizer, token);
        // SentencePiece puts a space before a text, and after a special token.
        let written = match text.as_bytes()[at..].starts_with(&written) {
            true => written.len(),
            false if written.first() == Some(&b' ') && text.as_bytes()[at..].starts_with(&written[1..]) => {
                written.len() - 1
            }
            false => {
                let problem = format!(
                    "the tokenizer changes the text of a chat near {:?}, so that it cannot be told which tokens are the \
                     assistant's",
                    text[text.floor_char_boundary(at)..].chars().take(20).collect::<String>()
                );
                return Err(TrainingError::Invalid(problem));
            }
        };
        while answer.next_if(|answer| answer.end <= at).is_some() {}
        counted.push(answer.peek().is_some_and(|answer| answer.start <= at && at < answer.end));
        at += written;
    }
    Ok((tokens, counted))
}

/// The bytes of a token; a special one is written out.
fn spelled(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    match tokenizer.token_kind(token) {
        Some(TokenKind::Control | TokenKind::UserDefined) => {
            tokenizer.token_text(token).unwrap_or_default().into_bytes()
        }
        _ => tokenizer.token_bytes(token).unwrap_or_default().to_vec(),
    }
}

/// Whether there are chats among these files (or patterns of their names): then rows are to be whole documents.
///
/// # Errors
/// When one cannot be read.
pub fn holds_chats(entries: &[impl AsRef<Path>]) -> Result<bool> {
    for entry in entries {
        for path in expand(entry.as_ref())? {
            let chats = match TokenFile::is_one(&path)? {
                true => TokenFile::open(&path)?.has_uncounted(),
                false => match form(&path)? {
                    Form::Text => false,
                    form => {
                        let first = Records::open(&path, form, &(0..u64::MAX))?.next(&path)?;
                        matches!(first, Some((Record::Chat(_), _)))
                    }
                },
            };
            if chats {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
