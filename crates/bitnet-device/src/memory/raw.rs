//! Raw allocators of pools: regions of memory of one device.

use std::fmt::Debug;
use std::io;

/// Size and alignment of huge pages; on systems without them, an alignment that wastes little.
pub(super) const HUGE_PAGE: usize = if cfg!(any(unix, miri)) { 2 << 20 } else { 64 << 10 };

/// The allocator below a pool. A pool divides regions by address and never reads or writes them, so that it can manage
/// memory that only a device can access.
///
/// The pool calls it without locking its lists, one thread at a time for `reserve` and what is given back, so other threads
/// use the pool meanwhile. The pool that it serves may be used too, for what needs no other region: for that it panics.
pub trait RawMemory: Debug + Send + Sync {
    /// Name of the device, for messages.
    fn name(&self) -> String;
    /// A region of `len` bytes whose address is a multiple of `align`, a power of two.
    fn reserve(&self, len: usize, align: usize) -> io::Result<usize>;
    /// Frees a whole region that [`reserve`](Self::reserve) returned; nothing in it is in use.
    fn release(&self, address: usize, len: usize);
    /// Whether a region commits memory only when used and returns [discarded](Self::discard) pages. If not, a pool
    /// reserves no more than it needs, and discards nothing.
    fn is_lazy(&self) -> bool {
        true
    }
    /// The contents of these pages are not needed, so the system may reclaim them until they are used again.
    fn discard(&self, _address: usize, _len: usize) {}
    /// Whether these pages of a region should be huge ones, a hint.
    fn advise_huge_pages(&self, _address: usize, _len: usize, _wanted: bool) {}
    /// Free and total bytes of the device; `None` if unknown.
    fn available(&self) -> Option<(u64, u64)> {
        None
    }
}

/// Host memory. Regions are zero at first and after `discard`, and pages are committed on first access if
/// [`is_lazy`](RawMemory::is_lazy).
/// Not public: a caller of `release` could free memory in use.
#[derive(Debug)]
pub(super) struct HostMemory;

impl RawMemory for HostMemory {
    fn name(&self) -> String {
        "cpu".into()
    }

    fn reserve(&self, len: usize, align: usize) -> io::Result<usize> {
        system::reserve(len, align)
    }

    fn release(&self, address: usize, len: usize) {
        system::release(address, len);
    }

    fn is_lazy(&self) -> bool {
        system::LAZY
    }

    fn discard(&self, address: usize, len: usize) {
        system::discard(address, len);
    }

    fn advise_huge_pages(&self, address: usize, len: usize, wanted: bool) {
        system::advise_huge_pages(address, len, wanted);
    }

    fn available(&self) -> Option<(u64, u64)> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
        };
        Some((field("MemAvailable:")?, field("MemTotal:")?))
    }
}

#[cfg(all(unix, not(miri)))]
mod system {
    use super::HUGE_PAGE;
    use std::io;
    use std::ptr;

    pub(super) const LAZY: bool = true;

    /// Not to set memory aside for what may never be used. FreeBSD and its relatives have no such flag: they never do.
    const NORESERVE: libc::c_int = {
        #[cfg(not(any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")))]
        let flag = libc::MAP_NORESERVE;
        #[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd"))]
        let flag = 0;
        flag
    };

    fn map(at: *mut libc::c_void, len: usize, flags: libc::c_int) -> io::Result<usize> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: an anonymous mapping, either where the system chooses or over pages that the caller owns.
        let start = unsafe { libc::mmap(at, len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start.expose_provenance()) }
    }

    pub(super) fn reserve(len: usize, align: usize) -> io::Result<usize> {
        // Mapped larger than requested, to find an aligned start; the rest is unmapped at once.
        let align = align.max(HUGE_PAGE);
        let wide = len.checked_add(align).ok_or(io::ErrorKind::OutOfMemory)?;
        let base = map(ptr::null_mut(), wide, NORESERVE)?;
        let start = base.next_multiple_of(align);
        for (at, spare) in [(base, start - base), (start + len, base + wide - start - len)] {
            if spare > 0 {
                release(at, spare);
            }
        }
        // Small pages until a block asks for huge ones: a KV cache for a long context must not commit its whole
        // capacity at the first token.
        advise_huge_pages(start, len, false);
        Ok(start)
    }

    pub(super) fn release(address: usize, len: usize) {
        // SAFETY: the caller owns these pages and nothing refers to them. A failure leaves them mapped, unused.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(address), len) };
    }

    pub(super) fn discard(address: usize, len: usize) {
        let at = ptr::with_exposed_provenance_mut(address);
        #[cfg(target_os = "linux")]
        // SAFETY: pages of an anonymous mapping that nobody refers to; they read as zero afterwards.
        let done = unsafe { libc::madvise(at, len, libc::MADV_DONTNEED) } == 0;
        #[cfg(not(target_os = "linux"))]
        let done = map(at, len, libc::MAP_FIXED).is_ok();
        if !done {
            // SAFETY: the pages are mapped, writable and nobody's; zeroing keeps the promise, if not the saving.
            unsafe { ptr::write_bytes(at.cast::<u8>(), 0, len) };
        }
    }

    pub(super) fn advise_huge_pages(address: usize, len: usize, wanted: bool) {
        #[cfg(target_os = "linux")]
        {
            let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
            // SAFETY: advice about pages that the caller owns changes no contents; a refusal is no error.
            unsafe { libc::madvise(ptr::with_exposed_provenance_mut(address), len, advice) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (address, len, wanted);
    }
}

/// The standard allocator, where there is no mmap and under Miri.
#[cfg(any(not(unix), miri))]
mod system {
    use super::HUGE_PAGE;
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::{io, ptr};

    // Under Miri as on Unix, so that it sees the same pool.
    pub(super) const LAZY: bool = cfg!(miri);

    pub(super) fn reserve(len: usize, align: usize) -> io::Result<usize> {
        // `release` is not told the alignment: no more than one is on offer.
        let layout = Layout::from_size_align(len, HUGE_PAGE).ok().filter(|_| len > 0 && align <= HUGE_PAGE);
        // SAFETY: the layout has a size.
        let start = layout.map_or(ptr::null_mut(), |layout| unsafe { alloc_zeroed(layout) });
        if start.is_null() { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(start.expose_provenance()) }
    }

    pub(super) fn release(address: usize, len: usize) {
        let layout = Layout::from_size_align(len, HUGE_PAGE).expect("as when it was reserved");
        // SAFETY: a whole region as `reserve` gave it, which nothing refers to.
        unsafe { dealloc(ptr::with_exposed_provenance_mut(address), layout) };
    }

    pub(super) fn discard(address: usize, len: usize) {
        // SAFETY: pages that the caller owns and nobody refers to.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_bytes(0, len) };
    }

    pub(super) fn advise_huge_pages(_address: usize, _len: usize, _wanted: bool) {}
}
