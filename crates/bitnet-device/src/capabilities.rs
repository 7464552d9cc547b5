//! Capabilities of devices, detected or measured, never guessed.

use crate::Backend;
use std::thread;

/// Detected capabilities of a device.
#[derive(Debug, Clone)]
pub struct DeviceCapabilities {
    /// Name of the device.
    pub name: String,
    /// Whether it computes through CUDA.
    pub supports_cuda: bool,
    /// Whether it computes through Metal.
    pub supports_metal: bool,
    /// Whether it computes through MLX.
    pub supports_mlx: bool,
    /// Whether it computes through Vulkan.
    pub supports_vulkan: bool,
    /// Instruction set of the kernels that run, on a CPU; `None` if `BITNET_ISA` asks for what it cannot run.
    pub isa: Option<&'static str>,
    /// Instruction sets the CPU can run, slowest first.
    pub available_isas: Vec<&'static str>,
    /// Logical cores this process may use.
    pub cores: usize,
    /// Threads that the device computes with.
    pub threads: usize,
    /// Name of the processor, if the system reports it.
    pub model: Option<String>,
    /// The data caches of a core, L1 first, if the system reports them.
    pub caches: Vec<CacheLevel>,
    /// Total memory in bytes, if the system reports it.
    pub memory_bytes: Option<u64>,
    /// Available memory in bytes, if the system reports it.
    pub available_bytes: Option<u64>,
    /// GB/s (1e9) at which the device reads its memory, all threads of a CPU together: measured once for a device, when
    /// its capabilities are first requested, in at most 50 milliseconds. 0 if unknown.
    pub memory_bandwidth_gbps: f64,
}

/// A data cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLevel {
    /// 1 for L1, and so on.
    pub level: u32,
    /// Its size.
    pub bytes: usize,
    /// Logical cores that share it.
    pub shared_by: usize,
}

impl DeviceCapabilities {
    /// The capabilities of a device.
    pub fn for_device(device: &(impl AsRef<dyn Backend> + ?Sized)) -> Self {
        device.as_ref().capabilities()
    }

    /// A device of which only the name is known.
    pub fn named(name: String) -> Self {
        Self {
            name,
            supports_cuda: false,
            supports_metal: false,
            supports_mlx: false,
            supports_vulkan: false,
            isa: None,
            available_isas: Vec::new(),
            cores: available_cores(),
            threads: 0,
            model: None,
            caches: Vec::new(),
            memory_bytes: None,
            available_bytes: None,
            memory_bandwidth_gbps: 0.0,
        }
    }
}

fn available_cores() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}
