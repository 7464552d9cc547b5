//! Per-thread caches of free blocks, so that allocating and freeing a small block needs no lock.

use super::counters::Shard;
use super::pool::Core;
use super::small::{CLASSES, class_bytes};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// Maximum number of blocks of a class in a cache.
const MOST: usize = 64;
/// Maximum bytes of a class in a cache; two blocks are always allowed.
const MOST_BYTES: usize = 1 << 20;

/// A thread's cache for one pool. Other threads access only the atomic fields.
#[derive(Debug)]
pub(super) struct ThreadCache {
    pool: u64,
    pub(super) shard: Shard,
    /// A request to return the blocks, which the thread does when it next frees one.
    pub(super) flush: AtomicBool,
    /// Bytes of the lists themselves.
    pub(super) list_bytes: AtomicUsize,
    blocks: UnsafeCell<Blocks>,
}

// SAFETY: `blocks` is used only through `Blocks` of the thread that made the cache; the rest is atomic.
unsafe impl Sync for ThreadCache {}
// SAFETY: it holds addresses, not references.
unsafe impl Send for ThreadCache {}

/// Addresses of free blocks, by class.
#[derive(Debug)]
struct Blocks {
    classes: [Vec<usize>; CLASSES],
    bytes: usize,
    limit: usize,
}

impl Blocks {
    /// The list of a class with its capacity, and half of that, the number of blocks moved at a time.
    fn class(&mut self, class: usize) -> (&mut Vec<usize>, usize) {
        let most = (MOST_BYTES / class_bytes(class)).clamp(2, MOST);
        let list = &mut self.classes[class];
        list.reserve_exact(most.saturating_sub(list.len()));
        (list, most / 2)
    }

    #[inline]
    fn pop(&mut self, class: usize) -> Option<usize> {
        let address = self.classes[class].pop()?;
        self.bytes -= class_bytes(class);
        Some(address)
    }

    #[inline]
    fn push(&mut self, class: usize, address: usize) -> bool {
        let (list, bytes) = (&mut self.classes[class], self.bytes + class_bytes(class));
        if list.len() == list.capacity() || bytes > self.limit {
            return false;
        }
        list.push(address);
        self.bytes = bytes;
        true
    }

    /// Adds blocks of a class up to the capacity of its list, and returns their number.
    fn keep(&mut self, class: usize, blocks: &[usize]) -> usize {
        let list = &mut self.classes[class];
        let kept = blocks.len().min(list.capacity() - list.len());
        list.extend_from_slice(&blocks[..kept]);
        self.bytes += kept * class_bytes(class);
        kept
    }

    /// Removes the older half of a class, or all.
    fn take(&mut self, class: usize, all: bool) -> impl Iterator<Item = usize> + '_ {
        let list = &mut self.classes[class];
        let taken = if all { list.len() } else { list.len().div_ceil(2) };
        self.bytes -= taken * class_bytes(class);
        list.drain(..taken)
    }
}

/// All caches of a thread; returns everything when the thread ends.
struct Caches(RefCell<Vec<(Weak<Core>, Arc<ThreadCache>)>>);

thread_local! {
    /// The cache used last, from `CACHES`, or none. It needs no destructor, so that reading it is one load.
    static CURRENT: Cell<*const ThreadCache> = const { Cell::new(std::ptr::null()) };
    static CACHES: Caches = const { Caches(RefCell::new(Vec::new())) };
}

impl Drop for Caches {
    fn drop(&mut self) {
        CURRENT.set(std::ptr::null());
        for (core, cache) in self.0.take() {
            if let Some(core) = core.upgrade() {
                flush(&core, &cache);
                core.retire(&cache);
            }
        }
    }
}

/// This thread's cache for pool number `pool`, if it was used last.
#[inline]
fn current<'a>(pool: u64) -> Option<&'a ThreadCache> {
    // SAFETY: null or a cache that `CACHES` keeps alive; it is not used after this thread's caches are dropped, as
    // `CURRENT` is cleared first, and no caller keeps it after its call.
    unsafe { CURRENT.get().as_ref() }.filter(|cache| cache.pool == pool)
}

/// This thread's cache for a pool, created if missing; `None` while the thread ends.
fn find<'a>(core: &Core) -> Option<&'a ThreadCache> {
    if let Some(cache) = current(core.id) {
        return Some(cache);
    }
    CACHES
        .try_with(|caches| {
            let mut caches = caches.0.borrow_mut();
            let known = caches.iter().position(|(_, cache)| cache.pool == core.id);
            let i = known.unwrap_or_else(|| {
                caches.retain(|(core, _)| core.strong_count() > 0);
                let classes = [const { Vec::new() }; CLASSES];
                let blocks = UnsafeCell::new(Blocks { classes, bytes: 0, limit: core.tuning.thread_cache_bytes });
                let (shard, flush, list_bytes) = Default::default();
                let cache = Arc::new(ThreadCache { pool: core.id, shard, flush, list_bytes, blocks });
                core.caches().push(cache.clone());
                caches.push((core.me.clone(), cache));
                caches.len() - 1
            });
            CURRENT.set(Arc::as_ptr(&caches[i].1));
        })
        .ok()?;
    current(core.id)
}

