//! The pool that tensors take their memory from.

use super::buddy::PAGE;
use super::cleanup::CleanupConfig;
use super::counters::Totals;
use super::handle::{LARGE, MemoryHandle, PoolRef};
use super::holder::Holder;
use super::large::LargeBlockPool;
use super::pressure::{MemoryPressureLevel, Pressure};
use super::raw::{HUGE_PAGE, HostMemory, RawMemory};
use super::small::{self, LINE, SmallBlockPool, class_of};
use super::thread_cache::{self, ThreadCache};
use super::tracking::{DetailedMetrics, LeakReport, Tracker, TrackingConfig, TrackingLevel};
use crate::{BitNetError, Device, Result};
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Instant;

/// Limits and habits of a pool.
#[derive(Debug, Clone, Copy)]
pub struct MemoryPoolConfig {
    /// Blocks below this many bytes come from size classes, the others from whole pages. Default and most 1 MiB.
    pub threshold: usize,
    /// Most bytes taken from the device; beyond it allocation is an error. Default: no limit.
    pub limit: usize,
    /// Bytes of the first region, a power of two; the pool grows by as much as it has, up to 16 times this. A larger
    /// block is a mapping of its own. Default 64 MiB.
    pub arena_bytes: usize,
    /// Most bytes of blocks larger than a region that are kept when freed. Default 256 MiB.
    pub warm_bytes: usize,
    /// Most bytes that a thread keeps of small blocks, and as many that it may not give back. Default 8 MiB.
    pub thread_cache_bytes: usize,
    /// Whether blocks that have room for one ask for huge pages: first used and streamed several times faster, but
    /// memory in steps of 2 MiB. Default yes; see [`MemoryHandle::advise_huge_pages`].
    pub huge_pages: bool,
    /// What is written down.
    pub tracking: TrackingConfig,
    /// What goes back to the system when.
    pub cleanup: CleanupConfig,
}

impl Default for MemoryPoolConfig {
    fn default() -> Self {
        Self {
            threshold: small::LARGEST,
            limit: usize::MAX,
            arena_bytes: 64 << 20,
            warm_bytes: 256 << 20,
            thread_cache_bytes: 8 << 20,
            huge_pages: true,
            tracking: TrackingConfig::default(),
            cleanup: CleanupConfig::default(),
        }
    }
}

/// What a pool has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolMetrics {
    /// Bytes held by handles now, in whole blocks.
    pub live_bytes: usize,
    /// Most bytes held at once; with many threads up to 256 KiB a thread off.
    pub peak_bytes: usize,
    /// Allocations served.
    pub allocations: usize,
    /// Of these, the ones served from memory that was in use before.
    pub hits: usize,
}

/// Small blocks from size classes with caches for each thread, large ones by the buddy method; for the host and, each
/// apart, for every device that lends its memory. A block holds zeros or what its last user left, and is aligned to a
/// cache line. Cloning shares the pool.
///
/// ```
/// use bitnet_core::{Device, HybridMemoryPool};
/// let pool = HybridMemoryPool::new();
/// let mut block = pool.allocate(1000, 64, &Device::cpu())?;
/// block.bytes_mut()[0] = 7;
/// assert_eq!(pool.get_metrics().live_bytes, 1024);
/// pool.deallocate(block); // or let it fall
/// assert_eq!(pool.get_metrics().live_bytes, 0);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HybridMemoryPool(PoolRef);

impl Default for HybridMemoryPool {
    fn default() -> Self {
        Self::new()
    }
}

impl HybridMemoryPool {
    /// A pool without limit.
    pub fn new() -> Self {
        Self::with_config(MemoryPoolConfig::default())
    }

    /// A pool with the given limits.
    pub fn with_config(config: MemoryPoolConfig) -> Self {
        Self(PoolRef::new(Core::new(Arc::new(HostMemory), true, false, config)))
    }

