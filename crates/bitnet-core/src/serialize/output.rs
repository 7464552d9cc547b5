//! Writing a file whole or not at all, one tensor at a time.

use super::with_bytes;
use crate::BitNetTensor;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file that could not be written. What stood under its name before is untouched.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No room is left.
    #[error("no space left for {} after {written} bytes; free some or write elsewhere", .path.display())]
    Full {
        /// The file that was to be written.
        path: PathBuf,
        written: u64,
    },
    /// The system refused.
    #[error("cannot write {}: {source}", .path.display())]
    Io {
        /// The file that was to be written.
        path: PathBuf,
        source: io::Error,
    },
    /// A tensor's data is not as long as was announced.
    #[error("tensor {tensor}: {actual} bytes of data were given for the {expected} that its shape needs")]
    Length { tensor: String, expected: u64, actual: u64 },
    /// A tensor that the format cannot hold.
    #[error("tensor {tensor} cannot be written: {problem}")]
    Tensor { tensor: String, problem: String },
    /// Metadata that the format cannot hold.
    #[error("metadata cannot be written: {0}")]
    Metadata(String),
}

/// A file that appears under its name when [`commit`](Self::commit) has been called.
///
/// Until then it is a hidden file in the same folder, which goes away when this is dropped.
#[derive(Debug)]
pub struct AtomicFile {
    /// `None` once it is committed.
    file: Option<BufWriter<File>>,
    path: PathBuf,
    temporary: PathBuf,
    written: u64,
}

impl AtomicFile {
    /// Starts the file that will stand at `path`.
    ///
    /// # Errors
    /// If its folder is not there or cannot be written to.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // In the same folder, so that the renaming stays within one file system; a name for each writer.
        static WRITERS: AtomicU32 = AtomicU32::new(0);
        let (process, writer) = (std::process::id(), WRITERS.fetch_add(1, Ordering::Relaxed));
        let temporary = path.with_file_name(format!(".{name}.{process}.{writer}.partial"));
        let file = File::create(&temporary).map_err(|source| WriteError::Io { path: path.to_owned(), source })?;
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { file, path: path.to_owned(), temporary, written: 0 })
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What an error of the system means for this file.
    pub(super) fn failed(&self, source: io::Error) -> WriteError {
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => WriteError::Full { path, written: self.written },
            _ => WriteError::Io { path, source },
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_all(bytes).map_err(|e| self.failed(e))
    }

    /// Replaces bytes written before, from byte `at` of the file on.
    pub(super) fn overwrite(&mut self, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        debug_assert!(at + bytes.len() as u64 <= self.written);
        let Some(file) = &mut self.file else { return Ok(()) };
        let done = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes));
        done.and_then(|()| file.seek(SeekFrom::End(0))).map(|_| ()).map_err(|e| self.failed(e))
    }

    /// Zeros up to the next multiple of `alignment`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn pad(&mut self, alignment: usize) -> Result<(), WriteError> {
        let to = self.written.next_multiple_of(alignment as u64);
        while self.written < to {
            self.put(&[0; 64][..((to - self.written) as usize).min(64)])?;
        }
        Ok(())
    }

    /// The data of one tensor, `expected` bytes, as `write` gives it.
    ///
    /// # Errors
    /// Those of `write`; `failed` makes one where the length is another.
    pub fn tensor<E>(
        &mut self,
        name: &str,
        expected: u64,
        write: impl FnOnce(&mut TensorSink) -> Result<(), E>,
        failed: impl FnOnce(WriteError) -> E,
    ) -> Result<(), E> {
        let start = self.written;
        let mut sink = TensorSink { file: self, name, start, expected };
        write(&mut sink)?;
        let actual = self.written - start;
        if actual != expected {
            return Err(failed(WriteError::Length { tensor: name.to_owned(), expected, actual }));
        }
        Ok(())
    }

    /// Makes the file appear under its name, all of it on the disk; gives its length.
    ///
    /// # Errors
    /// If the system cannot write or rename it; then it is removed.
    pub fn commit(mut self) -> Result<u64, WriteError> {
        if let Some(file) = self.file.take() {
            let done = file.into_inner().map_err(|e| e.into_error()).and_then(|f| f.sync_all());
            if let Err(e) = done.and_then(|()| fs::rename(&self.temporary, &self.path)) {
                let error = self.failed(e);
                // Nothing is left to report to if this fails as well.
                let _ = fs::remove_file(&self.temporary);
                return Err(error);
            }
        }
        Ok(self.written)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Ok(bytes.len()) };
        let count = file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Without flushing: the bytes are not wanted. Failure leaves a hidden file behind.
            drop(file.into_parts());
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Where the data of one tensor goes, in as many pieces as the caller likes.
pub struct TensorSink<'a> {
    file: &'a mut AtomicFile,
    name: &'a str,
    start: u64,
    expected: u64,
}

impl TensorSink<'_> {
    /// Appends bytes to the tensor.
    ///
    /// # Errors
    /// If they exceed the tensor, or cannot be written.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let actual = self.file.written - self.start + bytes.len() as u64;
        if actual > self.expected {
            let (tensor, expected) = (self.name.to_owned(), self.expected);
            return Err(WriteError::Length { tensor, expected, actual });
        }
        self.file.put(bytes)
    }

    /// Appends a tensor of any device, in row-major order.
    ///
    /// # Errors
    /// As [`put`](Self::put); when it is packed, or its device cannot give its bytes.
    pub fn put_tensor(&mut self, tensor: &BitNetTensor) -> crate::Result<()> {
        with_bytes(tensor, |bytes| self.put(bytes))?.map_err(Into::into)
    }
}
