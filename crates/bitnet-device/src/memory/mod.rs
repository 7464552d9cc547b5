//! Memory of tensors: pools of small and large blocks, memory-mapped files, and memory shared between processes.

mod buddy;
pub mod cleanup;
mod config;
mod counters;
mod handle;
mod holder;
mod large;
mod mapped;
mod pool;
mod pressure;
mod raw;
mod shared;
mod signals;
mod small;
mod thread_cache;
pub mod tracking;

/// Atomics of `counters`; `tests/loom.rs` substitutes loom's.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
}

pub use cleanup::CleanupConfig;
pub use config::{MemoryPoolConfig, PoolTuning};
pub use handle::MemoryHandle;
pub use mapped::MappedFile;
pub use pool::{HybridMemoryPool, PoolMetrics};
pub use pressure::MemoryPressureLevel;
pub use raw::RawMemory;
pub use shared::{PublishedMemory, SharedMemory};
pub use signals::install_signal_handlers;
pub use tracking::{DetailedMetrics, LeakReport, LiveBlock, TIMELINE, TrackingConfig, TrackingLevel};
