//! Shared memory that other processes read without a copy.

use super::MappedFile;
use crate::{BitNetError, Result};
use memmap2::MmapMut;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

/// Memory to be filled, then published under a name to other processes of the same user. It is private before.
/// Afterwards it is a read-only file, readable by its owner alone, so that readers need no lock.
///
/// This does not protect against the same user or the administrator, who can change the file's mode and write to it or
/// truncate it, as with any mapped file ([`MappedFile`]). Other users can neither read, write nor replace it:
/// [`SharedMemory::open`] refuses what is not a plain file of this user with exactly these rights.
///
/// ```
/// use bitnet_core::{BitNetDType, BitNetTensor, Device, SharedMemory};
/// # let name = &format!("doc-{}", std::process::id());
/// let mut memory = SharedMemory::create(name, 16)?;
/// memory.copy_from_slice(bytemuck::bytes_of(&[1f32, 2., 3., 4.]));
/// let published = memory.publish()?;
/// // In this or any other process of the same user:
/// let file = std::sync::Arc::new(SharedMemory::open(name)?);
/// let x = BitNetTensor::from_mapped(&file, 0..16, &[2, 2], BitNetDType::F32, &Device::cpu())?;
/// assert_eq!(x.to_vec::<f32>()?, [1., 2., 3., 4.]);
/// drop(published); // removes the name; open mappings stay valid
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug)]
pub struct SharedMemory {
    map: MmapMut,
    name: PublishedMemory,
    /// Final path.
    path: PathBuf,
}

/// Published memory; dropping it removes the name.
#[derive(Debug)]
pub struct PublishedMemory(PathBuf);

impl SharedMemory {
    /// `len` zero bytes, at least one, to be shared as `name` (letters, digits, `-`, `_` and `.`).
    pub fn create(name: &str, len: usize) -> Result<Self> {
        let path = path_of(name)?;
        // A temporary name in the same folder until it is published.
        let hidden = path.with_extension(format!("{}.part", std::process::id()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&hidden).map_err(io_error(&hidden))?;
        let name = PublishedMemory(hidden);
        let map = Self::map(&file, len).map_err(io_error(&path))?;
        Ok(Self { map, name, path })
    }

    fn map(file: &File, len: usize) -> io::Result<MmapMut> {
        file.set_len(len.max(1) as u64)?;
        // Commits the memory now: a lack of memory is an error here, but would kill the process at a later write.
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let len = len.max(1).try_into().map_err(|_| io::ErrorKind::OutOfMemory)?;
            // SAFETY: an open file of ours.
            match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
                0 => (),
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        }
        // SAFETY: nobody else knows the file, which has a name of its own and is ours alone to open.
        unsafe { MmapMut::map_mut(file) }
    }

    /// Publishes the memory under its name, read-only from now on; an error if the name is taken, perhaps by a process
    /// that was killed.
    pub fn publish(self) -> Result<PublishedMemory> {
        drop(self.map);
        #[cfg(unix)]
        fs::set_permissions(&self.name.0, std::os::unix::fs::PermissionsExt::from_mode(0o400))
            .map_err(io_error(&self.path))?;
        fs::hard_link(&self.name.0, &self.path).map_err(io_error(&self.path))?;
        Ok(PublishedMemory(self.path))
    }

    /// Memory that this user published as `name`. Errors: there is none, or what stands there is not a plain file of
    /// this user that nobody may write to.
    pub fn open(name: &str) -> Result<MappedFile> {
        let path = path_of(name)?;
        let file = open_published(&path).map_err(io_error(&path))?;
        MappedFile::of(file, path)
    }
}

/// Opens a file as [`SharedMemory::publish`] leaves it; judged by the open file, which cannot be exchanged any more.
#[cfg(unix)]
fn open_published(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    // Neither a link to elsewhere, nor the wait for a writer of a FIFO.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    // SAFETY: a call without arguments that cannot fail.
    let me = unsafe { libc::geteuid() };
    let problem = match metadata.mode() & 0o777 {
        _ if !metadata.is_file() => "is not a plain file".into(),
        _ if metadata.uid() != me => format!("belongs to user {}, not to this one ({me})", metadata.uid()),
        0o400 => return Ok(file),
        mode => format!("has the mode {mode:03o}, not 400: it was not published"),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the shared memory {problem}")))
}

#[cfg(not(unix))]
fn open_published(path: &Path) -> io::Result<File> {
    File::open(path)
}

impl Deref for SharedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl DerefMut for SharedMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

impl Drop for PublishedMemory {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // gone already is as good
    }
}

fn path_of(name: &str) -> Result<PathBuf> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 200 || !name.chars().all(good) {
        let message = "a name of shared memory is 1 to 200 letters, digits, '-', '_' and '.'";
        return Err(io_error(Path::new(name))(io::Error::new(io::ErrorKind::InvalidInput, message)));
    }
    // A file system in memory where there is one; elsewhere the system keeps the pages of a file in memory too.
    let folder = Path::new("/dev/shm");
    let folder = if folder.is_dir() { folder.to_path_buf() } else { std::env::temp_dir() };
    Ok(folder.join(format!("bitnet-{name}.shared")))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BitNetError {
    let path = path.to_path_buf();
    move |source| BitNetError::Io { path, source }
}
