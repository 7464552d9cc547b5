//! Memory pressure: its level, and who is called when it changes. It is told how much is used, and knows no pool.

use super::config::TrackingConfig;
use super::metrics::MemoryPressureLevel;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

type Callback = Arc<dyn Fn(MemoryPressureLevel) + Send + Sync>;

/// The last level seen, and the callbacks.
pub(super) struct Pressure {
    /// Whether levels are looked at.
    detected: bool,
    threshold: f64,
    level: AtomicU8,
    /// Part of the device's memory that is used, as the bits of an `f32`.
    device: AtomicU32,
    /// Whether so much was used, when last looked at, that a cleanup was due: of the pool's limits, and of the device.
    cleaned: [AtomicBool; 2],
    callbacks: Mutex<Vec<Callback>>,
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pressure({:?})", self.level())
    }
}

impl Pressure {
    pub(super) fn new(config: TrackingConfig) -> Self {
        Self {
            detected: config.enable_pressure_detection,
            threshold: config.pressure_threshold_ratio,
            level: AtomicU8::new(0),
            device: AtomicU32::new(0),
            cleaned: Default::default(),
            callbacks: Mutex::default(),
        }
    }

    pub(super) fn level(&self) -> MemoryPressureLevel {
        MemoryPressureLevel::ALL[self.level.load(Relaxed) as usize]
    }

    pub(super) fn register(&self, callback: Callback) {
        self.callbacks.lock().unwrap_or_else(|e| e.into_inner()).push(callback);
    }

    /// The parts that are used: `filled` of the pool's limits, and of the device, which has `available` (free and total
    /// bytes) if that was looked at anew.
    pub(super) fn parts(&self, filled: f32, available: Option<(u64, u64)>) -> [f64; 2] {
        if let Some((free, total)) = available {
            let used = total.saturating_sub(free) as f32 / total.max(1) as f32;
            self.device.store(used.to_bits(), Relaxed);
        }
        [filled, f32::from_bits(self.device.load(Relaxed))].map(f64::from)
    }

    /// Whether one of the parts reached `threshold` since they were last looked at.
    pub(super) fn reached(&self, parts: [f64; 2], threshold: f64) -> bool {
        let crossed = |(before, used): (&AtomicBool, f64)| {
            let due = used >= threshold;
            !before.swap(due, Relaxed) && due
        };
        self.cleaned.iter().zip(parts).map(crossed).fold(false, |any, crossed| any | crossed)
    }

    /// Calls back if the level changed. Called without any lock.
    pub(super) fn tell(&self, parts: [f64; 2]) {
        if !self.detected {
            return;
        }
        let level = MemoryPressureLevel::of(parts[0].max(parts[1]), self.threshold);
        if self.level.swap(level as u8, Relaxed) != level as u8 {
            let callbacks = self.callbacks.lock().unwrap_or_else(|e| e.into_inner()).clone();
            callbacks.iter().for_each(|callback| callback(level));
        }
    }
}
