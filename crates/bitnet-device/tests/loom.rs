//! The lock-free counters and the central lists of the pool, under every interleaving that the memory model allows.
#![cfg(not(miri))]

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicIsize, AtomicU32, AtomicUsize, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};
    /// Loom's, which knows no `const`.
    macro_rules! of_a_thread {
        ($(#[$attribute:meta])* static $name:ident: $kind:ty = const { $value:expr };) => {
            loom::thread_local! { $(#[$attribute])* static $name: $kind = $value; }
        };
    }
    pub(super) use of_a_thread as thread_local;
}
/// Files of the pool as they are, over loom's atomics; not all that they have is used here.
macro_rules! files {
    ($($name:ident $path:literal)*) => { $(#[path = $path] #[allow(dead_code)] mod $name;)* };
}
files! {
    buddy "../src/memory/buddy.rs"
    cache "../src/memory/cache.rs"
    central "../src/memory/central.rs"
    counters "../src/memory/counters.rs"
    holder "../src/memory/holder.rs"
    large "../src/memory/large.rs"
    raw "../src/memory/raw.rs"
    small "../src/memory/small.rs"
}

use central::{Central, CentralConfig, Owner};
use counters::{Shard, Totals};
use loom::sync::{Arc, Mutex};
use loom::thread;
use raw::RawMemory;
use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

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

/// A device that knows which of its regions are reserved and which blocks are in use, by address; a lock that is not loom's
/// adds no interleavings.
#[derive(Debug, Default)]
struct Watched(std::sync::Mutex<[BTreeMap<usize, usize>; 2]>);

impl Watched {
    /// Nothing of a block may be in use twice.
    fn begin(&self, address: usize, len: usize) {
        let [regions, blocks] = &mut *self.0.lock().unwrap();
        assert!(regions.range(..=address).next_back().is_some_and(|(base, bytes)| address + len <= base + bytes));
        assert!(blocks.range(..address + len).next_back().is_none_or(|(other, bytes)| other + bytes <= address));
        blocks.insert(address, len);
    }

    fn end(&self, address: usize) {
        assert!(self.0.lock().unwrap()[1].remove(&address).is_some());
    }

    /// Nothing that goes back to the device may be in use.
    fn unused(&self, address: usize, len: usize) {
        let blocks = &self.0.lock().unwrap()[1];
        assert!(blocks.range(..address + len).next_back().is_none_or(|(other, bytes)| other + bytes <= address));
    }
}

impl RawMemory for Watched {
    fn name(&self) -> String {
        "watched".into()
    }

    fn reserve(&self, len: usize, align: usize) -> std::io::Result<usize> {
        let regions = &mut self.0.lock().unwrap()[0];
        let end = regions.last_key_value().map_or(align, |(base, bytes)| base + bytes);
        let address = end.next_multiple_of(align);
        regions.insert(address, len);
        Ok(address)
    }

    fn release(&self, address: usize, len: usize) {
        self.unused(address, len);
        assert_eq!(self.0.lock().unwrap()[0].remove(&address), Some(len));
    }

    fn discard(&self, address: usize, len: usize) {
        self.unused(address, len);
    }
}

/// The pool of no central lists.
struct Nobody;

impl AsRef<Central> for Nobody {
    fn as_ref(&self) -> &Central {
        unreachable!("no thread has a cache")
    }
}

/// Two threads allocate a block and free it, small ones of one class or the first one `large`, while a third thread gives back
/// to the device what nobody uses.
fn lists_are_sound(large: bool) {
    let mut model = loom::model::Builder::new();
    // Without a bound there are too many interleavings. 3 passes as well, in half a minute.
    model.preemption_bound = Some(2);
    model.check(move || {
        let device = std::sync::Arc::new(Watched::default());
        let owner: Weak<Owner> = Weak::<Nobody>::new();
        let (initial, limits) = ([1 << 20; 2], [1 << 30; 2]);
        let config =
            CentralConfig { id: 1, counts: true, cache_bytes: 0, initial, limits, warm_bytes: 0, huge_pages: false };
        let central = Arc::new(Central::new(device.clone(), owner, config));
        let threads = [large, false].map(|large| {
            let (central, device) = (central.clone(), device.clone());
            thread::spawn(move || {
                if large {
                    let block = central.take_large(buddy::PAGE, small::LINE).unwrap();
                    device.begin(block.address, buddy::PAGE);
                    device.end(block.address);
                    central.give_back_large(block.address, buddy::PAGE, std::time::Instant::now());
                } else {
                    let (class, mut block) = (small::class_of(1024), [0]);
                    assert_eq!(central.take_small(class, &mut block).unwrap().0, 1);
                    device.begin(block[0], 1024);
                    device.end(block[0]);
                    central.give_back_small(class, block.into_iter());
                }
            })
        });
        let third = central.clone();
        let third = thread::spawn(move || third.give_back_unused(Duration::ZERO, true, usize::MAX));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        third.join().unwrap();
        drop(central);
        assert!(device.0.lock().unwrap()[0].is_empty(), "a region was not given back");
    });
}

#[test]
fn small_blocks_are_nobody_elses_while_a_third_thread_compacts() {
    lists_are_sound(false);
}

#[test]
fn small_and_large_blocks_are_nobody_elses_while_a_third_thread_compacts() {
    lists_are_sound(true);
}
