//! Chat templates: Jinja programs of checkpoints that turn a conversation into a prompt.
//!
//! The language is that of Hugging Face (transformers, `chat_template_utils.py`):
//! Jinja with `trim_blocks` and `lstrip_blocks`, loop controls, Python's methods on strings and
//! maps, and `raise_exception`, `strftime_now`, `tojson`. Values are printed as Python prints them.

mod answers;
mod conversation;
mod date;
mod python;

pub use answers::Span;
pub use conversation::{Conversation, Ending};

use std::io::Write;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::Value;

use crate::tokenizer::{Tokenizer, TokenizerError};

/// Limit of executed instructions: enough for thousands of messages, under a second of an endless loop.
const FUEL: u64 = 5_000_000;
/// Limit of output bytes.
const LONGEST: usize = 16 << 20;
const NAME: &str = "chat_template";
/// The same with the assistant's parts marked.
const MARKED: &str = "marked chat_template";

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or another role of the template.
    pub role: String,
    /// The text.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template with the begin and end tokens it may write.
///
/// What it renders already holds every special token: encode it with
/// [`encode_with`](Tokenizer::encode_with)`(text, false, ParseSpecial::Yes)`.
///
/// Templates come with checkpoints, so that instructions, nesting and output size are limited (but
/// not the size of intermediate strings).
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
    /// What the template is given beside a conversation.
    variables: Vec<(String, Jinja)>,
    /// Whether it reads the content of a message by that name.
    reads_content: bool,
    /// Whether it says by `{% generation %}` what the assistant writes.
    marks_answers: bool,
}

impl ChatTemplate {
    /// Compiles a template; `bos` and `eos` are the texts of the begin and end tokens.
    ///
    /// # Errors
    /// `Template` with the line of the error.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TokenizerError> {
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| message(&e))?,
        );
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(|out, _, value| Ok(out.write_str(&python::text(value)?)?));
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |text: String| -> Result<Jinja, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        let now = |format: String| date::strftime(&format, chrono::Local::now().naive_local());
        environment.add_function("strftime_now", now);
        environment.add_filter("tojson", |value: &Jinja, args: Rest<Jinja>, named: Kwargs| {
            python::to_json(value, args, named)
        });
        environment.add_filter("string", |value: &Jinja| python::text(value));
        // Absent tools are none, which has no length.
        environment.add_test("iterable", |value: &Jinja| !value.is_none() && value.try_iter().is_ok());
        environment.add_filter("answer", answers::marked);
        let plain = with_generation_tags(source, "if true", "endif");
        let marks_answers = plain != source;
        environment.add_template_owned(NAME, plain).map_err(|e| message(&e))?;
        if marks_answers {
            let marked = with_generation_tags(source, "filter answer", "endfilter");
            environment.add_template_owned(MARKED, marked).map_err(|e| message(&e))?;
        }
        let [bos, eos] = [bos, eos].map(|token| token.map(str::to_owned));
        let reads_content = source.contains("content");
        Ok(Self { environment, bos, eos, variables: Vec::new(), reads_content, marks_answers })
    }

    /// The same template with variables from a JSON object, such as `{"enable_thinking": false}`.
    ///
    /// # Errors
    /// `Invalid` if it is no JSON object.
    pub fn with_variables(self, json: &str) -> Result<Self, TokenizerError> {
        Ok(Self { variables: conversation::variables(json)?, ..self })
    }

    /// The template of a tokenizer's checkpoint; `None` where it has none.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(tokenizer: &Tokenizer) -> Result<Option<Self>, TokenizerError> {
        tokenizer.chat_template_source().map(|source| Self::for_tokenizer(source, tokenizer)).transpose()
    }

    /// A template with the begin and end tokens of a tokenizer.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_tokenizer(source: &str, tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        let special = tokenizer.special();
        Self::new(source, text(special.bos).as_deref(), text(special.eos).as_deref())
    }

    /// The prompt for a conversation; with `add_generation_prompt` it ends with the start of the answer.
    ///
    /// # Errors
    /// `Template`: the template refuses the conversation (with its own message), uses an undefined name,
    /// or exceeds a limit.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, TokenizerError> {
        self.render_as(NAME, messages, add_generation_prompt)
    }

    fn render_as(
        &self,
        name: &str,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TokenizerError> {
        let message = |m: &ChatMessage| context! { role => m.role.as_str(), content => m.content.as_str() };
        self.render_values(name, messages.iter().map(message).collect(), &[], add_generation_prompt)
    }

    /// A conversation with all that its messages hold; its variables go before those of the template.
    ///
    /// # Errors
    /// As [`render`](Self::render); when a message that is to be continued has no text, or the template changes it.
    pub fn render_conversation(&self, conversation: &Conversation, ending: Ending) -> Result<String, TokenizerError> {
        // A mark after the last message shows where it ends, as in transformers.
        const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
        let Conversation { messages, variables } = conversation;
        let mut messages = messages.clone();
        if ending != Ending::Continued {
            return self.render_values(NAME, messages, variables, ending == Ending::Prompt);
        }
        let refuse = |what: &str| TokenizerError::Template(format!("the last message cannot be continued: {what}"));
        if !self.reads_content {
            return Err(refuse("the template reads no content"));
        }
        let last = messages.last_mut().ok_or_else(|| refuse("there is none"))?;
        let content = last.get_attr("content").unwrap_or_default();
        let text = content.as_str().ok_or_else(|| refuse("it has no text as content"))?.to_owned();
        *last = conversation::with_field(last, "content", (text.clone() + MARK).into());
        let rendered = self.render_values(NAME, messages, variables, false)?;
        match rendered.rfind(MARK.trim_end()) {
            Some(at) if rendered.contains(text.trim()) => {
                let kept = rendered[at..].starts_with(MARK);
                Ok(if kept { &rendered[..at] } else { rendered[..at].trim_end() }.to_owned())
            }
            _ => Err(refuse("the template leaves out a part of it")),
        }
    }

    fn render_values(
        &self,
        name: &str,
        messages: Vec<Jinja>,
        variables: &[(String, Jinja)],
        add_generation_prompt: bool,
    ) -> Result<String, TokenizerError> {
        let mut all = vec![("tools".to_owned(), Jinja::from(())), ("documents".to_owned(), Jinja::from(()))];
        // An absent token is undefined, not none, so that it prints as empty text.
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            all.extend(token.as_deref().map(|text| (name.to_owned(), text.into())));
        }
        all.extend(self.variables.iter().chain(variables).cloned());
        all.push(("messages".to_owned(), messages.into()));
        all.push(("add_generation_prompt".to_owned(), add_generation_prompt.into()));
        let context = Jinja::from_pairs(all);
        let template = self.environment.get_template(name).map_err(|e| message(&e))?;
        let mut out = Bounded { bytes: Vec::new() };
        template.render_captured_to(context, &mut out).map_err(|e| message(&e))?;
        String::from_utf8(out.bytes).map_err(|e| TokenizerError::Template(e.to_string()))
    }
}

