//! Memory of tensors: pools of small and large blocks, memory-mapped files, and memory shared between processes.
//!
//! A pool, its metrics, and a block:
//!
//! ```
//! # fn main() -> bitnet_core::Result<()> {
//! use bitnet_core::memory::{HybridMemoryPool, MemoryPoolConfig};
//! use bitnet_core::device::auto_select_device;
//!
//! // Create memory pool with default configuration
//! let pool = HybridMemoryPool::new()?;
//! let device = auto_select_device();
//!
//! // Allocate 1MB of memory with 64-byte alignment
//! let handle = pool.allocate(1024 * 1024, 64, &device)?;
//!
//! // Get memory metrics
//! let metrics = pool.get_metrics();
//! println!("Total allocated: {} bytes", metrics.total_allocated);
//! println!("Peak usage: {} bytes", metrics.peak_allocated);
//!
//! // Deallocate memory
//! pool.deallocate(handle)?;
//! # Ok(())
//! # }
//! ```
//!
//! Tracking, and a callback for memory pressure levels:
//!
//! ```
//! # fn main() -> bitnet_core::Result<()> {
//! # use bitnet_core::memory::HybridMemoryPool;
//! use bitnet_core::memory::{
//!     MemoryPoolConfig, TrackingConfig, TrackingLevel,
//!     MemoryPressureLevel
//! };
//!
//! // Configure advanced tracking
//! let mut config = MemoryPoolConfig::default();
//! config.enable_advanced_tracking = true;
//! config.tracking_config = Some(TrackingConfig {
//!     level: TrackingLevel::Detailed,
//!     enable_pressure_detection: true,
//!     enable_leak_detection: true,
//!     ..Default::default()
//! });
//!
//! let pool = HybridMemoryPool::with_config(config)?;
//!
//! // Register pressure callback
//! pool.register_pressure_callback(Box::new(|level| {
//!     match level {
//!         MemoryPressureLevel::Critical => {
//!             eprintln!("CRITICAL: Memory pressure detected!");
//!         },
//!         MemoryPressureLevel::High => {
//!             println!("HIGH: Memory pressure detected");
//!         },
//!         _ => {}
//!     }
//! }));
//!
//! // Get detailed metrics
//! if let Some(detailed) = pool.get_detailed_metrics() {
//!     println!("Pressure level: {:?}", detailed.pressure_level);
//!     println!("Fragmentation: {:.2}%", detailed.fragmentation_ratio * 100.0);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! All fields of the configuration; [`PoolTuning`] holds what few need to change:
//!
//! ```
//! # fn main() -> bitnet_core::Result<()> {
//! # use bitnet_core::memory::{HybridMemoryPool, TrackingLevel};
//! # use std::time::Duration;
//! use bitnet_core::memory::{MemoryPoolConfig, TrackingConfig, CleanupConfig};
//!
//! let config = MemoryPoolConfig {
//!     // Pool sizing
//!     initial_small_pool_size: 64 * 1024 * 1024,  // 64MB
//!     max_small_pool_size: 512 * 1024 * 1024,     // 512MB
//!     initial_large_pool_size: 128 * 1024 * 1024, // 128MB
//!     max_large_pool_size: 2 * 1024 * 1024 * 1024, // 2GB
//!
//!     // Tracking configuration
//!     enable_advanced_tracking: true,
//!     tracking_config: Some(TrackingConfig {
//!         level: TrackingLevel::Standard,
//!         enable_pressure_detection: true,
//!         enable_leak_detection: true,
//!         pressure_threshold_ratio: 0.8,
//!         leak_detection_interval: Duration::from_secs(60),
//!     }),
//!
//!     // Cleanup configuration
//!     enable_automatic_cleanup: true,
//!     cleanup_config: Some(CleanupConfig {
//!         idle_cleanup_interval: Duration::from_secs(30),
//!         pressure_cleanup_threshold: 0.9,
//!         enable_compaction: true,
//!         max_cleanup_time: Duration::from_millis(100),
//!     }),
//! };
//!
//! let pool = HybridMemoryPool::with_config(config)?;
//! # Ok(())
//! # }
//! ```

mod compressed;
mod patterns;
mod state;

pub use bitnet_device::memory::*;
pub use compressed::CompressedTensor;
pub use state::PoolState;

pub mod tracking {
    //! What a pool tracks, and what can be told from it: nothing here runs until it is asked.

    pub use super::patterns::{AllocationPattern, DeviceUtilisation, anomalies};
    pub use bitnet_device::memory::{DetailedMetrics, LeakReport, TIMELINE, TrackingConfig, TrackingLevel};

    pub mod config {
        //! What is tracked.
        pub use bitnet_device::memory::{TrackingConfig, TrackingLevel};
    }
    pub mod patterns {
        //! Patterns of allocation, and anomalies.
        pub use super::super::patterns::{AllocationPattern, anomalies};
    }
    pub mod pressure {
        //! Memory pressure.
        pub use super::super::patterns::DeviceUtilisation;
        pub use bitnet_device::memory::MemoryPressureLevel;
    }
    pub mod profiler {
        //! Who holds memory, and all metrics.
        pub use bitnet_device::memory::{DetailedMetrics, LeakReport, LiveBlock, PoolMetrics};
    }
    pub mod timeline {
        //! Bytes in use over time: [`DetailedMetrics::timeline`](super::DetailedMetrics::timeline).
        pub use bitnet_device::memory::TIMELINE;
    }
}

pub mod cleanup {
    //! When unused memory goes back to the system, and what that did.

    pub use bitnet_device::memory::{CleanupConfig, CleanupMetrics, PoolTuning};

    pub mod config {
        //! When memory goes back.
        pub use bitnet_device::memory::CleanupConfig;
    }
    pub mod manager {
        //! A pool cleans up by itself, and when [asked](HybridMemoryPool::compact).
        pub use bitnet_device::memory::HybridMemoryPool;
    }
    pub mod metrics {
        //! What cleanups did.
        pub use bitnet_device::memory::CleanupMetrics;
    }
    pub mod scheduler {
        //! A thread that cleans an idle pool: [`PoolTuning::cleanup_period`].
        pub use bitnet_device::memory::PoolTuning;
    }
    pub mod strategies {
        //! Idle regions, pressure and compaction: the fields of [`CleanupConfig`].
        pub use bitnet_device::memory::CleanupConfig;
    }
}

pub mod tensor {
    //! Tensors in a pool's memory.
    //!
    //! ```
    //! # fn main() -> bitnet_core::Result<()> {
    //! # use bitnet_core::memory::HybridMemoryPool;
    //! use bitnet_core::memory::tensor::{BitNetTensor, BitNetDType, TensorMetadata};
    //! use bitnet_core::device::auto_select_device;
    //!
    //! let device = auto_select_device();
    //! let pool = HybridMemoryPool::new()?;
    //!
    //! // Create tensor metadata
    //! let metadata = TensorMetadata::new(
    //!     vec![128, 256],  // shape
    //!     BitNetDType::F32,
    //!     device.clone()
    //! );
    //!
    //! // Create tensor
    //! let tensor = BitNetTensor::new(metadata, &pool)?;
    //! println!("Tensor shape: {:?}", tensor.shape());
    //! println!("Tensor device: {:?}", tensor.device());
    //! # Ok(())
    //! # }
    //! ```

    pub use crate::{BitNetDType, BitNetTensor, TensorMetadata};
}