    /// The pool that host tensors use unless told otherwise.
    pub fn global() -> &'static Self {
        static POOL: OnceLock<HybridMemoryPool> = OnceLock::new();
        POOL.get_or_init(|| {
            Self(PoolRef::new(Core::new(Arc::new(HostMemory), true, true, MemoryPoolConfig::default())))
        })
    }

    /// The pool of this configuration for another device's memory: made at the first call, the same at every other.
    pub fn for_memory(&self, raw: &Arc<dyn RawMemory>) -> Self {
        let mut devices = self.0.devices.lock().unwrap_or_else(|e| e.into_inner());
        let known = devices.iter().find(|pool| Arc::ptr_eq(&pool.raw, raw)).cloned();
        Self(known.unwrap_or_else(|| {
            devices.push(PoolRef::new(Core::new(raw.clone(), false, false, self.0.config)));
            devices[devices.len() - 1].clone()
        }))
    }

    /// A block of `size` bytes of a device's memory at a multiple of `align` (a power of two; at least 64 is given).
    /// Errors: the limit or the device does not allow it, or the device keeps its memory to itself.
    #[track_caller]
    pub fn allocate(&self, size: usize, align: usize, device: &Device) -> Result<MemoryHandle> {
        match device.raw_memory() {
            Some(raw) => self.for_memory(&raw).allocate_aligned(size, align),
            None if device.is_host() => self.allocate_aligned(size, align),
            None => {
                let message = format!("{}: memory can only be had as a tensor's, not as a pool's block", device.name());
                Err(BitNetError::NoDevice(message))
            }
        }
    }

    /// Gives a block back, as dropping it does.
    pub fn deallocate(&self, handle: MemoryHandle) {
        drop(handle);
    }

    /// A block of `len` bytes of this pool's own memory, the host's unless it is [of a device](Self::for_memory).
    #[track_caller]
    #[inline]
    pub fn allocate_bytes(&self, len: usize) -> Result<MemoryHandle> {
        let core = &*self.0;
        if len < core.small_below {
            let class = class_of(len);
            if core.untracked
                && let Some(address) = thread_cache::pop(core, class)
            {
                return Ok(self.handle(address, len, class as u8, false));
            }
            return self.allocate_small(len, class);
        }
        self.allocate_large(len, LINE)
    }

    #[track_caller]
    fn allocate_aligned(&self, len: usize, align: usize) -> Result<MemoryHandle> {
        if !align.is_power_of_two() {
            let message = format!("alignment {align} is not a power of two");
            return Err(BitNetError::Io { path: "memory".into(), source: io::Error::other(message) });
        }
        if align <= LINE {
            return self.allocate_bytes(len);
        }
        // Blocks of a class whose size is a multiple of the alignment are aligned, as slabs begin with a page.
        let room = len.max(1).checked_next_power_of_two().map(|room| room.max(align));
        match room {
            Some(room) if room < self.0.small_below && align <= PAGE => self.allocate_small(len, class_of(room)),
            _ => self.allocate_large(len, align),
        }
    }

    #[inline]
    fn handle(&self, address: usize, len: usize, class: u8, fresh: bool) -> MemoryHandle {
        MemoryHandle { address, len, pool: self.0.clone(), class, fresh }
    }

    #[cold]
    #[track_caller]
    fn allocate_small(&self, len: usize, class: usize) -> Result<MemoryHandle> {
        let core = &*self.0;
        let (address, warm) = thread_cache::refill(core, class)
            .or_else(|_| {
                core.compact();
                thread_cache::refill(core, class)
            })
            .map_err(|_| core.out_of_memory(len))?;
        let handle = self.handle(address, len, class as u8, false);
        core.note(&handle, warm, Location::caller());
        Ok(handle)
    }

    #[cold]
    #[track_caller]
    fn allocate_large(&self, len: usize, align: usize) -> Result<MemoryHandle> {
        let core = &*self.0;
        let block = LargeBlockPool::room(len).and_then(|bytes| {
            core.take_large(bytes, align).or_else(|_| {
                core.compact();
                core.take_large(bytes, align)
            })
        });
        let block = block.map_err(|_| core.out_of_memory(len))?;
        core.count_allocated(len.max(1).next_multiple_of(PAGE));
        let handle = self.handle(block.address, len, LARGE, block.fresh);
        if core.config.huge_pages && len >= HUGE_PAGE {
            handle.advise_huge_pages(true);
        }
        core.note(&handle, !block.fresh, Location::caller());
        Ok(handle)
    }

    /// Live and peak bytes, allocations and hits so far.
    pub fn get_metrics(&self) -> PoolMetrics {
        self.0.metrics()
    }

    /// Everything the pool can tell; see [`TrackingLevel`].
    pub fn get_detailed_metrics(&self) -> DetailedMetrics {
        self.0.detailed_metrics()
    }

    /// Blocks in use, with the place of their allocation; empty below [`TrackingLevel::Detailed`].
    pub fn leak_report(&self) -> LeakReport {
        self.0.tracker.as_ref().map_or_else(LeakReport::default, Tracker::leaks)
    }

    /// Calls `callback` whenever the pressure changes, on the thread whose allocation changed it. It may use the pool.
    pub fn register_pressure_callback(&self, callback: impl Fn(MemoryPressureLevel) + Send + Sync + 'static) {
        self.0.pressure.register(Arc::new(callback));
    }

    /// Gives everything that is not in use back to the device: empty slabs, free pages, empty regions. Returns the
    /// bytes of memory that the device has again. Caches of other threads follow when those next free a block.
    pub fn compact(&self) -> usize {
        self.0.compact()
    }
}

