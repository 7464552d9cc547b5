//! Read-only memory-mapped files.

use crate::{BitNetError, Result};
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A file's bytes, read from disk as they are touched and dropped by the system when memory is short.
///
/// The file must not be truncated or rewritten while it is mapped (replace files by rename, as this project does):
/// the bytes would change under the reader, and reading beyond a new end kills the process.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps a file; an empty file maps to no bytes.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let map = Self::map(&path).map_err(|source| BitNetError::Io { path: path.clone(), source })?;
        Ok(Self { path, map })
    }

    fn map(path: &Path) -> std::io::Result<Option<memmap2::Mmap>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "is a directory, not a file"));
        }
        if metadata.len() == 0 {
            return Ok(None);
        }
        // SAFETY: the mapping is read-only and private to this type; the documented contract is that nobody
        // truncates or rewrites the file in place while it is mapped.
        unsafe { memmap2::Mmap::map(&file) }.map(Some)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the system that `range` will not be read again soon, so that its pages stop counting as resident.
    pub fn release(&self, range: std::ops::Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
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
        self.map.as_deref().unwrap_or(&[])
    }
}
