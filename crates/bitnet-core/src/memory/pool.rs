//! The pool that tensors take their memory from.

use super::large::LargeBlock;
use super::small::{SmallBlock, SmallBlockPool};
use crate::{BitNetError, Result};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Limits of a pool.
#[derive(Debug, Clone, Copy)]
pub struct MemoryPoolConfig {
    /// Blocks below this many bytes come from size classes, the others from the system. Default 1 MiB.
    pub threshold: usize,
    /// Most bytes in use at once; beyond it allocation is an error. Default: no limit.
    pub limit: usize,
}

impl Default for MemoryPoolConfig {
    fn default() -> Self {
        Self { threshold: 1 << 20, limit: usize::MAX }
    }
}

/// What a pool has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolMetrics {
    /// Bytes held by handles now.
    pub live_bytes: usize,
    /// Most bytes held at once.
    pub peak_bytes: usize,
    /// Allocations served.
    pub allocations: usize,
    /// Of these, the ones served from a free list.
    pub hits: usize,
}

/// Small blocks from size classes and large ones straight from the system; every block starts zeroed or holds what its
/// last user left, and is aligned to a cache line (large ones to 2 MiB). Cloning shares the pool.
///
/// ```
/// use bitnet_core::HybridMemoryPool;
/// let pool = HybridMemoryPool::new();
/// let mut block = pool.allocate(1000)?;
/// block.bytes_mut()[0] = 7;
/// assert_eq!(pool.metrics().live_bytes, 1024);
/// drop(block);
/// assert_eq!(pool.metrics().live_bytes, 0);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct HybridMemoryPool(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    config: MemoryPoolConfig,
    small: SmallBlockPool,
    live: AtomicUsize,
    peak: AtomicUsize,
    allocations: AtomicUsize,
    hits: AtomicUsize,
}

impl HybridMemoryPool {
    /// A pool without limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// A pool with the given limits.
    pub fn with_config(config: MemoryPoolConfig) -> Self {
        Self(Arc::new(Inner { config, ..Inner::default() }))
    }

    /// The pool that host tensors use unless told otherwise.
    pub fn global() -> &'static Self {
        static POOL: OnceLock<HybridMemoryPool> = OnceLock::new();
        POOL.get_or_init(Self::new)
    }

    /// A block of `len` bytes; an error when the limit or the system does not allow it.
    pub fn allocate(&self, len: usize) -> Result<MemoryHandle> {
        let inner = &self.0;
        let small = len < inner.config.threshold;
        let reserved = if small { SmallBlockPool::class_bytes(len) } else { len };
        let out_of_memory =
            |live| BitNetError::OutOfMemory { device: "cpu".into(), requested: len, live, limit: inner.config.limit };
        let live = inner
            .live
            .fetch_update(Relaxed, Relaxed, |live| live.checked_add(reserved).filter(|&sum| sum <= inner.config.limit))
            .map_err(out_of_memory)?
            + reserved;
        let block = if small {
            inner.small.allocate(len).map(|(block, hit)| {
                inner.hits.fetch_add(hit as usize, Relaxed);
                Block::Small(block)
            })
        } else {
            LargeBlock::new(len).map(Block::Large)
        };
        match block {
            Ok(block) => {
                inner.peak.fetch_max(live, Relaxed);
                inner.allocations.fetch_add(1, Relaxed);
                Ok(MemoryHandle { block, len, reserved, pool: inner.clone() })
            }
            Err(_) => Err(out_of_memory(inner.live.fetch_sub(reserved, Relaxed) - reserved)),
        }
    }

    /// What has happened so far.
    pub fn metrics(&self) -> PoolMetrics {
        PoolMetrics {
            live_bytes: self.0.live.load(Relaxed),
            peak_bytes: self.0.peak.load(Relaxed),
            allocations: self.0.allocations.load(Relaxed),
            hits: self.0.hits.load(Relaxed),
        }
    }
}

#[derive(Debug)]
enum Block {
    Small(SmallBlock),
    Large(LargeBlock),
}

/// Exclusive use of a block; goes back to its pool when dropped.
#[derive(Debug)]
pub struct MemoryHandle {
    block: Block,
    len: usize,
    reserved: usize,
    pool: Arc<Inner>,
}

// SAFETY: a small block's pointer is used by this handle alone, through `&self` for reading and `&mut self` for writing.
unsafe impl Send for MemoryHandle {}
// SAFETY: as above.
unsafe impl Sync for MemoryHandle {}

impl MemoryHandle {
    /// The block's bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.block {
            // SAFETY: the block has at least `len` bytes, was zeroed when mapped, and is exclusively this handle's.
            Block::Small(block) => unsafe { std::slice::from_raw_parts(block.start.as_ptr(), self.len) },
            Block::Large(block) => block.bytes(),
        }
    }

    /// The block's bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.block {
            // SAFETY: as in `bytes`; `&mut self` excludes other readers and writers.
            Block::Small(block) => unsafe { std::slice::from_raw_parts_mut(block.start.as_ptr(), self.len) },
            Block::Large(block) => block.bytes_mut(),
        }
    }

    /// Asks the system for huge pages, for blocks that are written whole and streamed often, such as weights.
    pub fn advise_huge_pages(&self) {
        if let Block::Large(block) = &self.block {
            block.advise_huge_pages();
        }
    }
}

impl Drop for MemoryHandle {
    fn drop(&mut self) {
        if let Block::Small(block) = &self.block {
            self.pool.small.give_back(block);
        }
        self.pool.live.fetch_sub(self.reserved, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_disjoint_and_reused() {
        let pool = HybridMemoryPool::new();
        let mut blocks: Vec<_> = [0, 1, 63, 64, 65, 4096, 1 << 20, (1 << 20) + 1, 5 << 20]
            .iter()
            .cycle()
            .take(40)
            .map(|&len| pool.allocate(len).unwrap())
            .collect();
        for (i, block) in blocks.iter_mut().enumerate() {
            assert_eq!(block.bytes().as_ptr() as usize % 64, 0);
            assert!(block.bytes().iter().all(|&b| b == 0), "a fresh block is zeroed");
            block.bytes_mut().fill(i as u8 + 1);
        }
        for (i, block) in blocks.iter().enumerate() {
            assert!(block.bytes().iter().all(|&b| b == i as u8 + 1), "block {i} was written by another");
        }
        let peak = pool.metrics().live_bytes;
        drop(blocks);
        let hits = pool.metrics().hits;
        pool.allocate(100).unwrap();
        let metrics = pool.metrics();
        assert_eq!((metrics.live_bytes, metrics.peak_bytes, metrics.hits), (0, peak, hits + 1));
    }

    #[test]
    fn the_limit_is_an_error_and_is_given_back() {
        let pool = HybridMemoryPool::with_config(MemoryPoolConfig { limit: 4 << 20, ..Default::default() });
        let held = pool.allocate(3 << 20).unwrap();
        assert!(matches!(pool.allocate(2 << 20), Err(BitNetError::OutOfMemory { live, .. }) if live == 3 << 20));
        assert!(matches!(pool.allocate(usize::MAX), Err(BitNetError::OutOfMemory { .. })));
        drop(held);
        assert!(pool.allocate(2 << 20).is_ok());
    }

    #[test]
    fn threads_share_a_pool() {
        let pool = HybridMemoryPool::new();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..1000 {
                        let mut block = pool.allocate(round % 3000).unwrap();
                        block.bytes_mut().fill(thread);
                        assert!(block.bytes().iter().all(|&b| b == thread));
                    }
                });
            }
        });
        assert_eq!(pool.metrics().live_bytes, 0);
    }
}
