//! Devices, which store tensors and compute on them.
//!
//! ```
//! # fn main() -> bitnet_core::Result<()> {
//! use bitnet_core::device::{auto_select_device, DeviceCapabilities};
//!
//! // Automatic device selection
//! let device = auto_select_device();
//! println!("Selected device: {:?}", device);
//!
//! // Check device capabilities
//! let caps = DeviceCapabilities::for_device(&device);
//! println!("Supports Metal: {}", caps.supports_metal);
//! println!("Memory bandwidth: {} GB/s", caps.memory_bandwidth_gbps);
//! # Ok(())
//! # }
//! ```

pub use bitnet_cpu::{Isa, IsaError, available_threads};
pub use bitnet_device::{CacheLevel, DeviceCapabilities};

use crate::backend::Backend;
use crate::delegate::Pooled;
use crate::profile::{self, Profiled};
use crate::{BitNetError, HybridMemoryPool, Result};
use bitnet_cpu::CpuBackend;
use bitnet_device::registry;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// A handle to a device, cheap to clone; its operations are those of [`Backend`].
#[derive(Clone)]
pub struct Device(Handle);

#[derive(Clone)]
enum Handle {
    /// The host CPU. It is never dropped, so that handles need not be counted, which would cost a third of a view.
    Cpu(&'static Profiled),
    Counted(Arc<Profiled>),
}

impl Device {
    /// The host CPU, with a thread for each core; one device for the whole process.
    pub fn cpu() -> Self {
        static CPU: OnceLock<Profiled> = OnceLock::new();
        Self(Handle::Cpu(CPU.get_or_init(|| profiled(Arc::new(CpuBackend::new(Isa::selected(), available_threads()))))))
    }

    /// A separate CPU device with its own threads (at least one).
    pub fn cpu_with_threads(threads: usize) -> Self {
        Self::from_backend(Arc::new(CpuBackend::new(Isa::selected(), threads)))
    }

    /// A separate CPU device with its own memory pool and this many threads (at least one).
    pub fn cpu_with_pool(pool: &HybridMemoryPool, threads: usize) -> Self {
        Self::from_backend(Arc::new(CpuBackend::new(Isa::selected(), threads).with_memory(pool)))
    }

    /// A CPU device with the kernels of one instruction set; an error if the CPU cannot run them.
    pub fn cpu_with_isa(isa: Isa, threads: usize) -> Result<Self> {
        if !Isa::available().contains(&isa) {
            let known: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
            let message = format!("this CPU cannot run {} kernels; it can run {}", isa.name(), known.join(", "));
            return Err(BitNetError::NoDevice(message));
        }
        Ok(Self::from_backend(Arc::new(CpuBackend::new(Ok(isa), threads))))
    }

    /// NVIDIA GPU `index`.
    pub fn cuda(index: usize) -> Result<Self> {
        Self::open("cuda", index)
    }

    /// Apple GPU `index`, through Metal.
    pub fn metal(index: usize) -> Result<Self> {
        Self::open("metal", index)
    }

    /// GPU `index`, through Vulkan.
    pub fn vulkan(index: usize) -> Result<Self> {
        Self::open("vulkan", index)
    }

    /// Apple GPU, through MLX.
    pub fn mlx() -> Result<Self> {
        Self::open("mlx", 0)
    }

    /// The first GPU compiled in and present: through MLX, then Metal, CUDA and Vulkan.
    pub fn gpu() -> Result<Self> {
        let found = ["mlx", "metal", "cuda", "vulkan"].into_iter().find_map(|kind| Self::open(kind, 0).ok());
        found.ok_or_else(|| {
            let message = match registry::registered() {
                kinds if kinds.is_empty() => "no GPU is compiled into this build: use the cpu".into(),
                kinds => format!("no GPU was found through {}: use the cpu", kinds.join(", ")),
            };
            BitNetError::NoDevice(message)
        })
    }

