#![doc = include_str!("../README.md")]

pub mod autograd;
pub mod backend;
mod capabilities;
mod cpu;
pub mod device;
mod dtype;
mod error;
pub mod execution;
mod layout;
mod linalg;
pub mod memory;
pub mod mixed_precision;
pub mod neural;
mod ops;
mod profile;
pub mod serialize;
mod shape;
mod storage;
pub mod tensor;
#[cfg(feature = "validation")]
mod validate;

pub use backend::Backend;
pub use capabilities::{CacheLevel, DeviceCapabilities};
pub use cpu::CpuBackend;
pub use device::{Device, auto_select_device, explain_device_selection};
pub use dtype::{BitNetDType, DTypeCategory, Element};
pub use error::{BitNetError, NumericalError, Result, TensorOpError};
pub use execution::{ExecutionContext, ExecutionContextBuilder};
pub use layout::{Indices, Layout};
#[cfg(feature = "linalg")]
pub use linalg::{Eigen, MatrixNorm};
pub use memory::{
    CleanupConfig, DetailedMetrics, HybridMemoryPool, LeakReport, LiveBlock, MappedFile, MemoryHandle,
    MemoryPoolConfig, MemoryPressureLevel, PoolMetrics, PoolTuning, PublishedMemory, RawMemory, SharedMemory, TIMELINE,
    TrackingConfig, TrackingLevel, install_signal_handlers,
};
pub use neural::{AttentionOptions, CrossEntropyOptions, Gelu, Reduction};
pub use ops::{Axes, Operand, Scalar, promote_types, result_type};
pub use profile::{OperationKind, OperationProfile, Profile, Profiler};
pub use shape::{INFER, MAX_DIMS, TensorShape};
pub use storage::{CpuStorage, DeviceStorage, TensorStorage};
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
