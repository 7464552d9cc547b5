//! Loops of 8-bit products over registers.

use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

use crate::Isa;

const ROUNDS: u64 = 20_000;
/// Independent sums, to hide the latency.
const SUMS: usize = 12;

/// Runs some multiply-adds; gives their number, or `None` for an instruction set without byte products.
/// The caller has checked that the CPU has `isa`.
pub(super) fn multiply_adds(isa: Isa) -> Option<u64> {
    let lanes = match isa {
        Isa::Neon => 8,
        Isa::NeonDotprod => 16,
        _ => return None,
    };
    // SAFETY: the CPU has the instructions.
    unsafe { if isa == Isa::Neon { neon() } else { dotprod() } }
    Some(ROUNDS * SUMS as u64 * lanes)
}

#[target_feature(enable = "neon")]
fn neon() {
    let (codes, x) = (vdup_n_s8(black_box(1)), vdup_n_s8(black_box(-1)));
    let mut sums = [vdupq_n_s16(0); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            // SAFETY: registers only. Assembly, so that no product is taken out of the loop.
            unsafe {
                asm!("smlal {0:v}.8h, {1:v}.8b, {2:v}.8b", inout(vreg) *sum, in(vreg) codes, in(vreg) x,
                    options(nomem, nostack, preserves_flags));
            }
        }
    }
    black_box(sums);
}

#[target_feature(enable = "neon,dotprod")]
fn dotprod() {
    let (codes, x) = (vdupq_n_s8(black_box(1)), vdupq_n_s8(black_box(-1)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            // SAFETY: registers only.
            unsafe {
                asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) *sum, in(vreg) codes, in(vreg) x,
                    options(nomem, nostack, preserves_flags));
            }
        }
    }
    black_box(sums);
}
