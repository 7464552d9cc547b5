//! Read-only files, memory-mapped if large.

use super::signals::MappedRange;
use crate::{BitNetError, Result};
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files up to this size are read: mapping them saves little, and read bytes cannot change any more.
const READ_UP_TO: u64 = 4 << 20;

/// The bytes of a file. A large file is read from disk on access and evicted by the system under memory pressure.
///
/// A large file must not be truncated or rewritten in place while it is in use (replace files by renaming, as this project
/// does): the bytes would change under the reader, which [`check_unchanged`](Self::check_unchanged) detects, and reading
/// beyond a new end raises SIGBUS, see [`install_signal_handlers`](crate::install_signal_handlers).
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    /// Aligned for every element type.
    Read {
        words: Vec<u64>,
        len: usize,
    },
    Mapped {
        _range: MappedRange,
        map: memmap2::Mmap,
        file: File,
        version: Version,
    },
}

/// What tells that a file was written to.
#[derive(Debug, PartialEq)]
struct Version {
    len: u64,
    modified: Option<SystemTime>,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl MappedFile {
    /// Opens a file: maps it if it is large and the system can map it, else reads it.
    ///
    /// # Errors
    /// If it cannot be read, or is a directory, a pipe or a device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = check_kind(path).and_then(|()| Bytes::of(File::open(path)?, path, READ_UP_TO));
        let bytes = bytes.map_err(|source| BitNetError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// Maps an open file, however small it is.
    pub(super) fn of(file: File, path: PathBuf) -> Result<Self> {
        let bytes = Bytes::of(file, &path, 0).map_err(|source| BitNetError::Io { path: path.clone(), source })?;
        Ok(Self { path, bytes })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error if the file was written to since it was opened and its bytes may have changed with it.
    pub fn check_unchanged(&self) -> Result<()> {
        let Bytes::Mapped { file, version, .. } = &self.bytes else { return Ok(()) };
        let problem = match file.metadata() {
            Ok(metadata) if Version::of(&metadata) == *version => return Ok(()),
            Ok(_) => Error::other("the file was written to while it was in use, so results may be wrong: start again"),
            Err(e) => e,
        };
        Err(BitNetError::Io { path: self.path.clone(), source: problem })
    }

    /// Tells the system that `range` will not be read again soon, so that its pages stop counting as resident.
    pub fn release(&self, range: std::ops::Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped { map, .. } = &self.bytes {
            const PAGE: usize = 4096;
            let start = range.start.next_multiple_of(PAGE);
            let end = range.end.min(map.len()) / PAGE * PAGE;
            if start < end {
                // SAFETY: the pages are backed by the file and read-only; dropping them only means that the next
                // read fetches the same bytes again. A failure leaves them resident, which is harmless.
                let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// An error for what is no file, before it is opened: opening a pipe waits for its writer.
fn check_kind(path: &Path) -> std::io::Result<()> {
    let kind = std::fs::metadata(path)?;
    if kind.is_dir() {
        return Err(Error::new(ErrorKind::IsADirectory, "is a directory, not a file"));
    }
    if !kind.is_file() {
        let problem = "is a pipe or a device, not a file: write its contents to a file first";
        return Err(Error::new(ErrorKind::InvalidInput, problem));
    }
    Ok(())
}

impl Bytes {
    fn of(mut file: File, path: &Path, read_up_to: u64) -> std::io::Result<Self> {
        let version = Version::of(&file.metadata()?);
        // An empty mapping is an error.
        if version.len <= read_up_to || version.len == 0 {
            return Self::read(&mut file, version.len);
        }
        // SAFETY: the mapping is read-only and private to this type; the documented contract is that nobody
        // truncates or rewrites the file in place while it is mapped.
        match unsafe { memmap2::Mmap::map(&file) } {
            Ok(map) => {
                let range = MappedRange::new(map.as_ptr() as usize, map.len(), path);
                Ok(Self::Mapped { _range: range, map, file, version })
            }
            // The system (WASI) or the file system has no mappings.
            Err(_) => Self::read(&mut file, version.len),
        }
    }

    /// Reads at most `len` bytes: files of sysfs have fewer than they say.
    fn read(file: &mut File, len: u64) -> std::io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut words = vec![0u64; len.div_ceil(8)];
        let (mut done, bytes) = (0, &mut bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..len]);
        while done < len {
            match file.read(&mut bytes[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self::Read { words, len: done })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Read { words, len } => &bytemuck::cast_slice(words)[..*len],
            Bytes::Mapped { map, .. } => map,
        }
    }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_mapped_is_read() {
        // Files of sysfs have a size but no pages.
        let path = "/sys/kernel/mm/transparent_hugepage/enabled";
        let Ok(text) = std::fs::read(path) else { return };
        let files = [MappedFile::open(path).unwrap(), MappedFile::of(File::open(path).unwrap(), path.into()).unwrap()];
        for file in files {
            assert!(matches!(file.bytes, Bytes::Read { .. }));
            assert!(text.contains(&b'[') && *file == text[..]);
        }
    }

    #[test]
    fn a_mapped_file_that_is_written_to_is_told_from_one_that_is_replaced() {
        let path = std::env::temp_dir().join(format!("bitnet-mapped-{}", std::process::id()));
        std::fs::write(&path, "first").unwrap();
        let open = || MappedFile::of(File::open(&path).unwrap(), path.clone()).unwrap();
        let (mapped, read) = (open(), MappedFile::open(&path).unwrap());
        let other = path.with_extension("other");
        std::fs::write(&other, "other").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(mapped.check_unchanged().is_ok() && *mapped == *b"first");
        let mapped = open();
        std::fs::write(&path, "second").unwrap();
        let error = mapped.check_unchanged().unwrap_err().to_string();
        assert!(error.contains("written to while it was in use"), "{error}");
        assert!(read.check_unchanged().is_ok() && *read == *b"first");
        std::fs::remove_file(&path).unwrap();
    }
}
