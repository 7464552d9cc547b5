//! A thread's cache of free blocks.

use super::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use super::counters::Shard;
use super::small::{CLASSES, class_bytes};
use std::cell::UnsafeCell;

/// Maximum number of blocks of a class in a cache.
pub(super) const MOST: usize = 64;
/// Maximum bytes of a class in a cache; two blocks are always allowed.
const MOST_BYTES: usize = 1 << 20;

/// A thread's cache for one pool. Other threads access only the atomic fields.
#[derive(Debug)]
pub(super) struct ThreadCache {
    pub(super) pool: u64,
    pub(super) shard: Shard,
    /// A request to return the blocks, which the thread does when it next frees one.
    pub(super) flush: AtomicBool,
    /// Bytes of the lists themselves.
    pub(super) list_bytes: AtomicUsize,
    /// Only for the thread that made the cache.
    pub(super) blocks: UnsafeCell<Blocks>,
}

// SAFETY: `blocks` is used only through `Blocks` of the thread that made the cache; the rest is atomic.
unsafe impl Sync for ThreadCache {}
// SAFETY: it holds addresses, not references.
unsafe impl Send for ThreadCache {}

impl ThreadCache {
    /// Bytes of the cache itself.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.list_bytes.load(Relaxed)
    }

    /// An empty cache for a pool, of at most `limit` bytes.
    pub(super) fn new(pool: u64, limit: usize) -> Self {
        let blocks = Blocks { classes: [const { Vec::new() }; CLASSES], bytes: 0, limit };
        let (shard, flush, list_bytes) = (Shard::default(), AtomicBool::new(false), AtomicUsize::new(0));
        Self { pool, shard, flush, list_bytes, blocks: UnsafeCell::new(blocks) }
    }
}

/// Addresses of free blocks, by class.
#[derive(Debug)]
pub(super) struct Blocks {
    classes: [Vec<usize>; CLASSES],
    bytes: usize,
    limit: usize,
}

impl Blocks {
    /// Gives the list of a class its capacity. Returns how many blocks are moved at a time, half of that, and the bytes by
    /// which the list grew.
    pub(super) fn prepare(&mut self, class: usize) -> (usize, usize) {
        let most = (MOST_BYTES / class_bytes(class)).clamp(2, MOST);
        let list = &mut self.classes[class];
        let before = list.capacity();
        list.reserve_exact(most.saturating_sub(list.len()));
        (most / 2, (list.capacity() - before) * size_of::<usize>())
    }

    pub(super) fn is_empty(&self, class: usize) -> bool {
        self.classes[class].is_empty()
    }

    #[inline]
    pub(super) fn pop(&mut self, class: usize) -> Option<usize> {
        let address = self.classes[class].pop()?;
        self.bytes -= class_bytes(class);
        Some(address)
    }

    #[inline]
    pub(super) fn push(&mut self, class: usize, address: usize) -> bool {
        let (list, bytes) = (&mut self.classes[class], self.bytes + class_bytes(class));
        if list.len() == list.capacity() || bytes > self.limit {
            return false;
        }
        list.push(address);
        self.bytes = bytes;
        true
    }

    /// Adds blocks of a class up to the capacity of its list, and returns their number.
    pub(super) fn keep(&mut self, class: usize, blocks: &[usize]) -> usize {
        let list = &mut self.classes[class];
        let kept = blocks.len().min(list.capacity() - list.len());
        list.extend_from_slice(&blocks[..kept]);
        self.bytes += kept * class_bytes(class);
        kept
    }

    /// Removes the older half of a class, or all.
    pub(super) fn take(&mut self, class: usize, all: bool) -> impl Iterator<Item = usize> + '_ {
        let list = &mut self.classes[class];
        let taken = if all { list.len() } else { list.len().div_ceil(2) };
        self.bytes -= taken * class_bytes(class);
        list.drain(..taken)
    }
}
