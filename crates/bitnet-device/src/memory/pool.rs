//! The memory pool of tensors.

use super::buddy::PAGE;
use super::cleanup::CleanupConfig;
use super::config::{MemoryPoolConfig, PoolTuning};
use super::counters::Totals;
use super::handle::{LARGE, MemoryHandle, PoolRef};
use super::holder::Holder;
use super::large::{LargeBlockPool, Unused};
use super::pressure::{MemoryPressureLevel, Pressure};
use super::raw::{HostMemory, RawMemory};
use super::small::{LARGEST, LINE, SmallBlockPool, class_of};
use super::thread_cache::{self, ThreadCache};
use super::tracking::{DetailedMetrics, LeakReport, Tracker, TrackingLevel};
use crate::{Backend, BitNetError, Result, TensorOpError};
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Counters of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolMetrics {
    /// Bytes in use now, in whole blocks.
    pub total_allocated: usize,
    /// Most bytes in use at once; with many threads up to 256 KiB a thread off.
    pub peak_allocated: usize,
    /// Number of allocations.
    pub allocations: usize,
    /// Of these, the ones served from memory that was in use before.
    pub hits: usize,
}

/// A memory pool: size classes with per-thread caches for small blocks, the buddy method for large ones; for the host
/// and, separately, for every device that exposes its memory. Blocks are zeroed or uninitialised, and aligned to a
/// cache line. Clones share the pool.
///
/// ```
/// use bitnet_core::{Device, HybridMemoryPool};
/// let pool = HybridMemoryPool::new()?;
/// let mut block = pool.allocate(1000, 64, &Device::cpu())?;
/// block.bytes_mut()[0] = 7;
/// assert_eq!(pool.get_metrics().total_allocated, 1024);
/// pool.deallocate(block)?; // or drop it
/// assert_eq!(pool.get_metrics().total_allocated, 0);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HybridMemoryPool(PoolRef);

impl HybridMemoryPool {
    /// A pool whose limit is what the system has. Errors: as [`with_config`](Self::with_config).
    pub fn new() -> Result<Self> {
        Self::with_config(MemoryPoolConfig::default())
    }

    /// A pool of host memory. Errors: a ratio outside of 0 to 1, or initial sizes that the system refuses.
    pub fn with_config(config: MemoryPoolConfig) -> Result<Self> {
        Self::with_tuning(config, PoolTuning::default())
    }

    /// As [`with_config`](Self::with_config), with rarely needed settings.
    pub fn with_tuning(config: MemoryPoolConfig, tuning: PoolTuning) -> Result<Self> {
        config.check()?;
        let core = Core::new(Arc::new(HostMemory), true, false, config, tuning);
        let initial =
            |central: &mut Central| [&mut central.small_pages, &mut central.large].map(LargeBlockPool::reserve_initial);
        if core.with_central(initial).iter().any(io::Result::is_err) {
            let requested = config.initial_small_pool_size.saturating_add(config.initial_large_pool_size);
            return Err(core.exhausted(requested));
        }
        Ok(Self(PoolRef::new(core)))
    }

