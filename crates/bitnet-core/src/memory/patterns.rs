//! Patterns of allocation, anomalies and utilisation, told from what a pool tracked.

use crate::{DetailedMetrics, DeviceCapabilities};
use std::time::Duration;

/// Bytes in use over time, as in [`DetailedMetrics::timeline`].
type Timeline = [(Duration, usize)];

/// How a pool is used, where that is worth a look.
///
/// ```
/// use bitnet_core::memory::tracking::{AllocationPattern, TrackingConfig, TrackingLevel};
/// use bitnet_core::{HybridMemoryPool, MemoryPoolConfig};
/// let tracking = TrackingConfig { level: TrackingLevel::Detailed, ..Default::default() };
/// let pool = HybridMemoryPool::with_config(MemoryPoolConfig {
///     enable_advanced_tracking: true,
///     tracking_config: Some(tracking),
///     ..Default::default()
/// })?;
/// let kept: Vec<_> = (0..500).map(|_| pool.allocate_bytes(10_000)).collect::<Result<_, _>>()?;
/// let patterns = AllocationPattern::of(&pool.get_detailed_metrics().unwrap());
/// assert!(matches!(patterns[0], AllocationPattern::Growth { bytes: 4_000_000.., .. }), "{patterns:?}");
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AllocationPattern {
    /// As a leak: the fewest bytes in use in each eighth of the samples are more than in the one before, and grew by at least
    /// a quarter of the peak.
    Growth {
        /// By how many bytes.
        bytes: usize,
        /// In what time.
        time: Duration,
    },
    /// More than a quarter of the used memory, and more than 1 MiB, was asked for by nobody.
    Fragmentation {
        /// The [`fragmentation_ratio`](DetailedMetrics::fragmentation_ratio).
        ratio: f64,
    },
    /// In a 64th of the time the bytes in use rose by at least half of the peak.
    Burst {
        /// When it began.
        at: Duration,
        /// By how many bytes.
        bytes: usize,
    },
}

impl AllocationPattern {
    /// The patterns in what a pool tracked; growth and bursts need [`TrackingLevel::Detailed`](crate::TrackingLevel::Detailed).
    pub fn of(metrics: &DetailedMetrics) -> Vec<Self> {
        let nobodys = metrics.fragmentation_ratio * metrics.used_bytes as f64;
        let fragmented = metrics.fragmentation_ratio > 0.25 && nobodys > (1 << 20) as f64;
        let ratio = metrics.fragmentation_ratio;
        let fragmentation = fragmented.then_some(Self::Fragmentation { ratio });
        growth(&metrics.timeline).into_iter().chain(fragmentation).chain(bursts(&metrics.timeline)).collect()
    }
}

fn peak(timeline: &Timeline) -> usize {
    timeline.iter().map(|&(_, live)| live).max().unwrap_or(0)
}

fn growth(timeline: &Timeline) -> Option<AllocationPattern> {
    const PARTS: usize = 8;
    if timeline.len() < 2 * PARTS {
        return None;
    }
    let least = |part: &Timeline| part.iter().copied().min_by_key(|&(_, live)| live);
    let floors: Vec<_> = timeline.chunks(timeline.len() / PARTS).take(PARTS).filter_map(least).collect();
    let (first, last) = (floors[0], floors[PARTS - 1]);
    let grows = floors.windows(2).all(|pair| pair[0].1 < pair[1].1);
    (grows && last.1 - first.1 >= peak(timeline) / 4)
        .then(|| AllocationPattern::Growth { bytes: last.1 - first.1, time: last.0 - first.0 })
}

fn bursts(timeline: &Timeline) -> Vec<AllocationPattern> {
    let (Some(first), Some(last)) = (timeline.first(), timeline.last()) else { return Vec::new() };
    let (step, least) = ((last.0 - first.0) / 64, (peak(timeline) / 2).max(1));
    let (mut found, mut from) = (Vec::new(), 0);
    for (to, &(at, live)) in timeline.iter().enumerate() {
        while at - timeline[from].0 > step && from < to {
            from += 1;
        }
        let Some(&(began, low)) = timeline[from..to].iter().min_by_key(|&&(_, live)| live) else { continue };
        if live >= low + least {
            found.push(AllocationPattern::Burst { at: began, bytes: live - low });
            from = to;
        }
    }
    found
}

/// Samples of a [timeline](DetailedMetrics::timeline) that are further from the mean of the 32 before them than `deviations`
/// standard deviations, and than a twentieth of that mean.
///
/// ```
/// use bitnet_core::memory::tracking::anomalies;
/// use std::time::Duration;
/// let mut timeline: Vec<_> = (0..100).map(|i| (Duration::from_millis(i), 1000 + (i as usize % 3) * 10)).collect();
/// timeline[70].1 = 5000;
/// assert_eq!(anomalies(&timeline, 4.), [(Duration::from_millis(70), 5000)]);
/// ```
pub fn anomalies(timeline: &[(Duration, usize)], deviations: f64) -> Vec<(Duration, usize)> {
    const BEFORE: usize = 32;
    let far = |window: &Timeline| {
        let (&(at, live), before) = window.split_last()?;
        let mean = before.iter().map(|&(_, live)| live as f64).sum::<f64>() / BEFORE as f64;
        let variance = before.iter().map(|&(_, live)| (live as f64 - mean).powi(2)).sum::<f64>() / BEFORE as f64;
        ((live as f64 - mean).abs() > (deviations * variance.sqrt()).max(mean / 20.)).then_some((at, live))
    };
    timeline.windows(BEFORE + 1).filter_map(far).collect()
}

