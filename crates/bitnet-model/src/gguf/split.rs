//! Split files (`gguf-split`): the metadata in the first, each with the list and the data of its own tensors.

use std::path::{Path, PathBuf};

use super::reader::Gguf;
use super::{GgufError, Metadata, Value};

fn refuse(problem: impl Into<String>) -> GgufError {
    GgufError::Split(problem.into())
}

/// A count of any integer kind: writers differ.
fn count(metadata: &Metadata, key: &str) -> Result<Option<usize>, GgufError> {
    let number = match metadata.value(key) {
        None => return Ok(None),
        Some(Value::U16(n)) => Some(usize::from(*n)),
        Some(Value::I32(n)) => usize::try_from(*n).ok(),
        Some(_) => metadata.find::<usize>(key)?,
    };
    number.map(Some).ok_or_else(|| refuse(format!("metadata key {key} is no count")))
}

impl Gguf {
    /// Number of this file among the files of a model, from 0, and how many there are; `None` where it is the only one.
    ///
    /// # Errors
    /// If the keys are no counts.
    pub fn part(&self) -> Result<Option<(usize, usize)>, GgufError> {
        let (number, parts) = (count(&self.metadata, "split.no")?, count(&self.metadata, "split.count")?);
        Ok(parts.filter(|&parts| parts > 1).map(|parts| (number.unwrap_or(0), parts)))
    }

    /// The paths of the other files of a split model, of which this is the first.
    ///
    /// # Errors
    /// If this is another part, or `path` is not named as the first of so many.
    pub fn other_parts(&self, path: &Path) -> Result<Vec<PathBuf>, GgufError> {
        let Some((number, parts)) = self.part()? else { return Ok(Vec::new()) };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let ending = |number: usize| format!("-{:05}-of-{parts:05}.gguf", number + 1);
        let prefix = name.strip_suffix(&ending(number));
        let first = prefix.map_or_else(|| format!("...{}", ending(0)), |prefix| prefix.to_owned() + &ending(0));
        match (number, prefix) {
            (0, Some(prefix)) => {
                Ok((1..parts).map(|number| path.with_file_name(prefix.to_owned() + &ending(number))).collect())
            }
            (0, None) => {
                Err(refuse(format!("it is the first of {parts} files, found by their names: name it {first}")))
            }
            _ => Err(refuse(format!("it is part {} of {parts}: name the first, {first}", number + 1))),
        }
    }

    /// Takes the tensors of the other parts, in their order. [`TensorInfo::part`](super::TensorInfo::part) says which file holds
    /// each.
    ///
    /// # Errors
    /// If a part is of another number or model, a tensor is in two of them, or tensors are missing.
    pub fn join(&mut self, others: Vec<Self>) -> Result<(), GgufError> {
        let Some((_, parts)) = self.part()? else { return Ok(()) };
        for (i, other) in others.into_iter().enumerate() {
            let part = i + 1;
            if other.part()? != Some((part, parts)) {
                return Err(refuse(format!("file {} of {parts} says that it is another", part + 1)));
            }
            for mut tensor in other.tensors {
                tensor.part = part;
                if self.index.insert(tensor.name.clone(), self.tensors.len()).is_some() {
                    let name = super::error::one_line(&tensor.name);
                    return Err(refuse(format!("tensor {name} is in two of the {parts} files")));
                }
                self.tensors.push(tensor);
            }
        }
        let have = self.tensors.len();
        match count(&self.metadata, "split.tensors.count")? {
            Some(all) if all != have => {
                Err(refuse(format!("the {parts} files have {have} tensors of {all}: fetch them again")))
            }
            _ => Ok(()),
        }
    }
}
