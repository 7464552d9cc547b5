//! npy: one array in NumPy's format, versions 1 to 3.
//!
//! Six bytes of magic, two of version, the length of the header, the header (a Python dictionary of type, order and
//! shape, padded so that the data starts at a multiple of 64), the elements.
//! Source: NumPy's `numpy.lib.format`.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::output::{AtomicFile, WriteError};
use super::{FileError, bad_element, filled, one_line, swap_bytes, with_bytes};
use crate::{BitNetDType, BitNetTensor, Device, MappedFile, Result, TensorOpError, TensorShape};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy writes less than 128 bytes for the types that a tensor can have, and refuses to read more than 10,000.
const MAX_HEADER: usize = 1 << 16;

/// The types of the format that tensors have: kind and bytes per element.
const DTYPES: [(BitNetDType, &str); 12] = [
    (BitNetDType::F64, "f8"),
    (BitNetDType::F32, "f4"),
    (BitNetDType::F16, "f2"),
    (BitNetDType::I8, "i1"),
    (BitNetDType::I16, "i2"),
    (BitNetDType::I32, "i4"),
    (BitNetDType::I64, "i8"),
    (BitNetDType::U8, "u1"),
    (BitNetDType::U16, "u2"),
    (BitNetDType::U32, "u4"),
    (BitNetDType::U64, "u8"),
    (BitNetDType::Bool, "b1"),
];

/// Writes a tensor of any device, in row-major order; gives the length of the file.
///
/// # Errors
/// If it is bf16 or packed, for which NumPy has no type, or the file cannot be written; an existing file is then kept.
pub fn save(path: impl AsRef<Path>, tensor: &BitNetTensor) -> Result<u64> {
    let mut file = NpyWriter::create(path, tensor.dtype(), tensor.dims())?;
    with_bytes(tensor, |bytes| file.put(bytes))??;
    file.finish()
}

/// An array to be written piece by piece; it appears under its name when it is [finished](Self::finish).
#[derive(Debug)]
pub struct NpyWriter {
    file: AtomicFile,
    expected: u64,
}

impl NpyWriter {
    /// Starts an array of this type and shape.
    ///
    /// # Errors
    /// If the type is bf16 or packed, for which NumPy has no type, the shape is none of a tensor, or the file cannot be
    /// written.
    pub fn create(path: impl AsRef<Path>, dtype: BitNetDType, dims: &[usize]) -> Result<Self> {
        let header = header(dtype, dims)?;
        let elements = TensorShape::new(dims)?.elements() as u64;
        let mut file = AtomicFile::create(path.as_ref())?;
        file.put(&header)?;
        Ok(Self { expected: file.written() + elements * dtype.block().1 as u64, file })
    }

    /// Appends elements in row-major order, little-endian.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.put(bytes)
    }

    /// Makes the file appear under its name; gives its length.
    ///
    /// # Errors
    /// If there are more or fewer elements than the shape has, or the file cannot be written; an existing file is then kept.
    pub fn finish(self) -> Result<u64> {
        let (expected, actual) = (self.expected, self.file.written());
        if actual != expected {
            return Err(WriteError::Length { tensor: "of the file".into(), expected, actual }.into());
        }
        Ok(self.file.commit()?)
    }
}

/// Reads a file into memory of `device`. Fortran order becomes a transposed view; the other byte order is swapped.
///
/// # Errors
/// If the file cannot be read or is damaged, or holds a type that tensors do not have.
pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<BitNetTensor> {
    let file = MappedFile::open(path)?;
    Source { bytes: &file, name: &file.path().display().to_string() }.array(device)
}

/// As [`load`], but a CPU tensor stays memory-mapped and is copied when written. An array of the other byte order is
/// copied.
///
/// # Errors
/// As [`load`].
pub fn load_mapped(path: impl AsRef<Path>, device: &Device) -> Result<BitNetTensor> {
    let file = Arc::new(MappedFile::open(path)?);
    let source = Source { bytes: &file, name: &file.path().display().to_string() };
    source.mapped(&file, 0, device)
}

