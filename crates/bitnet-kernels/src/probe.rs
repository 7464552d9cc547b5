//! Measured limits of this machine (memory bandwidth, arithmetic rates), to compare the speed of kernels with.

#[cfg(target_arch = "aarch64")]
#[path = "probe/aarch64.rs"]
mod rate;
#[cfg(target_arch = "x86_64")]
#[path = "probe/x86_64.rs"]
mod rate;

use std::hint::{black_box, spin_loop};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread::{self, yield_now};
use std::time::{Duration, Instant};

use crate::float::simd::{Simd, inlined, prefetch};
use crate::isa::{Scalar, dispatch};
use crate::ternary::{TILE, TILE_COLS};
use crate::{Isa, Kernels, TernaryKernel, ThreadPool};

/// Bytes that a bandwidth probe reads again and again: far more than any cache it should bypass.
const BYTES: usize = 512 << 20;
/// What a thread of it writes at a time: a huge page.
const CHUNK: usize = 2 << 20;

/// Bytes a second, in GB/s (1e9), at which as many threads as `pool` has together read 512 MiB, each what it wrote: the
/// best eighth of it, in as many passes as fit in about `seconds`, at least one.
///
/// # Panics
/// When the memory cannot be had.
pub fn read_bandwidth(pool: &ThreadPool, seconds: f64) -> f64 {
    read_rate(pool.threads(), Time::Reading(seconds), Instant::now)
}

/// As [`read_bandwidth`], in less than `limit`, hence of a buffer that holds what the threads can write in a third of it.
/// Where the caches hold so much, theirs is the rate.
///
/// # Panics
/// As [`read_bandwidth`].
pub fn read_bandwidth_within(pool: &ThreadPool, limit: Duration) -> f64 {
    read_rate(pool.threads(), Time::All(limit), Instant::now)
}

/// A line of a cache, so that no load needs two.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; 16]);

/// The threads of a bandwidth probe, which take each step together.
struct Readers {
    isa: Isa,
    /// Whether the time to write is over.
    full: AtomicBool,
    /// Lines that each of them has.
    lines: AtomicUsize,
    /// Which eighth to read, counted from 1; [`END`] after the last.
    pass: AtomicUsize,
    /// How many times any of them ended a step.
    ended: AtomicUsize,
    total: AtomicU64,
}

const END: usize = usize::MAX;

impl Readers {
    /// Memory of this thread, near its core: as many lines as it writes before it is `full`, at most `most`.
    fn write(&self, most: usize, mut full: impl FnMut() -> bool) -> Vec<Line> {
        let mut buffer = Vec::with_capacity(most);
        advise_huge_pages(buffer.spare_capacity_mut());
        while buffer.is_empty() || (buffer.len() < most && !full()) {
            buffer.resize(buffer.len() + CHUNK / size_of::<Line>(), Line([1.0; 16]));
        }
        self.lines.fetch_min(buffer.len(), Relaxed);
        self.ended.fetch_add(1, Release);
        buffer
    }

    fn read(&self, buffer: &[Line], pass: usize) {
        let eighth = self.lines.load(Relaxed) / 8;
        self.total.fetch_add(sum(self.isa, &buffer[pass % 8 * eighth..][..eighth]), Relaxed);
        self.ended.fetch_add(1, Release);
    }

    /// What all but the first thread do.
    fn follow(&self, most: usize) {
        let (buffer, mut last) = (self.write(most, || self.full.load(Relaxed)), 0);
        loop {
            match self.pass.load(Acquire) {
                END => return,
                pass if pass == last => rest(),
                pass => {
                    self.read(&buffer, pass);
                    last = pass;
                }
            }
        }
    }
}

/// A moment of waiting for other threads, which may need this core.
fn rest() {
    (0..100).for_each(|_| spin_loop());
    yield_now();
}

/// How long a bandwidth probe takes.
enum Time {
    /// About so many seconds of reading.
    Reading(f64),
    /// Less than this with the writing, which gets a third.
    All(Duration),
}

