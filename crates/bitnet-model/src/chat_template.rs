//! Chat templates.

use std::path::Path;

use serde_json::Value;

use crate::tokenizer::TokenizerError;

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
