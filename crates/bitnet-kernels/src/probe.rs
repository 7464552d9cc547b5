//! Measured limits of this machine (memory bandwidth, arithmetic rates), to compare the speed of kernels with.

#[cfg(target_arch = "aarch64")]
#[path = "probe/aarch64.rs"]
mod rate;
#[cfg(target_arch = "x86_64")]
#[path = "probe/x86_64.rs"]
mod rate;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::float::simd::{Simd, inlined};
use crate::ternary::{TILE, TILE_COLS, scalar::Scalar};
use crate::{Isa, Kernels, TernaryKernel, ThreadPool};

/// Bytes that a bandwidth probe reads again and again: far more than any cache it should bypass.
const BYTES: usize = 512 << 20;
/// What one task of it reads.
const CHUNK: usize = 1 << 20;

/// Bytes a second, in GB/s (1e9), at which the threads of `pool` together read a buffer of 512 MiB: the best eighth
/// of it, in as many passes as fit in about `seconds`, at least one.
///
/// # Panics
/// When the memory cannot be had.
pub fn read_bandwidth(pool: &ThreadPool, seconds: f64) -> f64 {
    let mut buffer: Vec<u64> = Vec::with_capacity(BYTES / 8);
    advise_huge_pages(buffer.spare_capacity_mut());
    buffer.resize(BYTES / 8, 1);
    read_rate(pool, &buffer, seconds, 8, Instant::now)
}

/// As [`read_bandwidth`], in less than `limit`, hence of a buffer that holds what one thread can write in a third of it.
/// Where the caches hold so much, theirs is the rate.
///
/// # Panics
/// As [`read_bandwidth`].
pub fn read_bandwidth_within(pool: &ThreadPool, limit: Duration) -> f64 {
    read_within(pool, limit, Instant::now)
}

/// [`read_bandwidth_within`] by a given clock.
fn read_within(pool: &ThreadPool, limit: Duration, mut now: impl FnMut() -> Instant) -> f64 {
    let start = now();
    let mut buffer: Vec<u64> = Vec::with_capacity(BYTES / 8);
    advise_huge_pages(buffer.spare_capacity_mut());
    while buffer.is_empty() || (buffer.len() < BYTES / 8 && now() - start < limit / 3) {
        buffer.resize(buffer.len() + CHUNK, 1); // 8 MiB
    }
    let left = (limit * 2 / 3).saturating_sub(now() - start);
    read_rate(pool, &buffer, left.as_secs_f64(), 1, now)
}

/// GB/s of the best eighth of `buffer`, in as many eighths as fit in `seconds`, at least `least`.
fn read_rate(pool: &ThreadPool, buffer: &[u64], seconds: f64, least: usize, now: impl FnMut() -> Instant) -> f64 {
    let (total, mut part) = (AtomicU64::new(0), 0);
    let eighth = buffer.len() / 8;
    let rate = best(seconds, least, now, || {
        let words = &buffer[part % 8 * eighth..][..eighth];
        pool.run(words.len() * 8 / CHUNK, &|task| {
            let chunk = &words[task * (CHUNK / 8)..][..CHUNK / 8];
            total.fetch_add(sum(chunk), Ordering::Relaxed);
        });
        part += 1;
        (words.len() * 8) as f64
    });
    assert_eq!(total.into_inner(), part as u64 * eighth as u64, "every word was read");
    rate / 1e9
}

/// Four streams, each a line of 64 bytes at a time.
fn sum(words: &[u64]) -> u64 {
    let (a, b) = words.split_at(words.len() / 2);
    let ((a, b), (c, d)) = (a.split_at(a.len() / 2), b.split_at(b.len() / 2));
    let mut sums = [[0u64; 8]; 4];
    let lines = a.as_chunks().0.iter().zip(b.as_chunks().0).zip(c.as_chunks().0).zip(d.as_chunks().0);
    for (((a, b), c), d) in lines {
        let four: [&[u64; 8]; 4] = [a, b, c, d];
        for (sums, words) in sums.iter_mut().zip(four) {
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    sums.as_flattened().iter().fold(0, |a, b| a.wrapping_add(*b))
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
            ops.fetch_add(multiply_adds(isa), Ordering::Relaxed);
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
            let count = match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => fused(crate::float::avx512::Avx512::new().expect("available")),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => fused(crate::float::avx2::Avx2::new().expect("available")),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon | Isa::NeonDotprod => fused(crate::float::neon::Neon::new().expect("available")),
                _ => plain(),
            };
            ops.fetch_add(count, Ordering::Relaxed);
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

    /// On a clock that advances with the work alone, as much as 8 MiB or an eighth of the buffer may take.
    #[test]
    fn a_bandwidth_probe_keeps_its_time_limit() {
        for step in [1, 2, 5].map(Duration::from_millis) {
            let (start, mut elapsed) = (Instant::now(), Duration::ZERO);
            let clock = || {
                elapsed += step;
                start + elapsed
            };
            assert!(read_within(&ThreadPool::new(1), Duration::from_millis(50), clock) > 0.);
            assert!(
                (Duration::from_millis(25)..=Duration::from_millis(50)).contains(&elapsed),
                "{elapsed:?} of {step:?} each"
            );
        }
    }

    #[test]
    fn limits_are_plausible() {
        let pool = ThreadPool::new(1);
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
