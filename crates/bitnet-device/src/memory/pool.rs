//! The memory pool of tensors.

use super::buddy::PAGE;
use super::cleanup;
use super::config::{MemoryPoolConfig, PoolTuning};
use super::core::{Core, LARGE, PoolRef};
use super::handle::MemoryHandle;
use super::metrics::{CleanupMetrics, DetailedMetrics, LeakReport, MemoryPressureLevel, PoolMetrics};
use super::raw::{HostMemory, RawMemory};
use super::small::{LARGEST, LINE, class_of};
use super::thread_cache;
use super::tracker::Tracker;
use crate::{Backend, BitNetError, Result, TensorOpError};
use std::panic::Location;
use std::sync::{Arc, OnceLock};

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
        let pool = Self::over(Arc::new(HostMemory), true, false, config, tuning);
        let requested = config.initial_small_pool_size.saturating_add(config.initial_large_pool_size);
        pool.0.central.reserve_initial().map_err(|_| pool.0.exhausted(requested))?;
        Ok(pool)
    }

    /// The pool that host tensors use unless told otherwise. It reserves memory when it is first used.
    pub fn global() -> &'static Self {
        static POOL: OnceLock<HybridMemoryPool> = OnceLock::new();
        POOL.get_or_init(|| {
            let (config, tuning) = Default::default();
            Self::over(Arc::new(HostMemory), true, true, config, tuning)
        })
    }

    fn over(raw: Arc<dyn RawMemory>, host: bool, immortal: bool, config: MemoryPoolConfig, tuning: PoolTuning) -> Self {
        let core = Core::new(raw, host, immortal, config, tuning);
        if let Some(period) = tuning.cleanup_period {
            // Without a thread to be had, idle memory is still looked for whenever the pool is used.
            let _ = cleanup::check_every(&core, period);
        }
        Self(PoolRef::new(core))
    }

    /// The pool of this configuration for another device's memory: made at the first call, the same at every other.
    pub fn for_memory(&self, raw: &Arc<dyn RawMemory>) -> Self {
        let mut devices = self.0.devices();
        let known = devices.iter().find(|pool| Arc::ptr_eq(&pool.central.raw, raw)).cloned();
        known.map(Self).unwrap_or_else(|| {
            let pool = Self::over(raw.clone(), false, false, self.0.config, self.0.tuning);
            devices.push(pool.0.clone());
            pool
        })
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
        let (id, of_device) = (handle.pool.central.id, |id| self.0.devices().iter().any(|pool| pool.central.id == id));
        if id == self.0.central.id || of_device(id) {
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
            if let Some(address) = core.pop(class) {
                let handle = self.handle(address, len, class as u8, false);
                return Ok(if core.untracked { handle } else { self.noted(handle, true, Location::caller()) });
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
        let (address, warm) = core
            .take_small(class)
            .or_else(|_| {
                cleanup::compact(core);
                core.take_small(class)
            })
            .map_err(|error| core.out_of_memory(len, &error, "max_small_pool_size", core.config.max_small_pool_size))?;
        Ok(self.noted(self.handle(address, len, class as u8, false), warm, Location::caller()))
    }

    #[cold]
    #[track_caller]
    fn allocate_large(&self, len: usize, align: usize) -> Result<MemoryHandle> {
        let core = &*self.0;
        let block = core
            .take_large(len, align)
            .or_else(|_| {
                cleanup::compact(core);
                core.take_large(len, align)
            })
            .map_err(|error| core.out_of_memory(len, &error, "max_large_pool_size", core.config.max_large_pool_size))?;
        Ok(self.noted(self.handle(block.address, len, LARGE, block.fresh), !block.fresh, Location::caller()))
    }

    /// Tracks an allocation and does periodic work.
    #[inline(never)]
    fn noted(&self, handle: MemoryHandle, warm: bool, place: &'static Location<'static>) -> MemoryHandle {
        match self.0.note(handle.address, handle.len, warm, place) {
            Some(now) => cleanup::maintain(&self.0, now),
            None => cleanup::watch_limits(&self.0),
        }
        handle
    }

    /// Bytes in use and their peak, allocations and hits so far.
    pub fn get_metrics(&self) -> PoolMetrics {
        self.0.metrics()
    }

    /// All metrics, as far as the [`TrackingLevel`](super::TrackingLevel) gives them; `None` without
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
        cleanup::compact(&self.0)
    }

    /// How it was configured.
    pub fn config(&self) -> (MemoryPoolConfig, PoolTuning) {
        (self.0.config, self.0.tuning)
    }

    /// Free blocks that hold memory: their bytes and number. This thread's cache goes back first; blocks in the caches of
    /// other threads are not among them. Whole pages are told as blocks that are as large as can be.
    pub fn free_blocks(&self) -> Vec<(usize, usize)> {
        /// Of the pages that slabs are cut from, so that they stay small blocks.
        const PIECE: usize = LARGEST / 2;
        thread_cache::flush_own(&self.0.central);
        self.0.central.with_lists(|lists| {
            let pieces = |bytes: usize| [(PIECE, bytes / PIECE), (bytes % PIECE, 1)];
            let mut blocks: Vec<_> = lists.small.free_blocks().collect();
            blocks.extend(lists.small_pages.warm_ranges().flat_map(pieces).filter(|&(bytes, n)| bytes * n > 0));
            blocks.extend(lists.large.warm_ranges().map(|bytes| (bytes, 1)));
            blocks
        })
    }

    /// What cleanups did so far.
    pub fn cleanup_metrics(&self) -> CleanupMetrics {
        *self.0.cleanups.lock().unwrap_or_else(|e| e.into_inner())
    }
}
