//! The central lists of a pool, which threads share: small blocks, large ones, and what the device is asked for.
//!
//! No code of a device runs while the lists are locked: an allocation that finds no room sets its region aside, unlocks
//! the lists, asks the device, and adds what it got. One thread at a time does so; the others go on with what there is.

use super::atomic::{AtomicU32, Mutex, MutexGuard, Ordering::Relaxed};
use super::buddy::PAGE;
use super::cache::ThreadCache;
use super::counters::Totals;
use super::holder::{Held, Holder};
use super::large::{LargeBlockPool, Pages, Unused};
use super::raw::{HUGE_PAGE, RawMemory};
use super::small::{SmallBlockPool, slab_bytes};
use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Which regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those that slabs of small blocks are cut from.
    Small,
    Large,
}

/// What threads share.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) small: SmallBlockPool,
    /// Regions that the slabs of `small` are cut from.
    pub(super) small_pages: LargeBlockPool,
    pub(super) large: LargeBlockPool,
}

impl Lists {
    fn pages(&mut self, kind: Kind) -> &mut LargeBlockPool {
        match kind {
            Kind::Small => &mut self.small_pages,
            Kind::Large => &mut self.large,
        }
    }
}

/// The pool that the central lists are of.
pub(super) type Owner = dyn AsRef<Central> + Send + Sync;

/// The central lists, and what the caches of threads need to know of their pool.
#[derive(Debug)]
pub(super) struct Central {
    // What every allocation reads, together.
    pub(super) id: u64,
    pub(super) counts: bool,
    pub(super) totals: Totals,
    /// Limit of bytes in the cache of a thread.
    pub(super) cache_bytes: usize,
    pub(super) owner: Weak<Owner>,
    pub(super) raw: Arc<dyn RawMemory>,
    /// Limits of both kinds as configured; `usize::MAX`: what the device has.
    limits: [usize; 2],
    memory: OnceLock<usize>,
    lists: Mutex<Lists>,
    /// Held while the device is asked for regions or gets memory back; taken before `lists`.
    device: Mutex<()>,
    holder: Holder,
    /// Part of the nearer limit that was used when `lists` last were, as the bits of an `f32`; 0 without limits.
    filled: AtomicU32,
    caches: Mutex<Vec<Arc<ThreadCache>>>,
}

/// What a pool's central lists are made of.
pub(super) struct CentralConfig {
    pub(super) id: u64,
    pub(super) counts: bool,
    pub(super) cache_bytes: usize,
    /// Of small and of large blocks.
    pub(super) initial: [usize; 2],
    pub(super) limits: [usize; 2],
    pub(super) warm_bytes: usize,
    pub(super) huge_pages: bool,
}

impl Central {
    pub(super) fn new(raw: Arc<dyn RawMemory>, owner: Weak<Owner>, config: CentralConfig) -> Self {
        let CentralConfig { id, counts, cache_bytes, initial, limits, warm_bytes, huge_pages } = config;
        let pages = |initial, huge| LargeBlockPool::new(initial, warm_bytes, raw.is_lazy(), huge);
        let lists = Lists {
            small: SmallBlockPool::new(),
            small_pages: pages(initial[0], false),
            large: pages(initial[1], huge_pages),
        };
        let (totals, memory, holder) = (Totals::default(), OnceLock::new(), Holder::default());
        let (lists, device, caches) = (Mutex::new(lists), Mutex::new(()), Mutex::new(Vec::new()));
        let filled = AtomicU32::new(0);
        Self { id, counts, totals, cache_bytes, owner, raw, limits, memory, lists, device, holder, filled, caches }
    }

    /// Whether either kind of block has a limit.
    pub(super) fn is_limited(&self) -> bool {
        self.limits != [usize::MAX; 2]
    }

    /// Part of the nearer limit that is used.
    pub(super) fn filled(&self) -> f32 {
        f32::from_bits(self.filled.load(Relaxed))
    }

    /// The caches of all threads.
    pub(super) fn caches(&self) -> MutexGuard<'_, Vec<Arc<ThreadCache>>> {
        self.caches.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Removes the cache of a thread that ends.
    pub(super) fn retire(&self, cache: &Arc<ThreadCache>) {
        let mut caches = self.caches();
        cache.shard.publish(&self.totals);
        caches.retain(|other| !Arc::ptr_eq(other, cache));
    }

