//! When memory that nobody uses goes back to the system.

use super::MemoryPressureLevel;
use super::pool::Core;
use super::thread_cache;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often the device's memory is asked after, at most, and idle memory looked for.
const LOOK: Duration = Duration::from_millis(500);

/// What a pool gives back unasked. Whatever is `None` does not happen; [`compact`](super::HybridMemoryPool::compact)
/// gives back everything at once.
#[derive(Debug, Clone, Copy)]
pub struct CleanupConfig {
    /// Regions in which nothing was taken or given back for so long give back what they do not use. Looked for when the
    /// pool is used, at most twice a second. Default 10 seconds.
    pub idle: Option<Duration>,
    /// Everything unused goes back when the pressure rises to this level. Default [`MemoryPressureLevel::High`].
    pub pressure: Option<MemoryPressureLevel>,
    /// A thread of the pool looks this often, so that a pool that nobody uses is cleaned too. Default: none does.
    pub period: Option<Duration>,
}

impl Default for CleanupConfig {
    fn default() -> Self {
        Self { idle: Some(Duration::from_secs(10)), pressure: Some(MemoryPressureLevel::High), period: None }
    }
}

impl Core {
    /// Gives back what rested for `idle`; returns the bytes of memory that the device has again.
    fn clean(&self, idle: Duration) -> usize {
        let unused = self.with_central(|small, large| {
            small.give_back_empty(large);
            large.give_back_unused(idle, true)
        });
        unused.release(&*self.raw)
    }

    /// Gives back all that is not in use. Other threads give back their caches when they next free a block.
    pub(super) fn compact(&self) -> usize {
        self.caches().iter().for_each(|cache| cache.flush.store(true, Relaxed));
        thread_cache::flush_own(self);
        self.clean(Duration::ZERO)
    }

    /// What is due when the pool is used: called by operations that took a lock anyway, after it.
    pub(super) fn tend(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        let due = self.next_look.load(Relaxed);
        let next = now + LOOK.as_millis() as u64;
        if now >= due && self.next_look.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
            self.look();
        } else if self.config.limit != usize::MAX {
            self.watch_pressure(false);
        }
    }

    fn look(&self) {
        self.watch_pressure(true);
        if let Some(idle) = self.config.cleanup.idle {
            self.clean(idle);
        }
    }

    /// Starts the thread that looks every `period`; it ends within a period of the pool's end.
    pub(super) fn look_every(core: &Arc<Self>, period: Duration) -> std::io::Result<()> {
        let core = Arc::downgrade(core);
        std::thread::Builder::new().name("pool cleanup".into()).spawn(move || {
            loop {
                std::thread::sleep(period);
                let Some(core) = core.upgrade() else { return };
                core.look();
            }
        })?;
        Ok(())
    }
}
