//! Cleanup: when unused memory is returned to the system. It uses the pool; the pool does not know it.

use super::config::CleanupConfig;
use super::core::Core;
use super::thread_cache;
use super::tracker::Tracker;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Minimum interval between checks of the device's free memory and of the pool's idle memory.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Gives back what rested for `idle`, and, if `pages`, free pages within regions; for a time, if there is one. Returns the
/// bytes of memory that the device has again.
fn clean(core: &Core, idle: Duration, pages: bool, time: Option<Duration>) -> usize {
    let started = Instant::now();
    let most = if time.is_some() { 1 } else { usize::MAX };
    let (mut bytes, mut found, mut stopped) = (0, false, false);
    while let Some(more) = core.central.give_back_unused(idle, pages, most) {
        (bytes, found) = (bytes + more, true);
        stopped = time.is_some_and(|time| started.elapsed() >= time);
        if stopped || time.is_none() {
            break;
        }
    }
    if found {
        let time = started.elapsed();
        let mut metrics = core.cleanups.lock().unwrap_or_else(|e| e.into_inner());
        metrics.cleanups += 1;
        metrics.stopped += usize::from(stopped);
        metrics.bytes += bytes;
        metrics.time += time;
        metrics.longest = metrics.longest.max(time);
    }
    bytes
}

/// Returns all unused memory. Other threads return their caches when they next free a block.
pub(super) fn compact(core: &Core) -> usize {
    flush_caches(core);
    clean(core, Duration::ZERO, true, None)
}

fn flush_caches(core: &Core) {
    core.central.caches().iter().for_each(|cache| cache.flush.store(true, Relaxed));
    thread_cache::flush_own(&core.central);
}

/// Periodic work after an operation that took a lock anyway, at the time `now`.
pub(super) fn maintain(core: &Core, now: Instant) {
    let now = now.saturating_duration_since(core.started).as_millis() as u64;
    let due = core.next_check.load(Relaxed);
    let next = now + CHECK_INTERVAL.as_millis() as u64;
    if now >= due && core.next_check.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
        check(core);
    } else {
        watch_limits(core);
    }
}

/// As [`maintain`], where nobody looked at the time.
pub(super) fn watch_limits(core: &Core) {
    if core.central.is_limited() {
        watch_pressure(core, false);
    }
}

/// Looks at how much is used: of the pool's limits, and of the device anew if `ask_device`, which takes some microseconds.
/// Cleans up when it comes to the threshold, and calls back when the level changed. Called without any lock.
fn watch_pressure(core: &Core, ask_device: bool) {
    let available = if ask_device { core.central.raw.available() } else { None };
    let parts = core.pressure.parts(core.central.filled(), available);
    if let Some(cleanup) = core.cleanup
        && core.pressure.reached(parts, cleanup.pressure_cleanup_threshold)
    {
        flush_caches(core);
        clean(core, Duration::ZERO, cleanup.enable_compaction, Some(cleanup.max_cleanup_time));
    }
    core.pressure.tell(parts);
}

fn check(core: &Core) {
    watch_pressure(core, true);
    if let Some(CleanupConfig { idle_cleanup_interval, enable_compaction, max_cleanup_time, .. }) = core.cleanup {
        clean(core, idle_cleanup_interval, enable_compaction, Some(max_cleanup_time));
    }
    core.tracker.iter().for_each(Tracker::detect_leaks);
}

/// Starts the thread that checks every `period`; it ends within a period after the pool.
pub(super) fn check_every(core: &Arc<Core>, period: Duration) -> std::io::Result<()> {
    let core = Arc::downgrade(core);
    std::thread::Builder::new().name("pool cleanup".into()).spawn(move || {
        loop {
            std::thread::sleep(period);
            let Some(core) = core.upgrade() else { return };
            check(&core);
        }
    })?;
    Ok(())
}
