//! Small blocks: size classes, eight to a doubling, cut from slabs whose blocks fill whole pages exactly.

use super::buddy::PAGE;
use super::large::LargeBlockPool;
use std::time::Instant;

/// Alignment of every block, and the smallest one: a cache line.
pub(super) const LINE: usize = 64;
/// Blocks below this many bytes can be small.
pub(super) const LARGEST: usize = 1 << 20;
/// Classes that hold `1..=LARGEST` bytes: multiples of 64 up to 512, then eight steps to every doubling.
pub(super) const CLASSES: usize = 8 + 8 * (LARGEST.ilog2() - 9) as usize;
/// Maximum number of blocks of a slab.
const MOST: usize = 512;

/// The smallest class that holds `len` bytes, at most [`LARGEST`].
#[inline]
pub(super) const fn class_of(len: usize) -> usize {
    if len <= 512 {
        return len.saturating_sub(1) / LINE;
    }
    let last = len - 1;
    let doubling = last.ilog2() as usize;
    (doubling - 9) * 8 + 8 + ((last >> (doubling - 3)) & 7)
}

/// Bytes of a block of a class; from 512 on at most an eighth more than requested.
#[inline]
pub(super) const fn class_bytes(class: usize) -> usize {
    if class < 8 { (class + 1) * LINE } else { (class % 8 + 9) << (class / 8 + 5) }
}

/// Blocks and pages of a slab of a class, without remainder. Blocks of whole pages, from 32 KiB on, have their own
/// slab.
const fn slab_shape(class: usize) -> (usize, usize) {
    let bytes = class_bytes(class);
    let pages = match class {
        0..8 => (class + 1) * 8usize.div_ceil(class + 1),
        // A class of `(9..=16) << k` bytes fills as many pages with a power of two of blocks.
        _ if bytes < 8 * PAGE => class % 8 + 9,
        _ => bytes / PAGE,
    };
    (pages * PAGE / bytes, pages)
}

/// Bytes that a class takes from a region at a time.
pub(super) const fn slab_bytes(class: usize) -> usize {
    slab_shape(class).1 * PAGE
}

/// Blocks below the threshold, with bitmaps of free blocks outside their slabs.
#[derive(Debug)]
pub(super) struct SmallBlockPool {
    slabs: Vec<Slab>,
    /// Free indices of `slabs`.
    vacant: Vec<u32>,
    /// Slabs of a class with free blocks; the last is used first.
    partial: Vec<Vec<u32>>,
}

#[derive(Debug, Clone)]
struct Slab {
    base: usize,
    free: [u64; MOST / 64],
    free_blocks: u32,
    class: u32,
    /// Index in `partial` while there are free blocks.
    place: u32,
}

impl SmallBlockPool {
    pub(super) fn new() -> Self {
        Self { slabs: Vec::new(), vacant: Vec::new(), partial: vec![Vec::new(); CLASSES] }
    }

    /// Allocates blocks of a class into `out`, at least one: returns their number, and whether the memory was used
    /// before; `None` if no region has room.
    pub(super) fn take(
        &mut self,
        class: usize,
        out: &mut [usize],
        large: &mut LargeBlockPool,
    ) -> Option<(usize, bool)> {
        let (blocks, pages) = slab_shape(class);
        let mut warm = true;
        if blocks == 1 {
            let block = large.take_shared(pages * PAGE, PAGE)?;
            out[0] = block.address;
            return Some((1, !block.fresh));
        }
        if self.partial[class].is_empty() {
            warm = !self.add_slab(class, blocks, pages, large)?;
        }
        let id = self.partial[class][self.partial[class].len() - 1];
        let (slab, bytes) = (&mut self.slabs[id as usize], class_bytes(class));
        let taken = out.len().min(slab.free_blocks as usize);
        let mut out = out[..taken].iter_mut();
        for (i, word) in slab.free.iter_mut().enumerate() {
            while *word != 0
                && let Some(out) = out.next()
            {
                *out = slab.base + (i * 64 + word.trailing_zeros() as usize) * bytes;
                *word &= *word - 1;
            }
        }
        slab.free_blocks -= taken as u32;
        if slab.free_blocks == 0 {
            self.partial[class].pop();
        }
        Some((taken, warm))
    }