/// How much of a device and of a pool is used, parts from 0 to 1, for monitoring.
///
/// ```
/// use bitnet_core::memory::tracking::DeviceUtilisation;
/// use bitnet_core::{DeviceCapabilities, HybridMemoryPool, MemoryPoolConfig};
/// let pool = HybridMemoryPool::with_config(MemoryPoolConfig { enable_advanced_tracking: true, ..Default::default() })?;
/// let mut block = pool.allocate_bytes(2 << 20)?;
/// let now = DeviceUtilisation::of(&DeviceCapabilities::named("cpu".into()), &pool.get_detailed_metrics().unwrap());
/// assert_eq!((now.memory, now.pool), (None, 1.0), "a device whose memory is unknown; a pool without free memory");
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeviceUtilisation {
    /// Of the device's memory, by all programs; `None` if the device does not say.
    pub memory: Option<f64>,
    /// Of the memory that the pool holds, what is in use.
    pub pool: f64,
    /// Of the blocks given, the ones whose memory was there already.
    pub reused: f64,
}

impl DeviceUtilisation {
    /// What a device and a pool told.
    pub fn of(device: &DeviceCapabilities, pool: &DetailedMetrics) -> Self {
        let part = |used: usize, whole: usize| used as f64 / whole.max(1) as f64;
        let memory = device.memory_bytes.zip(device.available_bytes);
        Self {
            memory: memory.map(|(total, free)| 1. - free as f64 / total.max(1) as f64),
            pool: part(pool.used_bytes, pool.held_bytes),
            reused: part(pool.metrics.hits, pool.metrics.allocations),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AllocationPattern::*;

    fn timeline(n: u64, live: impl Fn(usize) -> usize) -> Vec<(Duration, usize)> {
        (0..n).map(|i| (Duration::from_millis(i), live(i as usize))).collect()
    }

    #[test]
    fn growth_is_distinguished_from_a_start_and_from_a_saw() {
        let leak = timeline(800, |i| 1000 * (i / 10) + 20_000 * (i % 10));
        assert_eq!(growth(&leak), Some(Growth { bytes: 70_000, time: Duration::from_millis(700) }));
        assert_eq!(growth(&timeline(800, |i| 1000 * i.min(300))), None, "it levels off");
        assert_eq!(growth(&timeline(800, |i| 1000 * (i % 100))), None, "everything is freed");
        assert_eq!(growth(&timeline(800, |i| 1_000_000 + i)), None, "too little");
        assert_eq!(growth(&timeline(15, |i| i)), None, "too few samples");
    }

    #[test]
    fn a_burst_is_a_rise_in_a_short_time() {
        let steady = timeline(640, |i| 1000 * i);
        assert_eq!(bursts(&steady), []);
        let burst = timeline(640, |i| if (300..305).contains(&i) { 1000 * (i - 299) } else { 100 });
        assert_eq!(bursts(&burst)[0], Burst { at: Duration::from_millis(299 - 6), bytes: 2900 });
        assert_eq!(bursts(&burst).len(), 1);
        assert_eq!(bursts(&[]), []);
    }

    #[test]
    fn a_change_is_an_anomaly_only_against_what_was_before() {
        assert_eq!(anomalies(&timeline(200, |i| 1000 * (i % 7)), 4.), [], "as ever");
        let step = anomalies(&timeline(200, |i| if i < 100 { 1000 } else { 9000 }), 4.);
        assert_eq!(step.first(), Some(&(Duration::from_millis(100), 9000)));
        assert!(step.len() < 16, "soon it is the rule: {}", step.len());
    }

    #[test]
    fn fragmentation_is_told_from_a_pool() {
        use crate::{HybridMemoryPool, MemoryPoolConfig};
        let pool =
            HybridMemoryPool::with_config(MemoryPoolConfig { enable_advanced_tracking: true, ..Default::default() });
        let pool = pool.unwrap();
        let blocks: Vec<_> = (0..4000).map(|_| pool.allocate_bytes(3000).unwrap()).collect();
        let told = |pool: &HybridMemoryPool| AllocationPattern::of(&pool.get_detailed_metrics().unwrap());
        assert_eq!(told(&pool), []);
        let kept: Vec<_> = blocks.into_iter().step_by(4).collect();
        assert!(matches!(told(&pool)[..], [Fragmentation { ratio: 0.7..0.8 }]), "{:?}", told(&pool));
        assert_eq!(kept.len(), 1000);
    }
}
