//! Conversations as JSON: messages of any form, tools, and other variables of a template.

use minijinja::Value as Jinja;
use minijinja::value::ValueKind;

use crate::tokenizer::TokenizerError;

/// What the end of a rendered conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The end of its last message.
    Whole,
    /// The start of an answer.
    Prompt,
    /// The last message, unfinished, to be continued.
    Continued,
}

/// Messages with the variables that a template is given beside them.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    pub(super) messages: Vec<Jinja>,
    pub(super) variables: Vec<(String, Jinja)>,
}

impl Conversation {
    /// From a list of messages in JSON, or an object with such a list as `messages` and with variables of the template (`tools`,
    /// `documents`, `enable_thinking`). Maps keep their order.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn from_json(text: &str) -> Result<Self, TokenizerError> {
        let invalid = |why: String| TokenizerError::invalid("the conversation", why);
        let value: Jinja = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
        let mut conversation = Self::default();
        let messages = match value.kind() {
            ValueKind::Map => {
                conversation.variables = variables_of(&value)?;
                let at = conversation.variables.iter().position(|(name, _)| name == "messages");
                at.map(|at| conversation.variables.remove(at).1)
            }
            _ => Some(value),
        };
        let messages = messages.filter(|list| list.kind() == ValueKind::Seq);
        let messages = messages.ok_or_else(|| invalid("it has no list of messages".into()))?;
        let list = messages.try_iter().map_err(|e| invalid(e.to_string()))?;
        conversation.messages = list.map(with_reasoning).collect();
        match conversation.messages.iter().find(|message| message.kind() != ValueKind::Map) {
            Some(other) => Err(invalid(format!("a message is an object, not {other}"))),
            None => Ok(conversation),
        }
    }

    /// Adds a message.
    pub fn push(&mut self, role: &str, content: &str) {
        self.messages.push(minijinja::context! { role, content });
    }

    /// Takes away the message at `index`; an error of the caller if there is none.
    pub fn remove(&mut self, index: usize) {
        self.messages.remove(index);
    }

    /// The roles of the messages.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = String> {
        let role =
            |message: &Jinja| message.get_attr("role").unwrap_or_default().as_str().unwrap_or_default().to_owned();
        self.messages.iter().map(role)
    }

    /// The ending that asks for an answer: a last message of the assistant is continued.
    pub fn ending(&self) -> Ending {
        let role = self.messages.last().and_then(|message| message.get_attr("role").ok());
        if role.is_some_and(|role| role.as_str() == Some("assistant")) { Ending::Continued } else { Ending::Prompt }
    }
}

/// The variables of a JSON object.
///
/// # Errors
/// `Invalid` if it is none.
pub(super) fn variables(text: &str) -> Result<Vec<(String, Jinja)>, TokenizerError> {
    let value: Jinja =
        serde_json::from_str(text).map_err(|e| TokenizerError::invalid("the template's variables", e))?;
    variables_of(&value)
}

fn variables_of(value: &Jinja) -> Result<Vec<(String, Jinja)>, TokenizerError> {
    let invalid = |why: String| TokenizerError::invalid("the template's variables", why);
    if value.kind() != ValueKind::Map {
        return Err(invalid("they are not a JSON object".into()));
    }
    let keys = value.try_iter().map_err(|e| invalid(e.to_string()))?;
    let pair = |key: Jinja| Ok((key.to_string(), value.get_item(&key).map_err(|e| invalid(e.to_string()))?));
    keys.map(pair).collect()
}

/// transformers fills the newer names of a message's reasoning from the older ones.
fn with_reasoning(message: Jinja) -> Jinja {
    let field = |name: &str| message.get_attr(name).ok().filter(|value| !value.is_none() && !value.is_undefined());
    match ["reasoning_content", "thinking", "reasoning"].into_iter().find_map(field) {
        Some(text) => {
            let named = |name: &str| (name.to_owned(), text.clone());
            Jinja::from_pairs(
                [named("thinking")].into_iter().chain(fields(&message)).chain([named("reasoning_content")]),
            )
        }
        None => message,
    }
}

/// The fields of a map.
fn fields(map: &Jinja) -> impl Iterator<Item = (String, Jinja)> {
    map.try_iter().into_iter().flatten().map(|key| (key.to_string(), map.get_item(&key).unwrap_or_default()))
}

/// A map with a field set.
pub(super) fn with_field(map: &Jinja, name: &str, value: Jinja) -> Jinja {
    Jinja::from_pairs(fields(map).chain([(name.to_owned(), value)]))
}