/// Reads an array that is in memory.
///
/// # Errors
/// As [`load`].
pub fn from_bytes(bytes: &[u8], device: &Device) -> Result<BitNetTensor> {
    Source { bytes, name: "the array" }.array(device)
}

/// The bytes of a whole file, and its name for errors.
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) name: &'a str,
}

impl Source<'_> {
    pub(super) fn array(&self, device: &Device) -> Result<BitNetTensor> {
        let (header, data) = self.split()?;
        header.tensor(
            device,
            |to| {
                to.copy_from_slice(data);
                Ok(())
            },
            self.name,
        )
    }

    /// The array without a copy, if the CPU can read it in place; these bytes start at byte `at` of `file`.
    pub(super) fn mapped(&self, file: &Arc<MappedFile>, at: usize, device: &Device) -> Result<BitNetTensor> {
        let (header, data) = self.split()?;
        if header.swapped {
            return self.array(device);
        }
        if let Some(problem) = bad_element(data, header.dtype) {
            return Err(unreadable(self.name, problem));
        }
        let end = at + self.bytes.len();
        header.ordered(BitNetTensor::from_mapped(
            file,
            end - data.len()..end,
            &header.stored_dims(),
            header.dtype,
            device,
        )?)
    }

    /// Header and elements.
    fn split(&self) -> Result<(Header, &[u8])> {
        let mut rest = self.bytes;
        let header = Header::read(&mut rest, self.name)?;
        if rest.len() != header.bytes {
            let reason = format!("its shape needs {} bytes, but there are {}", header.bytes, rest.len());
            return Err(damaged(self.name, reason));
        }
        Ok((header, rest))
    }
}

pub(super) fn damaged(file: &str, reason: impl Into<String>) -> crate::BitNetError {
    FileError::Damaged { file: file.to_owned(), format: "npy", reason: reason.into() }.into()
}

fn unreadable(file: &str, problem: String) -> crate::BitNetError {
    FileError::Unreadable { file: file.to_owned(), problem }.into()
}

/// The parsed header.
#[derive(Debug)]
pub(super) struct Header {
    dtype: BitNetDType,
    /// Whether the elements have not this machine's byte order.
    swapped: bool,
    fortran: bool,
    dims: Vec<usize>,
    /// Bytes of the elements.
    pub(super) bytes: usize,
}

impl Header {
    /// Reads up to the first element.
    pub(super) fn read(source: &mut impl Read, name: &str) -> Result<Self> {
        let cut = || damaged(name, "it ends within its header");
        let mut start = [0; 8];
        source.read_exact(&mut start).map_err(|_| cut())?;
        if &start[..6] != MAGIC {
            return Err(damaged(name, "it does not start with \\x93NUMPY"));
        }
        let mut len = [0; 4];
        let width = match start[6..] {
            [1, 0] => 2,
            [2 | 3, 0] => 4,
            [major, minor] => {
                return Err(unreadable(name, format!("version {major}.{minor} of npy is not 1.0, 2.0 or 3.0")));
            }
            _ => return Err(cut()),
        };
        source.read_exact(&mut len[..width]).map_err(|_| cut())?;
        let len = u32::from_le_bytes(len) as usize;
        if len > MAX_HEADER {
            return Err(damaged(name, format!("a header of {len} bytes is longer than {MAX_HEADER}")));
        }
        let mut text = vec![0; len];
        source.read_exact(&mut text).map_err(|_| cut())?;
        // Versions 1 and 2 are Latin-1, but headers of numeric arrays are ASCII.
        let text = String::from_utf8(text).map_err(|_| damaged(name, "its header is not UTF-8"))?;
        let fields = super::python::Fields::parse(&text).map_err(|reason| damaged(name, reason))?;
        let (dtype, swapped) = element(&fields.descr).map_err(|problem| unreadable(name, problem))?;
        let shape = TensorShape::new(&fields.shape).map_err(|e| unreadable(name, e.to_string()))?;
        let bytes = shape.elements() * dtype.block().1;
        Ok(Self { dtype, swapped, fortran: fields.fortran_order, dims: fields.shape, bytes })
    }

