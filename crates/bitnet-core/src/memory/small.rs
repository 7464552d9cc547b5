//! Small blocks: size classes of powers of two, carved from slabs and kept on free lists.

use super::large::LargeBlock;
use std::ptr::NonNull;
use std::sync::Mutex;

/// Smallest class and the alignment of every block: a cache line.
pub(super) const MIN_BLOCK: usize = 64;
const SLAB: usize = 1 << 20;

/// Blocks below the threshold of the pool.
#[derive(Debug, Default)]
pub(super) struct SmallBlockPool {
    classes: Mutex<Classes>,
}

#[derive(Debug, Default)]
struct Classes {
    free: Vec<Vec<NonNull<u8>>>,
    /// Memory of all blocks, kept until the pool is dropped.
    slabs: Vec<LargeBlock>,
}

// SAFETY: the pointers are to blocks of `slabs`, which move with them; a block is on one free list or in one handle.
unsafe impl Send for Classes {}

/// A block of a size class, exclusively its holder's until it is given back.
#[derive(Debug)]
pub(super) struct SmallBlock {
    pub(super) start: NonNull<u8>,
    class: usize,
}

impl SmallBlockPool {
    /// Bytes of the class that holds `len`.
    pub(super) fn class_bytes(len: usize) -> usize {
        len.max(MIN_BLOCK).next_power_of_two()
    }

    /// A block of at least `len` bytes and whether it was on a free list.
    pub(super) fn allocate(&self, len: usize) -> std::io::Result<(SmallBlock, bool)> {
        let bytes = Self::class_bytes(len);
        let class = (bytes / MIN_BLOCK).trailing_zeros() as usize;
        let mut classes = self.classes.lock().unwrap_or_else(|e| e.into_inner());
        if classes.free.len() <= class {
            classes.free.resize_with(class + 1, Vec::new);
        }
        if let Some(start) = classes.free[class].pop() {
            return Ok((SmallBlock { start, class }, true));
        }
        let mut slab = LargeBlock::new(bytes.max(SLAB))?;
        // Every pointer is derived from the whole slab once, and the slab is not touched again until the pool is dropped.
        let base = NonNull::from(slab.bytes_mut()).cast::<u8>();
        for at in (0..bytes.max(SLAB)).step_by(bytes) {
            // SAFETY: `at` is below the slab's length.
            classes.free[class].push(unsafe { base.add(at) });
        }
        classes.slabs.push(slab);
        let start = classes.free[class].pop().expect("a slab holds at least one block");
        Ok((SmallBlock { start, class }, false))
    }

    pub(super) fn give_back(&self, block: &SmallBlock) {
        let mut classes = self.classes.lock().unwrap_or_else(|e| e.into_inner());
        classes.free[block.class].push(block.start);
    }
}
