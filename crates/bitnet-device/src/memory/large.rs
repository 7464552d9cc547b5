//! Regions divided by the buddy method, and mappings of their own for blocks larger than a region. What is freed stays
//! warm, to be used again without the system's help, until somebody asks for it back.
//!
//! Here is only the account: the memory itself is asked for and given back by the [central lists](super::central).

use super::buddy::{Arena, PAGE};
use super::raw::{HUGE_PAGE, RawMemory};
use std::io;
use std::ops::Range;
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
    /// Address and bytes to ask huge pages for.
    pub(super) huge: Option<(usize, usize)>,
}

/// Blocks from the threshold up.
#[derive(Debug)]
pub(super) struct LargeBlockPool {
    /// The oldest first, which are filled first.
    arenas: Vec<Arena>,
    /// Places in `arenas` by address.
    by_address: Vec<(usize, u32)>,
    /// Mappings of their own that nobody uses, the oldest first: address, bytes, since when.
    warm: Vec<(usize, usize, Instant)>,
    arena_bytes: usize,
    warm_limit: usize,
    /// Whether regions [commit memory when it is used](RawMemory::is_lazy).
    lazy: bool,
    /// Whether blocks ask for huge pages.
    huge: bool,
    /// Bytes of mappings of their own, warm or in use.
    direct: usize,
    /// Bytes of regions and mappings, also of those that are being asked for.
    pub(super) reserved: usize,
    /// Bytes of these that were taken.
    pub(super) used: usize,
}

impl LargeBlockPool {
    /// A pool whose first region has `initial` bytes, and which keeps mappings of `warm_limit`.
    pub(super) fn new(initial: usize, warm_limit: usize, lazy: bool, huge: bool) -> Self {
        let arena_bytes = initial.clamp(PAGE, LARGEST_ARENA).next_power_of_two();
        let (arenas, by_address, warm) = (Vec::new(), Vec::new(), Vec::new());
        let [direct, reserved, used] = [0; 3];
        Self { arenas, by_address, warm, arena_bytes, warm_limit, lazy, huge, direct, reserved, used }
    }

    /// Bytes of the first region, as far as `limit` allows; 0 where reserving takes memory.
    pub(super) fn initial(&self, limit: usize) -> usize {
        if self.lazy { self.arena_bytes.min(limit / PAGE * PAGE) } else { 0 }
    }