    /// Runs `work` on the lists, and records their usage.
    pub(super) fn with_lists<R>(&self, work: impl FnOnce(&mut Lists) -> R) -> R {
        let mut lists = self.lists.lock().unwrap_or_else(|e| e.into_inner());
        let result = work(&mut lists);
        if self.is_limited() {
            let used = [lists.small_pages.used, lists.large.used];
            let filled = |(used, limit): (usize, usize)| {
                if limit == usize::MAX { 0.0 } else { used as f32 / limit.max(1) as f32 }
            };
            let [small, large] = [(used[0], self.limits[0]), (used[1], self.limits[1])].map(filled);
            self.filled.store(small.max(large).to_bits(), Relaxed);
        }
        result
    }

    /// This thread is the one that asks the device until both are dropped.
    fn ask_device(&self) -> (Held<'_>, MutexGuard<'_, ()>) {
        self.holder.refuse_this_thread(&*self.raw);
        let guard = self.device.lock().unwrap_or_else(|e| e.into_inner());
        (self.holder.hold(), guard)
    }

    /// Reserves the first regions, as far as the limits allow.
    pub(super) fn reserve_initial(&self) -> io::Result<()> {
        let _asking = self.ask_device();
        [Kind::Small, Kind::Large].into_iter().try_for_each(|kind| {
            let bytes = self.with_lists(|lists| lists.pages(kind).initial(self.limit(kind)));
            if bytes > 0 { self.grow(kind, bytes) } else { Ok(()) }
        })
    }

    /// Allocates blocks of a class into `out`, at least one: returns their number, and whether the memory was used
    /// before.
    pub(super) fn take_small(&self, class: usize, out: &mut [usize]) -> io::Result<(usize, bool)> {
        let take = |lists: &mut Lists| lists.small.take(class, out, &mut lists.small_pages);
        self.take_or_grow(Kind::Small, slab_bytes(class), take)
    }

    /// Frees blocks of a class.
    pub(super) fn give_back_small(&self, class: usize, blocks: impl Iterator<Item = usize>) {
        let now = Instant::now();
        self.with_lists(|Lists { small, small_pages, .. }| {
            blocks.for_each(|address| small.give_back(class, address, small_pages, now));
        });
    }

    /// A block of `bytes`, whole pages, at a multiple of `align`, and of a huge page where it has room for one. Beyond the
    /// configured limit the error is of kind `QuotaExceeded`.
    pub(super) fn take_large(&self, bytes: usize, align: usize) -> io::Result<Pages> {
        let align = if bytes < HUGE_PAGE { align } else { align.max(HUGE_PAGE) };
        let take = |lists: &mut Lists| {
            let direct = lists.large.is_direct(bytes, align);
            (if direct { None } else { lists.large.take_shared(bytes, align) }, direct)
        };
        let pages = match self.with_lists(take) {
            (Some(pages), _) => pages,
            (None, true) => self.take_direct(bytes, align.max(HUGE_PAGE))?,
            // Where the limit leaves too little for a region, it may still do for the block.
            (None, false) => self
                .take_or_grow(Kind::Large, bytes, |lists| lists.large.take_shared(bytes, align))
                .or_else(|_| self.take_direct(bytes, HUGE_PAGE))?,
        };
        if let Some((address, len)) = pages.huge {
            self.raw.advise_huge_pages(address, len, true);
        }
        Ok(pages)
    }

    /// Frees a large block.
    pub(super) fn give_back_large(&self, address: usize, bytes: usize, now: Instant) {
        self.with_lists(|lists| lists.large.give_back(address, bytes, now)).release(&*self.raw);
    }

    /// Asks for huge or small pages for a large block, where it has others.
    pub(super) fn want_huge(&self, address: usize, bytes: usize, wanted: bool) {
        if let Some((address, len)) = self.with_lists(|lists| lists.large.want_huge(address, bytes, wanted)) {
            self.raw.advise_huge_pages(address, len, wanted);
        }
    }

    /// The limit of bytes reserved; `usize::MAX` where there is none and nobody knows what the device has.
    fn limit(&self, kind: Kind) -> usize {
        let configured = self.limits[kind as usize];
        let known = || self.raw.available().and_then(|(_, total)| usize::try_from(total).ok()).unwrap_or(usize::MAX);
        if configured < usize::MAX { configured } else { *self.memory.get_or_init(known) }
    }

