//! Writing a safetensors file: first the header, then the data, one tensor at a time.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::json;

use super::{Dtype, FileError, TensorInfo};
use crate::serialize::output::{AtomicFile, TensorSink, WriteError};

/// Writer of a safetensors file.
///
/// ```
/// # fn main() -> Result<(), bitnet_core::serialize::FileError> {
/// use bitnet_core::serialize::FileError;
/// use bitnet_core::serialize::safetensors::{Dtype, Safetensors, SafetensorsWriter};
///
/// let mut writer = SafetensorsWriter::new();
/// writer.add("input_ids", Dtype::I32, &[3])?;
///
/// let path = std::env::temp_dir().join("bitnet-doc-example.safetensors");
/// writer.write(&path, |_tensor, sink| Ok::<_, FileError>(sink.put(&[0; 12])?))?;
/// # let bytes = std::fs::read(&path).unwrap();
/// assert_eq!(Safetensors::parse(&bytes, "example")?.tensor("input_ids")?.shape, [3]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct SafetensorsWriter {
    metadata: BTreeMap<String, String>,
    /// In the order of the header. Ranges count from the start of a tensor's own data.
    tensors: Vec<TensorInfo>,
    bytes: usize,
    names: HashSet<String>,
}

impl SafetensorsWriter {
    /// A file without tensors and metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a string to the header, such as `format: pt`, which transformers asks for.
    pub fn metadata(&mut self, key: &str, value: &str) {
        self.metadata.insert(key.to_owned(), value.to_owned());
    }

    /// Declares a tensor.
    ///
    /// # Errors
    /// If the name is taken or reserved, or the size does not fit in memory or in whole bytes.
    pub fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<(), FileError> {
        let refuse = |problem: &str| {
            let (tensor, problem) = (format!("\"{}\"", name.escape_debug()), problem.to_owned());
            Err(WriteError::Tensor { tensor, problem }.into())
        };
        let bits = shape.iter().try_fold(dtype.bitsize(), |n, &d| n.checked_mul(d));
        let Some(bits) = bits.filter(|b| b.is_multiple_of(8)) else {
            return refuse("its size is not a number of bytes that memory can address");
        };
        let Some(total) = self.bytes.checked_add(bits / 8) else {
            return refuse("the file would be larger than memory can address");
        };
        if name == "__metadata__" || !self.names.insert(name.to_owned()) {
            return refuse("the name is taken");
        }
        self.bytes = total;
        self.tensors.push(TensorInfo { name: name.to_owned(), dtype, shape: shape.to_vec(), range: 0..bits / 8 });
        Ok(())
    }

    /// Writes the file; `data` is called once for each tensor and puts exactly `range.len()` bytes. Returns the length
    /// of the file.
    ///
    /// The header lists the tensors in the order of [`add`](Self::add). Their data, and the calls, are ordered by
    /// element size, widest first, so that all are aligned in a mapping.
    ///
    /// The file is written to a temporary name in the same folder and renamed when it is complete, so that a failure
    /// keeps an existing file.
    ///
    /// # Errors
    /// If `data` fails or puts another number of bytes, or the file cannot be written.
    pub fn write<E: From<FileError>>(
        &self,
        path: &Path,
        mut data: impl FnMut(&TensorInfo, &mut TensorSink) -> Result<(), E>,
    ) -> Result<u64, E> {
        let failed = |e: WriteError| E::from(FileError::Write(e));
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.tensors[i].dtype.bitsize()));
        let mut starts = vec![0; order.len()];
        let mut end = 0;
        for &i in &order {
            starts[i] = end;
            end += self.tensors[i].range.len();
        }
        let header = self.header(&starts);
        let mut file = AtomicFile::create(path).map_err(failed)?;
        file.put(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        file.put(header.as_bytes()).map_err(failed)?;
        for tensor in order.into_iter().map(|i| &self.tensors[i]) {
            file.tensor(&tensor.name, tensor.range.len() as u64, |sink| data(tensor, sink), failed)?;
        }
        file.commit().map_err(failed)
    }

    /// The JSON header, with spaces up to a multiple of 8 bytes so that the data is aligned.
    fn header(&self, starts: &[usize]) -> String {
        let mut entries = Vec::with_capacity(self.tensors.len() + 1);
        if !self.metadata.is_empty() {
            entries.push(format!("\"__metadata__\":{}", json!(self.metadata)));
        }
        for (t, start) in self.tensors.iter().zip(starts) {
            let info = json!({ "dtype": t.dtype, "shape": t.shape, "data_offsets": [*start, start + t.range.len()] });
            entries.push(format!("{}:{info}", json!(t.name)));
        }
        let mut text = format!("{{{}}}", entries.join(","));
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        text
    }
}
