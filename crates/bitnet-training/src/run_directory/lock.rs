//! The lock of a run's directory, which its process holds until it ends.

use std::fs::{File, TryLockError};

/// Locks a file for this process alone, or tells that another has it.
#[cfg(not(target_os = "android"))]
pub(super) fn try_lock(file: &File) -> Result<(), TryLockError> {
    file.try_lock()
}

/// The standard library has no locks on Android, though the system does.
#[cfg(target_os = "android")]
pub(super) fn try_lock(file: &File) -> Result<(), TryLockError> {
    use rustix::fs::{FlockOperation, flock};
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => TryLockError::WouldBlock,
        error => TryLockError::Error(error.into()),
    })
}
