//! Which thread is asking a device for memory for a pool, so that a device that comes back to that pool for more is refused
//! instead of waiting for itself for ever.

use super::RawMemory;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

thread_local! {
    /// Its address tells threads apart. Needs no destructor, so that it is there until the thread has ended.
    static THREAD: Cell<u8> = const { Cell::new(0) };
}

fn this_thread() -> usize {
    THREAD.with(|mark| std::ptr::from_ref(mark).addr())
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
