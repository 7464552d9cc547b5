//! Loading and saving safetensors files.

use std::path::Path;
use std::sync::Arc;

use super::{DTYPES, Dtype, FileError, Safetensors, SafetensorsWriter, TensorInfo};
use crate::serialize::{TensorMap, bad_element, one_line, swap_bytes};
use crate::{BitNetDType, BitNetTensor, Device, MappedFile, Result, TensorOpError};

/// Writes named tensors of any device, and strings such as `("format", "pt")`; gives the length of the file.
///
/// # Errors
/// If a name occurs twice, a tensor is packed, or the file cannot be written; an existing file is then kept.
pub fn save<'a, N: AsRef<str>>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (N, &'a BitNetTensor)>,
    metadata: &[(&str, &str)],
) -> Result<u64> {
    let mut writer = SafetensorsWriter::new();
    metadata.iter().for_each(|(key, value)| writer.metadata(key, value));
    let mut by_name = std::collections::HashMap::new();
    for (name, tensor) in tensors {
        tensor.unpacked("save")?;
        writer.add(name.as_ref(), stored(tensor.dtype())?, tensor.dims())?;
        by_name.insert(name.as_ref().to_owned(), tensor);
    }
    writer.write(path.as_ref(), |info, sink| sink.put_tensor(by_name[&info.name]))
}

/// Reads all tensors of a file into memory, in the order of its header.
///
/// # Errors
/// If the file cannot be read or is damaged, or holds a type that tensors do not have.
pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<TensorMap> {
    let file = SafetensorsFile::open(path)?;
    file.header.tensors().map(|info| Ok((info.name.clone(), file.read(info, device)?))).collect()
}

/// As [`load`], but CPU tensors stay memory-mapped; see [`SafetensorsFile::mapped`].
///
/// # Errors
/// As [`load`].
pub fn load_mapped(path: impl AsRef<Path>, device: &Device) -> Result<TensorMap> {
    let file = SafetensorsFile::open(path)?;
    file.header.tensors().map(|info| Ok((info.name.clone(), file.map(info, device)?))).collect()
}

/// Reads a file that is in memory.
///
/// # Errors
/// As [`load`].
pub fn from_bytes(bytes: &[u8], device: &Device) -> Result<TensorMap> {
    let file = "the file";
    let header = Safetensors::parse(bytes, file)?;
    header.tensors().map(|info| Ok((info.name.clone(), read(bytes, info, file, device)?))).collect()
}

/// A memory-mapped safetensors file: only the requested tensors are read.
#[derive(Debug)]
pub struct SafetensorsFile {
    file: Arc<MappedFile>,
    header: Safetensors,
}

impl SafetensorsFile {
    /// Maps a file and reads its header. See [`MappedFile`] for what must not happen to the file meanwhile.
    ///
    /// # Errors
    /// If it cannot be read, or its header is invalid or does not cover the file exactly.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = Arc::new(MappedFile::open(path)?);
        let header = Safetensors::parse(&file, &file.path().display().to_string())?;
        Ok(Self { file, header })
    }

    /// Names, types, shapes and byte ranges of the tensors, and the metadata.
    pub fn header(&self) -> &Safetensors {
        &self.header
    }

    /// One tensor, copied to `device`; its pages of the file are released.
    ///
    /// # Errors
    /// If there is none of that name, or tensors do not have its type.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<BitNetTensor> {
        self.read(self.header.tensor(name)?, device)
    }

    /// One tensor, memory-mapped and copied when written, if `device` is the CPU and the file aligns its elements; else
    /// a copy.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn mapped(&self, name: &str, device: &Device) -> Result<BitNetTensor> {
        self.map(self.header.tensor(name)?, device)
    }

    fn read(&self, info: &TensorInfo, device: &Device) -> Result<BitNetTensor> {
        let tensor = read(&self.file, info, &self.name(), device)?;
        self.file.release(info.range.clone());
        Ok(tensor)
    }

    fn map(&self, info: &TensorInfo, device: &Device) -> Result<BitNetTensor> {
        if cfg!(target_endian = "big") {
            return self.read(info, device);
        }
        let dtype = checked(&self.file, info, &self.name())?;
        BitNetTensor::from_mapped(&self.file, info.range.clone(), &info.shape, dtype, device)
    }

    fn name(&self) -> String {
        self.file.path().display().to_string()
    }
}

fn read(bytes: &[u8], info: &TensorInfo, file: &str, device: &Device) -> Result<BitNetTensor> {
    let dtype = checked(bytes, info, file)?;
    if cfg!(target_endian = "big") {
        let mut own = info.data(bytes).to_vec();
        swap_bytes(&mut own, dtype);
        return BitNetTensor::from_bytes(&own, &info.shape, dtype, device);
    }
    BitNetTensor::from_bytes(info.data(bytes), &info.shape, dtype, device)
}

/// The dtype of a tensor with the format's type.
fn checked(bytes: &[u8], info: &TensorInfo, file: &str) -> Result<BitNetDType> {
    let unreadable = |problem: String| {
        let problem = format!("tensor {}: {problem}", one_line(&info.name));
        FileError::Unreadable { file: file.to_owned(), problem }
    };
    let Some((dtype, _)) = DTYPES.iter().find(|(_, stored)| *stored == info.dtype) else {
        return Err(unreadable(format!("no tensor has elements of type {:?}; cast it to F32", info.dtype)).into());
    };
    match bad_element(info.data(bytes), *dtype) {
        Some(problem) => Err(unreadable(problem).into()),
        None => Ok(*dtype),
    }
}

/// The format's type of a dtype.
fn stored(dtype: BitNetDType) -> Result<Dtype> {
    let found = DTYPES.iter().find(|(ours, _)| *ours == dtype).map(|(_, stored)| *stored);
    let message = || format!("safetensors has no type for {dtype}");
    found.ok_or_else(|| TensorOpError::Argument { op: "save", message: message() }.into())
}
