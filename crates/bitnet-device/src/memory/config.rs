//! Configuration of a pool.

use super::small;
use crate::{Result, TensorOpError};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Configuration of a pool: sizes, tracking and cleanup.
///
/// Small blocks and large ones ([`PoolTuning::threshold`] divides them) have separate regions and limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MemoryPoolConfig {
    /// Bytes of address space for small blocks that the pool reserves when it is made, rounded up to a power of two and
    /// never more than the maximum; pages are committed when written. It grows by as much as it has, up to
    /// 16 times this. On systems that cannot reserve without using memory, nothing is reserved. Default 64 MiB.
    pub initial_small_pool_size: usize,
    /// Limit of bytes reserved for small blocks; exceeding it is an error. Default `usize::MAX`: the physical memory of the
    /// device, or no limit where it is unknown.
    pub max_small_pool_size: usize,
    /// As `initial_small_pool_size`, for large blocks. A larger block gets its own mapping.
    /// Default 64 MiB.
    pub initial_large_pool_size: usize,
    /// As `max_small_pool_size`, for large blocks.
    pub max_large_pool_size: usize,
    /// Whether `tracking_config` holds, and [`get_detailed_metrics`](super::HybridMemoryPool::get_detailed_metrics) has
    /// something to tell. Without it the pool counts as [`TrackingLevel::Basic`] does.
    /// Default no.
    pub enable_advanced_tracking: bool,
    /// What is tracked. Default `None`: the default of [`TrackingConfig`].
    pub tracking_config: Option<TrackingConfig>,
    /// Whether unused memory is returned to the system automatically. Default yes.
    pub enable_automatic_cleanup: bool,
    /// When it is returned. Default `None`: the default of [`CleanupConfig`].
    pub cleanup_config: Option<CleanupConfig>,
}

impl Default for MemoryPoolConfig {
    fn default() -> Self {
        Self {
            initial_small_pool_size: 64 << 20,
            max_small_pool_size: usize::MAX,
            initial_large_pool_size: 64 << 20,
            max_large_pool_size: usize::MAX,
            enable_advanced_tracking: false,
            tracking_config: None,
            enable_automatic_cleanup: true,
            cleanup_config: None,
        }
    }
}

impl MemoryPoolConfig {
    /// What is tracked; `None` without advanced tracking.
    pub(super) fn tracking(&self) -> Option<TrackingConfig> {
        self.enable_advanced_tracking.then(|| self.tracking_config.unwrap_or_default())
    }

    /// When memory is returned; `None` without automatic cleanup.
    pub(super) fn cleanup(&self) -> Option<CleanupConfig> {
        self.enable_automatic_cleanup.then(|| self.cleanup_config.unwrap_or_default())
    }

    /// An error that names a ratio outside of 0 to 1.
    pub(super) fn check(&self) -> Result<()> {
        let ratios = [
            ("pressure_threshold_ratio", self.tracking().map(|tracking| tracking.pressure_threshold_ratio)),
            ("pressure_cleanup_threshold", self.cleanup().map(|cleanup| cleanup.pressure_cleanup_threshold)),
        ];
        for (field, ratio) in ratios {
            if let Some(ratio) = ratio
                && !(ratio > 0.0 && ratio <= 1.0)
            {
                let message = format!("{field} is {ratio}: give a part of the memory, above 0 and at most 1");
                return Err(TensorOpError::Argument { op: "MemoryPoolConfig", message }.into());
            }
        }
        Ok(())
    }
}

/// How much a pool tracks; what is not tracked costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TrackingLevel {
    /// Nothing: all counts stay zero.
    None,
    /// Bytes in use and their peak, allocations and hits, counted by each thread for itself.
    Basic,
    /// And bytes asked for, hence what rounding wastes, and how many blocks there were of every size.
    Standard,
    /// And lifetimes and a timeline; under a lock.
    Detailed,
}

