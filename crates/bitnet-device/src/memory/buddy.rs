//! A region managed by the buddy method: a free block of 2^k pages merges with its free neighbour into one of 2^(k+1).
//! An allocation need not be a whole block: it may begin or end within one and span several, so that rounding to powers
//! of two wastes no pages. All metadata is outside the region.

use super::raw::HUGE_PAGE;
use std::ops::Range;
use std::time::Instant;

/// Page size.
pub(super) const PAGE: usize = 4096;

/// Slab of a page that belongs to none.
pub(super) const NO_SLAB: u32 = u32::MAX;

/// Pages of a huge page.
const HUGE: usize = HUGE_PAGE / PAGE;

/// Free blocks of each size that are examined for the best fit.
const TRIES: usize = 16;

/// A region and its free pages.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) base: usize,
    pub(super) pages: usize,
    /// Time of the last free.
    pub(super) touched: Instant,
    /// `free[k]`, bit `i`: pages `i << k .. (i + 1) << k` are free and not part of a larger free block.
    free: Vec<Bits>,
    /// The free pages one by one.
    open: Bits,
    /// Pages used since the system provided them: committed, and not zero.
    dirty: Bits,
    /// The huge pages that were asked for.
    huge: Bits,
    /// The slab of every page.
    slabs: Vec<u32>,
}

impl Arena {
    pub(super) fn new(base: usize, pages: usize) -> Self {
        let free = (0..=pages.ilog2()).map(|k| Bits::new(pages >> k)).collect();
        let (open, dirty, slabs) = (Bits::new(pages), Bits::new(pages), vec![NO_SLAB; pages]);
        let (touched, huge) = (Instant::now(), Bits::new(pages.div_ceil(HUGE)));
        let mut arena = Self { base, pages, touched, free, open, dirty, huge, slabs };
        arena.give_back(0..pages);
        arena
    }

    /// Pages in use.
    pub(super) fn used(&self) -> usize {
        self.pages - self.open.count
    }

    /// Allocates `pages` pages aligned to `align`, from the shortest run of free pages found that fits; of those with room for
    /// two such blocks, the first. Also returns whether none of the pages was used before.
    pub(super) fn take(&mut self, pages: usize, align: usize) -> Option<(usize, bool)> {
        if self.open.count < pages {
            return None;
        }
        let enough = pages.next_power_of_two().ilog2() as usize;
        let mut best: Option<(usize, usize)> = None;
        // So many free pages in a row contain a block of at least a quarter of the next power of two.
        for order in enough.saturating_sub(2)..self.free.len() {
            for block in self.free[order].ones().take(TRIES) {
                let start = self.open.run_start(block << order);
                let first = start.next_multiple_of(align.max(1));
                if first + pages <= (block + 1) << order || self.open.has_range(first..first + pages) {
                    let end = self.open.run_end(first + pages - 1, start + (2 << enough));
                    let run = (end - start, first);
                    best = Some(best.map_or(run, |best| best.min(run)));
                }
            }
            // Runs around larger blocks are no shorter.
            if best.is_some_and(|(len, _)| len <= 2 << order) {
                break;
            }
        }
        let (_, first) = best?;
        self.remove(first..first + pages);
        Some((first, self.dirty.set_range(first..first + pages) == pages))
    }

    /// Frees pages that `take` allocated.
    pub(super) fn give_back(&mut self, pages: Range<usize>) {
        self.open.set_range(pages.clone());
        self.insert(pages);
    }

    /// Removes pages from the free blocks that contain them.
    fn remove(&mut self, pages: Range<usize>) {
        self.open.clear_range(pages.clone());
        let mut at = pages.start;
        while at < pages.end {
            let holds = |order: &usize| self.free[*order].get(at >> order);
            let order = (0..self.free.len()).find(holds).expect("free pages belong to a block");
            let block = at >> order;
            self.free[order].clear(block);
            let (start, end) = (block << order, (block + 1) << order);
            self.insert(start..at);
            self.insert(end.min(pages.end)..end);
            at = end;
        }
    }