/// Fast path of allocation: a cached block, counted.
#[inline]
pub(super) fn pop(core: &Core, class: usize) -> Option<usize> {
    let cache = current(core.id)?;
    // SAFETY: this thread's own, and no other reference to it lives: none outlives a function of this file.
    let address = unsafe { &mut *cache.blocks.get() }.pop(class)?;
    if core.counts {
        cache.shard.allocated(class_bytes(class), &core.totals);
    }
    Some(address)
}

/// Fast path of freeing: keeps a block, counted. `false` if the cache is full.
#[inline]
pub(super) fn push(core: &Core, class: usize, address: usize) -> bool {
    let Some(cache) = current(core.id) else { return false };
    // SAFETY: as in `pop`.
    if cache.flush.load(Relaxed) || !unsafe { &mut *cache.blocks.get() }.push(class, address) {
        return false;
    }
    if core.counts {
        cache.shard.freed(class_bytes(class), &core.totals);
    }
    true
}

/// As [`pop`], from the pool's lists if the cache has none; also returns whether the memory was used before.
#[cold]
pub(super) fn refill(core: &Core, class: usize) -> std::io::Result<(usize, bool)> {
    let Some(cache) = find(core) else {
        let mut one = [0];
        let (_, warm) = core.take_small(class, &mut one)?;
        core.count_allocated(class_bytes(class));
        return Ok((one[0], warm));
    };
    // SAFETY: as in `pop`; each use ends with its statement.
    let blocks = || unsafe { &mut *cache.blocks.get() };
    let fresh_list = blocks().classes[class].capacity() == 0;
    let (list, half) = blocks().class(class);
    if fresh_list {
        cache.list_bytes.store(cache.list_bytes.load(Relaxed) + list.capacity() * size_of::<usize>(), Relaxed);
    }
    let (address, warm) = match blocks().pop(class) {
        Some(address) => (address, true),
        None => {
            // No reference to the lists meanwhile: a device that is asked for memory may come back to this very cache.
            let mut taken = [0; MOST / 2];
            let (count, warm) = core.take_small(class, &mut taken[..half])?;
            let (address, others) = taken[..count].split_last().ok_or(std::io::ErrorKind::OutOfMemory)?;
            let kept = blocks().keep(class, others);
            if kept < others.len() {
                core.give_back_small(class, others[kept..].iter().copied());
            }
            (*address, warm)
        }
    };
    if core.counts {
        cache.shard.allocated(class_bytes(class), &core.totals);
    }
    Ok((address, warm))
}

/// As [`push`] with a full cache: moves half of it to the pool's lists, or all if that was requested.
#[cold]
pub(super) fn make_room(core: &Core, class: usize, address: usize) {
    let Some(cache) = find(core) else {
        core.give_back_small(class, std::iter::once(address));
        return core.count_freed(class_bytes(class));
    };
    if cache.flush.load(Relaxed) {
        flush(core, cache);
    }
    // SAFETY: as in `pop`; `give_back_small` calls no code of a device, and so does not come back here.
    let blocks = || unsafe { &mut *cache.blocks.get() };
    if !blocks().push(class, address) {
        core.give_back_small(class, blocks().take(class, false));
        if !blocks().push(class, address) {
            // Other classes fill the cache, or this thread never allocated a block of this one.
            flush(core, cache);
            core.give_back_small(class, std::iter::once(address));
        }
    }
    if core.counts {
        cache.shard.freed(class_bytes(class), &core.totals);
    }
}

/// Counts a block outside the caches with this thread's other counts, so that their sum has one peak.
pub(super) fn count_allocated(core: &Core, bytes: usize) {
    match find(core) {
        Some(cache) => cache.shard.allocated(bytes, &core.totals),
        None => core.totals.allocated(bytes),
    }
}

/// As [`count_allocated`], when it is freed.
pub(super) fn count_freed(core: &Core, bytes: usize) {
    match find(core) {
        Some(cache) => cache.shard.freed(bytes, &core.totals),
        None => core.totals.freed(bytes),
    }
}

/// Returns all blocks of this thread to the pool's lists.
pub(super) fn flush_own(core: &Core) {
    if let Some(cache) = find(core) {
        flush(core, cache);
    }
}

fn flush(core: &Core, cache: &ThreadCache) {
    cache.flush.store(false, Relaxed);
    // SAFETY: only this thread's caches are given; otherwise as in `make_room`.
    let blocks = unsafe { &mut *cache.blocks.get() };
    for class in 0..CLASSES {
        if !blocks.classes[class].is_empty() {
            core.give_back_small(class, blocks.take(class, true));
        }
    }
}
