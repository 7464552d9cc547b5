//! npz: NumPy's arrays in a zip archive, an entry `NAME.npy` for each.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;
use indexmap::IndexMap;

use super::npy::{self, Header, Source};
use super::output::{AtomicFile, WriteError};
use super::zip::{self, Entry, Method, Written};
use super::{FileError, TensorMap, one_line};
use crate::{BitNetError, BitNetTensor, Device, MappedFile, Result};

/// Alignment of the data of stored arrays, so that a mapping can be read in place.
const ALIGNMENT: u64 = 64;
/// From this length on an entry uses a zip64 field; deflate can add a little to the length.
const LARGE: u64 = 0xf000_0000;

/// Compression of the arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Uncompressed, as by `numpy.savez`; can be memory-mapped.
    Stored,
    /// Compressed, as by `numpy.savez_compressed`.
    Deflated,
}

/// Writes named tensors of any device; gives the length of the file.
///
/// # Errors
/// As [`NpzWriter::add`].
pub fn save<'a, N: AsRef<str>>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (N, &'a BitNetTensor)>,
    compression: Compression,
) -> Result<u64> {
    let mut writer = NpzWriter::create(path, compression)?;
    for (name, tensor) in tensors {
        writer.add(name.as_ref(), tensor)?;
    }
    writer.finish()
}

/// Reads all arrays of a file into memory, in the order of its directory.
///
/// # Errors
/// If the file cannot be read or is damaged, or holds anything but arrays of numbers.
pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<TensorMap> {
    let file = NpzFile::open(path)?;
    file.names().map(|name| Ok((name.to_owned(), file.tensor(name, device)?))).collect()
}

/// Reads an archive that is in memory.
///
/// # Errors
/// As [`load`].
pub fn from_bytes(bytes: &[u8], device: &Device) -> Result<TensorMap> {
    let file = "the archive";
    let entries = entries(bytes, file)?;
    entries.into_iter().map(|(name, entry)| Ok((name, read(bytes, &entry, file, device)?))).collect()
}

/// A memory-mapped archive: only the requested arrays are read.
#[derive(Debug)]
pub struct NpzFile {
    file: Arc<MappedFile>,
    entries: IndexMap<String, Entry>,
}

impl NpzFile {
    /// Maps a file and reads its directory. See [`MappedFile`] for what must not happen to the file meanwhile.
    ///
    /// # Errors
    /// If it cannot be read, or is not a valid archive.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = Arc::new(MappedFile::open(path)?);
        let entries = entries(&file, &file.path().display().to_string())?;
        Ok(Self { file, entries })
    }

    /// Names of the arrays, without `.npy`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// One array, read into memory of `device`; its pages of the file are released.
    ///
    /// # Errors
    /// If there is none of that name, it is damaged or of a type that tensors do not have.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<BitNetTensor> {
        let entry = self.entry(name)?;
        let tensor = read(&self.file, entry, &self.label(name), device)?;
        self.file.release(entry.range.clone());
        Ok(tensor)
    }

    /// One array, memory-mapped and copied when written, if `device` is the CPU and the array is stored and aligned, as
    /// this crate writes it; else as [`tensor`](Self::tensor). The checksum is verified, which reads the array once.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn mapped(&self, name: &str, device: &Device) -> Result<BitNetTensor> {
        let entry = self.entry(name)?;
        let label = self.label(name);
        match entry.method {
            Method::Deflated => self.tensor(name, device),
            Method::Stored => {
                let source = stored(&self.file, entry, &label)?;
                source.mapped(&self.file, entry.range.start, device)
            }
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        let file = || self.file.path().display().to_string();
        let missing = || FileError::MissingTensor { file: file(), tensor: one_line(name) }.into();
        self.entries.get(name).ok_or_else(missing)
    }

    fn label(&self, name: &str) -> String {
        label(&self.file.path().display().to_string(), name)
    }
}

fn label(file: &str, name: &str) -> String {
    format!("{file}: {}", one_line(name))
}

fn damaged(file: &str, reason: impl Into<String>) -> BitNetError {
    FileError::Damaged { file: file.to_owned(), format: "npz", reason: reason.into() }.into()
}

/// The entries of an archive by the names of their arrays.
fn entries(bytes: &[u8], file: &str) -> Result<IndexMap<String, Entry>> {
    let mut entries = IndexMap::new();
    for entry in zip::parse(bytes).map_err(|reason| damaged(file, reason))? {
        let name = entry.name.strip_suffix(".npy").unwrap_or(&entry.name).to_owned();
        if let Some(other) = entries.insert(name, entry) {
            return Err(damaged(file, format!("{} occurs twice", one_line(&other.name))));
        }
    }
    Ok(entries)
}

/// A stored entry with a verified checksum.
fn stored<'a>(file: &'a [u8], entry: &Entry, name: &'a str) -> Result<Source<'a>> {
    let bytes = &file[entry.range.clone()];
    let mut crc = Crc::new();
    crc.update(bytes);
    check(&crc, entry, name)?;
    Ok(Source { bytes, name })
}

fn check(crc: &Crc, entry: &Entry, name: &str) -> Result<()> {
    if crc.sum() == entry.crc { Ok(()) } else { Err(damaged(name, "its checksum is wrong")) }
}

