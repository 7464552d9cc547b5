//! A thread pool for many small parallel steps: workers spin for a while after each, then sleep.
//!
//! A decode step of a small model is hundreds of products of 10 to 100 microseconds each, so waking a thread
//! through the operating system for each would cost as much as the work. A job never waits for a worker that has
//! not joined it: with busy cores the caller does the tasks itself.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker looks for the next job before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

/// Bits of [`Shared::gate`]: workers inside the job, whether more may enter, shutdown, and above them a job number.
const INSIDE: u64 = (1 << 24) - 1;
const OPEN: u64 = 1 << 24;
const EXIT: u64 = 1 << 25;
const JOB: u64 = 1 << 26;

thread_local! {
    /// Set while this thread runs tasks of any pool.
    static IN_JOB: Cell<bool> = const { Cell::new(false) };
}

/// A fixed set of threads that run tasks together; the thread that calls [`ThreadPool::run`] is one of them.
pub struct ThreadPool {
    shared: Arc<Shared>,
    /// Held while a job runs, so that concurrent calls follow one another.
    running: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
    refused: Option<io::Error>,
}

#[derive(Clone, Copy)]
struct Job {
    f: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

/// Keeps an atomic that all threads write away from its neighbours' cache lines.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    gate: Padded<AtomicU64>,
    /// The next task to claim.
    next: Padded<AtomicUsize>,
    sleepers: Padded<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the holder of `running` while the gate is shut and nobody is inside, and read only
// by threads that are inside; the gate's atomic operations order the two. The closure it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is used only while the caller of `run` keeps the closure alive.
unsafe impl Send for Shared {}

/// Threads to compute with where nobody says how many: one for each core that this process may use; one without the feature
/// `parallel`.
pub fn available_threads() -> usize {
    if cfg!(feature = "parallel") { std::thread::available_parallelism().map_or(1, |n| n.get()) } else { 1 }
}

impl ThreadPool {
    /// A pool of `threads` threads (at least one), the caller of [`ThreadPool::run`] included: it starts `threads - 1`.
    /// Without the feature `parallel` the caller is the only one.
    ///
    /// Where the operating system refuses a thread (a limit on processes, no memory for a stack) the pool has those that
    /// it got: [`ThreadPool::threads`] tells how many, [`ThreadPool::refused`] why there are no more.
    pub fn new(threads: usize) -> ThreadPool {
        let shared = Arc::new(Shared {
            gate: Padded(AtomicU64::new(0)),
            next: Padded(AtomicUsize::new(0)),
            sleepers: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = ThreadPool { shared, running: Mutex::new(()), workers: Vec::new(), refused: None };
        let threads = if cfg!(feature = "parallel") { threads.clamp(1, INSIDE as usize) } else { 1 };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("bitnet-{i}"));
            match thread.spawn(move || shared.work()) {
                Ok(handle) => pool.workers.push(handle),
                Err(error) => {
                    pool.refused = Some(error);
                    break;
                }
            }
        }
        pool
    }

    /// How many threads run tasks, the caller of [`ThreadPool::run`] included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Why the pool has fewer threads than it was asked for; `None` where it has them all.
    pub fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    /// Calls `f(0)` to `f(tasks - 1)`, each once, in any order, on the threads of the pool; returns when all are done.
    ///
    /// Tasks are claimed one by one, so uneven ones balance. Nothing is allocated. A call from inside a task, one task,
    /// or one thread runs on the caller alone; calls from several threads follow one another.
    ///
    /// # Panics
    /// With the panic of a task (the first, if there are several), after the tasks that had begun have ended; the others
    /// are not begun.
    pub fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() || IN_JOB.get() {
            (0..tasks).for_each(f);
            return;
        }
        let shared = &*self.shared;
        let turn = lock(&self.running);
        // SAFETY: only the lifetime is erased. The pointer is read by threads inside the job, and this call does not
        // return before the gate is shut and all of them have left.
        let f: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(f) };
        // SAFETY: `turn` is held, the gate is shut and nobody is inside (the end of the last `run` waited for it).
        unsafe { *shared.job.get() = Some(Job { f, tasks }) };
        shared.next.0.store(0, Ordering::Relaxed);
        // SeqCst, with the sleepers' side in `work`: either we see a sleeper, or it sees the open gate.
        shared.gate.0.fetch_add(JOB + OPEN, Ordering::SeqCst);
        let gate = OpenGate(shared);
        if shared.sleepers.0.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        shared.run_tasks();
        drop(gate);
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Calls `f(i, part)` for every part of `chunk` elements of `data` (the last may be shorter), each once.
    ///
    /// # Panics
    /// When `chunk` is zero.
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk: usize, f: &(dyn Fn(usize, &mut [T]) + Sync)) {
        let len = data.len();
        let parts = Parts::new(data);
        self.run(len.div_ceil(chunk), &|task| {
            let start = task * chunk;
            // SAFETY: each task has its own number, so the parts are disjoint.
            f(task, unsafe { parts.part(start, chunk.min(len - start)) });
        });
    }
}

/// An open gate; shut when dropped, which waits until all workers have left. A guard, so that nothing can unwind past
/// [`ThreadPool::run`] while a worker still uses the closure.
struct OpenGate<'a>(&'a Shared);

impl Drop for OpenGate<'_> {
    fn drop(&mut self) {
        let gate = &self.0.gate.0;
        gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while gate.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < 10_000 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// A worker inside the gate; leaves when dropped.
struct Inside<'a>(&'a Shared);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.gate.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.gate.0.fetch_or(EXIT, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            worker.join().expect("a worker does not panic");
        }
    }
}

