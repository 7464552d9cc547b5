//! safetensors: the file format of Hugging Face.
//!
//! Headers are read by the `safetensors` crate, which checks that the data of all tensors fills the
//! file without gaps or overlaps. A parsed header borrows nothing: a tensor is a byte range of its file.

mod file;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;

pub use ::safetensors::Dtype;
use half::{bf16, f16};
use indexmap::IndexMap;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

pub use file::{SafetensorsFile, from_bytes, load, load_mapped, save};
pub use writer::SafetensorsWriter;

use super::{FileError, one_line};
use crate::BitNetDType;

/// The types of the format that tensors have.
const DTYPES: [(BitNetDType, Dtype); 13] = [
    (BitNetDType::F64, Dtype::F64),
    (BitNetDType::F32, Dtype::F32),
    (BitNetDType::F16, Dtype::F16),
    (BitNetDType::BF16, Dtype::BF16),
    (BitNetDType::I8, Dtype::I8),
    (BitNetDType::I16, Dtype::I16),
    (BitNetDType::I32, Dtype::I32),
    (BitNetDType::I64, Dtype::I64),
    (BitNetDType::U8, Dtype::U8),
    (BitNetDType::U16, Dtype::U16),
    (BitNetDType::U32, Dtype::U32),
    (BitNetDType::U64, Dtype::U64),
    (BitNetDType::Bool, Dtype::BOOL),
];

/// Name, type, shape and byte range of a tensor.
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
    /// If the tensor is of another type.
    ///
    /// # Panics
    /// When `file` is another one and shorter.
    pub fn to_f32(&self, file: &[u8]) -> Result<Vec<f32>, FileError> {
        let data = self.data(file);
        Ok(match self.dtype {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            dtype => {
                let expected = "F32, F16 or BF16";
                return Err(FileError::WrongDtype { tensor: self.name.clone(), dtype, expected });
            }
        })
    }
}

/// A parsed header. It borrows nothing; [`TensorInfo::range`] is the position of the data in the file.
#[derive(Debug, Clone)]
pub struct Safetensors {
    /// Named strings of the header (`__metadata__`).
    pub metadata: BTreeMap<String, String>,
    file: String,
    tensors: IndexMap<String, TensorInfo>,
}

impl Safetensors {
    /// Parses the header of a whole file; `name` is used in errors.
    ///
    /// # Errors
    /// If the header is invalid, or does not cover the file exactly.
    pub fn parse(file: &[u8], name: &str) -> Result<Self, FileError> {
        let format = "safetensors";
        let fail = |reason: String| FileError::Damaged { file: name.to_owned(), format, reason };
        let (header, parsed) =
            ::safetensors::SafeTensors::read_metadata(file).map_err(|e| fail(one_line(&e.to_string())))?;
        let start = header + 8;
        // The crate does not keep the order of the header.
        let mut json = serde_json::Deserializer::from_slice(&file[8..start]);
        let names = json.deserialize_map(Names).map_err(|e| fail(one_line(&e.to_string())))?;
        let mut tensors = IndexMap::with_capacity(names.len());
        for name in names {
            let Some(info) = parsed.info(&name) else { continue };
            let (from, to) = info.data_offsets;
            let range = start + from..start + to;
            if range.start > range.end || range.end > file.len() {
                return Err(fail(format!("tensor {} lies outside", one_line(&name))));
            }
            let tensor = TensorInfo { name: name.clone(), dtype: info.dtype, shape: info.shape.clone(), range };
            tensors.insert(name, tensor);
        }
        let metadata = parsed.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Self { metadata, file: name.to_owned(), tensors })
    }

    /// The tensor of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, FileError> {
        self.find(name).ok_or_else(|| FileError::MissingTensor { file: self.file.clone(), tensor: one_line(name) })
    }

    /// All tensors, in the order of the header.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }
}

/// Collects the keys of a JSON object in their order.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
            names.push(name);
        }
        Ok(names)
    }
}