    fn add_slab(&mut self, class: usize, blocks: usize, pages: usize, large: &mut LargeBlockPool) -> Option<bool> {
        let memory = large.take_shared(pages * PAGE, PAGE)?;
        let free = std::array::from_fn(|word| match blocks.saturating_sub(word * 64) {
            0 => 0,
            rest => u64::MAX >> (64 - rest.min(64)),
        });
        let slab = Slab { base: memory.address, free, free_blocks: blocks as u32, class: class as u32, place: 0 };
        let id = self.vacant.pop().unwrap_or(self.slabs.len() as u32);
        match self.slabs.get_mut(id as usize) {
            Some(place) => *place = slab,
            None => self.slabs.push(slab),
        }
        self.partial[class].push(id);
        let arena = large.arena_of(memory.address).expect("slabs are smaller than regions");
        arena.set_slab(memory.address, pages, id);
        Some(memory.fresh)
    }

    /// Frees a block. An empty slab is freed unless it is the only one with free blocks.
    pub(super) fn give_back(&mut self, class: usize, address: usize, large: &mut LargeBlockPool, now: Instant) {
        let (blocks, pages) = slab_shape(class);
        if blocks == 1 {
            return large.give_back_shared(address, pages * PAGE, now);
        }
        let arena = large.arena_of(address).expect("the block came from here");
        let id = arena.slab_of(address);
        let slab = &mut self.slabs[id as usize];
        let block = (address - slab.base) / class_bytes(class);
        slab.free[block / 64] |= 1 << (block % 64);
        slab.free_blocks += 1;
        let partial = &mut self.partial[class];
        if slab.free_blocks == 1 {
            slab.place = partial.len() as u32;
            partial.push(id);
        }
        if slab.free_blocks as usize == blocks && partial.len() > 1 {
            self.remove_slab(id, large, now);
        }
    }

    fn remove_slab(&mut self, id: u32, large: &mut LargeBlockPool, now: Instant) {
        let Slab { base, class, place, .. } = self.slabs[id as usize];
        let partial = &mut self.partial[class as usize];
        partial.swap_remove(place as usize);
        if let Some(&moved) = partial.get(place as usize) {
            self.slabs[moved as usize].place = place;
        }
        let (_, pages) = slab_shape(class as usize);
        if let Some(arena) = large.arena_of(base) {
            arena.set_slab(base, pages, super::buddy::NO_SLAB);
        }
        large.give_back_shared(base, pages * PAGE, now);
        self.vacant.push(id);
    }

    /// Frees every empty slab.
    pub(super) fn give_back_empty(&mut self, large: &mut LargeBlockPool, now: Instant) {
        for class in 0..CLASSES {
            let (blocks, _) = slab_shape(class);
            let empty = |&id: &u32| self.slabs[id as usize].free_blocks as usize == blocks;
            for id in self.partial[class].iter().copied().filter(empty).collect::<Vec<_>>() {
                self.remove_slab(id, large, now);
            }
        }
    }

    /// Bytes of a block and number of free blocks, for each class that has some.
    pub(super) fn free_blocks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let free = |list: &Vec<u32>| list.iter().map(|&id| self.slabs[id as usize].free_blocks as usize).sum();
        self.partial
            .iter()
            .enumerate()
            .map(move |(class, list)| (class_bytes(class), free(list)))
            .filter(|&(_, n)| n > 0)
    }

    /// Slabs in use.
    pub(super) fn slabs(&self) -> usize {
        self.slabs.len() - self.vacant.len()
    }

    pub(super) fn metadata(&self) -> usize {
        let lists = self.partial.iter().map(|list| size_of::<Vec<u32>>() + list.capacity() * 4).sum::<usize>();
        self.slabs.capacity() * size_of::<Slab>() + self.vacant.capacity() * 4 + lists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_little_and_slabs_nothing() {
        assert_eq!((class_of(0), class_of(1), class_of(LARGEST)), (0, 0, CLASSES - 1));
        for len in (1..=LARGEST).step_by(7).chain((0..=20).flat_map(|k| [1 << k, (1 << k) + 1])) {
            let len = len.min(LARGEST);
            let bytes = class_bytes(class_of(len));
            assert!(bytes >= len && bytes < len + LINE.max(len.div_ceil(8)), "{len} in {bytes}");
            assert!(class_of(len) == 0 || class_bytes(class_of(len) - 1) < len, "{len} fits a smaller class");
        }
        for class in 0..CLASSES {
            let (blocks, pages) = slab_shape(class);
            assert_eq!(blocks * class_bytes(class), pages * PAGE, "class {class} of {} bytes", class_bytes(class));
            assert!(blocks <= MOST && class_bytes(class).is_multiple_of(LINE));
        }
    }
}
