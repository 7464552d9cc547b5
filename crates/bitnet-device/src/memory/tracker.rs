//! Tracking of a pool's use, under its lock or without one.

use super::config::{TrackingConfig, TrackingLevel};
use super::metrics::{DetailedMetrics, LeakReport, LiveBlock, TIMELINE};
use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

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

/// A hash of addresses, which nobody chooses to collide: one product, its upper half below.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(self.0 as usize ^ byte as usize));
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug, Default)]
struct Detail {
    blocks: HashMap<usize, Note, BuildHasherDefault<AddressHasher>>,
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

    /// Whether it needs the time of every allocation and free.
    pub(super) fn is_timed(&self) -> bool {
        self.detail.is_some()
    }

    fn detail(&self) -> Option<MutexGuard<'_, Detail>> {
        self.detail.as_ref().map(|detail| detail.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub(super) fn allocated(
        &self,
        address: usize,
        len: usize,
        place: &'static Location<'static>,
        now: Option<Instant>,
    ) {
        self.requested.fetch_add(len, Relaxed);
        self.sizes[power(len)].fetch_add(1, Relaxed);
        if let Some(at) = now.filter(|_| self.is_timed()) {
            let stack = self.backtraces && self.leaks.is_some();
            let backtrace = stack.then(|| Arc::new(Backtrace::force_capture()));
            if let Some(mut detail) = self.detail() {
                detail.live += len;
                detail.blocks.insert(address, Note { len, place, at, backtrace });
                if self.history {
                    detail.sample(at - self.started);
                }
            }
        }
    }

    pub(super) fn freed(&self, address: usize, len: usize, now: Option<Instant>) {
        self.requested.fetch_sub(len, Relaxed);
        if let Some((now, mut detail)) = now.zip(self.detail())
            && let Some(note) = detail.blocks.remove(&address)
        {
            detail.live -= len;
            if !self.history {
                return;
            }
            let lifetime = power(now.saturating_duration_since(note.at).as_micros() as usize);
            if detail.lifetimes.len() <= lifetime {
                detail.lifetimes.resize(lifetime + 1, 0);
            }
            detail.lifetimes[lifetime] += 1;
            detail.sample(now - self.started);
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
    fn sample(&mut self, at: Duration) {
        self.since += 1;
        if self.since < self.every {
            return;
        }
        self.since = 0;
        self.timeline.push((at, self.live));
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
