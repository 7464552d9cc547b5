//! Capabilities of the host CPU, as the system reports them.

use bitnet_device::{CacheLevel, DeviceCapabilities};
use bitnet_kernels::Isa;
use std::fs;
use std::path::Path;

/// The host CPU with the kernels of `isa` on `threads` threads, which read memory at `memory_bandwidth_gbps`.
pub(crate) fn of_cpu(isa: Option<Isa>, threads: usize, memory_bandwidth_gbps: f64) -> DeviceCapabilities {
    let kib =
        |name| linux_field("/proc/meminfo", name)?.trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024);
    DeviceCapabilities {
        isa: isa.map(Isa::name),
        available_isas: Isa::available().into_iter().map(Isa::name).collect(),
        threads,
        model: linux_field("/proc/cpuinfo", "model name"),
        caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
        memory_bytes: kib("MemTotal"),
        available_bytes: kib("MemAvailable"),
        memory_bandwidth_gbps,
        ..DeviceCapabilities::named("cpu".into())
    }
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
