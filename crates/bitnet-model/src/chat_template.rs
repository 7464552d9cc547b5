//! Chat templates: Jinja programs of checkpoints that turn a conversation into a prompt.
//!
//! The language is that of Hugging Face (transformers, `chat_template_utils.py`):
//! Jinja with `trim_blocks` and `lstrip_blocks`, loop controls, Python's methods on strings and
//! maps, and `raise_exception`, `strftime_now`, `tojson`.

mod answers;

pub use answers::Span;

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
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
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |text: String| -> Result<Jinja, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, SystemTime::now()));
        environment.add_filter("tojson", to_json);
        environment.add_filter("answer", answers::marked);
        let plain = with_generation_tags(source, "if true", "endif");
        let marks_answers = plain != source;
        environment.add_template_owned(NAME, plain).map_err(|e| message(&e))?;
        if marks_answers {
            let marked = with_generation_tags(source, "filter answer", "endfilter");
            environment.add_template_owned(MARKED, marked).map_err(|e| message(&e))?;
        }
        Ok(Self { environment, bos: bos.map(str::to_owned), eos: eos.map(str::to_owned), marks_answers })
    }

    /// The template of a tokenizer's checkpoint; `None` where it has none.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(tokenizer: &Tokenizer) -> Result<Option<Self>, TokenizerError> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        let special = tokenizer.special();
        (tokenizer.chat_template_source())
            .map(|source| Self::new(source, text(special.bos).as_deref(), text(special.eos).as_deref()))
            .transpose()
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
        let messages: Vec<Jinja> =
            messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect();
        // An absent token is undefined, not none, so that it prints as empty text.
        let token = |text: &Option<String>| text.as_deref().map_or(Jinja::UNDEFINED, Jinja::from);
        let context = context! {
            messages, add_generation_prompt,
            tools => (), documents => (),
            bos_token => token(&self.bos), eos_token => token(&self.eos),
        };
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

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: &Jinja, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut out = String::new();
    write_json(value, indent, 0, &mut out)?;
    Ok(out)
}

fn write_json(value: &Jinja, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    let refuse = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"));
    if depth > 64 || indent.is_some_and(|i| i > 64) || out.len() > LONGEST {
        return Err(refuse("the value is too large"));
    }
    let line = |depth: usize| indent.map_or(String::new(), |n| format!("\n{}", " ".repeat(n * depth)));
    let comma = if indent.is_some() { "," } else { ", " };
    let text = |s: &str| serde_json::to_string(s).map_err(|e| refuse(&e.to_string()));
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::String => out.push_str(&text(value.as_str().unwrap_or_default())?),
        kind @ (ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) => {
            let map = kind == ValueKind::Map;
            out.push(if map { '{' } else { '[' });
            let mut empty = true;
            for item in value.try_iter()? {
                if !empty {
                    out.push_str(comma);
                }
                empty = false;
                out.push_str(&line(depth + 1));
                if map {
                    out.push_str(&text(&item.to_string())?);
                    out.push_str(": ");
                    write_json(&value.get_item(&item)?, indent, depth + 1, out)?;
                } else {
                    write_json(&item, indent, depth + 1, out)?;
                }
            }
            if !empty {
                out.push_str(&line(depth));
            }
            out.push(if map { '}' } else { ']' });
        }
        _ => return Err(refuse("the value has no JSON form")),
    }
    Ok(())
}

/// `strftime` for a date in a prompt, in UTC: the codes that templates use.
fn strftime(format: &str, now: SystemTime) -> Result<String, Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let weekday = DAYS[(days + 4) as usize % 7];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &format!("{:02}", year % 100),
            Some('m') => out += &format!("{:02}", month + 1),
            Some('d') => out += &format!("{:02}", day + 1),
            Some('B') => out += MONTHS[month],
            Some('b') => out += &MONTHS[month][..3],
            Some('A') => out += weekday,
            Some('a') => out += &weekday[..3],
            Some('H') => out += &format!("{:02}", time / 3600),
            Some('M') => out += &format!("{:02}", time / 60 % 60),
            Some('S') => out += &format!("{:02}", time % 60),
            Some('%') => out.push('%'),
            other => {
                let code = other.map_or(String::new(), String::from);
                return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now: unknown code %{code}")));
            }
        }
    }
    Ok(out)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let all = "%Y %y %m %d %B %b %A %a %H:%M:%S %%";
        // `date -u -d @...`
        assert_eq!(strftime(all, at(0)).unwrap(), "1970 70 01 01 January Jan Thursday Thu 00:00:00 %");
        assert_eq!(strftime(all, at(1_709_210_096)).unwrap(), "2024 24 02 29 February Feb Thursday Thu 12:34:56 %");
        assert_eq!(strftime("%d %b %Y", at(4_102_444_799)).unwrap(), "31 Dec 2099");
        assert!(strftime("%Q", at(0)).is_err());
        assert!(strftime("%", at(0)).is_err());
    }
}
