#![doc = include_str!("../README.md")]

pub mod autograd;
mod delegate;
pub mod device;
pub mod execution;
mod linalg;
pub mod memory;
pub mod mixed_precision;
pub mod neural;
mod ops;
mod profile;
#[cfg(feature = "parallel")]
mod rayon_threads;
pub mod selftest;
pub mod serialize;
pub mod tensor;
#[cfg(feature = "validation")]
mod validate;

pub use bitnet_cpu::CpuBackend;
pub use bitnet_device::{
    Backend, BitNetDType, BitNetError, BlockType, CacheLevel, CleanupConfig, CleanupMetrics, CpuStorage, DTypeCategory,
    DetailedMetrics, DeviceCapabilities, DeviceStorage, Element, HybridMemoryPool, INFER, Indices, Layout, LeakReport,
    LiveBlock, MAX_DIMS, MappedFile, MemoryHandle, MemoryPoolConfig, MemoryPressureLevel, NumericalError, PoolMetrics,
    PoolTuning, PublishedMemory, RawMemory, Result, Scalar, SharedMemory, TIMELINE, TensorOpError, TensorShape,
    TensorStorage, TrackingConfig, TrackingLevel, backend, install_signal_handlers, narrowed, registry,
};
pub use device::{Device, auto_select_device, explain_device_selection};
pub use execution::{ExecutionContext, ExecutionContextBuilder};
#[cfg(feature = "linalg")]
pub use linalg::{Eigen, MatrixNorm};
pub use neural::{AttentionOptions, CrossEntropyOptions, Gelu, Reduction};
pub use ops::{Axes, Operand, promote_types, result_type};
pub use profile::{OperationKind, OperationProfile, Profile, Profiler};
#[cfg(feature = "parallel")]
pub use rayon_threads::start_rayon;
pub use tensor::{BitNetTensor, Generator, Index, Slice, TensorMetadata};

/// The examples of the guides, compiled and run as doc tests.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/tensors.md")]
    pub struct Tensors;
    #[doc = include_str!("../../../docs/performance.md")]
    pub struct Performance;
    #[doc = include_str!("../../../docs/training.md")]
    pub struct Training;
}
