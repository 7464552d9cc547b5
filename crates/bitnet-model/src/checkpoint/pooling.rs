//! How a checkpoint asks for the vector of a text: `modules.json` of sentence-transformers, or `pooling_type` of a GGUF file.

use super::hf::read_text;
use crate::gguf::Metadata;
use crate::{ModelError, Result};
use serde_json::Value;
use std::path::Path;

/// How the hidden states of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// They do not: a vector for each token, one after another.
    None,
    /// The mean over the tokens.
    Mean,
    /// The first token.
    First,
    /// The last token.
    Last,
}

impl Pooling {
    /// From the pooling module of a directory, if it has one.
    pub(super) fn of_folder(folder: &Path) -> Result<Option<Self>> {
        let modules = folder.join("modules.json");
        if !modules.is_file() {
            return Ok(None);
        }
        let json = |path: &Path| -> Result<Value> {
            let error = |e: serde_json::Error| ModelError::Config(format!("is not JSON: {e}")).in_file(path);
            serde_json::from_str(&read_text(path)?).map_err(error)
        };
        let modules = json(&modules)?;
        let is_pooling = |m: &&Value| m["type"].as_str().is_some_and(|kind| kind.ends_with("Pooling"));
        let module = modules.as_array().into_iter().flatten().find(is_pooling);
        // A path from outside: nothing but a name in this folder.
        let named = module.and_then(|m| m["path"].as_str()).filter(|path| !path.contains(['/', '\\']) && *path != "..");
        let Some(name) = named else { return Ok(None) };
        let path = folder.join(name).join("config.json");
        let config = json(&path)?;
        let asked = |(key, pooling): (&str, Self)| (config[key] == true).then_some(pooling);
        let known = [
            ("pooling_mode_lasttoken", Self::Last),
            ("pooling_mode_mean_tokens", Self::Mean),
            ("pooling_mode_cls_token", Self::First),
        ];
        Ok(known.into_iter().find_map(asked))
    }

    /// From the metadata of a GGUF file.
    pub(super) fn of_gguf(metadata: &Metadata) -> Result<Option<Self>> {
        let Some(name) = metadata.find::<&str>("general.architecture")? else { return Ok(None) };
        Ok(match metadata.find::<u32>(&format!("{name}.pooling_type"))? {
            Some(0) => Some(Self::None),
            Some(1) => Some(Self::Mean),
            Some(2) => Some(Self::First),
            Some(3) => Some(Self::Last),
            // Ranks are no vectors.
            _ => None,
        })
    }
}
