//! Cleanup: when unused memory is returned to the system.

use super::large::Unused;
use super::pool::Core;
use super::thread_cache;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Minimum interval between checks of the device's free memory and of the pool's idle memory.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// When a pool returns unused memory automatically; [`compact`](super::HybridMemoryPool::compact) returns all at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CleanupConfig {
    /// Regions in which nothing was freed for this long return their unused memory. Checked when the pool
    /// is used, at most twice a second, or by a thread ([`cleanup_period`](super::PoolTuning::cleanup_period)). Default
    /// 10 seconds.
    pub idle_cleanup_interval: Duration,
    /// All unused memory is returned when this fraction, from 0 to 1, of a limit of the pool or of the device's memory
    /// is used. Default 0.85.
    pub pressure_cleanup_threshold: f64,
    /// Whether free pages of regions that are partly in use go back too, or whole regions only. Default yes.
    pub enable_compaction: bool,
    /// A cleanup returns one region after another and stops after this time; the next one continues. Default 100
    /// milliseconds.
    pub max_cleanup_time: Duration,
}

impl Default for CleanupConfig {
    fn default() -> Self {
        Self {
            idle_cleanup_interval: Duration::from_secs(10),
            pressure_cleanup_threshold: 0.85,
            enable_compaction: true,
            max_cleanup_time: Duration::from_millis(100),
        }
    }
}

impl Core {
    /// Gives back what rested for `idle`, and, if `pages`, free pages within regions; for a time, if there is one.
    /// Returns the bytes of memory that the device has again.
    fn clean(&self, idle: Duration, pages: bool, time: Option<Duration>) -> usize {
        let started = Instant::now();
        let most = if time.is_some() { 1 } else { usize::MAX };
        let mut bytes = 0;
        loop {
            let unused = self.with_central(|central| central.give_back_unused(idle, pages, most));
            let done = unused.iter().all(Unused::is_empty);
            bytes += unused.into_iter().map(|unused| unused.release(&*self.raw)).sum::<usize>();
            if done || time.is_none_or(|time| started.elapsed() >= time) {
                return bytes;
            }
        }
    }

    /// Returns all unused memory. Other threads return their caches when they next free a block.
    pub(super) fn compact(&self) -> usize {
        self.flush_caches();
        self.clean(Duration::ZERO, true, None)
    }

    fn flush_caches(&self) {
        self.caches().iter().for_each(|cache| cache.flush.store(true, Relaxed));
        thread_cache::flush_own(self);
    }

    /// [`compact`](Self::compact), as far as the configuration lets an automatic cleanup go.
    pub(super) fn clean_under_pressure(&self, cleanup: CleanupConfig) {
        self.flush_caches();
        self.clean(Duration::ZERO, cleanup.enable_compaction, Some(cleanup.max_cleanup_time));
    }

    /// Periodic work of the pool: called after operations that took a lock anyway.
    pub(super) fn maintain(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        let due = self.next_check.load(Relaxed);
        let next = now + CHECK_INTERVAL.as_millis() as u64;
        if now >= due && self.next_check.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
            self.check();
        } else if self.is_limited() {
            self.watch_pressure(false);
        }
    }

    fn check(&self) {
        self.watch_pressure(true);
        if let Some(cleanup) = self.cleanup {
            self.clean(cleanup.idle_cleanup_interval, cleanup.enable_compaction, Some(cleanup.max_cleanup_time));
        }
        if let Some(tracker) = &self.tracker {
            tracker.detect_leaks();
        }
    }

    /// Starts the thread that checks every `period`; it ends within a period after the pool.
    pub(super) fn check_every(core: &Arc<Self>, period: Duration) -> std::io::Result<()> {
        let core = Arc::downgrade(core);
        std::thread::Builder::new().name("pool cleanup".into()).spawn(move || {
            loop {
                std::thread::sleep(period);
                let Some(core) = core.upgrade() else { return };
                core.check();
            }
        })?;
        Ok(())
    }
}
