//! A device's memory that does more than a pool expects of it: that uses the pool itself, or takes all it reserves.

use bitnet_core::*;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

/// What `reserve` does with the pool that is asking it.
type Use = fn(&HybridMemoryPool, &Mutex<Vec<MemoryHandle>>);

/// Memory with addresses that are nothing to this process.
#[derive(Debug, Default)]
struct Odd {
    eager: bool,
    pool: OnceLock<HybridMemoryPool>,
    /// Uses the pool once, at the next reserve.
    armed: AtomicBool,
    with: OnceLock<Use>,
    held: Mutex<Vec<MemoryHandle>>,
    next: AtomicUsize,
    reserved: AtomicUsize,
    discarded: AtomicUsize,
    /// How much it has.
    total: Option<u64>,
    /// What was said about huge pages: address, bytes, whether wanted.
    advice: Mutex<Vec<(usize, usize, bool)>>,
}

impl RawMemory for Odd {
    fn name(&self) -> String {
        "odd".into()
    }

    fn reserve(&self, len: usize, align: usize) -> io::Result<usize> {
        if self.armed.swap(false, SeqCst) {
            self.with.get().unwrap()(self.pool.get().unwrap(), &self.held);
        }
        self.reserved.fetch_add(len, SeqCst);
        Ok((1 << 30) + self.next.fetch_add(len + align, SeqCst).next_multiple_of(align))
    }

    fn release(&self, _address: usize, len: usize) {
        self.reserved.fetch_sub(len, SeqCst);
    }

    fn is_lazy(&self) -> bool {
        !self.eager
    }

    fn discard(&self, _address: usize, len: usize) {
        self.discarded.fetch_add(len, SeqCst);
    }

    fn available(&self) -> Option<(u64, u64)> {
        self.total.map(|total| (total, total))
    }

    fn advise_huge_pages(&self, address: usize, len: usize, wanted: bool) {
        self.advice.lock().unwrap().push((address, len, wanted));
    }
}

fn pool_of(odd: &Arc<Odd>) -> HybridMemoryPool {
    let raw: Arc<dyn RawMemory> = odd.clone();
    let pool = HybridMemoryPool::global().for_memory(&raw);
    odd.pool.set(pool.clone()).unwrap();
    pool
}

/// Allocates blocks until the device is asked for a region.
fn allocate_until_asked(pool: &HybridMemoryPool, odd: &Odd, len: usize) -> Vec<MemoryHandle> {
    let before = odd.reserved.load(SeqCst);
    let mut blocks = Vec::new();
    while odd.reserved.load(SeqCst) == before {
        blocks.push(pool.allocate_bytes(len).unwrap());
    }
    blocks
}

#[test]
fn a_device_that_uses_its_pool_while_it_is_asked_for_memory_gets_blocks_that_nobody_else_has() {
    let odd = Arc::new(Odd::default());
    let pool = pool_of(&odd);
    // This thread's cache holds blocks of both sizes.
    drop([pool.allocate_bytes(100), pool.allocate_bytes(100), pool.allocate_bytes(300_000)]);
    let use_cache: Use = |pool, held| {
        let mut held = held.lock().unwrap();
        held.push(pool.allocate_bytes(100).unwrap());
        // Of the size whose list is being filled; there is none in it, so this one goes in and out again.
        if let Some(block) = held.pop() {
            drop(block);
        }
        held.push(pool.allocate_bytes(100).unwrap());
    };
    odd.with.set(use_cache).unwrap();
    odd.armed.store(true, SeqCst);
    let mut blocks = allocate_until_asked(&pool, &odd, 300_000);
    assert!(!odd.armed.load(SeqCst));
    blocks.append(&mut odd.held.lock().unwrap());
    blocks.extend((0..64).map(|_| pool.allocate_bytes(100).unwrap()));
    blocks.sort_by_key(MemoryHandle::address);
    let apart = |pair: &[MemoryHandle]| pair[0].address() + pair[0].len() <= pair[1].address();
    assert!(blocks.windows(2).all(apart), "two blocks share memory");
    drop(blocks);
    pool.compact();
    assert_eq!(odd.reserved.load(SeqCst), 0, "everything was given back");
}

