//! Memory of tensors: a pool for small and large blocks, and mapped files.

mod large;
mod mapped;
mod pool;
mod small;

pub use mapped::MappedFile;
pub use pool::{HybridMemoryPool, MemoryHandle, MemoryPoolConfig, PoolMetrics};
