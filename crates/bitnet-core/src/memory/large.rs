//! Large blocks: anonymous mappings, zero until written and returned to the system when freed.

use memmap2::MmapMut;

/// Size and alignment of a huge page on the systems we run on.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// One mapping; its pages take memory only once written.
#[derive(Debug)]
pub(super) struct LargeBlock {
    map: MmapMut,
    start: usize,
    len: usize,
}

impl LargeBlock {
    /// A zeroed block of `len` bytes, aligned to a huge page.
    pub(super) fn new(len: usize) -> std::io::Result<Self> {
        // Mapped wider than asked, so that an aligned start exists; untouched pages cost nothing.
        let wide = len.checked_add(HUGE_PAGE).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(wide)?;
        // Memory by the page that is touched, also where the system would rather give huge ones: a cache for a long text must
        // not take its whole room at the first token. A hint, so a refusal is no error.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::NoHugePage);
        let start = map.as_ptr().align_offset(HUGE_PAGE);
        Ok(Self { map, start, len })
    }

    /// Asks for huge pages: fewer address translations when the block is streamed, but memory in steps of 2 MiB.
    pub(super) fn advise_huge_pages(&self) {
        #[cfg(target_os = "linux")]
        let _ = self.map.advise_range(memmap2::Advice::HugePage, self.start, self.len); // a hint; small pages are also right
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.len]
    }
}
