//! The state of a pool, saved and restored.

use crate::{BitNetError, HybridMemoryPool, MemoryPoolConfig, PoolMetrics, PoolTuning, Result, TensorOpError};
use serde::{Deserialize, Serialize};

/// Distance at which memory is touched to be committed: no page is smaller.
const PAGE: usize = 4096;

/// What a pool was configured to, what it counted, and which free blocks it held: a program that starts again can take the
/// same memory from the system at once, before it is needed.
///
/// ```
/// use bitnet_core::{HybridMemoryPool, memory::PoolState};
/// let pool = HybridMemoryPool::new()?;
/// drop([pool.allocate_bytes(1000)?, pool.allocate_bytes(3 << 20)?]);
/// let json = PoolState::of(&pool).to_json();
///
/// let again = PoolState::from_json(&json)?.restore()?;
/// let before = again.get_metrics();
/// let block = again.allocate_bytes(3 << 20)?;
/// assert_eq!(again.get_metrics().hits, before.hits + 1, "its memory is warm");
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolState {
    /// The configuration.
    pub config: MemoryPoolConfig,
    /// Its rarely needed settings.
    pub tuning: PoolTuning,
    /// What it counted, for the record: a restored pool counts anew.
    pub metrics: PoolMetrics,
    /// Bytes and number of the [free blocks](HybridMemoryPool::free_blocks).
    pub free_blocks: Vec<(usize, usize)>,
}

impl PoolState {
    /// The state of a pool of host memory now.
    pub fn of(pool: &HybridMemoryPool) -> Self {
        let (config, tuning) = pool.config();
        Self { config, tuning, metrics: pool.get_metrics(), free_blocks: pool.free_blocks() }
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers, and names of fields")
    }

    /// From JSON. Errors: it is not such a state.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| argument(error.to_string()))
    }

    /// A pool of this configuration that holds these free blocks. Errors: those of
    /// [`with_tuning`](HybridMemoryPool::with_tuning), or blocks beyond the limits or the memory.
    pub fn restore(&self) -> Result<HybridMemoryPool> {
        let pool = HybridMemoryPool::with_tuning(self.config, self.tuning)?;
        let mut held = Vec::new();
        for &(bytes, count) in &self.free_blocks {
            for _ in 0..count {
                let mut block = pool.allocate_bytes(bytes)?;
                block.bytes_mut().iter_mut().step_by(PAGE).for_each(|byte| *byte = 0);
                held.push(block);
            }
        }
        // From this thread's cache back to the pool's lists, where free pages join.
        drop(held);
        pool.free_blocks();
        Ok(pool)
    }
}

fn argument(message: String) -> BitNetError {
    TensorOpError::Argument { op: "PoolState", message }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TrackingConfig, TrackingLevel};

    fn pool() -> HybridMemoryPool {
        let tracking = TrackingConfig { level: TrackingLevel::Basic, ..Default::default() };
        let config = MemoryPoolConfig {
            initial_large_pool_size: 8 << 20,
            max_large_pool_size: 64 << 20,
            enable_advanced_tracking: true,
            tracking_config: Some(tracking),
            enable_automatic_cleanup: false,
            ..Default::default()
        };
        HybridMemoryPool::with_config(config).unwrap()
    }

    #[test]
    fn a_restored_pool_has_what_was_warm() {
        let pool = pool();
        let sizes = [100, 1000, 40_000, 600_000, 1 << 20, 3 << 20, 9 << 20];
        let use_it = |pool: &HybridMemoryPool| sizes.map(|len| pool.allocate_bytes(len).unwrap());
        let kept = pool.allocate_bytes(5 << 20).unwrap();
        drop(use_it(&pool));
        let state = PoolState::of(&pool);
        let again = PoolState::from_json(&state.to_json()).unwrap();
        assert_eq!(again, state);
        assert_eq!((state.metrics.allocations, state.config.max_large_pool_size), (8, 64 << 20));

        let restored = again.restore().unwrap();
        let held = |pool: &HybridMemoryPool| pool.get_detailed_metrics().unwrap().held_bytes;
        assert_eq!(restored.get_metrics().total_allocated, 0);
        let (was, is) = (held(&pool) - kept.len(), held(&restored));
        assert!(is >= was && is <= was + was / 8, "{is} bytes for {was}");
        drop(use_it(&restored));
        assert_eq!(held(&restored), is, "nothing new was asked for");
    }

    #[test]
    fn what_is_no_state_or_does_not_fit_is_an_error() {
        assert!(PoolState::from_json("{}").unwrap_err().to_string().contains("missing field"));
        let mut state = PoolState::of(&pool());
        state.free_blocks = vec![(40 << 20, 2)];
        assert!(matches!(state.restore(), Err(BitNetError::PoolLimit { .. })));
    }
}