#[test]
fn a_device_whose_pool_would_wait_for_itself_is_told_so() {
    let odd = Arc::new(Odd::default());
    let pool = pool_of(&odd);
    odd.with.set(|pool, _| drop(pool.allocate_bytes(5 << 20))).unwrap();
    odd.armed.store(true, SeqCst);
    let panic = catch_unwind(AssertUnwindSafe(|| pool.allocate_bytes(100))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert_eq!(message, "the memory of odd uses the pool that is asking it for memory");
    // It serves the next one.
    assert_eq!(pool.allocate_bytes(100).unwrap().len(), 100);
}

#[test]
fn memory_that_is_taken_when_it_is_reserved_is_not_reserved_in_advance() {
    let odd = Arc::new(Odd { eager: true, ..Odd::default() });
    let pool = pool_of(&odd);
    let first = pool.allocate_bytes(1000).unwrap();
    assert_eq!(odd.reserved.load(SeqCst), 1 << 20);
    let blocks: Vec<_> = (0..320).map(|_| pool.allocate_bytes(100_000).unwrap()).collect();
    let reserved = odd.reserved.load(SeqCst);
    assert!((32_000_000..42_000_000).contains(&reserved), "{reserved} bytes for blocks of 32,000,000");
    drop(blocks);
    pool.compact();
    // Whole regions went back; no page was cleared in a region that stays.
    assert!(odd.reserved.load(SeqCst) <= 2 << 20, "{} bytes", odd.reserved.load(SeqCst));
    assert_eq!(odd.discarded.load(SeqCst), 0);
    drop(first);
}

#[test]
fn huge_pages_are_asked_for_once_and_only_for_whole_ones_that_a_block_covers() {
    let odd = Arc::new(Odd::default());
    let pool = pool_of(&odd);
    let told = || std::mem::take(&mut *odd.advice.lock().unwrap());
    drop([pool.allocate_bytes(100).unwrap(), pool.allocate_bytes((2 << 20) - 4096).unwrap()]);
    assert_eq!(told(), [], "none that is whole");
    let block = || pool.allocate_bytes((5 << 20) - 1).unwrap();
    let address = block().address();
    assert_eq!(told(), [(address, 4 << 20, true)], "without the tail");
    drop([block(), block()]);
    assert_eq!(told(), [(address + (6 << 20), 4 << 20, true)], "what was asked for stays");
    block().advise_huge_pages(true);
    assert_eq!(told(), [], "it has them");
    let cache = block();
    cache.advise_huge_pages(false);
    cache.advise_huge_pages(false);
    assert_eq!(told(), [(address, 6 << 20, false)], "with the tail");
    drop(cache);
    drop(block());
    assert_eq!(told(), [(address, 4 << 20, true)]);
    let large = pool.allocate_bytes((65 << 20) + 1).unwrap();
    assert_eq!(told(), [(large.address(), 64 << 20, true)], "a mapping of its own");
    pool.allocate_bytes(100).unwrap().advise_huge_pages(false);
    assert_eq!(told(), [], "a small block shares its pages");
}

/// Waits in `reserve` until another thread has used the pool.
#[test]
fn a_pool_serves_other_threads_while_a_device_is_asked_for_memory() {
    let odd = Arc::new(Odd::default());
    let pool = pool_of(&odd);
    let held = pool.allocate_bytes(3 << 20).unwrap();
    odd.with
        .set(|pool, held| {
            let other = pool.clone();
            let used = move || (other.allocate_bytes(5 << 20).unwrap(), other.get_metrics().total_allocated);
            let (block, live) = std::thread::spawn(used).join().unwrap();
            assert_eq!(live, 8 << 20);
            held.lock().unwrap().push(block);
        })
        .unwrap();
    odd.armed.store(true, SeqCst);
    let large = pool.allocate_bytes(62 << 20).unwrap();
    assert!(!odd.armed.load(SeqCst));
    let mut blocks = [large, held, odd.held.lock().unwrap().pop().unwrap()];
    blocks.sort_by_key(MemoryHandle::address);
    assert!(blocks.windows(2).all(|pair| pair[0].address() + pair[0].len() <= pair[1].address()));
}

#[test]
fn threads_that_need_a_region_at_once_reserve_one() {
    let odd = Arc::new(Odd::default());
    let (pool, start) = (pool_of(&odd), std::sync::Barrier::new(8));
    let allocate = || {
        start.wait();
        pool.allocate_bytes(1 << 20).unwrap()
    };
    let blocks: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(allocate)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!((blocks.len(), odd.reserved.load(SeqCst)), (8, 64 << 20));
}

#[test]
fn more_than_a_device_has_is_refused_before_it_is_asked() {
    let has = |total| Arc::new(Odd { total, ..Odd::default() });
    let odd = has(Some(100 << 20));
    let pool = pool_of(&odd);
    let held = pool.allocate_bytes(60 << 20).unwrap();
    assert_eq!(
        pool.allocate_bytes(50 << 20).unwrap_err().to_string(),
        "odd: out of memory: 52428800 bytes asked for, 62914560 in use, of the 104857600 that there are"
    );
    assert!(odd.reserved.load(SeqCst) <= 100 << 20);
    drop(held);
    assert!(pool.allocate_bytes(100 << 20).is_ok() && pool.allocate_bytes((100 << 20) + 1).is_err());

    // A limit that somebody chose holds, and where nobody knows there is none.
    let config = MemoryPoolConfig { max_large_pool_size: 300 << 20, ..Default::default() };
    let raw: Arc<dyn RawMemory> = odd;
    let chosen = HybridMemoryPool::with_config(config).unwrap().for_memory(&raw);
    assert!(chosen.allocate_bytes(300 << 20).is_ok());
    assert!(matches!(chosen.allocate_bytes(301 << 20), Err(BitNetError::PoolLimit { .. })));
    assert!(pool_of(&has(None)).allocate_bytes(1 << (usize::BITS - 4)).is_ok());
}
