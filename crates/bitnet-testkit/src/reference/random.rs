//! Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011).

use super::number::Number::{self, Float, Int};
use bitnet_core::BitNetDType;
use bitnet_core::backend::Distribution;

/// Four words of the stream of `seed` at a counter.
fn philox(seed: u64, counter: u64) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    let mut c = [counter as u32, (counter >> 32) as u32, 0, 0];
    for _ in 0..10 {
        let (a, b) = (u64::from(c[0]) * 0xd251_1f53, u64::from(c[2]) * 0xcd9e_8d57);
        c = [(b >> 32) as u32 ^ c[1] ^ key[0], b as u32, (a >> 32) as u32 ^ c[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    c
}

/// Number `counter` of a distribution.
pub(super) fn draw(distribution: Distribution, _dtype: BitNetDType, seed: u64, counter: u64) -> Number {
    let words = philox(seed, counter);
    let long = |i: usize| u64::from(words[i]) | u64::from(words[i + 1]) << 32;
    // 53 bits below 1.
    let unit = |bits: u64| (bits >> 11) as f64 * 2f64.powi(-53);
    match distribution {
        Distribution::Uniform { low, high } => Float(low + (high - low) * unit(long(0))),
        Distribution::Normal { mean, std } => {
            // Box and Muller 1958; 1 - u is never zero.
            let radius = (-2. * (1. - unit(long(0))).ln()).sqrt();
            Float(mean + std * radius * (std::f64::consts::TAU * unit(long(2))).cos())
        }
        Distribution::Integer { low, high } => {
            let range = (high as i128 - low as i128) as u128;
            Int(low as i128 + ((u128::from(long(0)) * range) >> 64) as i128)
        }
        Distribution::Bernoulli { p } => Int((unit(long(0)) < p).into()),
    }
}
