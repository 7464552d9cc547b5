//! Per-thread counters, so that counting causes no traffic between cores, and their sum.
//!
//! `tests/loom.rs` includes this file and runs it under every interleaving that the memory model allows.

use super::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// A thread publishes its changes when they exceed this many bytes.
const STEP: isize = 256 << 10;

/// The sum of all threads, without unpublished changes.
#[derive(Debug, Default)]
pub(super) struct Totals {
    live: AtomicIsize,
    peak: AtomicIsize,
    allocations: AtomicUsize,
}

impl Totals {
    fn add(&self, bytes: isize, high: isize) {
        let before = self.live.fetch_add(bytes, Relaxed);
        // What was live already was a peak when it was added.
        if high > 0 {
            self.peak.fetch_max(before + high, Relaxed);
        }
    }

    /// Counts an allocation without a per-thread counter.
    pub(super) fn allocated(&self, bytes: usize) {
        self.allocations.fetch_add(1, Relaxed);
        self.add(bytes as isize, bytes as isize);
    }

    /// Counts a free without a per-thread counter.
    pub(super) fn freed(&self, bytes: usize) {
        self.add(-(bytes as isize), 0);
    }

    /// Live bytes, their peak and allocations, including the unpublished changes of `shards`. Exact while no other
    /// thread allocates; a thread that is publishing may be counted twice, and the peak is off by up to a [`STEP`] per
    /// thread.
    pub(super) fn sum<'a>(&self, shards: impl Iterator<Item = &'a Shard>) -> (usize, usize, usize) {
        let (mut live, mut high) = (self.live.load(Relaxed), 0);
        let mut allocations = self.allocations.load(Relaxed);
        for shard in shards {
            let delta = shard.delta.load(Relaxed);
            live += delta;
            high += (shard.high.load(Relaxed) - delta).max(0);
            allocations += shard.allocations.load(Relaxed);
        }
        let live = live.max(0);
        (live as usize, self.peak.load(Relaxed).max(live + high) as usize, allocations)
    }
}

/// The unpublished changes of one thread. Only that thread writes here.
#[derive(Debug, Default)]
pub(super) struct Shard {
    delta: AtomicIsize,
    /// Maximum of `delta`.
    high: AtomicIsize,
    allocations: AtomicUsize,
}

impl Shard {
    #[inline]
    pub(super) fn allocated(&self, bytes: usize, totals: &Totals) {
        self.allocations.store(self.allocations.load(Relaxed) + 1, Relaxed);
        let delta = self.delta.load(Relaxed) + bytes as isize;
        self.delta.store(delta, Relaxed);
        if delta > self.high.load(Relaxed) {
            self.high.store(delta, Relaxed);
            if delta > STEP {
                self.publish(totals);
            }
        }
    }

    #[inline]
    pub(super) fn freed(&self, bytes: usize, totals: &Totals) {
        let delta = self.delta.load(Relaxed) - bytes as isize;
        self.delta.store(delta, Relaxed);
        if delta < -STEP {
            self.publish(totals);
        }
    }

    /// Adds everything to the totals.
    #[cold]
    pub(super) fn publish(&self, totals: &Totals) {
        totals.add(self.delta.load(Relaxed), self.high.load(Relaxed));
        let allocations = self.allocations.load(Relaxed);
        if allocations > 0 {
            totals.allocations.fetch_add(allocations, Relaxed);
        }
        self.delta.store(0, Relaxed);
        self.high.store(0, Relaxed);
        self.allocations.store(0, Relaxed);
    }
}