/// GB/s of the best eighth of what `threads` threads write. They begin together, and the last to end counts.
fn read_rate(threads: usize, time: Time, mut now: impl FnMut() -> Instant) -> f64 {
    let start = now();
    let [lines, pass, ended] = [END, 0, 0].map(AtomicUsize::new);
    let (isa, full, total) = (Isa::detect(), AtomicBool::new(false), AtomicU64::new(0));
    let readers = Readers { isa, full, lines, pass, ended, total };
    let most = (BYTES / threads).next_multiple_of(CHUNK) / size_of::<Line>();
    thread::scope(|scope| {
        let follow = || readers.follow(most);
        // Where the system refuses threads, those that it gave read.
        let others = (1..threads).filter(|_| thread::Builder::new().spawn_scoped(scope, follow).is_ok());
        let threads = 1 + others.count();
        let wait = |steps| {
            while readers.ended.load(Acquire) < steps * threads {
                rest();
            }
        };
        let buffer = readers.write(most, || matches!(time, Time::All(limit) if now() - start >= limit / 3));
        readers.full.store(matches!(time, Time::All(_)), Relaxed);
        wait(1);
        let (mut pass, eighth) = (0, threads * (readers.lines.load(Relaxed) / 8) * size_of::<Line>());
        let (seconds, least) = match time {
            Time::Reading(seconds) => (seconds, 8),
            Time::All(limit) => ((limit * 2 / 3).saturating_sub(now() - start).as_secs_f64(), 1),
        };
        let rate = best(seconds, least, now, || {
            pass += 1;
            readers.pass.store(pass, Release);
            readers.read(&buffer, pass);
            wait(1 + pass);
            eighth as f64
        });
        readers.pass.store(END, Release);
        assert_eq!(readers.total.load(Relaxed), (pass * eighth / size_of::<f32>()) as u64, "every word was read");
        rate / 1e9
    })
}

/// The sum of the numbers, read with the vectors of `isa`, which this CPU has.
fn sum(isa: Isa, lines: &[Line]) -> u64 {
    dispatch!(isa, |s| streamed(s, lines), lines.iter().map(|line| line.0.iter().sum::<f32>() as u64).sum())
}

/// Parts that are read side by side, and the distance in bytes at which a line is asked for. Twice the streams read a tenth
/// slower, streams within 1 MiB of each other a third (on a Xeon), and no prefetch 5 %.
const STREAMS: usize = 4;
const AHEAD: usize = 2048;

/// Exact up to 2^24 ones.
fn streamed<S: Simd>(s: S, lines: &[Line]) -> u64 {
    let len = lines.len() / STREAMS;
    let parts: [&[Line]; STREAMS] = std::array::from_fn(|i| &lines[i * len..][..len]);
    s.enter(inlined!(|| {
        let mut sums = [s.splat(0.0); STREAMS];
        for i in 0..len {
            for (sum, part) in sums.iter_mut().zip(parts) {
                let line = part[i].0.as_ptr();
                prefetch(line.wrapping_byte_add(AHEAD));
                for lane in (0..16).step_by(S::LANES) {
                    // SAFETY: within the line.
                    *sum = s.add(*sum, unsafe { s.load(line.add(lane)) });
                }
            }
        }
        sums.into_iter().map(|sum| s.sum(sum) as u64).sum()
    }))
}

/// 8-bit multiply-adds a second, in GOP/s (1e9; a multiplication and an addition are two), of the threads of `pool`
/// together: a loop over registers of the best 8-bit instructions of `kernels`' instruction set. It runs for about
/// `seconds` and takes the best part. For the scalar set, which has no such instruction, the scalar product on a
/// panel that stays in the first-level cache.
pub fn int8_rate(kernels: &Kernels, pool: &ThreadPool, seconds: f64) -> f64 {
    assert!(kernels.isa.is_available(), "{} on a CPU without it", kernels.isa);
    let isa = kernels.isa;
    let rate = best(seconds, 2, Instant::now, || {
        let ops = AtomicU64::new(0);
        pool.run(pool.threads() * 8, &|_| {
            ops.fetch_add(multiply_adds(isa), Relaxed);
        });
        2.0 * ops.into_inner() as f64
    });
    rate / 1e9
}

/// f32 operations a second, in GFLOP/s (1e9; a multiplication and an addition are two), of the threads of `pool`
/// together: a loop of fused multiply-adds over registers with the vectors of `isa`. Takes the best part of `seconds`.
pub fn f32_rate(isa: Isa, pool: &ThreadPool, seconds: f64) -> f64 {
    assert!(isa.is_available(), "{isa} on a CPU without it");
    let rate = best(seconds, 2, Instant::now, || {
        let ops = AtomicU64::new(0);
        pool.run(pool.threads() * 8, &|_| {
            ops.fetch_add(dispatch!(isa, |s| fused(s), plain()), Relaxed);
        });
        2.0 * ops.into_inner() as f64
    });
    rate / 1e9
}