    /// Adds free pages as the largest possible blocks, merged with their neighbours.
    fn insert(&mut self, mut pages: Range<usize>) {
        while !pages.is_empty() {
            let aligned = if pages.start == 0 { usize::MAX } else { pages.start.trailing_zeros() as usize };
            let mut order = aligned.min(pages.len().ilog2() as usize);
            let mut block = pages.start >> order;
            pages.start += 1 << order;
            while order + 1 < self.free.len() && self.free[order].get(block ^ 1) {
                self.free[order].clear(block ^ 1);
                block /= 2;
                order += 1;
            }
            self.free[order].set(block);
        }
    }

    /// Notes that huge pages are wanted for the whole ones among `pages`, or small ones for all that have some of `pages`.
    /// Returns the pages to ask for, if that is not how they are.
    pub(super) fn want_huge(&mut self, pages: Range<usize>, wanted: bool) -> Option<Range<usize>> {
        let range = if wanted {
            let range = pages.start.div_ceil(HUGE)..pages.end / HUGE;
            (!range.is_empty() && self.huge.set_range(range.clone()) > 0).then_some(range)?
        } else {
            let range = pages.start / HUGE..pages.end.div_ceil(HUGE);
            (self.huge.clear_range(range.clone()) > 0).then_some(range)?
        };
        Some(range.start * HUGE..(range.end * HUGE).min(self.pages))
    }

    /// Takes the runs of free but committed pages, to be cleared and given back.
    pub(super) fn take_dirty(&mut self) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for k in 0..self.free.len() {
            for block in self.free[k].ones() {
                let block = block << k..(block + 1) << k;
                if self.dirty.clear_range(block.clone()) > 0 {
                    runs.push(block);
                }
            }
        }
        runs.sort_unstable_by_key(|run| run.start);
        runs.dedup_by(|next, run| {
            let beside = run.end == next.start;
            if beside {
                run.end = next.end;
            }
            beside
        });
        runs.iter().for_each(|run| self.remove(run.clone()));
        runs
    }

    /// Lengths of the runs of free but committed pages.
    pub(super) fn warm_runs(&self) -> Vec<usize> {
        let mut runs = vec![0];
        for page in 0..self.pages {
            match (self.open.get(page) && self.dirty.get(page), runs.last_mut()) {
                (true, Some(run)) => *run += 1,
                (false, Some(1..)) => runs.push(0),
                _ => {}
            }
        }
        runs.retain(|&run| run > 0);
        runs
    }

    /// Committed pages, in use or not.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.count
    }

    pub(super) fn slab_of(&self, address: usize) -> u32 {
        self.slabs[(address - self.base) / PAGE]
    }

    pub(super) fn set_slab(&mut self, address: usize, pages: usize, slab: u32) {
        self.slabs[(address - self.base) / PAGE..][..pages].fill(slab);
    }

    /// Bytes of the region's metadata.
    pub(super) fn metadata(&self) -> usize {
        let bits = self
            .free
            .iter()
            .chain([&self.open, &self.dirty, &self.huge])
            .map(|bits| bits.words.len() * 8 + size_of::<Bits>());
        size_of::<Self>() + self.slabs.len() * 4 + bits.sum::<usize>()
    }
}

/// Bits of a word that are set; counting takes long on a CPU without an instruction for it, and most words are of one kind.
fn ones(word: u64) -> usize {
    if word == 0 || word == u64::MAX { (word & 64) as usize } else { word.count_ones() as usize }
}

/// A set of small numbers.
#[derive(Debug)]
struct Bits {
    words: Vec<u64>,
    count: usize,
    /// No word before this one has a bit.
    lowest: usize,
}