/// What a pool tracks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrackingConfig {
    /// How much. Default [`TrackingLevel::Standard`].
    pub level: TrackingLevel,
    /// Whether the [memory pressure level](super::MemoryPressureLevel) is watched and callbacks are called. Default yes.
    pub enable_pressure_detection: bool,
    /// Whether every block in use is known with its place and age, at any level: for
    /// [`leak_report`](super::HybridMemoryPool::leak_report) and [`DetailedMetrics::suspected_leaks`](super::DetailedMetrics::suspected_leaks); under a lock.
    /// Default no.
    pub enable_leak_detection: bool,
    /// Part of the memory, from 0 to 1, from which [`MemoryPressureLevel::High`](super::MemoryPressureLevel::High) is told. Default 0.85.
    pub pressure_threshold_ratio: f64,
    /// A block in use for longer than this is suspected to be a leak; looked for as often, when the pool is used.
    /// Default 60 seconds.
    pub leak_detection_interval: Duration,
}

impl Default for TrackingConfig {
    fn default() -> Self {
        Self {
            level: TrackingLevel::Standard,
            enable_pressure_detection: true,
            enable_leak_detection: false,
            pressure_threshold_ratio: 0.85,
            leak_detection_interval: Duration::from_secs(60),
        }
    }
}

/// When a pool returns unused memory automatically; [`compact`](super::HybridMemoryPool::compact) returns all at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CleanupConfig {
    /// Regions in which nothing was freed for this long return their unused memory. Checked when the pool
    /// is used, at most twice a second, or by a thread ([`cleanup_period`](PoolTuning::cleanup_period)). Default
    /// 10 seconds.
    pub idle_cleanup_interval: Duration,
    /// All unused memory is returned when this fraction, from 0 to 1, of a limit of the pool or of the device's memory
    /// is used. Default 0.85.
    pub pressure_cleanup_threshold: f64,
    /// Whether free pages of regions that are partly in use go back too, or whole regions only. Default yes.
    pub enable_compaction: bool,
    /// A cleanup returns one region after another and stops after this time; the next one continues. Default 100
    /// milliseconds.
    pub max_cleanup_time: Duration,
}

impl Default for CleanupConfig {
    fn default() -> Self {
        Self {
            idle_cleanup_interval: Duration::from_secs(10),
            pressure_cleanup_threshold: 0.85,
            enable_compaction: true,
            max_cleanup_time: Duration::from_millis(100),
        }
    }
}

/// Rarely needed settings of a pool; see [`with_tuning`](super::HybridMemoryPool::with_tuning).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTuning {
    /// Blocks below this many bytes are small and come from size classes, the others from whole pages. Default and
    /// maximum 1 MiB.
    pub threshold: usize,
    /// Limit of bytes of freed blocks larger than a region that are kept. Default 256 MiB.
    pub warm_bytes: usize,
    /// Limit of bytes in the cache of a thread. Default 8 MiB.
    pub thread_cache_bytes: usize,
    /// Whether blocks of 2 MiB and more ask for huge pages, once for each: first used and streamed several times faster.
    /// Default yes; see [`MemoryHandle::advise_huge_pages`](super::MemoryHandle::advise_huge_pages).
    pub huge_pages: bool,
    /// Whether leak detection keeps the stack of every allocation, some microseconds each: the place alone is that of
    /// the pool's caller, for a tensor inside this crate. Default no.
    pub backtraces: bool,
    /// Interval at which a thread of the pool checks for unused memory, so that an idle pool is cleaned too. Default:
    /// no thread.
    pub cleanup_period: Option<Duration>,
}

impl Default for PoolTuning {
    fn default() -> Self {
        Self {
            threshold: small::LARGEST,
            warm_bytes: 256 << 20,
            thread_cache_bytes: 8 << 20,
            huge_pages: true,
            backtraces: false,
            cleanup_period: None,
        }
    }
}