    /// Device `index` of a [registered](bitnet_device::registry) kind; the same one at every call.
    pub fn open(kind: &str, index: usize) -> Result<Self> {
        Ok(Self::from_backend(registry::open(kind, index)?))
    }

    /// The device of a name such as `cpu`, `cuda:1` or `vulkan` (which is `vulkan:0`).
    pub fn named(name: &str) -> Result<Self> {
        if name == "cpu" {
            return Ok(Self::cpu());
        }
        let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
        let wrong =
            |_| BitNetError::NoDevice(format!("{name:?} is not a device: use cpu, or a kind and a number as cuda:0"));
        Self::open(kind, index.parse().map_err(wrong)?)
    }

    /// A device implemented outside this crate.
    pub fn from_backend(backend: Arc<dyn Backend>) -> Self {
        Self(Handle::Counted(Arc::new(profiled(backend))))
    }

    /// This host device, equal to it, with results in memory of `pool`.
    pub(crate) fn with_pool(&self, pool: &HybridMemoryPool) -> Self {
        let pooled = Arc::new(Pooled(self.profiled().0.clone(), pool.clone()));
        Self(Handle::Counted(Arc::new(Profiled(pooled))))
    }

    #[inline]
    fn profiled(&self) -> &Profiled {
        match &self.0 {
            Handle::Cpu(device) => device,
            Handle::Counted(device) => device,
        }
    }
}

fn profiled(backend: Arc<dyn Backend>) -> Profiled {
    #[cfg(feature = "validation")]
    let backend = Arc::new(crate::validate::Validated(backend));
    Profiled(backend)
}

impl Deref for Device {
    type Target = dyn Backend;

    #[inline]
    fn deref(&self) -> &Self::Target {
        let device = self.profiled();
        if profile::is_active() { device } else { &*device.0 }
    }
}

impl AsRef<dyn Backend> for Device {
    fn as_ref(&self) -> &(dyn Backend + 'static) {
        &**self
    }
}

impl PartialEq for Device {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.profiled(), other.profiled());
        std::ptr::eq(a, b) || std::ptr::addr_eq(a.as_dyn(), b.as_dyn())
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The best device that is compiled in and present.
pub fn auto_select_device() -> Device {
    select().0
}

/// The reason for the choice of [`auto_select_device`], in one line.
pub fn explain_device_selection() -> &'static str {
    select().1
}

/// The capabilities of this computer's CPU; an error if `BITNET_ISA` asks for what it cannot run.
pub fn cpu_capabilities() -> Result<DeviceCapabilities> {
    Isa::selected()?;
    Ok(DeviceCapabilities::for_device(&Device::cpu()))
}

fn select() -> (Device, &'static str) {
    match Device::gpu() {
        Ok(gpu) => (gpu, "it is the first GPU present"),
        Err(_) if registry::registered().is_empty() => (Device::cpu(), "no GPU backend is compiled into this build"),
        Err(_) => (Device::cpu(), "no GPU is present"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_knows_its_kernels_and_threads() {
        let scalar = Device::cpu_with_isa(Isa::Scalar, 3).unwrap();
        let found = DeviceCapabilities::for_device(&scalar);
        assert_eq!((found.isa, found.threads), (Some("scalar"), 3));
        assert!(found.available_isas.contains(&"scalar") && found.cores > 0);
        assert!(
            ![found.supports_cuda, found.supports_metal, found.supports_mlx, found.supports_vulkan].contains(&true)
        );
        let (selected, why) = (auto_select_device(), explain_device_selection());
        assert_eq!((selected, why), (Device::cpu(), "no GPU backend is compiled into this build"));
    }

    #[test]
    fn memory_bandwidth_is_measured_once() {
        let device = Device::cpu_with_threads(1);
        let first = DeviceCapabilities::for_device(&device).memory_bandwidth_gbps;
        assert!((0.01..1e5).contains(&first), "{first} GB/s");
        assert_eq!(DeviceCapabilities::for_device(&device).memory_bandwidth_gbps, first);
    }
}
