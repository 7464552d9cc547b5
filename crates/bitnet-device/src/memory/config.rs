//! Configuration of a pool.

use super::cleanup::CleanupConfig;
use super::small;
use super::tracking::TrackingConfig;
use crate::{Result, TensorOpError};
use std::time::Duration;

/// Configuration of a pool: sizes, tracking and cleanup.
///
/// Small blocks and large ones ([`PoolTuning::threshold`] divides them) have separate regions and limits.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// something to tell. Without it the pool counts as [`TrackingLevel::Basic`](super::TrackingLevel::Basic) does.
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

/// Rarely needed settings of a pool; see [`with_tuning`](super::HybridMemoryPool::with_tuning).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolTuning {
    /// Blocks below this many bytes are small and come from size classes, the others from whole pages. Default and
    /// maximum 1 MiB.
    pub threshold: usize,
    /// Limit of bytes of freed blocks larger than a region that are kept. Default 256 MiB.
    pub warm_bytes: usize,
    /// Limit of bytes in the cache of a thread. Default 8 MiB.
    pub thread_cache_bytes: usize,
    /// Whether regions of large blocks ask for huge pages: first used and streamed several times faster, but memory in
    /// steps of 2 MiB. Default yes; see [`MemoryHandle::advise_huge_pages`](super::MemoryHandle::advise_huge_pages).
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