    /// A tensor whose elements `fill` writes in the order and byte order of the file.
    pub(super) fn tensor(
        &self,
        device: &Device,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
        name: &str,
    ) -> Result<BitNetTensor> {
        let tensor = filled(&self.stored_dims(), self.dtype, device, |bytes| {
            fill(bytes)?;
            if self.swapped {
                swap_bytes(bytes, self.dtype);
            }
            bad_element(bytes, self.dtype).map_or(Ok(()), |problem| Err(unreadable(name, problem)))
        })?;
        self.ordered(tensor)
    }

    /// Dimensions in storage order, outermost first.
    fn stored_dims(&self) -> Vec<usize> {
        let mut dims = self.dims.clone();
        if self.fortran {
            dims.reverse();
        }
        dims
    }

    /// A tensor of `stored_dims` with its dimensions in the order of `dims`, as a view.
    fn ordered(&self, tensor: BitNetTensor) -> Result<BitNetTensor> {
        let rank = self.dims.len();
        let mut layout = *tensor.layout();
        for axis in 0..if self.fortran { rank / 2 } else { 0 } {
            layout = layout.transpose(axis, rank - 1 - axis)?;
        }
        Ok(tensor.with_layout(layout))
    }
}

/// The element type of a `descr`, and whether it has not this machine's byte order.
fn element(descr: &str) -> Result<(BitNetDType, bool), String> {
    let (order, kind) = match descr.chars().next() {
        Some(order @ ('<' | '>' | '=' | '|')) => (order, &descr[1..]),
        _ => ('=', descr),
    };
    if let Some((dtype, _)) = DTYPES.iter().find(|(_, name)| *name == kind) {
        return Ok((*dtype, order == if cfg!(target_endian = "little") { '>' } else { '<' }));
    }
    let known = match kind.chars().next() {
        Some('O') => "Python objects, which are never read because reading them runs code",
        Some('c') => "complex numbers; save real and imaginary part apart",
        Some('V') => "opaque bytes (bf16 is saved so); save it as float32, or in a safetensors file",
        Some('U' | 'S') => "text",
        Some('M' | 'm') => "dates; save them as int64",
        Some('f') => "floats of a size that no device computes; save them as float64",
        _ => "nothing that a tensor can hold",
    };
    Err(format!("elements of type {} are {known}", one_line(descr)))
}

/// Magic, version 1.0 and dictionary of an array, a multiple of 64 bytes.
pub(super) fn header(dtype: BitNetDType, dims: &[usize]) -> Result<Vec<u8>> {
    let Some((_, kind)) = DTYPES.iter().find(|(ours, _)| *ours == dtype) else {
        let message = format!("NumPy has no type for {dtype}: cast it to f32 with to_dtype, or use safetensors");
        return Err(TensorOpError::Argument { op: "save", message }.into());
    };
    let order = if dtype.block().1 == 1 { '|' } else { '<' };
    let shape: String = dims.iter().map(|d| format!("{d}, ")).collect();
    // A tuple of one element needs its comma.
    let shape = if dims.len() == 1 { shape.trim_end() } else { shape.trim_end_matches(", ") };
    let text = format!("{{'descr': '{order}{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let total = (10 + text.len() + 1).next_multiple_of(64);
    let mut out = [&MAGIC[..], &[1, 0], &((total - 10) as u16).to_le_bytes(), text.as_bytes()].concat();
    out.resize(total - 1, b' ');
    out.push(b'\n');
    Ok(out)
}

/// Writes header and elements to `sink`.
pub(super) fn write(tensor: &BitNetTensor, mut sink: impl FnMut(&[u8]) -> Result<(), WriteError>) -> Result<()> {
    sink(&header(tensor.dtype(), tensor.dims())?)?;
    Ok(with_bytes(tensor, sink)??)
}
