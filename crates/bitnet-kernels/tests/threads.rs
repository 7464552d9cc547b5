//! The thread pool where things go wrong: panics whose payloads panic, threads that the system refuses.

use bitnet_kernels::ThreadPool;
use bitnet_kernels::threads::for_each_part;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{current, sleep};
use std::time::Duration;

/// What a task panics with; dropping it panics too.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload of a panic panics when it is dropped");
    }
}

/// Three threads in one job: one panics at once, one a little later, and one is still at work on the closure's data.
fn two_panics(pool: &ThreadPool, caller_is_first: bool) {
    let (all_here, workers) = (Barrier::new(3), AtomicUsize::new(0));
    let (caller, finished) = (current().id(), AtomicUsize::new(0));
    // On the heap, so that a use after it is freed is found by a sanitizer.
    let data = vec![1usize; 1000];
    let run = || {
        pool.run(3, &|_| {
            all_here.wait();
            let role = match (current().id() == caller, workers.load(SeqCst)) {
                (true, _) => usize::from(!caller_is_first),
                // Of the workers, whoever is first to count plays the other panic.
                _ => match workers.fetch_add(1, SeqCst) {
                    0 => usize::from(caller_is_first),
                    _ => 2,
                },
            };
            match role {
                0 => panic_any(Bomb),
                1 => {
                    sleep(Duration::from_millis(5));
                    panic_any(Bomb)
                }
                _ => {
                    sleep(Duration::from_millis(20));
                    finished.store(data.iter().sum(), SeqCst);
                }
            }
        });
    };
    let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert!(payload.is::<Bomb>());
    std::mem::forget(payload);
    assert_eq!(finished.load(SeqCst), 1000, "the call ended while a worker still used its closure");
}

#[test]
fn a_second_panic_whose_payload_panics_neither_frees_the_closure_nor_hangs_the_pool() {
    let pool = ThreadPool::new(3);
    for round in 0..6 {
        two_panics(&pool, round % 2 == 0);
    }
    // All three threads still work.
    let all_here = Barrier::new(3);
    pool.run(3, &|_| _ = all_here.wait());
}

fn parts_are_done() {
    for threads in [1, 3, 100] {
        let mut values = vec![0u32; 1000];
        for_each_part(threads, values.chunks_mut(7).enumerate(), |(i, part)| part.fill(i as u32));
        assert!(values.iter().enumerate().all(|(i, &value)| value as usize == i / 7));
    }
}

const REFUSED: &str = "threads_that_the_system_refuses_are_done_without";

#[test]
#[cfg_attr(miri, ignore)] // starts a process
fn threads_that_the_system_refuses_are_done_without() {
    if std::env::var_os("BITNET_TEST_REFUSED").is_some() {
        let pool = ThreadPool::new(4);
        let sum = AtomicUsize::new(0);
        pool.run(100, &|i| _ = sum.fetch_add(i, SeqCst));
        assert_eq!((pool.threads(), sum.into_inner()), (1, 4950));
        assert!(pool.refused().is_some());
        parts_are_done();
        return;
    }
    assert!(ThreadPool::new(2).refused().is_none());
    parts_are_done();
    // No system gives a thread a stack of an exabyte. The test's own thread would need one, so it runs on the main one.
    let me = std::env::current_exe().unwrap();
    let run = Command::new(me)
        .args(["--exact", REFUSED, "--test-threads", "1"])
        .envs([("BITNET_TEST_REFUSED", "1"), ("RUST_MIN_STACK", "1152921504606846976")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&run.stderr));
}
