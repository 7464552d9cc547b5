#![doc = include_str!("../README.md")]

pub mod backend;
mod block_type;
mod capabilities;
mod dtype;
mod error;
mod layout;
pub mod memory;
pub mod registry;
mod scalar;
mod shape;
mod storage;

pub use backend::Backend;
pub use block_type::BlockType;
pub use capabilities::{CacheLevel, DeviceCapabilities};
pub use dtype::{BitNetDType, DTypeCategory, Element};
pub use error::{BitNetError, NumericalError, Result, TensorOpError};
pub use layout::{Indices, Layout};
pub use memory::{
    CleanupConfig, CleanupMetrics, DetailedMetrics, HybridMemoryPool, LeakReport, LiveBlock, MappedFile, MemoryHandle,
    MemoryPoolConfig, MemoryPressureLevel, PoolMetrics, PoolTuning, PublishedMemory, RawMemory, SharedMemory, TIMELINE,
    TrackingConfig, TrackingLevel, install_signal_handlers,
};
pub use scalar::{Scalar, narrowed};
pub use shape::{INFER, MAX_DIMS, TensorShape};
pub use storage::{CpuStorage, DeviceStorage, TensorStorage};
