//! What several tests need.
#![allow(dead_code)] // each takes a part

use bitnet_kernels::{Isa, Kernels};

/// The kernels of every instruction set of this CPU, the scalar ones first.
pub fn kernels() -> impl Iterator<Item = Kernels> {
    Isa::available().into_iter().map(|isa| Kernels::for_isa(isa).expect("available"))
}

/// Numbers in -1..1.
pub fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(step).collect()
}

/// Near normal, with some numbers ten times as large.
pub fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let sums = uniform(3 * len, seed);
    let sum = |(i, x): (usize, &[f32])| x.iter().sum::<f32>() * if i % 37 == 5 { 10.0 } else { 1.0 };
    sums.chunks_exact(3).enumerate().map(sum).collect()
}
