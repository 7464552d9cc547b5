//! A checkpoint of several files: the index, and one map of all tensors.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{Safetensors, SafetensorsError, TensorInfo};
use bitnet_core::serialize::one_line;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Size limit of an index; an entry has about 100 bytes.
const MAX_INDEX: u64 = 64 << 20;

/// The files of a checkpoint, not yet opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Shards {
    /// File names, in order.
    names: Vec<String>,
    /// The file of each tensor, from the index. Empty for a checkpoint of one file.
    index: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Finds the files of a checkpoint: `model.safetensors`, or those that the index names.
    ///
    /// # Errors
    /// If there is neither, a file of the index is missing, or the index is damaged or names a
    /// path instead of a file of the folder.
    pub fn find(folder: &Path) -> Result<Self, SafetensorsError> {
        if folder.join(SINGLE).is_file() {
            return Ok(Self { names: vec![SINGLE.to_owned()], index: BTreeMap::new() });
        }
        let path = folder.join(INDEX);
        if !path.is_file() {
            return Err(SafetensorsError::NoModel(folder.display().to_string()));
        }
        let failed = |source| SafetensorsError::Io { file: path.display().to_string(), source };
        let mut text = Vec::new();
        fs::File::open(&path).and_then(|f| f.take(MAX_INDEX + 1).read_to_end(&mut text)).map_err(failed)?;
        if text.len() as u64 > MAX_INDEX {
            return Err(SafetensorsError::Index(format!("it is longer than {MAX_INDEX} bytes")));
        }
        let shards = Self::from_index(&text)?;
        match shards.names.iter().find(|name| !folder.join(name).is_file()) {
            Some(name) => Err(SafetensorsError::Index(format!(
                "it names {name}, which is not there; fetch the rest of the checkpoint"
            ))),
            None => Ok(shards),
        }
    }

    /// Reads an index.
    ///
    /// # Errors
    /// If it is not JSON with a `weight_map`, the map is empty, or it names a path instead of a
    /// safetensors file.
    pub fn from_index(json: &[u8]) -> Result<Self, SafetensorsError> {
        let parsed: Index =
            serde_json::from_slice(json).map_err(|e| SafetensorsError::Index(one_line(&e.to_string())))?;
        let mut names: Vec<String> = parsed.weight_map.values().cloned().collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(SafetensorsError::Index("its weight_map is empty".to_owned()));
        }
        if let Some(name) = names.iter().find(|n| !is_plain_name(n)) {
            let problem = format!("\"{}\" is not the name of a safetensors file in the same folder", one_line(name));
            return Err(SafetensorsError::Index(problem));
        }
        // Sorted, hence found.
        let place = |shard: &String| names.binary_search(shard).unwrap_or_default();
        let index = parsed.weight_map.iter().map(|(tensor, shard)| (tensor.clone(), place(shard))).collect();
        Ok(Self { names, index })
    }

    /// The paths of the files in `folder`, in the order that [`open`](Self::open) expects.
    pub fn paths(&self, folder: &Path) -> Vec<PathBuf> {
        self.names.iter().map(|name| folder.join(name)).collect()
    }

    /// Reads the headers of all files, given in the order of [`paths`](Self::paths), and checks that they hold what the index
    /// lists. A tensor in another file than the index says is found, as by transformers; see [`misplaced`](Self::misplaced).
    ///
    /// # Errors
    /// If a header is damaged, two files hold a tensor of the same name, or none holds a tensor of the index.
    pub fn open(&self, files: &[&[u8]]) -> Result<Tensors, SafetensorsError> {
        if files.len() != self.names.len() {
            let problem = format!("{} files were opened for the {} of the checkpoint", files.len(), self.names.len());
            return Err(SafetensorsError::Index(problem));
        }
        let mut tensors: BTreeMap<String, Located> = BTreeMap::new();
        for (shard, (file, name)) in files.iter().zip(&self.names).enumerate() {
            for info in Safetensors::parse(file, name)?.tensors() {
                let located = Located { shard, info: info.clone() };
                if let Some(other) = tensors.insert(info.name.clone(), located) {
                    let (tensor, other) = (one_line(&other.info.name), &self.names[other.shard]);
                    return Err(SafetensorsError::Index(format!("tensor {tensor} is in {other} and in {name}")));
                }
            }
        }
        if let Some((tensor, &shard)) = self.index.iter().find(|(tensor, _)| !tensors.contains_key(*tensor)) {
            let (tensor, name) = (one_line(tensor), &self.names[shard]);
            let problem = format!("tensor {tensor} is not in {name}, where it should be; fetch both files again");
            return Err(SafetensorsError::Index(problem));
        }
        Ok(Tensors(tensors))
    }

    /// The tensors that are in another file than the index says.
    pub fn misplaced<'a>(&'a self, tensors: &'a Tensors) -> impl Iterator<Item = &'a str> {
        let elsewhere = move |(tensor, shard): (&'a String, &usize)| {
            let found = tensors.find(tensor).is_some_and(|t| t.shard != *shard);
            found.then_some(tensor.as_str())
        };
        self.index.iter().filter_map(elsewhere)
    }
}

/// Whether `name` is a plain file name, without path components, on any system.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        && name.ends_with(".safetensors")
        && !name.contains(['/', '\\', ':', '\0'])
        && name.chars().all(|c| !c.is_control())
}

/// A tensor and the file that holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// Position of its file in [`Shards::paths`].
    pub shard: usize,
    /// The tensor.
    pub info: TensorInfo,
}

/// The tensors of a checkpoint, over all of its files.
#[derive(Debug, Clone)]
pub struct Tensors(BTreeMap<String, Located>);

impl Tensors {
    /// The tensor of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Located> {
        self.0.get(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn tensor(&self, name: &str) -> Result<&Located, SafetensorsError> {
        self.find(name).ok_or_else(|| SafetensorsError::MissingTensor(name.to_owned()))
    }

    /// The same tensors with other names.
    pub(crate) fn rename(self, name: impl Fn(&str) -> String) -> Self {
        let renamed = self.0.into_iter().map(|(old, mut tensor)| {
            tensor.info.name = name(&old);
            (tensor.info.name.clone(), tensor)
        });
        Self(renamed.collect())
    }

    /// All tensors, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Located> {
        self.0.values()
    }
}
