//! The caches of this thread, so that allocating and freeing a small block needs no lock.

use super::cache::{MOST, ThreadCache};
use super::central::{Central, Owner};
use super::small::{CLASSES, class_bytes};
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

/// All caches of a thread; returns everything when the thread ends.
struct Caches(RefCell<Vec<(Weak<Owner>, Arc<ThreadCache>)>>);

thread_local! {
    /// The cache used last, from `CACHES`, or none. It needs no destructor, so that reading it is one load.
    static CURRENT: Cell<*const ThreadCache> = const { Cell::new(std::ptr::null()) };
    static CACHES: Caches = const { Caches(RefCell::new(Vec::new())) };
}

impl Drop for Caches {
    fn drop(&mut self) {
        CURRENT.set(std::ptr::null());
        for (owner, cache) in self.0.take() {
            if let Some(owner) = owner.upgrade() {
                let central = (*owner).as_ref();
                flush(central, &cache);
                central.retire(&cache);
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
fn find<'a>(central: &Central) -> Option<&'a ThreadCache> {
    if let Some(cache) = current(central.id) {
        return Some(cache);
    }
    CACHES
        .try_with(|caches| {
            let mut caches = caches.0.borrow_mut();
            let known = caches.iter().position(|(_, cache)| cache.pool == central.id);
            let i = known.unwrap_or_else(|| {
                caches.retain(|(owner, _)| owner.strong_count() > 0);
                let cache = Arc::new(ThreadCache::new(central.id, central.cache_bytes));
                central.caches().push(cache.clone());
                caches.push((central.owner.clone(), cache));
                caches.len() - 1
            });
            CURRENT.set(Arc::as_ptr(&caches[i].1));
        })
        .ok()?;
    current(central.id)
}

/// Fast path of allocation: a cached block, counted.
#[inline]
pub(super) fn pop(central: &Central, class: usize) -> Option<usize> {
    let cache = current(central.id)?;
    // SAFETY: this thread's own, and no other reference to it lives: none outlives a function of this file.
    let address = unsafe { &mut *cache.blocks.get() }.pop(class)?;
    if central.counts {
        cache.shard.allocated(class_bytes(class), &central.totals);
    }
    Some(address)
}

/// Fast path of freeing: keeps a block, counted. `false` if the cache is full.
#[inline]
pub(super) fn push(central: &Central, class: usize, address: usize) -> bool {
    let Some(cache) = current(central.id) else { return false };
    // SAFETY: as in `pop`.
    if cache.flush.load(Relaxed) || !unsafe { &mut *cache.blocks.get() }.push(class, address) {
        return false;
    }
    if central.counts {
        cache.shard.freed(class_bytes(class), &central.totals);
    }
    true
}

/// As [`pop`], from the pool's lists if the cache has none; also returns whether the memory was used before.
#[cold]
pub(super) fn refill(central: &Central, class: usize) -> std::io::Result<(usize, bool)> {
    let Some(cache) = find(central) else {
        let mut one = [0];
        let (_, warm) = central.take_small(class, &mut one)?;
        count_allocated(central, class_bytes(class));
        return Ok((one[0], warm));
    };
    // SAFETY: as in `pop`; each use ends with its statement.
    let blocks = || unsafe { &mut *cache.blocks.get() };
    let (half, grown) = blocks().prepare(class);
    if grown > 0 {
        cache.list_bytes.store(cache.list_bytes.load(Relaxed) + grown, Relaxed);
    }
    let (address, warm) = match blocks().pop(class) {
        Some(address) => (address, true),
        None => {
            // No reference to the lists meanwhile: a device that is asked for memory may come back to this very cache.
            let mut taken = [0; MOST / 2];
            let (count, warm) = central.take_small(class, &mut taken[..half])?;
            let (address, others) = taken[..count].split_last().ok_or(std::io::ErrorKind::OutOfMemory)?;
            let kept = blocks().keep(class, others);
            if kept < others.len() {
                central.give_back_small(class, others[kept..].iter().copied());
            }
            (*address, warm)
        }
    };
    if central.counts {
        cache.shard.allocated(class_bytes(class), &central.totals);
    }
    Ok((address, warm))
}

/// As [`push`] with a full cache: moves half of it to the pool's lists, or all if that was requested.
#[cold]
pub(super) fn make_room(central: &Central, class: usize, address: usize) {
    let Some(cache) = find(central) else {
        central.give_back_small(class, std::iter::once(address));
        return count_freed(central, class_bytes(class));
    };
    if cache.flush.load(Relaxed) {
        flush(central, cache);
    }
    // SAFETY: as in `pop`; `give_back_small` calls no code of a device, and so does not come back here.
    let blocks = || unsafe { &mut *cache.blocks.get() };
    if !blocks().push(class, address) {
        central.give_back_small(class, blocks().take(class, false));
        if !blocks().push(class, address) {
            // Other classes fill the cache, or this thread never allocated a block of this one.
            flush(central, cache);
            central.give_back_small(class, std::iter::once(address));
        }
    }
    if central.counts {
        cache.shard.freed(class_bytes(class), &central.totals);
    }
}

/// Counts a block outside the caches with this thread's other counts, so that their sum has one peak.
pub(super) fn count_allocated(central: &Central, bytes: usize) {
    match find(central) {
        _ if !central.counts => {}
        Some(cache) => cache.shard.allocated(bytes, &central.totals),
        None => central.totals.allocated(bytes),
    }
}

/// As [`count_allocated`], when it is freed.
pub(super) fn count_freed(central: &Central, bytes: usize) {
    match find(central) {
        _ if !central.counts => {}
        Some(cache) => cache.shard.freed(bytes, &central.totals),
        None => central.totals.freed(bytes),
    }
}

/// Returns all blocks of this thread to the pool's lists.
pub(super) fn flush_own(central: &Central) {
    if let Some(cache) = find(central) {
        flush(central, cache);
    }
}

fn flush(central: &Central, cache: &ThreadCache) {
    cache.flush.store(false, Relaxed);
    // SAFETY: only this thread's caches are given; otherwise as in `make_room`.
    let blocks = unsafe { &mut *cache.blocks.get() };
    for class in 0..CLASSES {
        if !blocks.is_empty(class) {
            central.give_back_small(class, blocks.take(class, true));
        }
    }
}
