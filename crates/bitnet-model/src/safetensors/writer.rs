//! Writing a safetensors file: first what it will hold, then the data of one tensor after the other.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Dtype, SafetensorsError, TensorInfo};
use crate::output::{AtomicFile, TensorSink, WriteError};

/// A safetensors file to be written.
///
/// ```
/// # fn main() -> Result<(), bitnet_model::safetensors::SafetensorsError> {
/// use bitnet_model::safetensors::{Dtype, Safetensors, SafetensorsError, SafetensorsWriter};
///
/// let mut writer = SafetensorsWriter::new();
/// writer.add("input_ids", Dtype::I32, &[3])?;
///
/// let path = std::env::temp_dir().join("bitnet-doc-example.safetensors");
/// writer.write(&path, |_tensor, sink| Ok::<_, SafetensorsError>(sink.put(&[0; 12])?))?;
/// # let bytes = std::fs::read(&path).unwrap();
/// assert_eq!(Safetensors::parse(&bytes, "example")?.tensor("input_ids")?.shape, [3]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct SafetensorsWriter {
    metadata: Map<String, Value>,
    /// Ranges count from the start of the data.
    tensors: Vec<TensorInfo>,
    names: HashSet<String>,
}

impl SafetensorsWriter {
    /// A file without tensors and metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a string to the header, such as `format: pt`, which transformers asks for.
    pub fn metadata(&mut self, key: &str, value: &str) {
        self.metadata.insert(key.to_owned(), value.into());
    }

    /// Announces a tensor.
    ///
    /// # Errors
    /// When the name is taken or reserved, or the size does not fit in memory or in whole bytes.
    pub fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<(), SafetensorsError> {
        let refuse = |problem: &str| {
            let (tensor, problem) = (format!("\"{}\"", name.escape_debug()), problem.to_owned());
            Err(WriteError::Tensor { tensor, problem }.into())
        };
        let bits = shape.iter().try_fold(dtype.bitsize(), |n, &d| n.checked_mul(d));
        let Some(bits) = bits.filter(|b| b.is_multiple_of(8)) else {
            return refuse("its size is not a number of bytes that memory can address");
        };
        let start = self.tensors.last().map_or(0, |t| t.range.end);
        let Some(end) = start.checked_add(bits / 8) else {
            return refuse("the file would be larger than memory can address");
        };
        if name == "__metadata__" || !self.names.insert(name.to_owned()) {
            return refuse("the name is taken");
        }
        self.tensors.push(TensorInfo { name: name.to_owned(), dtype, shape: shape.to_vec(), range: start..end });
        Ok(())
    }

    /// Writes the file; `data` is called for each tensor in the order of [`add`](Self::add) and puts
    /// exactly `range.len()` bytes. Gives the length of the file.
    ///
    /// The file is written under another name in the same folder and renamed when it is complete,
    /// so that a failure leaves what was there before.
    ///
    /// # Errors
    /// When `data` fails or gives another number of bytes, or the file cannot be written.
    pub fn write<E: From<SafetensorsError>>(
        &self,
        path: &Path,
        mut data: impl FnMut(&TensorInfo, &mut TensorSink) -> Result<(), E>,
    ) -> Result<u64, E> {
        let failed = |e: WriteError| E::from(SafetensorsError::Write(e));
        let header = self.header().map_err(failed)?;
        let mut file = AtomicFile::create(path).map_err(failed)?;
        file.put(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        file.put(header.as_bytes()).map_err(failed)?;
        for tensor in &self.tensors {
            file.tensor(&tensor.name, tensor.range.len() as u64, |sink| data(tensor, sink), failed)?;
        }
        file.commit().map_err(failed)
    }

    /// The JSON header, with spaces up to a multiple of 8 bytes so that the data is aligned.
    fn header(&self) -> Result<String, WriteError> {
        let mut header = Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".to_owned(), self.metadata.clone().into());
        }
        for t in &self.tensors {
            let dtype = serde_json::to_value(t.dtype).map_err(|e| WriteError::Metadata(e.to_string()))?;
            let offsets = [t.range.start, t.range.end];
            header.insert(t.name.clone(), json!({ "dtype": dtype, "shape": t.shape, "data_offsets": offsets }));
        }
        let mut text = Value::from(header).to_string();
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        Ok(text)
    }
}
