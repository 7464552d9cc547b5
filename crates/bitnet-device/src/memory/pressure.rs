//! Memory pressure levels.

use super::pool::Core;
use super::tracking::TrackingConfig;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// How much of the memory is used: of a limit of the pool, or of all the device has, whichever is the larger part.
///
/// The levels follow from [`pressure_threshold_ratio`](TrackingConfig::pressure_threshold_ratio), here called `r`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressureLevel {
    /// Less than `Medium`.
    Low,
    /// From `2 r - 1`: with the default 70 %.
    Medium,
    /// From `r`: with the default 85 %.
    High,
    /// From `r + (1 - r) * 2 / 3`: with the default 95 %.
    Critical,
}

impl MemoryPressureLevel {
    const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The level where `used` of the memory is used, from 0 to 1, and `High` begins at `threshold`.
    fn of(used: f64, threshold: f64) -> Self {
        let free = 1.0 - threshold;
        match used {
            used if used >= threshold + free * 2.0 / 3.0 => Self::Critical,
            used if used >= threshold => Self::High,
            used if used >= threshold - free => Self::Medium,
            _ => Self::Low,
        }
    }
}

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
}

impl Core {
    /// Looks at how much is used: of the pool's limits, and of the device anew if `ask_device`, which takes some
    /// microseconds. Cleans up when it comes to the threshold, and calls back when the level changed. Called without any lock.
    pub(super) fn watch_pressure(&self, ask_device: bool) {
        let pressure = &self.pressure;
        if ask_device && let Some((free, total)) = self.raw.available() {
            let used = total.saturating_sub(free) as f32 / total.max(1) as f32;
            pressure.device.store(used.to_bits(), Relaxed);
        }
        let parts = [&self.filled, &pressure.device].map(|part| f64::from(f32::from_bits(part.load(Relaxed))));
        if let Some(cleanup) = self.cleanup {
            let due = parts.map(|used| used >= cleanup.pressure_cleanup_threshold);
            let crossed = |(cleaned, due): (&AtomicBool, bool)| !cleaned.swap(due, Relaxed) && due;
            if pressure.cleaned.iter().zip(due).map(crossed).fold(false, |any, crossed| any | crossed) {
                self.clean_under_pressure(cleanup);
            }
        }
        if !pressure.detected {
            return;
        }
        let level = MemoryPressureLevel::of(parts[0].max(parts[1]), pressure.threshold);
        if pressure.level.swap(level as u8, Relaxed) != level as u8 {
            let callbacks = pressure.callbacks.lock().unwrap_or_else(|e| e.into_inner()).clone();
            callbacks.iter().for_each(|callback| callback(level));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryPressureLevel::{self, *};

    #[test]
    fn levels_follow_the_threshold() {
        let of = |used: [f64; 4], threshold| used.map(|used| MemoryPressureLevel::of(used, threshold));
        assert_eq!(of([0.69, 0.71, 0.86, 0.96], 0.85), [Low, Medium, High, Critical]);
        assert_eq!(of([0.59, 0.61, 0.81, 0.94], 0.8), [Low, Medium, High, Critical]);
        assert_eq!(of([0.0, 0.3, 0.5, 1.0], 0.3), [Medium, High, High, Critical]);
        assert_eq!(of([0.0, 0.99, 1.0, 1.0], 1.0), [Low, Low, Critical, Critical]);
    }
}