    /// Bytes that a block of `len` takes; an error beyond what memory can address.
    pub(super) fn block_bytes(len: usize) -> io::Result<usize> {
        len.max(1).checked_next_multiple_of(PAGE).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Whether a block gets a mapping of its own.
    pub(super) fn is_direct(&self, bytes: usize, align: usize) -> bool {
        bytes > self.arena_bytes || align > HUGE_PAGE
    }

    /// A block of at most `arena_bytes` within a region; `align` at most a huge page. `None` if there is no room.
    pub(super) fn take_shared(&mut self, bytes: usize, align: usize) -> Option<Pages> {
        let (pages, align) = (bytes / PAGE, align / PAGE);
        let huge = self.huge && bytes >= HUGE_PAGE;
        let taken = self.arenas.iter_mut().find_map(|arena| {
            let (first, fresh) = arena.take(pages, align)?;
            let huge = if huge { arena.want_huge(first..first + pages, true) } else { None };
            let huge = huge.map(|pages| bytes_of(arena, pages));
            Some(Pages { address: arena.base + first * PAGE, fresh, huge })
        })?;
        self.used += bytes;
        Some(taken)
    }

    /// A mapping of its own that was freed.
    pub(super) fn take_warm(&mut self, bytes: usize, align: usize) -> Option<Pages> {
        let fits = |&(address, len, _): &(usize, usize, Instant)| len == bytes && address.is_multiple_of(align);
        let (address, ..) = self.warm.remove(self.warm.iter().rposition(fits)?);
        self.used += bytes;
        Some(self.mapping(address, bytes, false))
    }

    /// What was asked for a mapping may have been changed while it was in use: a microsecond for more than a region.
    fn mapping(&self, address: usize, bytes: usize, fresh: bool) -> Pages {
        let whole = bytes / HUGE_PAGE * HUGE_PAGE;
        Pages { address, fresh, huge: (self.huge && whole > 0).then_some((address, whole)) }
    }

    /// Bytes of the next region with room for `wanted`, set aside from `left` below the limit: as much as all so far,
    /// within bounds.
    pub(super) fn claim_region(&mut self, wanted: usize, left: usize) -> Option<usize> {
        let so_far = self.reserved - self.direct;
        let len = if self.lazy {
            1 << so_far.clamp(self.arena_bytes, self.arena_bytes * GROWTH).ilog2()
        } else {
            // An eighth more than all so far: little is taken for nothing, and the regions stay few.
            (so_far / 8).next_multiple_of(PAGE).clamp(EAGER_ARENA, EAGER_ARENA.max(self.arena_bytes * GROWTH))
        };
        let left = left / PAGE * PAGE;
        let len = len.min(left).max(wanted);
        self.reserved += if len <= left { len } else { return None };
        Some(len)
    }

    /// Adds a region that was claimed.
    pub(super) fn add_region(&mut self, base: usize, len: usize) {
        self.arenas.push(Arena::new(base, len / PAGE));
        self.sort();
    }

    /// Sets a mapping of its own aside from `left` below the limit.
    pub(super) fn claim_direct(&mut self, bytes: usize, left: usize) -> bool {
        let fits = bytes <= left;
        if fits {
            self.reserved += bytes;
            self.direct += bytes;
        }
        fits
    }

    /// Adds a mapping of its own that was claimed, and takes it, unless it could not be had.
    pub(super) fn add_direct(&mut self, address: io::Result<usize>, bytes: usize) -> io::Result<Pages> {
        if address.is_err() {
            self.reserved -= bytes;
            self.direct -= bytes;
        }
        let address = address?;
        self.used += bytes;
        Ok(self.mapping(address, bytes, true))
    }

    /// Notes what pages are wanted for a block: address and bytes to ask for, if that is not how they are.
    pub(super) fn want_huge(&mut self, address: usize, bytes: usize, wanted: bool) -> Option<(usize, usize)> {
        match self.arena_of(address) {
            Some(arena) => {
                let first = (address - arena.base) / PAGE;
                arena.want_huge(first..first + bytes / PAGE, wanted).map(|pages| bytes_of(arena, pages))
            }
            None => Some((address, if wanted { bytes / HUGE_PAGE * HUGE_PAGE } else { bytes })).filter(|a| a.1 > 0),
        }
    }

    fn sort(&mut self) {
        self.by_address = (0..).zip(&self.arenas).map(|(i, arena)| (arena.base, i)).collect();
        self.by_address.sort_unstable();
    }

    /// Takes a block back that is within a region.
    pub(super) fn give_back_shared(&mut self, address: usize, bytes: usize, now: Instant) {
        self.used -= bytes;
        self.put_back(address, bytes, Some(now));
    }

    /// Adds free pages to their region.
    pub(super) fn put_back(&mut self, address: usize, bytes: usize, now: Option<Instant>) {
        let arena = self.arena_of(address).expect("the pages are of a region");
        let first = (address - arena.base) / PAGE;
        arena.give_back(first..first + bytes / PAGE);
        arena.touched = now.unwrap_or(arena.touched);
    }

    /// Takes a block back; what must now be released, by the caller once it holds no lock.
    pub(super) fn give_back(&mut self, address: usize, bytes: usize, now: Instant) -> Unused {
        let mut unused = Unused::default();
        if self.arena_of(address).is_some() {
            self.give_back_shared(address, bytes, now);
            return unused;
        }
        self.used -= bytes;
        self.warm.push((address, bytes, now));
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

    /// Takes regions and mappings that nobody uses and, if `pages`, free pages that hold memory: of what rested for `idle`,
    /// and of `most` regions. The caller, once it holds no lock, releases the regions, and clears the pages and
    /// [puts them back](Self::put_back).
    pub(super) fn take_unused(&mut self, idle: Duration, pages: bool, most: usize, now: Instant) -> Unused {
        let (mut unused, mut left) = (Unused::default(), most);
        let mut within = |unused: bool| {
            let taken = unused && left > 0;
            left -= usize::from(taken);
            taken
        };
        let rested = |since: Instant| now.saturating_duration_since(since) >= idle;
        for (address, len, _) in
            self.warm.extract_if(.., |&mut (_, _, since)| within(rested(since))).collect::<Vec<_>>()
        {
            self.forget_direct(&mut unused, address, len);
        }
        let empty = |arena: &mut Arena| within(arena.used() == 0 && rested(arena.touched));
        for arena in self.arenas.extract_if(.., empty).collect::<Vec<_>>() {
            unused.regions.push((arena.base, arena.pages * PAGE));
            unused.bytes += arena.dirty() * PAGE;
            self.reserved -= arena.pages * PAGE;
        }
        self.sort();
        let pages = pages && self.lazy;
        for arena in self.arenas.iter_mut().filter(|arena| pages && rested(arena.touched)) {
            if left == 0 {
                break;
            }
            let runs = arena.take_dirty();
            left -= usize::from(!runs.is_empty());
            for run in runs {
                let run = bytes_of(arena, run);
                unused.bytes += run.1;
                unused.pages.push(run);
            }
        }
        unused
    }

    /// Bytes that hold memory: pages that were used, and mappings of their own.
    pub(super) fn held(&self) -> usize {
        self.direct + self.arenas.iter().map(|arena| arena.dirty() * PAGE).sum::<usize>()
    }

    /// Bytes of each free range that holds memory.
    pub(super) fn warm_ranges(&self) -> impl Iterator<Item = usize> + '_ {
        let runs = self.arenas.iter().flat_map(|arena| arena.warm_runs().into_iter().map(|pages| pages * PAGE));
        runs.chain(self.warm.iter().map(|&(_, len, _)| len))
    }

    /// Number of regions.
    pub(super) fn arenas(&self) -> usize {
        self.arenas.len()
    }

    pub(super) fn metadata(&self) -> usize {
        self.arenas.iter().map(Arena::metadata).sum::<usize>()
            + self.warm.capacity() * size_of::<(usize, usize, Instant)>()
    }

    /// Everything, where nobody uses any of it.
    pub(super) fn take_all(&mut self) -> Unused {
        let mut all = self.take_unused(Duration::ZERO, false, usize::MAX, Instant::now());
        all.regions.extend(self.arenas.drain(..).map(|arena| (arena.base, arena.pages * PAGE)));
        all
    }
}

/// Address and bytes of pages of a region.
fn bytes_of(arena: &Arena, pages: Range<usize>) -> (usize, usize) {
    (arena.base + pages.start * PAGE, pages.len() * PAGE)
}

/// What left the pool and waits to be given back.
#[derive(Debug, Default)]
pub(super) struct Unused {
    regions: Vec<(usize, usize)>,
    /// Free pages of regions that stay.
    pub(super) pages: Vec<(usize, usize)>,
    /// Bytes of memory that the device has again afterwards.
    bytes: usize,
}

impl Unused {
    /// Gives everything back; returns the bytes of memory that the device has again.
    pub(super) fn release(&self, raw: &dyn RawMemory) -> usize {
        self.regions.iter().for_each(|&(address, len)| raw.release(address, len));
        self.pages.iter().for_each(|&(address, len)| raw.discard(address, len));
        self.bytes
    }

    /// Whether there was nothing to give back.
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty() && self.pages.is_empty()
    }
}
