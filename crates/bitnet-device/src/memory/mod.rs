//! Memory of tensors: pools of small and large blocks, memory-mapped files, and memory shared between processes.

mod buddy;
mod cache;
mod central;
mod cleanup;
mod config;
mod core;
mod counters;
mod handle;
mod holder;
mod large;
mod mapped;
mod metrics;
mod pool;
mod pressure;
mod raw;
mod shared;
mod signals;
mod small;
mod thread_cache;
mod tracker;

/// Atomics, locks and what a thread has of its own; `tests/loom.rs` substitutes loom's.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU32, AtomicUsize, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard};
    pub(super) use std::thread_local;
}

pub use config::{CleanupConfig, MemoryPoolConfig, PoolTuning, TrackingConfig, TrackingLevel};
pub use handle::MemoryHandle;
pub use mapped::MappedFile;
pub use metrics::{CleanupMetrics, DetailedMetrics, LeakReport, LiveBlock, MemoryPressureLevel, PoolMetrics, TIMELINE};
pub use pool::HybridMemoryPool;
pub use raw::RawMemory;
pub use shared::{PublishedMemory, SharedMemory};
pub use signals::install_signal_handlers;