/// The error message for users, with the line.
fn message(error: &Error) -> TokenizerError {
    let text = match error.kind() {
        ErrorKind::OutOfFuel => "it does not end (stopped after too many instructions)".to_owned(),
        ErrorKind::WriteFailure => format!("it writes more than {} MiB", LONGEST >> 20),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    let line = error.line().map(|line| format!(" (line {line})"));
    TokenizerError::Template(text + &line.unwrap_or_default())
}

/// A buffer with a size limit.
struct Bounded {
    bytes: Vec<u8>,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + part.len() > LONGEST {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A template with other block tags in place of `{% generation %}` and `{% endgeneration %}`, which mark what the assistant
/// writes.
fn with_generation_tags(source: &str, start: &str, end: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(close) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let name = tag[2..close].trim_matches(|c: char| matches!(c, '-' | '+') || c.is_whitespace());
        match name {
            "generation" => out.push_str(&tag[..close + 2].replace(name, start)),
            "endgeneration" => out.push_str(&tag[..close + 2].replace(name, end)),
            _ => out.push_str(&tag[..close + 2]),
        }
        rest = &tag[close + 2..];
    }
    out + rest
}

/// The template of a checkpoint folder: `chat_template.jinja`, or `chat_template` of its
/// `tokenizer_config.json` (a text, or a list of named ones of which `default` counts).
pub(crate) fn source_in(folder: &Path, config: &Value) -> Result<Option<String>, TokenizerError> {
    let path = folder.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(TokenizerError::Io { path, source }),
    }
    Ok(match &config["chat_template"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            (list.iter().find(|t| t["name"] == "default")).and_then(|t| t["template"].as_str()).map(str::to_owned)
        }
        _ => None,
    })
}
