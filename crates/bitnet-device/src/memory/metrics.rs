//! What a pool tells about itself.

use serde::{Deserialize, Serialize};
use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// Counters of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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

/// How much of the memory is used: of a limit of the pool, or of all the device has, whichever is the larger part.
///
/// The levels follow from [`pressure_threshold_ratio`](super::TrackingConfig::pressure_threshold_ratio), here called `r`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressureLevel {
    /// Less than `Medium`.
    Low,
    /// From `2 r - 1`: with the default 70 %.
    Medium,
    /// From `r`: with the default 85 %.
    High,
    /// From `r + (1 - r) * 2 / 3`: with the default 95 %.
    Critical,
}

impl MemoryPressureLevel {
    pub(super) const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The level where `used` of the memory is used, from 0 to 1, and `High` begins at `threshold`.
    pub(super) fn of(used: f64, threshold: f64) -> Self {
        let free = 1.0 - threshold;
        match used {
            used if used >= threshold + free * 2.0 / 3.0 => Self::Critical,
            used if used >= threshold => Self::High,
            used if used >= threshold - free => Self::Medium,
            _ => Self::Low,
        }
    }
}

/// What a pool's cleanups did, [`compact`](super::HybridMemoryPool::compact) among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanupMetrics {
    /// Cleanups that found something to give back.
    pub cleanups: usize,
    /// Of these, the ones that stopped after [`max_cleanup_time`](super::CleanupConfig::max_cleanup_time), with some left.
    pub stopped: usize,
    /// Bytes of memory that the device has again.
    pub bytes: usize,
    /// Time of all together.
    pub time: Duration,
    /// Time of the longest.
    pub longest: Duration,
}

/// All metrics of a pool. What its level does not track is zero or empty.
#[derive(Debug, Clone)]
pub struct DetailedMetrics {
    /// The counts of [`get_metrics`](super::HybridMemoryPool::get_metrics).
    pub metrics: PoolMetrics,
    /// Bytes asked for by the holders of blocks in use.
    pub requested_bytes: usize,
    /// Bytes of slabs and large blocks, live or cached by threads.
    pub used_bytes: usize,
    /// Bytes that hold memory, used or warm.
    pub held_bytes: usize,
    /// Bytes of address space taken from the device.
    pub reserved_bytes: usize,
    /// Bytes of the pool's own tables.
    pub metadata_bytes: usize,
    /// Slabs of small blocks.
    pub slabs: usize,
    /// Regions that large blocks and slabs are cut from.
    pub arenas: usize,
    /// The memory pressure level when last looked at.
    pub pressure_level: MemoryPressureLevel,
    /// Part of the used bytes that no holder asked for: rounding, and free blocks of slabs and of threads' caches; from
    /// 0 to 1. Where [`TrackingLevel::Standard`](super::TrackingLevel::Standard) is not tracked, blocks count whole. Free pages do not count: they are
    /// `held_bytes - used_bytes` at most, and go back with [`compact`](super::HybridMemoryPool::compact).
    pub fragmentation_ratio: f64,
    /// Blocks that were in use for longer than [`leak_detection_interval`](super::TrackingConfig::leak_detection_interval) when last looked for.
    pub suspected_leaks: usize,
    /// Allocations of `1 << k` bytes or less, more than half that, at `[k]`.
    pub sizes: Vec<usize>,
    /// Freed blocks that lived `1 << k` microseconds or less, more than half that, at `[k]`.
    pub lifetimes: Vec<usize>,
    /// Bytes in use over time, at most [`TIMELINE`] samples evenly spread over the allocations, the oldest first.
    pub timeline: Vec<(Duration, usize)>,
}

impl DetailedMetrics {
    pub(super) fn measure_fragmentation(&mut self) {
        let useful = if self.requested_bytes > 0 { self.requested_bytes } else { self.metrics.total_allocated };
        self.fragmentation_ratio = 1.0 - useful as f64 / self.used_bytes.max(useful).max(1) as f64;
    }
}

/// A block in use.
#[derive(Debug, Clone)]
pub struct LiveBlock {
    /// Bytes asked for.
    pub len: usize,
    /// Who called the pool.
    pub place: &'static Location<'static>,
    /// How long it is in use.
    pub age: Duration,
    /// The stack, where asked for.
    pub backtrace: Option<Arc<Backtrace>>,
}

/// Blocks in use, the largest first; printed by place.
#[derive(Debug, Clone, Default)]
pub struct LeakReport(pub Vec<LiveBlock>);

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for block in &self.0 {
            let stack = block.backtrace.as_ref().map(|stack| format!("\n{stack}")).unwrap_or_default();
            let (count, bytes) = places.entry(format!("{}{stack}", block.place)).or_default();
            (*count, *bytes) = (*count + 1, *bytes + block.len);
        }
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|&(_, (_, bytes))| std::cmp::Reverse(bytes));
        let blocks = |n: usize| if n == 1 { "1 block".to_owned() } else { format!("{n} blocks") };
        writeln!(f, "{} in use", blocks(self.0.len()))?;
        places
            .iter()
            .try_for_each(|(place, (count, bytes))| writeln!(f, "{bytes} bytes in {} from {place}", blocks(*count)))
    }
}

/// Most samples of a timeline.
pub const TIMELINE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::MemoryPressureLevel::{self, *};

    #[test]
    fn levels_follow_the_threshold() {
        let of = |used: [f64; 4], threshold| used.map(|used| MemoryPressureLevel::of(used, threshold));
        assert_eq!(of([0.69, 0.71, 0.86, 0.96], 0.85), [Low, Medium, High, Critical]);
        assert_eq!(of([0.59, 0.61, 0.81, 0.94], 0.8), [Low, Medium, High, Critical]);
        assert_eq!(of([0.0, 0.3, 0.5, 1.0], 0.3), [Medium, High, High, Critical]);
        assert_eq!(of([0.0, 0.99, 1.0, 1.0], 1.0), [Low, Low, Critical, Critical]);
    }
}
