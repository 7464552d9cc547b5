//! Atomic writing of files, one tensor at a time.

use super::with_bytes;
use crate::BitNetTensor;
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file could not be written. An existing file of that name is unchanged.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The disk is full.
    #[error("no space left for {} after {written} bytes; free some or write elsewhere", name(.path))]
    Full { path: PathBuf, written: u64 },
    /// An error of the system.
    #[error("cannot write {}: {source}", name(.path))]
    Io { path: PathBuf, source: io::Error },
    /// The data of a tensor does not have the declared length.
    #[error("tensor {tensor}: {actual} bytes of data were given for the {expected} that its shape needs")]
    Length { tensor: String, expected: u64, actual: u64 },
    /// A tensor that the format cannot hold.
    #[error("tensor {tensor} cannot be written: {problem}")]
    Tensor { tensor: String, problem: String },
    /// Metadata that the format cannot hold.
    #[error("metadata cannot be written: {0}")]
    Metadata(String),
}

fn name(path: &Path) -> Cow<'_, str> {
    if path == Path::new("-") { "standard output".into() } else { path.to_string_lossy() }
}

/// A file that appears under its name when [`commit`](Self::commit) has been called.
///
/// Until then it is a hidden file in the same folder, removed on drop. An existing file is replaced at that moment; its owner
/// and permissions are kept. A symbolic link is followed: its target is replaced. Anything but a regular file (a device, a
/// pipe) is written to directly. The path `-` is standard output (`./-` is a file).
#[derive(Debug)]
pub struct AtomicFile {
    /// `None` once it is committed.
    file: Option<BufWriter<File>>,
    path: PathBuf,
    /// `None` if bytes are written directly to a device or pipe.
    replacement: Option<Replacement>,
    written: u64,
}

/// The hidden files that exist, of all writers. Held while one appears, is renamed or removed.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hidden temporary file, and its final name.
#[derive(Debug)]
struct Replacement {
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Starts a file for `path`.
    ///
    /// # Errors
    /// If its folder does not exist or cannot be written to, or `path` is a folder.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let opened = if path == Path::new("-") { standard_output().map(|file| (file, None)) } else { open(path) };
        let (file, replacement) = opened.map_err(|source| WriteError::Io { path: path.to_owned(), source })?;
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { file, path: path.to_owned(), replacement, written: 0 })
    }

    /// Writes a file of these bytes; returns its length.
    ///
    /// # Errors
    /// If it cannot be written; an existing file is then kept.
    pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<u64, WriteError> {
        let mut file = Self::create(path)?;
        file.put(bytes)?;
        file.commit()
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The [`WriteError`] for an error of the system.
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
        if self.replacement.is_none() {
            return Err(self.failed(io::Error::other("this format goes back to what it wrote, so it needs a file")));
        }
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
    /// Those of `write`; `failed` makes one if the length differs.
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

    /// Syncs the file and renames it to its final name; returns its length.
    ///
    /// # Errors
    /// If the system cannot write or rename it; then it is removed.
    pub fn commit(mut self) -> Result<u64, WriteError> {
        let Some(file) = self.file.take() else { return Ok(self.written) };
        let written = file.into_inner().map_err(|e| e.into_error());
        let done = match &self.replacement {
            // Devices and pipes need no sync.
            None => written.map(drop),
            Some(Replacement { temporary, target }) => written.and_then(|f| f.sync_all()).and_then(|()| {
                let mut unfinished = unfinished();
                fs::rename(temporary, target).map_err(not_renamed)?;
                unfinished.retain(|path| path != temporary);
                Ok(())
            }),
        };
        done.map_err(|e| {
            let error = self.failed(e);
            self.remove();
            error
        })?;
        Ok(self.written)
    }

    /// Removes the hidden file. A failure leaves it behind and cannot be reported.
    fn remove(&self) {
        if let Some(replacement) = &self.replacement {
            replacement.remove();
        }
    }

    /// Removes the hidden files of all writers, for a program that a signal ends. A writer that begins or ends its file after
    /// this waits for ever: call it last.
    pub fn abandon_all() {
        let unfinished = unfinished();
        unfinished.iter().for_each(|path| _ = fs::remove_file(path));
        std::mem::forget(unfinished);
    }
}

impl Replacement {
    fn remove(&self) {
        let mut unfinished = unfinished();
        let _ = fs::remove_file(&self.temporary);
        unfinished.retain(|path| *path != self.temporary);
    }
}

/// Opens the file to write for `path`, and returns whether it is renamed at the end.
fn open(path: &Path) -> io::Result<(File, Option<Replacement>)> {
    let existing = match fs::metadata(path) {
        Ok(data) if data.is_dir() => return Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder")),
        Ok(data) if !data.is_file() => return Ok((File::options().write(true).open(path)?, None)),
        Ok(data) => Some(data),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let target = followed(path)?;
    let (file, temporary) = create_beside(&target).map_err(|e| match existing {
        Some(_) => io::Error::new(e.kind(), format!("its folder takes no new file that could replace it ({e})")),
        None => e,
    })?;
    let replacement = Replacement { temporary, target };
    if let Some(existing) = existing {
        // Only root may change the owner; other users own the files they replace, or their folder.
        #[cfg(unix)]
        let _ = {
            use std::os::unix::fs::{MetadataExt, fchown};
            fchown(&file, Some(existing.uid()), Some(existing.gid()))
        };
        if let Err(e) = file.set_permissions(existing.permissions()) {
            replacement.remove();
            return Err(e);
        }
    }
    Ok((file, Some(replacement)))
}

/// The path that symbolic links lead to, whether or not it exists.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    // As many as Linux follows.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// A new hidden file in the same folder, so that the renaming stays within one file system; a name for each writer.
fn create_beside(target: &Path) -> io::Result<(File, PathBuf)> {
    static WRITERS: AtomicU32 = AtomicU32::new(0);
    let name: String = target.file_name().unwrap_or_default().to_string_lossy().chars().take(50).collect();
    loop {
        let (process, writer) = (std::process::id(), WRITERS.fetch_add(1, Ordering::Relaxed));
        let temporary = target.with_file_name(format!(".{name}.{process}.{writer}.partial"));
        let mut unfinished = unfinished();
        match File::create_new(&temporary) {
            // Left by a process of the same number that was killed.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            created => {
                let file = created?;
                unfinished.push(temporary.clone());
                return Ok((file, temporary));
            }
        }
    }
}

fn not_renamed(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the finished file cannot be renamed to it ({error}); write to another path"))
}

#[cfg(unix)]
fn standard_output() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn standard_output() -> io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(io::stdout().as_handle().try_clone_to_owned()?.into())
}

#[cfg(not(any(unix, windows)))]
fn standard_output() -> io::Result<File> {
    Err(ErrorKind::Unsupported.into())
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
            // Without flushing: the bytes are not wanted.
            drop(file.into_parts());
            self.remove();
        }
    }
}

/// Receives the data of one tensor, in any number of pieces.
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

#[cfg(all(test, not(miri)))]
#[path = "output_tests.rs"]
mod tests;
