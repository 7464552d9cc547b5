//! A report a line: `{"step":10,"train/loss":4.1}`.

use crate::error::{Result, TrainingError};
use indexmap::IndexMap;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Values after some updates. What is not finite is `null` in the file and absent when it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Updates made.
    pub step: u64,
    /// By name.
    pub values: IndexMap<String, f64>,
}

impl Record {
    fn line(&self) -> String {
        let mut line = format!("{{\"step\":{}", self.step);
        for (name, value) in &self.values {
            line += &format!(",{}:{}", Value::from(name.as_str()), Value::from(*value));
        }
        line + "}\n"
    }

    /// `None` for what is no report, such as a line that a kill cut short.
    fn parse(line: &str) -> Option<Self> {
        let Value::Object(mut object) = serde_json::from_str(line).ok()? else { return None };
        let step = object.remove("step")?.as_u64()?;
        let values = object.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?)));
        Some(Self { step, values: values.collect() })
    }
}

/// A file of reports that is being written.
#[derive(Debug)]
pub struct JsonLines {
    file: File,
    path: PathBuf,
}

impl JsonLines {
    /// Goes on after `step` updates; reports of later ones go. Gives those that stay.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<(Self, Vec<Record>)> {
        let io = |e| TrainingError::io(path, e);
        let old = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(io(e)),
        };
        let kept: Vec<Record> = old.lines().filter_map(Record::parse).filter(|r| r.step <= step && step > 0).collect();
        let text: String = kept.iter().map(Record::line).collect();
        crate::run_directory::write(path, text.as_bytes())?;
        let file = File::options().append(true).open(path).map_err(io)?;
        Ok((Self { file, path: path.to_owned() }, kept))
    }

    /// Writes a line.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        self.file.write_all(record.line().as_bytes()).map_err(|e| TrainingError::io(&self.path, e))
    }
}
