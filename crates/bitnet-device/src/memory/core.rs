//! One device's pool: its central lists, what it tracks, and references to it.

use super::buddy::PAGE;
use super::central::{Central, CentralConfig, Owner};
use super::config::{CleanupConfig, MemoryPoolConfig, PoolTuning, TrackingLevel};
use super::large::{LargeBlockPool, Pages};
use super::metrics::{CleanupMetrics, DetailedMetrics, PoolMetrics};
use super::pressure::Pressure;
use super::raw::RawMemory;
use super::small::LARGEST;
use super::thread_cache;
use super::tracker::Tracker;
use crate::BitNetError;
use std::io;
use std::ops::Deref;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Instant;

/// Class of a large block.
pub(super) const LARGE: u8 = u8::MAX;

/// One device's pool.
#[derive(Debug)]
pub(super) struct Core {
    // What every allocation reads, together.
    pub(super) small_below: usize,
    /// Whether nothing but the counts is tracked.
    pub(super) untracked: bool,
    immortal: bool,
    pub(super) host: bool,
    pub(super) central: Central,
    misses: AtomicUsize,
    pub(super) config: MemoryPoolConfig,
    pub(super) tuning: PoolTuning,
    pub(super) cleanup: Option<CleanupConfig>,
    pub(super) cleanups: Mutex<CleanupMetrics>,
    pub(super) tracker: Option<Tracker>,
    pub(super) pressure: Pressure,
    pub(super) started: Instant,
    /// Milliseconds from `started` on when idle memory is next looked for.
    pub(super) next_check: AtomicU64,
    devices: Mutex<Vec<PoolRef>>,
}

impl AsRef<Central> for Core {
    fn as_ref(&self) -> &Central {
        &self.central
    }
}

