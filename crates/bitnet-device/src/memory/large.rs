//! Large blocks and slabs: regions divided by the buddy method, and mappings of their own for what is larger than a
//! region. What is freed stays warm, to be used again without the system's help, until somebody asks for it back.

use super::buddy::{Arena, PAGE};
use super::raw::{HUGE_PAGE, RawMemory};
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Regions grow to this many times the first.
const GROWTH: usize = 16;
/// The largest first region.
const LARGEST_ARENA: usize = if usize::BITS < 64 { 1 << 27 } else { 1 << 40 };
/// The smallest region of memory that is not [lazy](RawMemory::is_lazy).
const EAGER_ARENA: usize = 1 << 20;

/// A range of pages taken from the pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    pub(super) address: usize,
    /// None of them was in use since the system gave them.
    pub(super) fresh: bool,
}

/// Blocks from the threshold up.
#[derive(Debug)]
pub(super) struct LargeBlockPool {
    raw: Arc<dyn RawMemory>,
    /// The oldest first, which are filled first.
    arenas: Vec<Arena>,
    /// Places in `arenas` by address.
    by_address: Vec<(usize, u32)>,
    /// Mappings of their own that nobody uses, the oldest first: address, bytes, since when.
    warm: Vec<(usize, usize, Instant)>,
    arena_bytes: usize,
    warm_limit: usize,
    /// As configured; `usize::MAX`: what the device has.
    limit: usize,
    memory: OnceCell<usize>,
    /// Whether regions ask for huge pages, once.
    huge: bool,
    /// Addresses of blocks in use for which that is different.
    unlike: BTreeSet<usize>,
    /// Bytes of mappings of their own, warm or in use.
    direct: usize,
    /// Bytes of regions and mappings.
    pub(super) reserved: usize,
    /// Bytes of these that were taken.
    pub(super) used: usize,
}

impl LargeBlockPool {
    /// A pool whose first region has `initial` bytes, which reserves at most `limit` and keeps mappings of `warm_limit`,
    /// with `huge` pages or small ones.
    pub(super) fn new(raw: Arc<dyn RawMemory>, initial: usize, limit: usize, warm_limit: usize, huge: bool) -> Self {
        let arena_bytes = initial.clamp(PAGE, LARGEST_ARENA).next_power_of_two();
        let (arenas, by_address, warm) = (Vec::new(), Vec::new(), Vec::new());
        let (memory, unlike, [direct, reserved, used]) = (OnceCell::new(), BTreeSet::new(), [0; 3]);
        Self {
            raw,
            arenas,
            by_address,
            warm,
            arena_bytes,
            warm_limit,
            limit,
            memory,
            huge,
            unlike,
            direct,
            reserved,
            used,
        }
    }

    /// Reserves the first region, as far as the limit allows; nothing where reserving takes memory.
    pub(super) fn reserve_initial(&mut self) -> io::Result<()> {
        let bytes = self.arena_bytes.min(self.limit() / PAGE * PAGE);
        if bytes > 0 && self.raw.is_lazy() {
            self.grow(bytes)?;
        }
        Ok(())
    }

    /// The limit of bytes reserved; `usize::MAX` where there is none and nobody knows what the device has.
    fn limit(&self) -> usize {
        let known = || self.raw.available().and_then(|(_, total)| usize::try_from(total).ok()).unwrap_or(usize::MAX);
        if self.limit < usize::MAX { self.limit } else { *self.memory.get_or_init(known) }
    }

    /// Why more than the limit cannot be had.
    fn full(&self) -> io::Error {
        if self.limit < usize::MAX { io::ErrorKind::QuotaExceeded } else { io::ErrorKind::OutOfMemory }.into()
    }

    /// Part of the limit that is used.
    pub(super) fn filled(&self) -> f32 {
        if self.limit == usize::MAX { 0.0 } else { self.used as f32 / self.limit.max(1) as f32 }
    }

