//! safetensors: the file format of Hugging Face checkpoints, one file or several with an index.
//!
//! Headers are read by the `safetensors` crate, which checks that the data of all tensors fills the
//! file without holes or overlaps. As with [GGUF](crate::gguf), what is parsed borrows nothing:
//! a tensor is a byte range of its file.

mod shards;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

pub use ::safetensors::Dtype;
use half::{bf16, f16};

pub use shards::{Located, Shards, Tensors};
pub use writer::SafetensorsWriter;

use crate::output::WriteError;

/// A safetensors file, or a set of them, that cannot be read or written. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The header is damaged or contradicts the file.
    #[error("{file} is not a readable safetensors file ({reason}): it is cut short or damaged; fetch it again")]
    Header {
        /// Name of the file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Neither `model.safetensors` nor an index is there.
    #[error("{0} has no model.safetensors and no model.safetensors.index.json; is it a Hugging Face checkpoint?")]
    NoModel(String),
    /// The index is damaged, unsafe or contradicts the files.
    #[error("model.safetensors.index.json: {0}")]
    Index(String),
    /// A tensor that the model needs is not there.
    #[error("tensor {0} is missing; the checkpoint is incomplete or of another architecture")]
    MissingTensor(String),
    /// A tensor of a type that cannot be read as numbers.
    #[error("tensor {tensor} has type {dtype:?}, but {expected} is needed")]
    WrongDtype {
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
        /// What would do.
        expected: &'static str,
    },
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Name, type, shape and place of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Name of the tensor.
    pub name: String,
    /// Type of an element.
    pub dtype: Dtype,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The bytes of the file that hold the data.
    pub range: Range<usize>,
}

impl TensorInfo {
    /// The data, of the same `file` that was parsed.
    ///
    /// # Panics
    /// When `file` is another one and shorter.
    pub fn data<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        &file[self.range.clone()]
    }

    /// The elements of an F32, F16 or BF16 tensor as f32, of the same `file` that was parsed.
    ///
    /// # Errors
    /// When the tensor is of another type.
    ///
    /// # Panics
    /// When `file` is another one and shorter.
    pub fn to_f32(&self, file: &[u8]) -> Result<Vec<f32>, SafetensorsError> {
        let data = self.data(file);
        Ok(match self.dtype {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            dtype => {
                let expected = "F32, F16 or BF16";
                return Err(SafetensorsError::WrongDtype { tensor: self.name.clone(), dtype, expected });
            }
        })
    }
}

/// A parsed header. It borrows nothing; [`TensorInfo::range`] says where in the file the data is.
#[derive(Debug, Clone)]
pub struct Safetensors {
    /// Named strings of the header (`__metadata__`).
    pub metadata: HashMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Safetensors {
    /// Reads the header of a whole file; `name` is what an error calls it.
    ///
    /// # Errors
    /// When the header is not one, or does not fill the file exactly.
    pub fn parse(file: &[u8], name: &str) -> Result<Self, SafetensorsError> {
        let fail = |reason: String| SafetensorsError::Header { file: name.to_owned(), reason };
        let (header, metadata) =
            ::safetensors::SafeTensors::read_metadata(file).map_err(|e| fail(one_line(&e.to_string())))?;
        let start = header + 8;
        let mut tensors = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let range = start + from..start + to;
            if range.start > range.end || range.end > file.len() {
                return Err(fail(format!("tensor {} lies outside", one_line(&name))));
            }
            let tensor = TensorInfo { name: name.clone(), dtype: info.dtype, shape: info.shape.clone(), range };
            tensors.insert(name, tensor);
        }
        Ok(Self { metadata: metadata.metadata().clone().unwrap_or_default(), tensors })
    }

    /// The tensor of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, SafetensorsError> {
        self.find(name).ok_or_else(|| SafetensorsError::MissingTensor(name.to_owned()))
    }

    /// All tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }
}

/// Text from a file as an error may show it: one line, not too long.
fn one_line(text: &str) -> String {
    let short: String = text.chars().take(160).collect();
    short.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}