impl Core {
    pub(super) fn new(
        raw: Arc<dyn RawMemory>,
        host: bool,
        immortal: bool,
        config: MemoryPoolConfig,
        tuning: PoolTuning,
    ) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let tracking = config.tracking();
        let tracker = tracking.and_then(|tracking| Tracker::new(tracking, tuning.backtraces));
        let central = CentralConfig {
            id: IDS.fetch_add(1, Relaxed),
            counts: tracking.is_none_or(|tracking| tracking.level >= TrackingLevel::Basic),
            cache_bytes: tuning.thread_cache_bytes,
            initial: [config.initial_small_pool_size, config.initial_large_pool_size],
            limits: [config.max_small_pool_size, config.max_large_pool_size],
            warm_bytes: tuning.warm_bytes,
            huge_pages: tuning.huge_pages,
        };
        Arc::new_cyclic(|me: &Weak<Self>| {
            let owner: Weak<Owner> = me.clone();
            Self {
                small_below: tuning.threshold.min(LARGEST),
                untracked: tracker.is_none(),
                immortal,
                host,
                central: Central::new(raw, owner, central),
                misses: AtomicUsize::new(0),
                config,
                tuning,
                cleanup: config.cleanup(),
                cleanups: Mutex::default(),
                tracker,
                pressure: Pressure::new(tracking.unwrap_or_default()),
                started: Instant::now(),
                next_check: AtomicU64::new(0),
                devices: Mutex::default(),
            }
        })
    }

    /// The pools of other devices' memory.
    pub(super) fn devices(&self) -> MutexGuard<'_, Vec<PoolRef>> {
        self.devices.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A cached block of a class.
    #[inline]
    pub(super) fn pop(&self, class: usize) -> Option<usize> {
        thread_cache::pop(&self.central, class)
    }

    /// A block of a class; also whether it was used before.
    pub(super) fn take_small(&self, class: usize) -> io::Result<(usize, bool)> {
        thread_cache::refill(&self.central, class)
    }

    /// A block of whole pages for `len` bytes.
    pub(super) fn take_large(&self, len: usize, align: usize) -> io::Result<Pages> {
        let bytes = LargeBlockPool::block_bytes(len)?;
        let block = self.central.take_large(bytes, align)?;
        thread_cache::count_allocated(&self.central, bytes);
        Ok(block)
    }

    /// Tracks an allocation. Returns the time, if it was needed here or the memory is new.
    pub(super) fn note(
        &self,
        address: usize,
        len: usize,
        warm: bool,
        place: &'static Location<'static>,
    ) -> Option<Instant> {
        if self.central.counts && !warm {
            self.misses.fetch_add(1, Relaxed);
        }
        let timed = !warm || self.tracker.as_ref().is_some_and(Tracker::is_timed);
        let now = timed.then(Instant::now);
        if let Some(tracker) = &self.tracker {
            tracker.allocated(address, len, place, now);
        }
        now
    }

    /// Frees a block. Returns the time if it was a large one.
    #[inline]
    pub(super) fn release(&self, address: usize, len: usize, class: u8) -> Option<Instant> {
        if class == LARGE || !self.untracked || !thread_cache::push(&self.central, class as usize, address) {
            return self.release_slowly(address, len, class);
        }
        None
    }

    #[cold]
    fn release_slowly(&self, address: usize, len: usize, class: u8) -> Option<Instant> {
        let timed = class == LARGE || self.tracker.as_ref().is_some_and(Tracker::is_timed);
        let now = timed.then(Instant::now);
        if let Some(tracker) = &self.tracker {
            tracker.freed(address, len, now);
        }
        if class != LARGE {
            // Where it is tracked, the cache was not tried.
            if self.untracked || !thread_cache::push(&self.central, class as usize, address) {
                thread_cache::make_room(&self.central, class as usize, address);
            }
            return None;
        }
        let bytes = len.max(1).next_multiple_of(PAGE);
        thread_cache::count_freed(&self.central, bytes);
        self.central.give_back_large(address, bytes, now?);
        now
    }

    pub(super) fn metrics(&self) -> PoolMetrics {
        let caches = self.central.caches();
        let (total_allocated, peak_allocated, allocations) =
            self.central.totals.sum(caches.iter().map(|cache| &cache.shard));
        let hits = allocations.saturating_sub(self.misses.load(Relaxed));
        PoolMetrics { total_allocated, peak_allocated, allocations, hits }
    }

    pub(super) fn detailed_metrics(&self) -> DetailedMetrics {
        let caches: usize = self.central.caches().iter().map(|cache| cache.bytes()).sum();
        let metrics = self.metrics();
        let mut detailed = self.central.with_lists(|lists| {
            let (small, small_pages, large) = (&lists.small, &lists.small_pages, &lists.large);
            DetailedMetrics {
                metrics,
                requested_bytes: 0,
                used_bytes: small_pages.used + large.used,
                held_bytes: small_pages.held() + large.held(),
                reserved_bytes: small_pages.reserved + large.reserved,
                metadata_bytes: size_of::<Self>()
                    + caches
                    + small.metadata()
                    + small_pages.metadata()
                    + large.metadata(),
                slabs: small.slabs(),
                arenas: small_pages.arenas() + large.arenas(),
                pressure_level: self.pressure.level(),
                fragmentation_ratio: 0.0,
                suspected_leaks: 0,
                sizes: Vec::new(),
                lifetimes: Vec::new(),
                timeline: Vec::new(),
            }
        });
        if let Some(tracker) = &self.tracker {
            tracker.add_to(&mut detailed);
        }
        detailed.measure_fragmentation();
        detailed
    }

    /// Why `requested` bytes could not be had: the limit that `setting` is, or the device.
    pub(super) fn out_of_memory(
        &self,
        requested: usize,
        cause: &io::Error,
        setting: &'static str,
        limit: usize,
    ) -> BitNetError {
        if cause.kind() != io::ErrorKind::QuotaExceeded {
            return self.exhausted(requested);
        }
        let (device, in_use) = (self.central.raw.name(), self.metrics().total_allocated);
        BitNetError::PoolLimit { device, requested, in_use, setting, limit }
    }

    pub(super) fn exhausted(&self, requested: usize) -> BitNetError {
        let (device, in_use) = (self.central.raw.name(), self.metrics().total_allocated);
        let total = self.central.raw.available().map(|(_, total)| total);
        BitNetError::OutOfMemory { device, requested, in_use, total }
    }
}

/// A reference to a pool. References to the global pool, which is never dropped, are not counted: counting would cost
/// more than the allocation and cause contention between cores.
pub(super) struct PoolRef(NonNull<Core>);

// SAFETY: a shared reference to a pool, which is `Sync`, with a count that is atomic.
unsafe impl Send for PoolRef {}
// SAFETY: as above.
unsafe impl Sync for PoolRef {}

impl PoolRef {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let core = Arc::into_raw(core);
        // SAFETY: a pointer from `Arc` is not null.
        Self(unsafe { NonNull::new_unchecked(core.cast_mut()) })
    }
}

impl Deref for PoolRef {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        // SAFETY: this reference is counted, or the pool is immortal.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for PoolRef {
    #[inline]
    fn clone(&self) -> Self {
        if !self.immortal {
            // SAFETY: the pointer is from `Arc::into_raw`, and this reference is counted.
            unsafe { Arc::increment_strong_count(self.0.as_ptr()) };
        }
        Self(self.0)
    }
}

impl Drop for PoolRef {
    #[inline]
    fn drop(&mut self) {
        if !self.immortal {
            // SAFETY: as in `clone`, where this reference was counted, or in `new`.
            unsafe { Arc::decrement_strong_count(self.0.as_ptr()) };
        }
    }
}

impl std::fmt::Debug for PoolRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pool {} of {}", self.central.id, self.central.raw.name())
    }
}
