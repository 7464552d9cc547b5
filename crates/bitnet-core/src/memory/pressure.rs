//! How near memory is to its end.

use super::pool::Core;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// How much of the memory is used: of a pool's limit, or of all the device has, whichever is nearer its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressureLevel {
    /// Below 70 %.
    Low,
    /// From 70 %.
    Medium,
    /// From 85 %.
    High,
    /// From 95 %.
    Critical,
}

impl MemoryPressureLevel {
    const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The level of `used` out of `total` bytes.
    pub fn of(used: u64, total: u64) -> Self {
        match used as f64 / total.max(1) as f64 {
            part if part >= 0.95 => Self::Critical,
            part if part >= 0.85 => Self::High,
            part if part >= 0.70 => Self::Medium,
            _ => Self::Low,
        }
    }
}

type Callback = Arc<dyn Fn(MemoryPressureLevel) + Send + Sync>;

/// The last level seen and who wants to know.
#[derive(Default)]
pub(super) struct Pressure {
    level: AtomicU8,
    device: AtomicU8,
    callbacks: Mutex<Vec<Callback>>,
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pressure({:?})", self.level())
    }
}

impl Pressure {
    pub(super) fn level(&self) -> MemoryPressureLevel {
        MemoryPressureLevel::ALL[self.level.load(Relaxed) as usize]
    }

    pub(super) fn register(&self, callback: Callback) {
        self.callbacks.lock().unwrap_or_else(|e| e.into_inner()).push(callback);
    }
}

impl Core {
    /// Looks at the level: that of the pool's limit, and that of the device anew if `ask_device`, which takes some
    /// microseconds. Cleans up and calls back when it changed. Called without any lock.
    pub(super) fn watch_pressure(&self, ask_device: bool) {
        if ask_device && let Some((free, total)) = self.raw.available() {
            self.pressure.device.store(MemoryPressureLevel::of(total.saturating_sub(free), total) as u8, Relaxed);
        }
        let own = MemoryPressureLevel::of(self.used.load(Relaxed) as u64, self.config.limit as u64) as u8;
        let level = own.max(self.pressure.device.load(Relaxed));
        let before = self.pressure.level.swap(level, Relaxed);
        if level == before {
            return;
        }
        if level > before && self.config.cleanup.pressure.is_some_and(|from| level >= from as u8) {
            self.compact();
        }
        let callbacks = self.pressure.callbacks.lock().unwrap_or_else(|e| e.into_inner()).clone();
        callbacks.iter().for_each(|callback| callback(MemoryPressureLevel::ALL[level as usize]));
    }
}