    /// Why more than the limit cannot be had.
    fn full(&self, kind: Kind) -> io::Error {
        let configured = self.limits[kind as usize] < usize::MAX;
        if configured { io::ErrorKind::QuotaExceeded } else { io::ErrorKind::OutOfMemory }.into()
    }

    /// What `take` finds, after adding regions with room for `wanted` as long as it finds nothing.
    fn take_or_grow<R>(
        &self,
        kind: Kind,
        wanted: usize,
        mut take: impl FnMut(&mut Lists) -> Option<R>,
    ) -> io::Result<R> {
        if let Some(found) = self.with_lists(&mut take) {
            return Ok(found);
        }
        let _asking = self.ask_device();
        loop {
            // Another thread may have added a region, or have used up the one that this thread added.
            if let Some(found) = self.with_lists(&mut take) {
                return Ok(found);
            }
            self.grow(kind, wanted)?;
        }
    }

    /// Sets bytes aside by `claim`, which is given what remains below the limit, after giving back what nobody uses if
    /// `wanted` needs it.
    fn claim<R>(&self, kind: Kind, wanted: usize, claim: impl Fn(&mut LargeBlockPool, usize) -> R) -> R {
        let limit = self.limit(kind);
        let (unused, claimed) = self.with_lists(|lists| {
            let pages = lists.pages(kind);
            let none = limit - pages.reserved < wanted;
            let unused = none.then(|| pages.take_unused(Duration::ZERO, false, usize::MAX, Instant::now()));
            (unused, claim(pages, limit - pages.reserved))
        });
        if let Some(unused) = unused {
            unused.release(&*self.raw);
        }
        claimed
    }

    /// Another region with room for `wanted`.
    fn grow(&self, kind: Kind, wanted: usize) -> io::Result<()> {
        let claimed = self.claim(kind, wanted, |pages, left| pages.claim_region(wanted, left));
        let mut len = claimed.ok_or_else(|| self.full(kind))?;
        loop {
            let base = self.raw.reserve(len, HUGE_PAGE);
            let smaller = (len / 2 / PAGE * PAGE).max(wanted);
            self.with_lists(|lists| {
                let pages = lists.pages(kind);
                match base {
                    Ok(base) => pages.add_region(base, len),
                    Err(_) => pages.reserved -= if len > wanted { len - smaller } else { len },
                }
            });
            match base {
                Ok(_) => return Ok(()),
                Err(_) if len > wanted => len = smaller,
                Err(error) => return Err(error),
            }
        }
    }

    fn take_direct(&self, bytes: usize, align: usize) -> io::Result<Pages> {
        if let Some(pages) = self.with_lists(|lists| lists.large.take_warm(bytes, align)) {
            return Ok(pages);
        }
        let _asking = self.ask_device();
        if !self.claim(Kind::Large, bytes, |pages, left| pages.claim_direct(bytes, left)) {
            return Err(self.full(Kind::Large));
        }
        let address = self.raw.reserve(bytes, align);
        self.with_lists(|lists| lists.large.add_direct(address, bytes))
    }

    /// Gives back what rested for `idle`: regions that nobody uses, and if `pages` also free pages that hold memory; of
    /// `most` regions of each kind. Returns the bytes of memory that the device has again; `None` if there was nothing.
    pub(super) fn give_back_unused(&self, idle: Duration, pages: bool, most: usize) -> Option<usize> {
        let _asking = self.ask_device();
        let now = Instant::now();
        let unused = self.with_lists(|Lists { small, small_pages, large }| {
            small.give_back_empty(small_pages, now);
            [small_pages, large].map(|large| large.take_unused(idle, pages, most, now))
        });
        let bytes = unused.iter().map(|unused| unused.release(&*self.raw)).sum();
        if unused.iter().any(|unused| !unused.pages.is_empty()) {
            self.with_lists(|Lists { small_pages, large, .. }| {
                for (large, unused) in [small_pages, large].into_iter().zip(&unused) {
                    unused.pages.iter().for_each(|&(address, len)| large.put_back(address, len, None));
                }
            });
        }
        (!unused.iter().all(Unused::is_empty)).then_some(bytes)
    }
}

impl Drop for Central {
    fn drop(&mut self) {
        // Handles keep their pool, so that nobody uses any of it; slabs and caches of threads only hold addresses.
        let all = self.with_lists(|lists| [&mut lists.small_pages, &mut lists.large].map(LargeBlockPool::take_all));
        all.iter().for_each(|regions| {
            regions.release(&*self.raw);
        });
    }
}