impl Bits {
    fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], count: 0, lowest: 0 }
    }

    fn get(&self, i: usize) -> bool {
        self.words.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    fn set(&mut self, i: usize) {
        self.words[i / 64] |= 1 << (i % 64);
        self.count += 1;
        self.lowest = self.lowest.min(i / 64);
    }

    fn clear(&mut self, i: usize) {
        self.words[i / 64] &= !(1 << (i % 64));
        self.count -= 1;
        while self.words.get(self.lowest) == Some(&0) {
            self.lowest += 1;
        }
    }

    /// The numbers in the set, the lowest first.
    fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        let words = if self.count == 0 { 0..0 } else { self.lowest..self.words.len() };
        words.flat_map(|i| {
            let next = |word: &u64| Some(word & (word - 1)).filter(|&rest| rest != 0);
            let words = std::iter::successors(Some(self.words[i]).filter(|&word| word != 0), next);
            words.map(move |word| i * 64 + word.trailing_zeros() as usize)
        })
    }

    /// First number of the run in the set that ends with `i`.
    fn run_start(&self, i: usize) -> usize {
        let mut word = i / 64;
        let mut gaps = !self.words[word] & (u64::MAX >> (63 - i % 64));
        while gaps == 0 && word > 0 {
            word -= 1;
            gaps = !self.words[word];
        }
        if gaps == 0 { 0 } else { word * 64 + 64 - gaps.leading_zeros() as usize }
    }

    /// End of the run in the set that begins with `i`; `most` or more where it is that far.
    fn run_end(&self, i: usize, most: usize) -> usize {
        let mut word = i / 64;
        let mut gaps = !self.words[word] & (u64::MAX << (i % 64));
        while gaps == 0 && word + 1 < self.words.len() && (word + 1) * 64 < most {
            word += 1;
            gaps = !self.words[word];
        }
        (word * 64 + gaps.trailing_zeros() as usize).min(most.max(i + 1))
    }

    fn has_range(&self, range: Range<usize>) -> bool {
        let mut all = range.end <= self.words.len() * 64;
        if all {
            Self::each_word(range, |word, mask| all &= self.words[word] & mask == mask);
        }
        all
    }

    /// The words that contain `range`, with its bits; those between the first and the last have all.
    #[inline]
    fn each_word(range: Range<usize>, mut work: impl FnMut(usize, u64)) {
        if range.is_empty() {
            return;
        }
        let (first, last) = (range.start / 64, (range.end - 1) / 64);
        let (from, to) = (u64::MAX << (range.start % 64), u64::MAX >> (63 - (range.end - 1) % 64));
        if first == last {
            return work(first, from & to);
        }
        work(first, from);
        (first + 1..last).for_each(|word| work(word, u64::MAX));
        work(last, to);
    }

    /// Returns how many were not in the set before.
    fn set_range(&mut self, range: Range<usize>) -> usize {
        let mut new = 0;
        self.lowest = self.lowest.min(if range.is_empty() { usize::MAX } else { range.start / 64 });
        Self::each_word(range, |word, mask| {
            new += ones(mask & !self.words[word]);
            self.words[word] |= mask;
        });
        self.count += new;
        new
    }

    /// Returns how many were in the set before.
    fn clear_range(&mut self, range: Range<usize>) -> usize {
        let mut old = 0;
        Self::each_word(range, |word, mask| {
            old += ones(mask & self.words[word]);
            self.words[word] &= !mask;
        });
        self.count -= old;
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_bits() {
        for (from, to) in [(0, 1), (0, 64), (3, 60), (63, 65), (64, 128), (5, 200), (130, 131)] {
            let mut bits = Bits::new(200);
            assert_eq!(bits.set_range(from..to), to - from);
            assert!(bits.ones().eq(from..to), "{from}..{to}");
            assert_eq!(bits.clear_range(from + 1..to), to - from - 1);
            assert!(bits.ones().eq([from]));
            bits.set_range(from..to);
            assert!((from..to).all(|i| bits.run_start(i) == from && bits.has_range(from..i + 1)), "{from}..{to}");
            assert!(!bits.has_range(from..to + 1) && !bits.has_range(from..300));
        }
    }

    /// Random use compared with a plain list of pages: blocks are disjoint and aligned, and all pages merge again.
    #[test]
    fn blocks_are_disjoint_and_join_again() {
        for pages in [1, 5, 64, 1000, 4096] {
            let (mut arena, mut seed) = (Arena::new(1 << 30, pages), 9u64);
            let (mut used, mut blocks) = (vec![false; pages], Vec::new());
            for _ in 0..if cfg!(miri) { 200 } else { 20_000 } {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let random = (seed >> 33) as usize;
                if random.is_multiple_of(2) {
                    let wanted = 1 + random / 2 % pages.min(70);
                    let align = 1 << (random / 256 % 4);
                    if let Some((first, _)) = arena.take(wanted, align) {
                        assert!(first.is_multiple_of(align));
                        assert!(used[first..first + wanted].iter().all(|&page| !page), "taken twice");
                        used[first..first + wanted].fill(true);
                        blocks.push(first..first + wanted);
                    }
                } else if !blocks.is_empty() {
                    let block: Range<usize> = blocks.swap_remove(random / 2 % blocks.len());
                    used[block.clone()].fill(false);
                    arena.give_back(block);
                }
                assert_eq!(arena.used(), used.iter().filter(|&&page| page).count());
            }
            for block in blocks.drain(..) {
                arena.give_back(block);
            }
            let largest = 1 << pages.ilog2();
            assert_eq!(arena.take(largest, 1).map(|(first, _)| first), Some(0), "{pages} pages join again");
        }
    }

    #[test]
    fn pages_that_no_block_holds_are_found() {
        let mut arena = Arena::new(1 << 30, 32);
        assert_eq!(arena.take(32, 1), Some((0, true)));
        // 3..8 and 8..15: blocks of 1, 4, 4, 2 and 1 pages.
        arena.give_back(3..15);
        assert_eq!(arena.take(13, 1), None);
        assert_eq!(arena.take(12, 1), Some((3, false)));
        arena.give_back(3..15);
        assert_eq!((arena.take(9, 8), arena.take(7, 8)), (None, Some((8, false))));
        assert_eq!(arena.take(5, 1), Some((3, false)));
        assert_eq!(arena.used(), 32);
    }

    #[test]
    fn cleaned_pages_are_fresh() {
        let mut arena = Arena::new(1 << 30, 100);
        assert_eq!(arena.take(10, 1), Some((0, true)));
        assert_eq!(arena.take(3, 1), Some((10, true)));
        arena.give_back(0..10);
        assert_eq!(arena.take(11, 1), Some((13, true)));
        assert_eq!(arena.take(8, 1), Some((0, false)));
        arena.give_back(0..8);
        assert_eq!((arena.dirty(), arena.used()), (24, 14));
        assert!(arena.take_dirty().into_iter().eq(std::iter::once(0..10)));
        assert_eq!((arena.dirty(), arena.used(), arena.take_dirty()), (14, 24, vec![]));
        arena.give_back(0..10);
        assert_eq!(arena.take(10, 1), Some((0, true)));
    }

    #[test]
    fn huge_pages_are_asked_for_once_and_only_whole() {
        let mut arena = Arena::new(1 << 30, 4 * HUGE + 1);
        let mut want = |pages, wanted| arena.want_huge(pages, wanted);
        assert_eq!((want(0..HUGE - 1, true), want(1..2 * HUGE - 1, true)), (None, None), "no whole one");
        assert_eq!(want(0..2 * HUGE + 1, true), Some(0..2 * HUGE));
        assert_eq!((want(0..2 * HUGE, true), want(2 * HUGE..2 * HUGE + 1, false)), (None, None), "as they are");
        assert_eq!(want(HUGE..HUGE + 1, false), Some(HUGE..2 * HUGE));
        assert_eq!(want(0..4 * HUGE + 1, true), Some(0..4 * HUGE));
        assert_eq!(want(3 * HUGE..4 * HUGE + 1, false), Some(3 * HUGE..4 * HUGE + 1));
    }
}
