//! Tracking of a pool's use.

pub use super::pressure::MemoryPressureLevel;

use super::pool::PoolMetrics;
use std::backtrace::Backtrace;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How much a pool tracks; what is not tracked costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrackingLevel {
    /// Nothing: all counts stay zero.
    None,
    /// Bytes in use and their peak, allocations and hits, counted by each thread for itself.
    Basic,
    /// And bytes asked for, hence what rounding wastes, and how many blocks there were of every size.
    Standard,
    /// And lifetimes and a timeline; under a lock.
    Detailed,
}

/// What a pool tracks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackingConfig {
    /// How much. Default [`TrackingLevel::Standard`].
    pub level: TrackingLevel,
    /// Whether the [memory pressure level](MemoryPressureLevel) is watched and callbacks are called. Default yes.
    pub enable_pressure_detection: bool,
    /// Whether every block in use is known with its place and age, at any level: for
    /// [`leak_report`](super::HybridMemoryPool::leak_report) and [`DetailedMetrics::suspected_leaks`]; under a lock.
    /// Default no.
    pub enable_leak_detection: bool,
    /// Part of the memory, from 0 to 1, from which [`MemoryPressureLevel::High`] is told. Default 0.85.
    pub pressure_threshold_ratio: f64,
    /// A block in use for longer than this is suspected to be a leak; looked for as often, when the pool is used.
    /// Default 60 seconds.
    pub leak_detection_interval: Duration,
}

impl Default for TrackingConfig {
    fn default() -> Self {
        Self {
            level: TrackingLevel::Standard,
            enable_pressure_detection: true,
            enable_leak_detection: false,
            pressure_threshold_ratio: 0.85,
            leak_detection_interval: Duration::from_secs(60),
        }
    }
}

/// All metrics of a pool. What its level does not track is zero or empty.
#[derive(Debug, Clone)]
pub struct DetailedMetrics {
    /// The counts of [`get_metrics`](super::HybridMemoryPool::get_metrics).
    pub metrics: PoolMetrics,
    /// Bytes asked for by the holders of blocks in use.
    pub requested_bytes: usize,
    /// Bytes of slabs and large blocks, live or cached by threads.
    pub used_bytes: usize,
    /// Bytes that hold memory, used or warm.
    pub held_bytes: usize,
    /// Bytes of address space taken from the device.
    pub reserved_bytes: usize,
    /// Bytes of the pool's own tables.
    pub metadata_bytes: usize,
    /// Slabs of small blocks.
    pub slabs: usize,
    /// Regions that large blocks and slabs are cut from.
    pub arenas: usize,
    /// The memory pressure level when last looked at.
    pub pressure_level: MemoryPressureLevel,
    /// Part of the used bytes that no holder asked for: rounding, and free blocks of slabs and of threads' caches; from
    /// 0 to 1. Where [`TrackingLevel::Standard`] is not tracked, blocks count whole. Free pages do not count: they are
    /// `held_bytes - used_bytes` at most, and go back with [`compact`](super::HybridMemoryPool::compact).
    pub fragmentation_ratio: f64,
    /// Blocks that were in use for longer than [`TrackingConfig::leak_detection_interval`] when last looked for.
    pub suspected_leaks: usize,
    /// Allocations of `1 << k` bytes or less, more than half that, at `[k]`.
    pub sizes: Vec<usize>,
    /// Freed blocks that lived `1 << k` microseconds or less, more than half that, at `[k]`.
    pub lifetimes: Vec<usize>,
    /// Bytes in use over time, at most [`TIMELINE`] samples evenly spread over the allocations, the oldest first.
    pub timeline: Vec<(Duration, usize)>,
}

impl DetailedMetrics {
    pub(super) fn measure_fragmentation(&mut self) {
        let useful = if self.requested_bytes > 0 { self.requested_bytes } else { self.metrics.total_allocated };
        self.fragmentation_ratio = 1.0 - useful as f64 / self.used_bytes.max(useful).max(1) as f64;
    }
}

/// A block in use.
#[derive(Debug, Clone)]
pub struct LiveBlock {
    /// Bytes asked for.
    pub len: usize,
    /// Who called the pool.
    pub place: &'static Location<'static>,
    /// How long it is in use.
    pub age: Duration,
    /// The stack, where asked for.
    pub backtrace: Option<Arc<Backtrace>>,
}

/// Blocks in use, the largest first; printed by place.
#[derive(Debug, Clone, Default)]
pub struct LeakReport(pub Vec<LiveBlock>);

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for block in &self.0 {
            let stack = block.backtrace.as_ref().map(|stack| format!("\n{stack}")).unwrap_or_default();
            let (count, bytes) = places.entry(format!("{}{stack}", block.place)).or_default();
            (*count, *bytes) = (*count + 1, *bytes + block.len);
        }
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|&(_, (_, bytes))| std::cmp::Reverse(bytes));
        let blocks = |n: usize| if n == 1 { "1 block".to_owned() } else { format!("{n} blocks") };
        writeln!(f, "{} in use", blocks(self.0.len()))?;
        places
            .iter()
            .try_for_each(|(place, (count, bytes))| writeln!(f, "{bytes} bytes in {} from {place}", blocks(*count)))
    }
}

/// Most samples of a timeline.
pub const TIMELINE: usize = 1024;