    /// Bytes that a block of `len` takes; an error beyond what memory can address.
    pub(super) fn block_bytes(len: usize) -> io::Result<usize> {
        len.max(1).checked_next_multiple_of(PAGE).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// A block of `bytes`, whole pages, at a multiple of `align`, and of a huge page where it has room for one. Beyond the
    /// configured limit the error is of kind `QuotaExceeded`.
    pub(super) fn take(&mut self, bytes: usize, align: usize) -> io::Result<Pages> {
        let align = if bytes < HUGE_PAGE { align } else { align.max(HUGE_PAGE) };
        if bytes > self.arena_bytes || align > HUGE_PAGE {
            return self.take_direct(bytes, align.max(HUGE_PAGE));
        }
        // Where the limit leaves too little for a region, it may still do for the block.
        self.take_shared(bytes, align).or_else(|_| self.take_direct(bytes, HUGE_PAGE))
    }

    /// A block of at most `arena_bytes` within a region; `align` at most a huge page.
    pub(super) fn take_shared(&mut self, bytes: usize, align: usize) -> io::Result<Pages> {
        let (pages, align_pages) = (bytes / PAGE, align / PAGE);
        let found = self.arenas.iter_mut().find_map(|arena| Some((arena.base, arena.take(pages, align_pages)?)));
        let (base, (first, fresh)) = match found {
            Some(found) => found,
            None => {
                let i = self.grow(bytes)?;
                let taken = self.arenas[i].take(pages, align_pages);
                (self.arenas[i].base, taken.ok_or(io::ErrorKind::OutOfMemory)?)
            }
        };
        self.used += bytes;
        Ok(Pages { address: base + first * PAGE, fresh })
    }

    /// Another region with room for `wanted`: as much as all so far, within bounds and the limit.
    fn grow(&mut self, wanted: usize) -> io::Result<usize> {
        let so_far = self.reserved - self.direct;
        let remaining = self.remaining_below_limit(wanted) / PAGE * PAGE;
        let len = if self.raw.is_lazy() {
            1 << so_far.clamp(self.arena_bytes, self.arena_bytes * GROWTH).ilog2()
        } else {
            // An eighth more than all so far: little is taken for nothing, and the regions stay few.
            (so_far / 8).next_multiple_of(PAGE).clamp(EAGER_ARENA, EAGER_ARENA.max(self.arena_bytes * GROWTH))
        };
        let mut len = len.min(remaining).max(wanted);
        let base = loop {
            if len > remaining {
                return Err(self.full());
            }
            match self.reserve(len, HUGE_PAGE) {
                Ok(base) => break base,
                Err(_) if len > wanted => len = (len / 2 / PAGE * PAGE).max(wanted),
                Err(error) => return Err(error),
            }
        };
        self.reserved += len;
        self.arenas.push(Arena::new(base, len / PAGE));
        self.sort();
        Ok(self.arenas.len() - 1)
    }

    fn reserve(&self, len: usize, align: usize) -> io::Result<usize> {
        let base = self.raw.reserve(len, align)?;
        if self.huge {
            self.raw.advise_huge_pages(base, len, true);
        }
        Ok(base)
    }

    /// Asks for huge or small pages for a block, if it has the others.
    pub(super) fn advise_huge_pages(&mut self, address: usize, bytes: usize, wanted: bool) {
        let unlike = wanted != self.huge;
        if if unlike { self.unlike.insert(address) } else { self.unlike.remove(&address) } {
            self.raw.advise_huge_pages(address, bytes, wanted);
        }
    }

    fn sort(&mut self) {
        self.by_address = (0..).zip(&self.arenas).map(|(i, arena)| (arena.base, i)).collect();
        self.by_address.sort_unstable();
    }

    /// Bytes that may still be reserved, after giving back what nobody uses if `wanted` needs it.
    fn remaining_below_limit(&mut self, wanted: usize) -> usize {
        if self.limit() - self.reserved < wanted {
            let released = self.give_back_unused(Duration::ZERO, false, usize::MAX);
            released.release(&*self.raw);
        }
        self.limit() - self.reserved
    }

    fn take_direct(&mut self, bytes: usize, align: usize) -> io::Result<Pages> {
        let fits = |&(address, len, _): &(usize, usize, Instant)| len == bytes && address.is_multiple_of(align);
        if let Some(i) = self.warm.iter().rposition(fits) {
            self.used += bytes;
            return Ok(Pages { address: self.warm.remove(i).0, fresh: false });
        }
        if self.remaining_below_limit(bytes) < bytes {
            return Err(self.full());
        }
        let address = self.reserve(bytes, align)?;
        self.reserved += bytes;
        self.direct += bytes;
        self.used += bytes;
        Ok(Pages { address, fresh: true })
    }

    /// Takes a block back; what must now be released, by the caller once it holds no lock.
    pub(super) fn give_back(&mut self, address: usize, bytes: usize) -> Unused {
        let mut unused = Unused::default();
        self.used -= bytes;
        self.advise_huge_pages(address, bytes, self.huge);
        if let Some(arena) = self.arena_of(address) {
            let first = (address - arena.base) / PAGE;
            arena.give_back(first..first + bytes / PAGE);
            return unused;
        }
        self.warm.push((address, bytes, Instant::now()));
        let mut kept: usize = self.warm.iter().map(|&(_, len, _)| len).sum();
        while kept > self.warm_limit {
            let (address, len, _) = self.warm.remove(0);
            kept -= len;
            self.forget_direct(&mut unused, address, len);
        }
        unused
    }

    pub(super) fn arena_of(&mut self, address: usize) -> Option<&mut Arena> {
        let at = self.by_address.partition_point(|&(base, _)| base <= address).checked_sub(1)?;
        let arena = &mut self.arenas[self.by_address[at].1 as usize];
        (address - arena.base < arena.pages * PAGE).then_some(arena)
    }

    fn forget_direct(&mut self, unused: &mut Unused, address: usize, len: usize) {
        unused.regions.push((address, len));
        unused.bytes += len;
        self.reserved -= len;
        self.direct -= len;
    }

    /// Regions and mappings that nobody uses and, if `pages`, free pages that hold memory: of what rested for `idle`, and of
    /// `most` regions. The caller releases the regions once it holds no lock; the pages are given back here, before they can
    /// be used.
    pub(super) fn give_back_unused(&mut self, idle: Duration, pages: bool, most: usize) -> Unused {
        let (mut unused, mut left) = (Unused::default(), most);
        let mut within = |unused: bool| {
            let taken = unused && left > 0;
            left -= usize::from(taken);
            taken
        };
        let mappings = self.warm.extract_if(.., |(_, _, since)| within(since.elapsed() >= idle)).collect::<Vec<_>>();
        for (address, len, _) in mappings {
            self.forget_direct(&mut unused, address, len);
        }
        let rested = |arena: &Arena| arena.touched.elapsed() >= idle;
        for arena in self.arenas.extract_if(.., |arena| within(arena.used() == 0 && rested(arena))).collect::<Vec<_>>()
        {
            unused.regions.push((arena.base, arena.pages * PAGE));
            unused.bytes += arena.dirty() * PAGE;
            self.reserved -= arena.pages * PAGE;
        }
        self.sort();
        let pages = pages && self.raw.is_lazy();
        for arena in self.arenas.iter_mut().filter(|arena| pages && rested(arena)) {
            if left == 0 {
                break;
            }
            let runs = arena.clean();
            left -= usize::from(!runs.is_empty());
            for run in runs {
                self.raw.discard(arena.base + run.start * PAGE, run.len() * PAGE);
                unused.bytes += run.len() * PAGE;
            }
        }
        unused
    }

    /// Bytes that hold memory: pages that were used, and mappings of their own.
    pub(super) fn held(&self) -> usize {
        self.direct + self.arenas.iter().map(|arena| arena.dirty() * PAGE).sum::<usize>()
    }

    /// Number of regions.
    pub(super) fn arenas(&self) -> usize {
        self.arenas.len()
    }

    pub(super) fn metadata(&self) -> usize {
        self.arenas.iter().map(Arena::metadata).sum::<usize>()
            + self.warm.capacity() * size_of::<(usize, usize, Instant)>()
    }
}

impl Drop for LargeBlockPool {
    fn drop(&mut self) {
        // Handles keep their pool, so that nobody uses any of it; slabs and caches of threads only hold addresses.
        self.give_back_unused(Duration::ZERO, false, usize::MAX).release(&*self.raw);
        self.arenas.iter().for_each(|arena| self.raw.release(arena.base, arena.pages * PAGE));
    }
}

/// Regions that left the pool and wait for their release.
#[derive(Debug, Default)]
pub(super) struct Unused {
    regions: Vec<(usize, usize)>,
    /// Bytes of free pages that went back.
    bytes: usize,
}

impl Unused {
    /// Whether there was nothing to give back.
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty() && self.bytes == 0
    }

    /// Gives the regions back; returns the bytes of memory that the system has again.
    pub(super) fn release(self, raw: &dyn RawMemory) -> usize {
        self.regions.iter().for_each(|&(address, len)| raw.release(address, len));
        self.bytes
    }
}
