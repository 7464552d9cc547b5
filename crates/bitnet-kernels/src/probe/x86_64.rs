//! Loops of 8-bit products over registers.

use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;

use crate::Isa;

const ROUNDS: u64 = 20_000;
/// Independent sums, to hide the latency.
const SUMS: usize = 12;

/// Runs some multiply-adds; gives their number, or `None` for an instruction set without byte products.
/// The caller has checked that the CPU has `isa`.
pub(super) fn multiply_adds(isa: Isa) -> Option<u64> {
    let lanes = match isa {
        Isa::Sse41 => 16,
        Isa::Avx2 => 32,
        Isa::Avx512 => 64,
        _ => return None,
    };
    // SAFETY: the CPU has the instructions.
    unsafe {
        match isa {
            Isa::Sse41 => sse41(),
            Isa::Avx2 => avx2(),
            _ => avx512(),
        }
    }
    Some(ROUNDS * SUMS as u64 * lanes)
}

/// The empty assembly makes the operand unknown in every round, so that no product is taken out of the loop.
#[target_feature(enable = "ssse3,sse4.1")]
fn sse41() {
    let (mut codes, x) = (_mm_set1_epi8(black_box(1)), _mm_set1_epi8(black_box(-1)));
    let mut sums = [_mm_setzero_si128(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            // SAFETY: no instruction.
            unsafe { asm!("/* {0} */", inout(xmm_reg) codes, options(nomem, nostack, preserves_flags)) };
            *sum = _mm_add_epi16(*sum, _mm_maddubs_epi16(codes, x));
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx2")]
fn avx2() {
    let (mut codes, x) = (_mm256_set1_epi8(black_box(1)), _mm256_set1_epi8(black_box(-1)));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            // SAFETY: no instruction.
            unsafe { asm!("/* {0} */", inout(ymm_reg) codes, options(nomem, nostack, preserves_flags)) };
            *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(codes, x));
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512() {
    let (codes, x) = (_mm512_set1_epi32(black_box(0x01020001)), _mm512_set1_epi32(black_box(-1)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, codes, x);
        }
    }
    black_box(sums);
}
