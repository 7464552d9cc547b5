//! Handles of allocated blocks.

use super::buddy::PAGE;
use super::cleanup;
use super::core::{LARGE, PoolRef};
use std::ptr;

/// An allocated block; dropping it frees the block.
#[derive(Debug)]
pub struct MemoryHandle {
    pub(super) address: usize,
    pub(super) len: usize,
    pub(super) pool: PoolRef,
    pub(super) class: u8,
    /// Not used since the system provided it.
    pub(super) fresh: bool,
}

impl MemoryHandle {
    /// Its address on its device; a multiple of 64.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Requested bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether zero bytes were requested.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the block was not used since the system provided it, so that host memory is known to be zero.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The bytes of the block: zeroed or uninitialised.
    ///
    /// # Panics
    /// If the block is memory of another device, which has an [`address`](Self::address) only.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.assert_host();
        // SAFETY: `len` bytes of a mapping that is zero when new, and exclusively this handle's.
        unsafe { std::slice::from_raw_parts(ptr::with_exposed_provenance(self.address), self.len) }
    }

    /// The bytes of the block, mutable.
    ///
    /// # Panics
    /// As [`bytes`](Self::bytes).
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.assert_host();
        // SAFETY: as in `bytes`; `&mut self` excludes other readers and writers.
        unsafe { std::slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(self.address), self.len) }
    }

    #[inline]
    fn assert_host(&self) {
        assert!(self.pool.host, "a block of another device's memory has no bytes here: copy through its backend");
    }

    /// Hints the system to use huge or small pages for a large block, until it is freed. Huge pages need fewer faults and
    /// address translations for blocks that are written completely, such as results and weights; small pages commit only
    /// the written part, for caches that may stay partly empty.
    pub fn advise_huge_pages(&self, wanted: bool) {
        if self.class == LARGE {
            let bytes = self.len.max(1).next_multiple_of(PAGE);
            self.pool.central.want_huge(self.address, bytes, wanted);
        }
    }
}

impl Drop for MemoryHandle {
    #[inline]
    fn drop(&mut self) {
        if let Some(now) = self.pool.release(self.address, self.len, self.class) {
            cleanup::maintain(&self.pool, now);
        }
    }
}