/// Rounds of [`fused`] and [`plain`], and their independent sums, to hide the latency.
const ROUNDS: usize = 20_000;
const SUMS: usize = 12;

/// The number of its fused multiply-adds.
fn fused<S: Simd>(s: S) -> u64 {
    let factors = [black_box(1.0f32), black_box(1e-9)];
    s.enter(inlined!(|| {
        let (a, b) = (s.splat(factors[0]), s.splat(factors[1]));
        let mut sums = [s.splat(0.0); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = s.fma(*sum, a, b);
            }
        }
        black_box(sums.map(|sum| s.sum(sum)));
    }));
    (ROUNDS * SUMS * S::LANES) as u64
}

/// The same of plain products and sums, four lanes.
fn plain() -> u64 {
    let (a, b) = (black_box(1.0f32), black_box(1e-9));
    let mut sums = [[0f32; 4]; SUMS / 2];
    for _ in 0..ROUNDS {
        for lane in sums.as_flattened_mut() {
            *lane = *lane * a + b;
        }
    }
    black_box(sums);
    (ROUNDS * SUMS / 2 * 4) as u64
}

/// Some tens of microseconds or more of multiply-adds; gives their number.
fn multiply_adds(isa: Isa) -> u64 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(count) = rate::multiply_adds(isa) {
        return count;
    }
    let _ = isa; // the only one elsewhere
    const TILES: usize = 64;
    let (panel, q) = ([0b01_10_00_01; TILES * TILE], [3; TILES * TILE_COLS]);
    let mut acc = [0; 16];
    for _ in 0..16 {
        Scalar.dot(TILES, black_box(&panel), black_box(&q), &[0], &mut acc);
        black_box(&mut acc);
    }
    16 * (TILES * TILE_COLS * 16) as u64
}

/// The best rate of `work` (which gives its amount) among as many calls as fit in `seconds`, at least `least`.
fn best(seconds: f64, least: usize, mut now: impl FnMut() -> Instant, mut work: impl FnMut() -> f64) -> f64 {
    let end = now() + Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let mut best = 0.0f64;
    let mut calls = 0;
    while calls < least || now() < end {
        let start = now();
        let amount = work();
        best = best.max(amount / (now() - start).as_secs_f64());
        calls += 1;
    }
    best
}

/// Asks the system to back `buffer`, not yet written, with huge pages where it can; elsewhere does nothing.
pub fn advise_huge_pages<T>(buffer: &mut [std::mem::MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        let page = 4096;
        let start = (buffer.as_ptr() as usize).next_multiple_of(page);
        let end = buffer.as_ptr_range().end as usize / page * page;
        if start < end {
            // SAFETY: whole pages inside the buffer; the advice does not change what they hold.
            unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a clock that advances with the work alone, as much as a chunk or an eighth of the buffer may take.
    #[test]
    fn a_bandwidth_probe_keeps_its_time_limit() {
        for (step, threads) in [(1, 1), (2, 3), (5, 2)] {
            let (step, limit) = (Duration::from_millis(step), Duration::from_millis(50));
            let (start, mut elapsed) = (Instant::now(), Duration::ZERO);
            let clock = || {
                elapsed += step;
                start + elapsed
            };
            assert!(read_rate(threads, Time::All(limit), clock) > 0.);
            assert!((limit / 2..=limit).contains(&elapsed), "{elapsed:?} of {step:?} each");
        }
    }

    #[test]
    fn every_line_is_read_with_every_instruction_set() {
        let mut lines = vec![Line([1.0; 16]); 4 * 100];
        for (i, line) in lines.iter_mut().enumerate() {
            line.0[i % 16] = i as f32;
        }
        for isa in Isa::available() {
            assert_eq!(sum(isa, &lines), (400 * 15 + 399 * 400 / 2) as u64, "{isa}");
        }
    }

    #[test]
    fn limits_are_plausible() {
        let pool = ThreadPool::new(2);
        let read = read_bandwidth(&pool, 0.0);
        let quick = read_bandwidth_within(&pool, Duration::from_millis(50));
        assert!([read, quick].iter().all(|rate| (0.01..1e5).contains(rate)), "{read} and {quick} GB/s");
        let mut rates = Vec::new();
        for isa in Isa::available() {
            rates.push(int8_rate(&Kernels::for_isa(isa).unwrap(), &pool, 0.01));
            rates.push(f32_rate(isa, &pool, 0.01));
        }
        assert!(rates.iter().all(|rate| (0.01..1e6).contains(rate)), "{rates:?} GOP/s");
    }
}
