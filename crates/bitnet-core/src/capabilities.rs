//! Capabilities of devices, detected or measured, never guessed.

use crate::{Device, Result};
use bitnet_kernels::Isa;
use std::path::Path;
use std::{fs, thread};

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
    pub isa: Option<Isa>,
    /// Instruction sets the CPU can run, slowest first.
    pub available_isas: Vec<Isa>,
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
    pub fn for_device(device: &Device) -> Self {
        device.capabilities()
    }

    /// The capabilities of this computer's CPU; an error if `BITNET_ISA` asks for what it cannot run.
    pub fn cpu() -> Result<Self> {
        Isa::selected()?;
        Ok(Self::for_device(&Device::cpu()))
    }

    /// The host CPU with the kernels of `isa` on `threads` threads, which read memory at `memory_bandwidth_gbps`.
    pub(crate) fn of_cpu(isa: Option<Isa>, threads: usize, memory_bandwidth_gbps: f64) -> Self {
        let kib = |name| {
            linux_field("/proc/meminfo", name)?.trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Self {
            isa,
            available_isas: Isa::available(),
            cores: available_cores(),
            threads,
            model: linux_field("/proc/cpuinfo", "model name"),
            caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
            memory_bytes: kib("MemTotal"),
            available_bytes: kib("MemAvailable"),
            memory_bandwidth_gbps,
            ..Self::named("cpu".into())
        }
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

pub(crate) fn available_cores() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// Caches for data in a folder of Linux's sysfs, one folder `index0`, `index1`.. each.
fn caches(folder: &Path) -> Vec<CacheLevel> {
    let cache = |index: usize| {
        let read = |name: &str| fs::read_to_string(folder.join(format!("index{index}")).join(name)).ok();
        let kind = read("type")?;
        let size = read("size")?;
        let (digits, unit) = size.trim().split_at(size.trim().len().checked_sub(1)?);
        let bytes = digits.parse::<usize>().ok()? << if unit == "M" { 20 } else { 10 };
        let shared_by = cores_of(read("shared_cpu_list")?.trim())?;
        Some((kind.trim() != "Instruction").then_some(CacheLevel {
            level: read("level")?.trim().parse().ok()?,
            bytes,
            shared_by,
        }))
    };
    (0..).map_while(cache).flatten().collect()
}

/// How many numbers a list like `0-3,8` has.
fn cores_of(list: &str) -> Option<usize> {
    let part = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(to.parse::<usize>().ok()?.checked_sub(from.parse().ok()?)? + 1)
    };
    list.split(',').map(part).sum()
}

/// The value of a `name : value` line; `None` where the system has no such file.
fn linux_field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auto_select_device, explain_device_selection};

    #[test]
    fn a_cpu_knows_its_kernels_and_threads() {
        let scalar = Device::cpu_with_isa(Isa::Scalar, 3).unwrap();
        let found = DeviceCapabilities::for_device(&scalar);
        assert_eq!((found.isa, found.threads), (Some(Isa::Scalar), 3));
        assert!(found.available_isas.contains(&Isa::Scalar) && found.cores > 0);
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

    #[test]
    fn caches_as_linux_tells_them() {
        assert_eq!(cores_of("0-3,8"), Some(5));
        assert_eq!(cores_of("7"), Some(1));
        assert_eq!(cores_of("3-1"), None);
        let folder = std::env::temp_dir().join(format!("bitnet-caches-{}", std::process::id()));
        let files = [["Data", "48K", "1", "0"], ["Instruction", "32K", "1", "0"], ["Unified", "2M", "3", "0-7"]];
        for (index, values) in files.iter().enumerate() {
            let folder = folder.join(format!("index{index}"));
            fs::create_dir_all(&folder).unwrap();
            for (name, value) in ["type", "size", "level", "shared_cpu_list"].iter().zip(values) {
                fs::write(folder.join(name), format!("{value}\n")).unwrap();
            }
        }
        let level = |level, bytes, shared_by| CacheLevel { level, bytes, shared_by };
        assert_eq!(caches(&folder), [level(1, 48 << 10, 1), level(3, 2 << 20, 8)]);
        fs::remove_dir_all(&folder).unwrap();
        assert!(caches(&folder).is_empty());
    }
}
