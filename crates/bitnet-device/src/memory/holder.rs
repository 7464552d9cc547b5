//! Which thread is asking a device for memory for a pool, so that a device that comes back to that pool for more is refused
//! instead of waiting for itself for ever.

use super::RawMemory;
use super::atomic::{AtomicUsize, Ordering::Relaxed, thread_local};
use std::cell::Cell;

thread_local! {
    /// Its number, or 0 before it has one. Needs no destructor, so that it is there until the thread has ended.
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

/// A number that no other thread has or had: an address would come again after the thread has ended.
fn this_thread() -> usize {
    static LAST: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    THREAD.with(|number| {
        if number.get() == 0 {
            number.set(LAST.fetch_add(1, Relaxed) + 1);
        }
        number.get()
    })
}

/// 0, or the thread that asks. A thread finds itself here only if it wrote so, so no order of memory is needed.
#[derive(Debug, Default)]
pub(super) struct Holder(AtomicUsize);

/// The thread asks until this is dropped.
pub(super) struct Held<'a>(&'a Holder);

impl Holder {
    /// Panics if this thread is asking, and would wait for itself.
    pub(super) fn refuse_this_thread(&self, raw: &dyn RawMemory) {
        assert!(
            self.0.load(Relaxed) != this_thread(),
            "the memory of {} uses the pool that is asking it for memory",
            raw.name()
        );
    }

    /// This thread asks.
    pub(super) fn hold(&self) -> Held<'_> {
        self.0.store(this_thread(), Relaxed);
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Relaxed);
    }
}
