//! Profiling of device operations: calls, time, bytes, kernels, and advice.
//!
//! While no profiler is active, an operation costs one relaxed load more. While one is, [`Device`](crate::Device)
//! dereferences to a backend that records each call and delegates to its own.

mod backend;
mod report;
#[cfg(test)]
mod tests;

pub(crate) use backend::Profiled;
pub use report::{OperationKind, OperationProfile, Profile};

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Active profilers, on all threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Without a destructor, so that operations of other thread-locals' destructors find it; empty without a profiler.
    static NOTES: RefCell<ManuallyDrop<Vec<Notes>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    /// The shape operation that causes the next copy on this thread.
    static COPY_FOR: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The records of one profiler.
struct Notes {
    id: usize,
    operations: HashMap<Key, Counts>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    operation: String,
    dtypes: String,
    kernel: String,
    kind: OperationKind,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    calls: u64,
    small: u64,
    time: Duration,
    read: u64,
    written: u64,
    operations: u64,
}

/// Records the operations of its thread on any device, from [`start`](Self::start) to [`stop`](Self::stop).
///
/// ```
/// use bitnet_core::{BitNetDType, BitNetTensor, Device, Profiler};
/// let x = BitNetTensor::ones(&[64, 64], BitNetDType::F32, &Device::cpu())?;
/// let profiler = Profiler::start();
/// let y = x.transpose(0, 1)?.add(&x)?;
/// let profile = profiler.stop();
/// println!("{profile}");
/// assert_eq!(profile.calls("binary add"), 1);
/// assert_eq!(profile.shape_only_share(), Some(1.)); // the transpose moved nothing
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug)]
pub struct Profiler {
    id: usize,
    started: Instant,
    // Its records belong to this thread.
    thread: PhantomData<*const ()>,
}

impl Profiler {
    /// Starts recording this thread. Profilers may overlap: each records everything.
    pub fn start() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        COPY_FOR.set(None);
        NOTES.with_borrow_mut(|all| all.push(Notes { id, operations: HashMap::new() }));
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Self { id, started: Instant::now(), thread: PhantomData }
    }

    /// Stops, and returns the profile.
    pub fn stop(self) -> Profile {
        let wall = self.started.elapsed();
        let operations = self.take().into_iter().map(|(key, counts)| OperationProfile {
            operation: key.operation,
            dtypes: key.dtypes,
            kernel: key.kernel,
            kind: key.kind,
            calls: counts.calls,
            small_calls: counts.small,
            time: counts.time,
            bytes_read: counts.read,
            bytes_written: counts.written,
            operations: counts.operations,
        });
        Profile::new(operations.collect(), wall)
    }

    fn take(&self) -> HashMap<Key, Counts> {
        let found = NOTES.with_borrow_mut(|all| {
            let at = all.iter().position(|notes| notes.id == self.id)?;
            let notes = all.remove(at);
            if all.is_empty() {
                **all = Vec::new();
            }
            Some(notes.operations)
        });
        if found.is_some() {
            RUNNING.fetch_sub(1, Ordering::Relaxed);
        }
        found.unwrap_or_default()
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        self.take();
    }
}

/// Whether a profiler is active on this thread.
#[inline]
pub(crate) fn is_active() -> bool {
    RUNNING.load(Ordering::Relaxed) != 0 && watched()
}

#[cold]
fn watched() -> bool {
    NOTES.with_borrow(|all| !all.is_empty())
}

/// Records a call that changed only the shape and copied nothing.
#[inline]
pub(crate) fn view(operation: &'static str) {
    if is_active() {
        let key = Key {
            operation: operation.into(),
            dtypes: String::new(),
            kernel: "none".into(),
            kind: OperationKind::View,
        };
        note(key, Counts { calls: 1, ..Counts::default() });
    }
}

/// Marks the next copy on this thread as caused by `operation`, which only changes a shape.
#[inline]
pub(crate) fn copies(operation: &'static str) {
    if is_active() {
        COPY_FOR.set(Some(operation));
    }
}

fn note(key: Key, seen: Counts) {
    NOTES.with_borrow_mut(|all| {
        for notes in all.iter_mut() {
            let counts = notes.operations.entry(key.clone()).or_default();
            counts.calls += seen.calls;
            counts.small += seen.small;
            counts.time += seen.time;
            counts.read += seen.read;
            counts.written += seen.written;
            counts.operations += seen.operations;
        }
    });
}
