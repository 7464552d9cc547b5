//! Which pages of the cache are in use, which hold beginnings of texts that may come again, and which are free.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};

/// A page with what it holds, as the beginning of what follows: number of the page and how often it was given out before.
pub(crate) type Link = (u32, u64);

/// Pages by number. Page 0 is never given out: a table of pages is padded with it.
#[derive(Debug)]
pub(crate) struct Pages {
    /// Tokens of a page.
    len: usize,
    /// Pages that may exist, without page 0.
    budget: usize,
    /// Every page given out so far, and page 0.
    all: Vec<Page>,
    /// Tokens of pages in the index, `len` for each page.
    tokens: Vec<u32>,
    free: Vec<u32>,
    /// Pages by the hash of what they hold and follow.
    index: HashMap<u64, u32>,
    hasher: RandomState,
    /// Counts pages that lost their last user.
    clock: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Page {
    users: u32,
    /// How often it was given out.
    generation: u64,
    /// Hash and link of a page in the index.
    entry: Option<(u64, Option<Link>)>,
    /// When it lost its last user, if it is in the index.
    idle_since: u64,
}

impl Pages {
    /// Up to `budget` pages of `len` tokens.
    pub(crate) fn new(len: usize, budget: usize) -> Self {
        let (all, tokens) = (vec![Page::default()], vec![0; len]);
        let (free, index) = (Vec::new(), HashMap::new());
        Self { len, budget, all, tokens, free, index, hasher: RandomState::new(), clock: 0 }
    }

    /// Whether nobody uses it.
    pub(crate) fn is_idle(&self, page: u32) -> bool {
        self.all[page as usize].users == 0
    }

    /// Pages with users.
    pub(crate) fn used(&self) -> usize {
        self.all.iter().filter(|page| page.users > 0).count()
    }

    /// Pages without users that hold beginnings.
    pub(crate) fn idle(&self) -> usize {
        self.all.iter().filter(|page| page.users == 0 && page.entry.is_some()).count()
    }

    /// Pages that can be given out.
    pub(crate) fn available(&self) -> usize {
        self.budget - self.used()
    }

    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    /// Room for the records of so many pages, so that giving them out allocates nothing.
    pub(crate) fn reserve(&mut self, pages: usize) {
        let more = (pages + 1).saturating_sub(self.all.len());
        self.all.reserve(more);
        self.tokens.reserve(more * self.len);
        self.free.reserve(pages);
        self.index.reserve(pages.saturating_sub(self.index.len()));
    }

    /// A page with one user: free, new, or the one that has been idle for longest; `None` when all are in use.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let page = match self.free.pop() {
            Some(page) => page,
            None if self.all.len() <= self.budget => {
                self.all.push(Page::default());
                self.tokens.resize(self.all.len() * self.len, 0);
                self.all.len() as u32 - 1
            }
            None => {
                let idle = self.all.iter().zip(0u32..).filter(|(page, _)| page.users == 0 && page.entry.is_some());
                let (_, oldest) = idle.min_by_key(|(page, _)| page.idle_since)?;
                self.withdraw(oldest);
                oldest
            }
        };
        let record = &mut self.all[page as usize];
        (record.users, record.generation) = (1, record.generation + 1);
        Some(page)
    }

    /// One more user.
    pub(crate) fn share(&mut self, page: u32) {
        self.all[page as usize].users += 1;
    }

    /// One user less; what is in the index stays until the page is needed.
    pub(crate) fn release(&mut self, page: u32) {
        let record = &mut self.all[page as usize];
        record.users -= 1;
        if record.users > 0 {
            return;
        }
        if record.entry.is_some() {
            self.clock += 1;
            record.idle_since = self.clock;
        } else {
            self.free.push(page);
        }
    }

    /// Takes a page out of the index.
    fn withdraw(&mut self, page: u32) {
        if let Some((hash, _)) = self.all[page as usize].entry.take() {
            self.index.remove(&hash);
        }
    }

    /// What follows a page refers to it by this.
    pub(crate) fn link(&self, page: u32) -> Link {
        (page, self.all[page as usize].generation)
    }

    /// The page that holds these tokens after what `before` holds.
    pub(crate) fn find(&self, before: Option<Link>, tokens: &[u32]) -> Option<u32> {
        let page = *self.index.get(&self.hasher.hash_one((before, tokens)))?;
        let same = self.all[page as usize].entry.is_some_and(|(_, link)| link == before);
        (same && self.held(page) == tokens).then_some(page)
    }

    /// Puts a full page into the index. If another holds the same, gives that instead.
    pub(crate) fn publish(&mut self, page: u32, before: Option<Link>, tokens: &[u32]) -> u32 {
        let hash = self.hasher.hash_one((before, tokens));
        if let Some(known) = self.find(before, tokens) {
            return known;
        }
        // Two beginnings with one hash: the first stays.
        if let Entry::Vacant(place) = self.index.entry(hash) {
            place.insert(page);
            self.all[page as usize].entry = Some((hash, before));
            self.tokens[page as usize * self.len..][..self.len].copy_from_slice(tokens);
        }
        page
    }

    fn held(&self, page: u32) -> &[u32] {
        &self.tokens[page as usize * self.len..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_beginnings_are_one_page_as_long_as_it_is_not_needed() {
        let mut pages = Pages::new(2, 3);
        let a = pages.allocate().unwrap();
        assert_eq!(pages.publish(a, None, &[1, 2]), a);
        let b = pages.allocate().unwrap();
        let after_a = Some(pages.link(a));
        assert_eq!(pages.publish(b, after_a, &[3, 4]), b);
        assert_eq!((pages.find(None, &[1, 2]), pages.find(after_a, &[3, 4])), (Some(a), Some(b)));
        assert_eq!((pages.find(None, &[3, 4]), pages.find(after_a, &[1, 2])), (None, None), "after something else");
        let c = pages.allocate().unwrap();
        assert_eq!(pages.publish(c, None, &[1, 2]), a, "already known");
        assert_eq!(pages.allocate(), None, "all in use");
        pages.share(a);
        for page in [a, b, c, a] {
            pages.release(page);
        }
        assert_eq!((pages.used(), pages.idle(), pages.available()), (0, 2, 3));
        assert_eq!(pages.allocate(), Some(c), "the free one first");
        assert_eq!(pages.allocate(), Some(b), "then what has been idle for longest");
        assert_eq!(pages.find(after_a, &[3, 4]), None);
        assert_eq!(pages.find(None, &[1, 2]), Some(a));
        assert_eq!(pages.allocate(), Some(a));
        // Page a now holds something else: what followed the old one must not be found.
        assert_eq!(pages.publish(b, after_a, &[3, 4]), b);
        assert_eq!(pages.find(Some(pages.link(a)), &[3, 4]), None);
    }
}
