//! TOML text whose errors name file, line and key.

use super::Config;
use crate::error::{Result, TrainingError};
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The text of a configuration and what to call it.
///
/// Any struct can be read from it; those of serde's `deny_unknown_fields` find misspelt keys.
#[derive(Debug, Clone)]
pub struct ConfigSource {
    name: String,
    text: String,
}

impl ConfigSource {
    /// A text; `name` is what errors call it.
    pub fn new(text: &str, name: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| TrainingError::io(path, e))?;
        Ok(Self { name: path.display().to_string(), text })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads a value.
    ///
    /// # Errors
    /// When the text is not TOML, or does not make a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.text).map_err(|e| self.located(&e))
    }

    /// The same text with another value for a key that it has, such as `["training", "steps"]`; everything else, comments
    /// too, stays. Without such a key the text stays as it is.
    pub fn with_value(&self, path: &[&str], value: impl std::fmt::Display) -> Self {
        let mut text = self.text.clone();
        if let Some(span) = self.value_span(path) {
            text.replace_range(span, &value.to_string());
        }
        Self { name: self.name.clone(), text }
    }

    /// The same run with another number of updates. One that is made shorter has its warm-up and the fading-in of its
    /// quantizer shortened in proportion.
    ///
    /// # Errors
    /// When the configuration is none.
    pub fn with_steps(&self, steps: u64) -> Result<Self> {
        let config = Config::from_source(self)?;
        let before = config.training.steps;
        let mut source = self.with_value(&["training", "steps"], steps);
        if steps < before {
            let shorter = |updates: u64| (u128::from(updates) * u128::from(steps) / u128::from(before)) as u64;
            source = source
                .with_value(&["schedule", "warmup"], shorter(config.schedule.warmup))
                .with_value(&["quantization", "lambda_steps"], shorter(config.quantization.lambda_steps));
        }
        Ok(source)
    }

    fn value_span(&self, path: &[&str]) -> Option<Range<usize>> {
        let root = DeTable::parse(&self.text).ok()?;
        let (last, sections) = path.split_last()?;
        let mut table = root.get_ref();
        for name in sections {
            table = table.iter().find(|(key, _)| key.get_ref().as_ref() == *name)?.1.get_ref().as_table()?;
        }
        Some(table.iter().find(|(key, _)| key.get_ref().as_ref() == *last)?.1.span())
    }

    /// The error that the value at `path` (`["model", "heads"]`) cannot be; `problem` says why and what to do.
    ///
    /// Where the key is not written, its default is at fault, and the line is that of its section.
    pub fn problem(&self, path: &[&str], problem: impl Into<String>) -> TrainingError {
        let at = self.find(path);
        self.error(at.map(|at| self.line(at)), path.join("."), problem.into())
    }

    fn located(&self, error: &toml::de::Error) -> TrainingError {
        let Some(span) = error.span() else {
            return self.error(None, String::new(), error.message().to_owned());
        };
        let message = error.message().trim_end();
        let key = self.key_at(&span);
        let problem = match between(message, "unknown field `", "`") {
            Some(unknown) => {
                let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
                let near = known.iter().filter(|k| distance(k, unknown) <= 1 + unknown.len() / 4);
                let near = near.min_by_key(|k| distance(k, unknown));
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                return self.error(
                    Some(self.line(span.start)),
                    unknown.to_owned(),
                    format!("there is no such key{hint} (known here: {})", known.join(", ")),
                );
            }
            None => match between(message, "missing field `", "`") {
                Some(missing) => {
                    return self.error(
                        Some(self.line(span.start)),
                        missing.to_owned(),
                        "it is missing here and has no default: add it".to_owned(),
                    );
                }
                None => message.replace('\n', "; "),
            },
        };
        self.error(Some(self.line(span.start)), key, problem)
    }

    fn error(&self, line: Option<usize>, key: String, problem: String) -> TrainingError {
        let line = line.map_or(String::new(), |line| format!(":{line}"));
        let key = if key.is_empty() { key } else { format!("{key}: ") };
        TrainingError::Config { file: self.name.clone(), line, key, problem }
    }

    /// Lines count from 1.
    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|&&b| b == b'\n').count()
    }

    /// The key on whose line a value stands; empty where there is none.
    fn key_at(&self, span: &Range<usize>) -> String {
        let line = self.text.lines().nth(self.line(span.start) - 1).unwrap_or_default();
        match line.split_once('=') {
            Some((key, _)) => key.trim().to_owned(),
            None => line.trim().trim_matches(['[', ']']).to_owned(),
        }
    }

    /// Where the key at `path` is written, or the innermost table on the way there.
    fn find(&self, path: &[&str]) -> Option<usize> {
        let root = DeTable::parse(&self.text).ok()?;
        let (mut table, mut at) = (root.get_ref(), None);
        for name in path {
            let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == *name) else { break };
            at = Some(key.span().start);
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        at
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

/// Letters to change, add or take away between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
