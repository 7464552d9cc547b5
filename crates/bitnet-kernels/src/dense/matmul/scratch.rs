//! Memory for packed panels, kept by each thread from call to call.

use std::cell::Cell;

/// Bytes that a thread keeps; more is given back after the call.
const KEPT: usize = 48 << 20;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

thread_local! {
    static LINES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with memory for `bytes` bytes, aligned to 64, which holds anything.
pub(super) fn with<R>(bytes: usize, f: impl FnOnce(*mut u8) -> R) -> R {
    // A call from inside `f` finds none and takes its own; so does one while the thread ends, from a destructor.
    let mut lines = LINES.try_with(Cell::take).unwrap_or_default();
    let count = bytes.div_ceil(64);
    if lines.capacity() < count {
        lines = Vec::with_capacity(count);
        crate::probe::advise_huge_pages(lines.spare_capacity_mut());
    }
    let result = f(lines.as_mut_ptr().cast());
    if lines.capacity() * 64 <= KEPT {
        let _ = LINES.try_with(|kept| kept.set(lines));
    }
    result
}