/// Classes of a histogram.
const POWERS: usize = 65;

/// What is tracked from `Standard` on, or for leak detection.
#[derive(Debug)]
pub(super) struct Tracker {
    requested: AtomicUsize,
    sizes: [AtomicUsize; POWERS],
    detail: Option<Mutex<Detail>>,
    /// The interval of leak detection, if it is on.
    leaks: Option<Duration>,
    /// Whether lifetimes and a timeline are kept.
    history: bool,
    backtraces: bool,
    started: Instant,
}

#[derive(Debug, Default)]
struct Detail {
    blocks: HashMap<usize, Note>,
    /// When leaks were last looked for, and how many blocks were suspected.
    looked: Option<Instant>,
    suspected: usize,
    live: usize,
    lifetimes: Vec<usize>,
    timeline: Vec<(Duration, usize)>,
    /// Changes between samples, and since the last.
    every: usize,
    since: usize,
}

#[derive(Debug)]
struct Note {
    len: usize,
    place: &'static Location<'static>,
    at: Instant,
    backtrace: Option<Arc<Backtrace>>,
}

fn power(n: usize) -> usize {
    n.checked_next_power_of_two().map_or(POWERS - 1, |power| power.ilog2() as usize)
}

impl Tracker {
    /// None below [`TrackingLevel::Standard`] without leak detection.
    pub(super) fn new(config: TrackingConfig, backtraces: bool) -> Option<Self> {
        let history = config.level >= TrackingLevel::Detailed;
        let leaks = config.enable_leak_detection.then_some(config.leak_detection_interval);
        (config.level >= TrackingLevel::Standard || leaks.is_some()).then(|| Self {
            requested: AtomicUsize::new(0),
            sizes: [const { AtomicUsize::new(0) }; POWERS],
            detail: (history || leaks.is_some()).then(Mutex::default),
            leaks,
            history,
            backtraces,
            started: Instant::now(),
        })
    }

    fn detail(&self) -> Option<MutexGuard<'_, Detail>> {
        self.detail.as_ref().map(|detail| detail.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub(super) fn allocated(&self, address: usize, len: usize, place: &'static Location<'static>) {
        self.requested.fetch_add(len, Relaxed);
        self.sizes[power(len)].fetch_add(1, Relaxed);
        if self.detail.is_some() {
            let stack = self.backtraces && self.leaks.is_some();
            let backtrace = stack.then(|| Arc::new(Backtrace::force_capture()));
            if let Some(mut detail) = self.detail() {
                detail.live += len;
                detail.blocks.insert(address, Note { len, place, at: Instant::now(), backtrace });
                if self.history {
                    detail.sample(self.started);
                }
            }
        }
    }

    pub(super) fn freed(&self, address: usize, len: usize) {
        self.requested.fetch_sub(len, Relaxed);
        if let Some(mut detail) = self.detail()
            && let Some(note) = detail.blocks.remove(&address)
        {
            detail.live -= len;
            if !self.history {
                return;
            }
            let lifetime = power(note.at.elapsed().as_micros() as usize);
            if detail.lifetimes.len() <= lifetime {
                detail.lifetimes.resize(lifetime + 1, 0);
            }
            detail.lifetimes[lifetime] += 1;
            detail.sample(self.started);
        }
    }

    /// Counts blocks that are in use for longer than the interval, once in each.
    pub(super) fn detect_leaks(&self) {
        let Some((interval, mut detail)) = self.leaks.zip(self.detail()) else { return };
        if detail.looked.is_none_or(|looked| looked.elapsed() >= interval) {
            detail.suspected = detail.blocks.values().filter(|note| note.at.elapsed() >= interval).count();
            detail.looked = Some(Instant::now());
        }
    }

    pub(super) fn leaks(&self) -> LeakReport {
        let known = self.leaks.and_then(|_| self.detail());
        let mut blocks: Vec<LiveBlock> = known.map_or_else(Vec::new, |detail| {
            let live = |note: &Note| {
                let (age, backtrace) = (note.at.elapsed(), note.backtrace.clone());
                LiveBlock { len: note.len, place: note.place, age, backtrace }
            };
            detail.blocks.values().map(live).collect()
        });
        blocks.sort_by_key(|block| std::cmp::Reverse(block.len));
        LeakReport(blocks)
    }

    /// Adds what is known here.
    pub(super) fn add_to(&self, metrics: &mut DetailedMetrics) {
        metrics.requested_bytes = self.requested.load(Relaxed);
        metrics.sizes = self.sizes.iter().map(|count| count.load(Relaxed)).collect();
        if let Some(detail) = self.detail() {
            metrics.suspected_leaks = detail.suspected;
            metrics.lifetimes = detail.lifetimes.clone();
            metrics.timeline = detail.timeline.clone();
        }
    }
}

impl Detail {
    /// Notes every so many changes; when the timeline is full, every second sample goes and the steps double.
    fn sample(&mut self, started: Instant) {
        self.since += 1;
        if self.since < self.every {
            return;
        }
        self.since = 0;
        self.timeline.push((started.elapsed(), self.live));
        if self.timeline.len() == TIMELINE {
            let mut odd = false;
            self.timeline.retain(|_| {
                odd = !odd;
                !odd
            });
            self.every = 2 * self.every.max(1);
        }
    }
}