    /// The pool that host tensors use unless told otherwise. It reserves memory when it is first used.
    pub fn global() -> &'static Self {
        static POOL: OnceLock<HybridMemoryPool> = OnceLock::new();
        POOL.get_or_init(|| {
            let (config, tuning) = Default::default();
            Self(PoolRef::new(Core::new(Arc::new(HostMemory), true, true, config, tuning)))
        })
    }

    /// The pool of this configuration for another device's memory: made at the first call, the same at every other.
    pub fn for_memory(&self, raw: &Arc<dyn RawMemory>) -> Self {
        let mut devices = self.0.devices();
        let known = devices.iter().find(|pool| Arc::ptr_eq(&pool.raw, raw)).cloned();
        Self(known.unwrap_or_else(|| {
            devices.push(PoolRef::new(Core::new(raw.clone(), false, false, self.0.config, self.0.tuning)));
            devices[devices.len() - 1].clone()
        }))
    }

    /// A block of `size` bytes of a device's memory at a multiple of `align` (a power of two; at least 64 is given).
    /// Errors: the limit or the device does not allow it, or the device does not expose its memory.
    #[track_caller]
    pub fn allocate(
        &self,
        size: usize,
        align: usize,
        device: &(impl AsRef<dyn Backend> + ?Sized),
    ) -> Result<MemoryHandle> {
        let device = device.as_ref();
        match device.raw_memory() {
            Some(raw) => self.for_memory(&raw).allocate_aligned(size, align),
            None if device.is_host() => self.allocate_aligned(size, align),
            None => {
                let message = format!("{}: memory can only be had as a tensor's, not as a pool's block", device.name());
                Err(BitNetError::NoDevice(message))
            }
        }
    }

    /// Frees a block, as dropping it does. An error if it belongs to another pool, to which it then returns.
    pub fn deallocate(&self, handle: MemoryHandle) -> Result<()> {
        let of_device = |id| self.0.devices().iter().any(|pool| pool.id == id);
        if handle.pool.id == self.0.id || of_device(handle.pool.id) {
            return Ok(());
        }
        let message = "the block is of another pool, and went back there: call deallocate of the pool that gave it";
        Err(TensorOpError::Argument { op: "deallocate", message: message.into() }.into())
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
            return Err(TensorOpError::Argument { op: "allocate", message }.into());
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
            .map_err(|error| core.out_of_memory(len, &error, "max_small_pool_size", core.config.max_small_pool_size))?;
        let handle = self.handle(address, len, class as u8, false);
        core.note(&handle, warm, Location::caller());
        Ok(handle)
    }

    #[cold]
    #[track_caller]
    fn allocate_large(&self, len: usize, align: usize) -> Result<MemoryHandle> {
        let core = &*self.0;
        let block = LargeBlockPool::block_bytes(len).and_then(|bytes| {
            core.take_large(bytes, align).or_else(|_| {
                core.compact();
                core.take_large(bytes, align)
            })
        });
        let block = block
            .map_err(|error| core.out_of_memory(len, &error, "max_large_pool_size", core.config.max_large_pool_size))?;
        core.count_allocated(len.max(1).next_multiple_of(PAGE));
        let handle = self.handle(block.address, len, LARGE, block.fresh);
        core.note(&handle, !block.fresh, Location::caller());
        Ok(handle)
    }

    /// Bytes in use and their peak, allocations and hits so far.
    pub fn get_metrics(&self) -> PoolMetrics {
        self.0.metrics()
    }

    /// All metrics, as far as the [`TrackingLevel`] gives them; `None` without
    /// [`enable_advanced_tracking`](MemoryPoolConfig::enable_advanced_tracking).
    pub fn get_detailed_metrics(&self) -> Option<DetailedMetrics> {
        self.0.config.enable_advanced_tracking.then(|| self.0.detailed_metrics())
    }

    /// Blocks in use, with the place of their allocation; empty without
    /// [`enable_leak_detection`](super::TrackingConfig::enable_leak_detection).
    pub fn leak_report(&self) -> LeakReport {
        self.0.tracker.as_ref().map_or_else(LeakReport::default, Tracker::leaks)
    }

    /// Calls `callback` whenever the memory pressure level changes, on the thread whose allocation changed it. It may
    /// use the pool. Where advanced tracking is without
    /// [`enable_pressure_detection`](super::TrackingConfig::enable_pressure_detection), it is never called.
    pub fn register_pressure_callback(&self, callback: Box<dyn Fn(MemoryPressureLevel) + Send + Sync>) {
        self.0.pressure.register(callback.into());
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
    config: MemoryPoolConfig,
    pub(super) tuning: PoolTuning,
    pub(super) cleanup: Option<CleanupConfig>,
    pub(super) raw: Arc<dyn RawMemory>,
    pub(super) me: Weak<Core>,
    central: Mutex<Central>,
    holder: Holder,
    /// Part of the nearer limit that was used when `central` last was, as the bits of an `f32`; 0 without limits.
    pub(super) filled: AtomicU32,
    caches: Mutex<Vec<Arc<ThreadCache>>>,
    pub(super) tracker: Option<Tracker>,
    pub(super) pressure: Pressure,
    pub(super) started: Instant,
    /// Milliseconds from `started` on when idle memory is next looked for.
    pub(super) next_check: AtomicU64,
    devices: Mutex<Vec<PoolRef>>,
}