fn read(file: &[u8], entry: &Entry, name: &str, device: &Device) -> Result<BitNetTensor> {
    if entry.method == Method::Stored {
        return stored(file, entry, name)?.array(device);
    }
    let mut data = Summed { source: DeflateDecoder::new(&file[entry.range.clone()]), crc: Crc::new() };
    let header = Header::read(&mut data, name)?;
    let start = data.source.total_out();
    if start + header.bytes as u64 != entry.size as u64 {
        let reason = format!(
            "its shape needs {} bytes, but there are {}",
            header.bytes,
            entry.size as u64 - start.min(entry.size as u64)
        );
        return Err(damaged(name, reason));
    }
    let fill = |bytes: &mut [u8]| {
        let broken = |_| damaged(name, "its compressed data is broken");
        data.read_exact(bytes).map_err(broken)?;
        let more = data.read(&mut [0]).map_err(broken)?;
        if more != 0 || data.source.total_in() != entry.range.len() as u64 {
            return Err(damaged(name, "its compressed data is not as long as announced"));
        }
        check(&data.crc, entry, name)
    };
    header.tensor(device, fill, name)
}

/// A reader that computes the checksum.
struct Summed<R> {
    source: R,
    crc: Crc,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(bytes)?;
        self.crc.update(&bytes[..count]);
        Ok(count)
    }
}

/// Writes an archive, one tensor at a time; it appears under its name when [finished](Self::finish).
///
/// ```
/// use bitnet_core::serialize::npz::{Compression, NpzWriter, load};
/// use bitnet_core::{BitNetTensor, Device};
/// let path = std::env::temp_dir().join("bitnet-doc-writer.npz");
/// let mut writer = NpzWriter::create(&path, Compression::Stored)?;
/// for step in 0..3i64 {
///     writer.add(&format!("step{step}"), &BitNetTensor::from_slice(&[step], &[], &Device::cpu())?)?;
/// }
/// writer.finish()?;
/// assert_eq!(load(&path, &Device::cpu())?["step2"].to_vec::<i64>()?, [2]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug)]
pub struct NpzWriter {
    file: AtomicFile,
    compression: Compression,
    entries: IndexMap<String, Written>,
}

impl NpzWriter {
    /// Starts an archive.
    ///
    /// # Errors
    /// If the folder does not exist or cannot be written to.
    pub fn create(path: impl AsRef<Path>, compression: Compression) -> Result<Self> {
        Ok(Self { file: AtomicFile::create(path.as_ref())?, compression, entries: IndexMap::new() })
    }

    /// Writes a tensor of any device under `name`.
    ///
    /// # Errors
    /// If the name is taken, empty or longer than 65,000 bytes, the tensor is bf16 or packed, for which NumPy has no
    /// type, or the file cannot be written. The archive is then lost.
    pub fn add(&mut self, name: &str, tensor: &BitNetTensor) -> Result<()> {
        let refuse = |problem: &str| {
            let (tensor, problem) = (format!("\"{}\"", one_line(name)), problem.to_owned());
            Err(WriteError::Tensor { tensor, problem }.into())
        };
        if name.is_empty() || name.len() > 65_000 {
            return refuse("its name is empty or longer than 65,000 bytes");
        }
        if self.entries.contains_key(name) {
            return refuse("the name is taken");
        }
        let size = npy::header(tensor.dtype(), tensor.dims())?.len() as u64
            + (tensor.shape().elements() * tensor.dtype().block().1) as u64;
        let offset = self.file.written();
        let (method, alignment) = match self.compression {
            Compression::Stored => (Method::Stored, ALIGNMENT),
            Compression::Deflated => (Method::Deflated, 1),
        };
        let mut entry = Written { name: format!("{name}.npy"), method, crc: 0, packed: size, size, offset };
        let zip64 = size >= LARGE;
        let start = entry.local(zip64, alignment);
        self.file.put(&start)?;
        let data = self.file.written();
        let mut crc = Crc::new();
        match self.compression {
            Compression::Stored => npy::write(tensor, |bytes| {
                crc.update(bytes);
                self.file.put(bytes)
            })?,
            Compression::Deflated => {
                let mut encoder = DeflateEncoder::new(&mut self.file, flate2::Compression::default());
                let mut failed = None;
                npy::write(tensor, |bytes| {
                    crc.update(bytes);
                    failed = failed.take().or(encoder.write_all(bytes).err());
                    Ok(())
                })?;
                let done = failed.map_or_else(|| encoder.finish().map(drop), Err);
                done.map_err(|e| self.file.failed(e))?;
            }
        }
        (entry.crc, entry.packed) = (crc.sum(), self.file.written() - data);
        let local = entry.local(zip64, alignment);
        self.file.overwrite(offset + zip::CHECKSUM_AT, &local[zip::CHECKSUM_AT as usize..])?;
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Writes the directory and renames the file to its final name; returns its length.
    ///
    /// # Errors
    /// If it cannot be written; an existing file is then kept.
    pub fn finish(mut self) -> Result<u64> {
        let entries: Vec<Written> = self.entries.into_values().collect();
        let directory = zip::directory(&entries, self.file.written());
        self.file.put(&directory)?;
        Ok(self.file.commit()?)
    }
}