impl Shared {
    /// Claims and runs tasks until none are left; does not unwind. Called with the gate's count or `running` held.
    fn run_tasks(&self) {
        // SAFETY: the job is not written while this thread is inside (a worker) or is the one that wrote it (the caller).
        let job = unsafe { (*self.job.get()).expect("an open gate has a job") };
        // SAFETY: the caller of `run` keeps the closure alive until everyone has left.
        let f = unsafe { &*job.f };
        IN_JOB.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.0.fetch_add(1, Ordering::Relaxed);
                if task >= job.tasks {
                    break;
                }
                f(task);
            }
        }));
        IN_JOB.set(false);
        if let Err(panic) = result {
            self.next.0.store(job.tasks, Ordering::Relaxed);
            let mut first = lock(&self.panic);
            if first.is_none() {
                *first = Some(panic);
            } else {
                drop(first);
                drop_quietly(panic);
            }
        }
    }

    /// The life of a worker.
    fn work(&self) {
        let mut done = 0; // number of the last job seen, in the place of the gate's
        let number = |gate: u64| gate & !(JOB - 1);
        loop {
            let mut gate = self.gate.0.load(Ordering::Acquire);
            let mut since = None;
            while gate & EXIT == 0 && (gate & OPEN == 0 || number(gate) == done) {
                for _ in 0..32 {
                    std::hint::spin_loop();
                }
                gate = self.gate.0.load(Ordering::Acquire);
                if since.get_or_insert_with(Instant::now).elapsed() > SPIN {
                    let mut guard = lock(&self.sleep);
                    self.sleepers.0.fetch_add(1, Ordering::SeqCst);
                    gate = self.gate.0.load(Ordering::SeqCst);
                    while gate & EXIT == 0 && (gate & OPEN == 0 || number(gate) == done) {
                        guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                        gate = self.gate.0.load(Ordering::SeqCst);
                    }
                    self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
                }
            }
            if gate & EXIT != 0 {
                return;
            }
            // Enter, unless the job has ended meanwhile.
            let entered = self.gate.0.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed);
            if entered.is_ok() {
                let _inside = Inside(self);
                self.run_tasks();
                done = number(gate);
            }
        }
    }
}

/// Drops the payload of a panic. Should that panic, its payload is dropped in the same way; the third one is leaked, as this
/// could go on for ever.
fn drop_quietly(mut panic: Box<dyn Any + Send>) {
    for _ in 0..2 {
        match catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            Ok(()) => return,
            Err(again) => panic = again,
        }
    }
    std::mem::forget(panic);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `f` with each of `parts` on at most `threads` threads that are started for it, the caller among them: for long
/// work that a pool's threads should not be kept from. A thread that the operating system refuses is done without; without
/// the feature `parallel` the caller does it all.
///
/// # Panics
/// With the panic of a part.
pub fn for_each_part<T: Send>(threads: usize, parts: impl ExactSizeIterator<Item = T> + Send, f: impl Fn(T) + Sync) {
    let threads = if cfg!(feature = "parallel") { threads.min(parts.len()) } else { 1 };
    let parts = Mutex::new(parts);
    let next = || lock(&parts).next();
    let work = || {
        while let Some(part) = next() {
            f(part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

/// A slice whose disjoint parts are written by different tasks.
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out as exclusive borrows of disjoint ranges (the contract of `part`).
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Parts<'a, T> {
        Parts { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// Elements `start..start + len`.
    ///
    /// # Safety
    /// No two parts that are alive at once may overlap.
    #[allow(clippy::mut_from_ref)] // disjointness is the caller's promise
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part of {start}+{len} of {}", self.len);
        // SAFETY: within the slice, which outlives `self`; exclusive by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3, 8] {
            let pool = ThreadPool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_tiny_jobs() {
        let pool = ThreadPool::new(4);
        let total = AtomicUsize::new(0);
        for _ in 0..20_000 {
            pool.run(3, &|i| {
                total.fetch_add(i, Ordering::Relaxed);
            });
        }
        assert_eq!(total.into_inner(), 60_000);
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = ThreadPool::new(2);
        for _ in 0..20 {
            std::thread::sleep(SPIN * 3);
            // Each task waits until the other has begun: it ends only if the worker woke up.
            let begun = AtomicUsize::new(0);
            pool.run(2, &|_| {
                begun.fetch_add(1, Ordering::SeqCst);
                while begun.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(3);
        for bad in 0..8 {
            let run = || {
                pool.run(8, &|i| {
                    if i == bad {
                        panic!("task {i}")
                    }
                });
            };
            let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(payload.downcast_ref::<String>(), Some(&format!("task {bad}")));
        }
        let ran = AtomicUsize::new(0);
        pool.run(8, &|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 8);
    }

    #[test]
    fn nested_runs_are_inline() {
        let pool = ThreadPool::new(2);
        let ran = AtomicUsize::new(0);
        pool.run(4, &|_| {
            let outer = std::thread::current().id();
            pool.run(5, &|_| {
                assert_eq!(std::thread::current().id(), outer);
                ran.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(ran.into_inner(), 20);
    }

    #[test]
    fn calls_from_two_threads_take_turns() {
        let pool = ThreadPool::new(3);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let mine = AtomicUsize::new(0);
                        pool.run(5, &|_| {
                            inside.fetch_add(1, Ordering::Relaxed);
                            mine.fetch_add(1, Ordering::Relaxed);
                        });
                        assert_eq!(mine.into_inner(), 5);
                    }
                });
            }
        });
        assert_eq!(inside.into_inner(), 20_000);
    }

    #[test]
    fn drop_ends_the_workers() {
        for threads in 1..6 {
            let shared = {
                let pool = ThreadPool::new(threads);
                pool.run(3, &|_| {});
                Arc::clone(&pool.shared)
            };
            assert_eq!(Arc::strong_count(&shared), 1);
        }
    }
}