/// The state that threads share.
#[derive(Debug)]
pub(super) struct Central {
    pub(super) small: SmallBlockPool,
    /// Regions that the slabs of `small` are cut from.
    pub(super) small_pages: LargeBlockPool,
    pub(super) large: LargeBlockPool,
}

impl Central {
    /// [`LargeBlockPool::give_back_unused`] of both kinds of block.
    pub(super) fn give_back_unused(&mut self, idle: Duration, pages: bool, most: usize) -> [Unused; 2] {
        self.small.give_back_empty(&mut self.small_pages);
        [&mut self.small_pages, &mut self.large].map(|large| large.give_back_unused(idle, pages, most))
    }
}

impl Core {
    fn new(
        raw: Arc<dyn RawMemory>,
        host: bool,
        immortal: bool,
        config: MemoryPoolConfig,
        tuning: PoolTuning,
    ) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let (tracking, cleanup) = (config.tracking(), config.cleanup());
        let tracker = tracking.and_then(|tracking| Tracker::new(tracking, tuning.backtraces));
        let pages = |initial, max, huge| LargeBlockPool::new(raw.clone(), initial, max, tuning.warm_bytes, huge);
        let central = Central {
            small: SmallBlockPool::new(),
            small_pages: pages(config.initial_small_pool_size, config.max_small_pool_size, false),
            large: pages(config.initial_large_pool_size, config.max_large_pool_size, tuning.huge_pages),
        };
        let core = Arc::new_cyclic(|me| Self {
            id: IDS.fetch_add(1, Relaxed),
            small_below: tuning.threshold.min(LARGEST),
            untracked: tracker.is_none(),
            counts: tracking.is_none_or(|tracking| tracking.level >= TrackingLevel::Basic),
            immortal,
            host,
            totals: Totals::default(),
            misses: AtomicUsize::new(0),
            config,
            tuning,
            cleanup,
            raw,
            me: me.clone(),
            central: Mutex::new(central),
            holder: Holder::default(),
            filled: AtomicU32::new(0),
            caches: Mutex::default(),
            tracker,
            pressure: Pressure::new(tracking.unwrap_or_default()),
            started: Instant::now(),
            next_check: AtomicU64::new(0),
            devices: Mutex::default(),
        });
        if let Some(period) = tuning.cleanup_period {
            // Without a thread to be had, idle memory is still looked for whenever the pool is used.
            let _ = Self::check_every(&core, period);
        }
        core
    }

    pub(super) fn caches(&self) -> MutexGuard<'_, Vec<Arc<ThreadCache>>> {
        self.caches.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Removes the cache of a thread that ends.
    pub(super) fn retire(&self, cache: &Arc<ThreadCache>) {
        let mut caches = self.caches();
        cache.shard.publish(&self.totals);
        caches.retain(|other| !Arc::ptr_eq(other, cache));
    }

    fn devices(&self) -> MutexGuard<'_, Vec<PoolRef>> {
        self.devices.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether either kind of block has a limit.
    pub(super) fn is_limited(&self) -> bool {
        self.config.max_small_pool_size.min(self.config.max_large_pool_size) != usize::MAX
    }

    /// Runs `work` on the shared state, and records its usage.
    pub(super) fn with_central<R>(&self, work: impl FnOnce(&mut Central) -> R) -> R {
        self.holder.refuse_this_thread(&*self.raw);
        let mut central = self.central.lock().unwrap_or_else(|e| e.into_inner());
        let _held = self.holder.hold();
        let result = work(&mut central);
        if self.is_limited() {
            let filled = central.small_pages.filled().max(central.large.filled());
            self.filled.store(filled.to_bits(), Relaxed);
        }
        result
    }

    pub(super) fn take_small(&self, class: usize, out: &mut [usize]) -> io::Result<(usize, bool)> {
        self.with_central(|central| central.small.take(class, out, &mut central.small_pages))
    }

    pub(super) fn give_back_small(&self, class: usize, blocks: impl Iterator<Item = usize>) {
        self.with_central(|Central { small, small_pages, .. }| {
            blocks.for_each(|address| small.give_back(class, address, small_pages));
        });
    }

    fn take_large(&self, bytes: usize, align: usize) -> io::Result<super::large::Pages> {
        self.with_central(|central| central.large.take(bytes, align))
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

    /// Tracks an allocation and does periodic work.
    fn note(&self, handle: &MemoryHandle, warm: bool, place: &'static Location<'static>) {
        if self.counts && !warm {
            self.misses.fetch_add(1, Relaxed);
        }
        if let Some(tracker) = &self.tracker {
            tracker.allocated(handle.address, handle.len, place);
        }
        self.maintain();
    }

    /// Frees a block when its handle is dropped.
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
        self.with_central(|central| central.large.give_back(address, bytes)).release(&*self.raw);
        self.maintain();
    }

    fn metrics(&self) -> PoolMetrics {
        let caches = self.caches();
        let (total_allocated, peak_allocated, allocations) = self.totals.sum(caches.iter().map(|cache| &cache.shard));
        let hits = allocations.saturating_sub(self.misses.load(Relaxed));
        PoolMetrics { total_allocated, peak_allocated, allocations, hits }
    }

    fn detailed_metrics(&self) -> DetailedMetrics {
        let cache = |cache: &Arc<ThreadCache>| size_of::<ThreadCache>() + cache.list_bytes.load(Relaxed);
        let caches: usize = self.caches().iter().map(cache).sum();
        let metrics = self.metrics();
        let mut detailed = self.with_central(|Central { small, small_pages, large }| DetailedMetrics {
            metrics,
            requested_bytes: 0,
            used_bytes: small_pages.used + large.used,
            held_bytes: small_pages.held() + large.held(),
            reserved_bytes: small_pages.reserved + large.reserved,
            metadata_bytes: size_of::<Self>() + caches + small.metadata() + small_pages.metadata() + large.metadata(),
            slabs: small.slabs(),
            arenas: small_pages.arenas() + large.arenas(),
            pressure_level: self.pressure.level(),
            fragmentation_ratio: 0.0,
            suspected_leaks: 0,
            sizes: Vec::new(),
            lifetimes: Vec::new(),
            timeline: Vec::new(),
        });
        if let Some(tracker) = &self.tracker {
            tracker.add_to(&mut detailed);
        }
        detailed.measure_fragmentation();
        detailed
    }

    /// Why `requested` bytes could not be had: the limit that `setting` is, or the device.
    fn out_of_memory(&self, requested: usize, cause: &io::Error, setting: &'static str, limit: usize) -> BitNetError {
        if cause.kind() != io::ErrorKind::QuotaExceeded {
            return self.exhausted(requested);
        }
        let (device, in_use) = (self.raw.name(), self.metrics().total_allocated);
        BitNetError::PoolLimit { device, requested, in_use, setting, limit }
    }

    fn exhausted(&self, requested: usize) -> BitNetError {
        let (device, in_use) = (self.raw.name(), self.metrics().total_allocated);
        let total = self.raw.available().map(|(_, total)| total);
        BitNetError::OutOfMemory { device, requested, in_use, total }
    }
}
