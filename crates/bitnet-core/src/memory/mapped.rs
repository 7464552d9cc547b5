//! Read-only memory-mapped files.

use crate::{BitNetError, Result};
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A file's bytes, read from disk as they are touched and dropped by the system when memory is short.
///
/// The file must not be truncated or rewritten while it is mapped (replace files by rename, as this project does):
/// the bytes would change under the reader, and reading beyond a new end kills the process.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    bytes: Bytes,
}

/// Where a file's bytes are.
#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    /// Of an empty file, and of one that the system (WASI) or its file system cannot map.
    Read(Vec<u8>),
}

impl MappedFile {
    /// Maps a file; where the system cannot map it, reads it. An empty file has no bytes.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = File::open(&path).map_err(|source| BitNetError::Io { path: path.clone(), source })?;
        Self::of(file, path)
    }

    /// Maps an open file.
    pub(super) fn of(file: File, path: PathBuf) -> Result<Self> {
        let bytes = Self::bytes(file).map_err(|source| BitNetError::Io { path: path.clone(), source })?;
        Ok(Self { path, bytes })
    }

    fn bytes(mut file: File) -> std::io::Result<Bytes> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "is a directory, not a file"));
        }
        if metadata.len() == 0 {
            return Ok(Bytes::Read(Vec::new()));
        }
        // SAFETY: the mapping is read-only and private to this type; the documented contract is that nobody
        // truncates or rewrites the file in place while it is mapped.
        let mapped = unsafe { memmap2::Mmap::map(&file) };
        mapped.map(Bytes::Mapped).or_else(|_| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(Bytes::Read(bytes))
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the system that `range` will not be read again soon, so that its pages stop counting as resident.
    pub fn release(&self, range: std::ops::Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
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

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Read(bytes) => bytes,
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
        let file = MappedFile::open(path).unwrap();
        assert!(matches!(file.bytes, Bytes::Read(_)));
        assert!(text.contains(&b'[') && *file == text[..]);
    }
}
