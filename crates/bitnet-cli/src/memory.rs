//! Peak memory of this process.

/// The largest resident memory so far, in bytes; `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub fn peak_bytes() -> Option<u64> {
    // Not getrusage: its figure survives exec and would be that of the shell or test that started us, if larger.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The largest resident memory so far, in bytes; `None` where the system does not tell.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn peak_bytes() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    let peak = getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss();
    u64::try_from(peak).ok().map(|n| n * unit)
}

/// The largest resident memory so far, in bytes; `None` where the system does not tell.
#[cfg(not(unix))]
pub fn peak_bytes() -> Option<u64> {
    None
}