/// One device's pool.
#[derive(Debug)]
pub(super) struct Core {
    // What every allocation reads, together.
    pub(super) id: u64,
    small_below: usize,
    untracked: bool,
    pub(super) counts: bool,
    pub(super) immortal: bool,
    pub(super) host: bool,
    pub(super) totals: Totals,
    misses: AtomicUsize,
    pub(super) config: MemoryPoolConfig,
    pub(super) raw: Arc<dyn RawMemory>,
    pub(super) me: Weak<Core>,
    central: Mutex<Central>,
    holder: Holder,
    /// Bytes that were taken from `central` when it was last used.
    pub(super) used: AtomicUsize,
    caches: Mutex<Vec<Arc<ThreadCache>>>,
    tracker: Option<Tracker>,
    pub(super) pressure: Pressure,
    pub(super) started: Instant,
    /// Milliseconds from `started` on when idle memory is next looked for.
    pub(super) next_look: AtomicU64,
    devices: Mutex<Vec<PoolRef>>,
}

/// What threads share.
#[derive(Debug)]
struct Central {
    small: SmallBlockPool,
    large: LargeBlockPool,
}

impl Core {
    fn new(raw: Arc<dyn RawMemory>, host: bool, immortal: bool, config: MemoryPoolConfig) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let level = config.tracking.level;
        let large = LargeBlockPool::new(raw.clone(), &config);
        let core = Arc::new_cyclic(|me| Self {
            id: IDS.fetch_add(1, Relaxed),
            small_below: config.threshold.min(small::LARGEST),
            untracked: level <= TrackingLevel::Basic,
            counts: level >= TrackingLevel::Basic,
            immortal,
            host,
            totals: Totals::default(),
            misses: AtomicUsize::new(0),
            config,
            raw,
            me: me.clone(),
            central: Mutex::new(Central { small: SmallBlockPool::new(), large }),
            holder: Holder::default(),
            used: AtomicUsize::new(0),
            caches: Mutex::default(),
            tracker: Tracker::new(config.tracking),
            pressure: Pressure::default(),
            started: Instant::now(),
            next_look: AtomicU64::new(0),
            devices: Mutex::default(),
        });
        if let Some(period) = config.cleanup.period {
            // Without a thread to be had, idle memory is still looked for whenever the pool is used.
            let _ = Self::look_every(&core, period);
        }
        core
    }

    pub(super) fn caches(&self) -> MutexGuard<'_, Vec<Arc<ThreadCache>>> {
        self.caches.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Forgets the cache of a thread that ends.
    pub(super) fn retire(&self, cache: &Arc<ThreadCache>) {
        let mut caches = self.caches();
        cache.shard.tell(&self.totals);
        caches.retain(|other| !Arc::ptr_eq(other, cache));
    }

    /// Works on what threads share, and notes how much of it is used.
    pub(super) fn with_central<R>(&self, work: impl FnOnce(&mut SmallBlockPool, &mut LargeBlockPool) -> R) -> R {
        self.holder.refuse_this_thread(&*self.raw);
        let mut central = self.central.lock().unwrap_or_else(|e| e.into_inner());
        let _held = self.holder.hold();
        let Central { small, large } = &mut *central;
        let result = work(small, large);
        self.used.store(large.used, Relaxed);
        result
    }

    pub(super) fn take_small(&self, class: usize, out: &mut [usize]) -> io::Result<(usize, bool)> {
        self.with_central(|small, large| small.take(class, out, large))
    }

    pub(super) fn give_back_small(&self, class: usize, blocks: impl Iterator<Item = usize>) {
        self.with_central(|small, large| blocks.for_each(|address| small.give_back(class, address, large)));
    }

    fn take_large(&self, bytes: usize, align: usize) -> io::Result<super::large::Pages> {
        self.with_central(|_, large| large.take(bytes, align))
    }

    pub(super) fn count_allocated(&self, bytes: usize) {
        if self.counts {
            thread_cache::count_allocated(self, bytes);
        }
    }

    pub(super) fn count_freed(&self, bytes: usize) {
        if self.counts {
            thread_cache::count_freed(self, bytes);
        }
    }

    /// Writes an allocation down and looks after what is due.
    fn note(&self, handle: &MemoryHandle, warm: bool, place: &'static Location<'static>) {
        if self.counts && !warm {
            self.misses.fetch_add(1, Relaxed);
        }
        if let Some(tracker) = &self.tracker {
            tracker.allocated(handle.address, handle.len, place);
        }
        self.tend();
    }

    /// Takes a block back, from its handle's end.
    #[inline]
    pub(super) fn release(&self, handle: &MemoryHandle) {
        let class = handle.class;
        if class == LARGE || !self.untracked || !thread_cache::push(self, class as usize, handle.address) {
            self.release_slowly(handle);
        }
    }

    #[cold]
    fn release_slowly(&self, handle: &MemoryHandle) {
        let MemoryHandle { address, len, class, .. } = *handle;
        if let Some(tracker) = &self.tracker {
            tracker.freed(address, len);
        }
        if class != LARGE {
            return thread_cache::make_room(self, class as usize, address);
        }
        let bytes = len.max(1).next_multiple_of(PAGE);
        self.count_freed(bytes);
        self.with_central(|_, large| large.give_back(address, bytes)).release(&*self.raw);
        self.tend();
    }

    fn metrics(&self) -> PoolMetrics {
        let caches = self.caches();
        let (live_bytes, peak_bytes, allocations) = self.totals.sum(caches.iter().map(|cache| &cache.shard));
        let hits = allocations.saturating_sub(self.misses.load(Relaxed));
        PoolMetrics { live_bytes, peak_bytes, allocations, hits }
    }

    fn detailed_metrics(&self) -> DetailedMetrics {
        let cache = |cache: &Arc<ThreadCache>| size_of::<ThreadCache>() + cache.list_bytes.load(Relaxed);
        let caches: usize = self.caches().iter().map(cache).sum();
        let metrics = self.metrics();
        let mut detailed = self.with_central(|small, large| DetailedMetrics {
            metrics,
            requested_bytes: 0,
            used_bytes: large.used,
            held_bytes: large.held(),
            reserved_bytes: large.reserved,
            metadata_bytes: size_of::<Self>() + caches + small.metadata() + large.metadata(),
            slabs: small.slabs(),
            arenas: large.arenas(),
            pressure: self.pressure.level(),
            sizes: Vec::new(),
            lifetimes: Vec::new(),
            timeline: Vec::new(),
        });
        if let Some(tracker) = &self.tracker {
            tracker.tell(&mut detailed);
        }
        detailed
    }

    fn out_of_memory(&self, requested: usize) -> BitNetError {
        let (device, live) = (self.raw.name(), self.metrics().live_bytes);
        BitNetError::OutOfMemory { device, requested, live, limit: self.config.limit }
    }
}
