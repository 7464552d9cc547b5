//! The lock-free counters of the pool, under every interleaving that the memory model allows.
#![cfg(not(miri))]

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
}
#[path = "../src/memory/counters.rs"]
mod counters;

use counters::{Shard, Totals};
use loom::sync::{Arc, Mutex};
use loom::thread;

const MIB: usize = 1 << 20;

fn sum(totals: &Totals, shards: &[Arc<Shard>]) -> (usize, usize, usize) {
    totals.sum(shards.iter().map(|shard| &**shard))
}

/// A thread publishes its counts while another sums.
#[test]
fn a_sum_is_sane_while_a_thread_tells() {
    loom::model(|| {
        let (totals, shards) = (Arc::new(Totals::default()), [Arc::new(Shard::default())]);
        let (t, shard) = (totals.clone(), shards[0].clone());
        let thread = thread::spawn(move || shard.allocated(MIB, &t));
        let (live, peak, allocations) = sum(&totals, &shards);
        // At worst its counts are seen twice, before and after publishing.
        assert!(live <= 2 * MIB && peak >= live && allocations <= 2, "{live} {peak} {allocations}");
        thread.join().unwrap();
        assert_eq!(sum(&totals, &shards), (MIB, MIB, 1));
    });
}

/// A thread publishes its counts when it ends, and leaves the locked list of shards.
#[test]
fn a_thread_that_ends_is_counted_once() {
    loom::model(|| {
        let (totals, shard) = (Arc::new(Totals::default()), Arc::new(Shard::default()));
        let shards = Arc::new(Mutex::new(vec![shard.clone()]));
        let (t, s) = (totals.clone(), shards.clone());
        let thread = thread::spawn(move || {
            shard.allocated(100, &t);
            let mut shards = s.lock().unwrap();
            shard.publish(&t);
            shards.clear();
        });
        let (live, peak, allocations) = sum(&totals, &shards.lock().unwrap());
        assert!(live <= 100 && peak >= live && allocations <= 1, "{live} {peak} {allocations}");
        thread.join().unwrap();
        assert_eq!(sum(&totals, &shards.lock().unwrap()), (100, 100, 1));
    });
}

/// Two threads allocate, and free the block of the other.
#[test]
fn counts_are_exact_after_any_order_of_events() {
    loom::model(|| {
        let totals = Arc::new(Totals::default());
        let shards = [Arc::new(Shard::default()), Arc::new(Shard::default())];
        let (t, a) = (totals.clone(), shards[0].clone());
        let thread = thread::spawn(move || a.allocated(MIB, &t));
        shards[1].allocated(10, &totals);
        shards[1].freed(MIB, &totals);
        thread.join().unwrap();
        let (live, peak, allocations) = sum(&totals, &shards);
        assert_eq!((live, allocations), (10, 2));
        assert!((10..=MIB + 10).contains(&peak), "{peak}");
    });
}

/// Blocks counted outside of any thread's counters, as those of a thread that ends are.
#[test]
fn the_peak_of_two_threads_is_seen() {
    loom::model(|| {
        let totals = Arc::new(Totals::default());
        let threads = [MIB, 2 * MIB].map(|bytes| {
            let totals = totals.clone();
            thread::spawn(move || {
                totals.allocated(bytes);
                totals.freed(bytes);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (live, peak, allocations) = totals.sum(std::iter::empty());
        assert_eq!((live, allocations), (0, 2));
        assert!((2 * MIB..=3 * MIB).contains(&peak));
    });
}
