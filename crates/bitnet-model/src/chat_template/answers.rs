//! Which parts of a rendered conversation the assistant writes: what a model is trained to say.

use super::{ChatMessage, ChatTemplate, MARKED};
use crate::tokenizer::TokenizerError;

/// Around what the assistant writes. Neither is a character of any text (Unicode noncharacters).
const START: char = '\u{fdd0}';
const END: char = '\u{fdd1}';

/// A part of a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The text.
    pub text: String,
    /// Whether the assistant writes it.
    pub by_assistant: bool,
}

/// The filter that stands in for `{% generation %}`.
pub(super) fn marked(text: &str) -> String {
    format!("{START}{text}{END}")
}

impl ChatTemplate {
    /// A whole conversation in parts, in order: those that the assistant writes and the rest.
    ///
    /// The template's `{% generation %}` blocks say which. A template without them is rendered up to each message of the
    /// role `assistant`, with the prompt for an answer, and with that message: the difference is what the assistant writes,
    /// its end-of-turn token included.
    ///
    /// # Errors
    /// As [`render`](Self::render); when a template without `{% generation %}` renders the beginning of a conversation
    /// differently once it goes on, so that no part of it is the answer.
    pub fn render_spans(&self, messages: &[ChatMessage]) -> Result<Vec<Span>, TokenizerError> {
        if messages.iter().any(|message| message.content.contains([START, END])) {
            let problem = "a message has the characters U+FDD0 or U+FDD1, which no text has: remove them";
            return Err(TokenizerError::Template(problem.to_owned()));
        }
        match self.marks_answers {
            true => Ok(split(&self.render_as(MARKED, messages, false)?)),
            false => self.spans_by_role(messages),
        }
    }

    fn spans_by_role(&self, messages: &[ChatMessage]) -> Result<Vec<Span>, TokenizerError> {
        let whole = self.render(messages, false)?;
        let mut spans = Vec::new();
        let mut from = 0;
        for (i, _) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
            let before = self.render(&messages[..i], true)?;
            let through = self.render(&messages[..=i], false)?;
            if !(whole.starts_with(&through) && through.starts_with(&before) && before.len() >= from) {
                let problem = "it does not show which part of a conversation is the assistant's: put {% generation %} and \
                               {% endgeneration %} around that part of the template";
                return Err(TokenizerError::Template(problem.to_owned()));
            }
            push(&mut spans, &whole[from..before.len()], false);
            push(&mut spans, &whole[before.len()..through.len()], true);
            from = through.len();
        }
        push(&mut spans, &whole[from..], false);
        Ok(spans)
    }
}

/// The parts of a text with marks.
fn split(text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for part in text.split(START) {
        match part.split_once(END) {
            Some((answer, rest)) => {
                push(&mut spans, answer, true);
                push(&mut spans, rest, false);
            }
            None => push(&mut spans, part, false),
        }
    }
    spans
}

fn push(spans: &mut Vec<Span>, text: &str, by_assistant: bool) {
    if !text.is_empty() {
        spans.push(Span { text: text.to_owned(), by_assistant });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Vec<ChatMessage> {
        [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye"), ("assistant", "See you.")]
            .map(|(role, content)| ChatMessage::new(role, content))
            .to_vec()
    }

    fn answers(template: &ChatTemplate) -> Vec<String> {
        let spans = template.render_spans(&conversation()).unwrap();
        let whole: String = spans.iter().map(|span| span.text.as_str()).collect();
        assert_eq!(whole, template.render(&conversation(), false).unwrap());
        spans.into_iter().filter(|span| span.by_assistant).map(|span| span.text).collect()
    }

    #[test]
    fn generation_blocks_say_what_the_assistant_writes() {
        // As transformers' documentation has it; white space around the tags as Jinja treats it.
        let source = "{%- for m in messages %}\n  {%- if m.role == 'assistant' %}\n{{- '<a>' }}{% generation %}\n\
                      {{- m.content + '<end>' -}}\n{% endgeneration %}\n  {%- else %}\n{{- '<' + m.role[0] + '>' + m.content }}\n\
                      {%- endif %}\n{%- endfor %}";
        let template = ChatTemplate::new(source, None, None).unwrap();
        assert_eq!(answers(&template), ["Hello!<end>", "See you.<end>"]);
        let rendered = template.render(&conversation(), false).unwrap();
        assert_eq!(rendered, "<s>Be kind.<u>Hi<a>Hello!<end><u>Bye<a>See you.<end>");
    }

    #[test]
    fn without_generation_blocks_the_roles_say_it() {
        let source = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<end>' }}{% endfor %}\
                      {% if add_generation_prompt %}<|assistant|>{% endif %}";
        let template = ChatTemplate::new(source, None, None).unwrap();
        assert_eq!(answers(&template), ["Hello!<end>", "See you.<end>"]);
    }

    #[test]
    fn a_template_that_forgets_is_refused_and_so_are_marks_in_a_message() {
        let source = "{% for m in messages[-2:] %}{{ m.content }}{% endfor %}";
        let template = ChatTemplate::new(source, None, None).unwrap();
        let message = template.render_spans(&conversation()).unwrap_err().to_string();
        assert!(message.contains("{% generation %}"), "{message}");
        let odd = [ChatMessage::new("user", "a\u{fdd0}b")];
        assert!(template.render_spans(&odd).unwrap_err().to_string().contains("U+FDD0"));
    }
}
