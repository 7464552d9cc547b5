//! Random numbers by counter, word for word as [`Op::Random`](bitnet_core::backend::Op::Random) defines them.

use super::number::Number::{self, Float, Int};
use super::number::rounded;
use bitnet_core::BitNetDType::{self, *};
use bitnet_core::backend::Distribution;

/// The two 64-bit words of block `counter` of the stream of `seed`: Philox4x32-10 (Salmon et al. 2011).
fn block(seed: u64, counter: u64) -> [u64; 2] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    let mut c = [counter as u32, (counter >> 32) as u32, 0, 0];
    for _ in 0..10 {
        let (a, b) = (u64::from(c[0]) * 0xd251_1f53, u64::from(c[2]) * 0xcd9e_8d57);
        c = [(b >> 32) as u32 ^ c[1] ^ key[0], b as u32, (a >> 32) as u32 ^ c[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    [u64::from(c[0]) | u64::from(c[1]) << 32, u64::from(c[2]) | u64::from(c[3]) << 32]
}

/// The upper `bits` bits as a fraction of 1.
fn unit(word: u64, bits: i32) -> f64 {
    (word >> (64 - bits)) as f64 * 2f64.powi(-bits)
}

/// Number `n` of the stream as an element of `dtype`.
pub(super) fn draw(distribution: Distribution, dtype: BitNetDType, seed: u64, n: u64) -> Number {
    let words = block(seed, n / 2);
    let word = words[(n % 2) as usize];
    match distribution {
        Distribution::Uniform { low, high } => {
            let bits = match dtype {
                F32 => 24,
                F16 => 11,
                BF16 => 8,
                _ => 53,
            };
            let value = rounded(dtype, Float(low + (high - low) * unit(word, bits)));
            if value.float() < high { value } else { Float(low) }
        }
        Distribution::Normal { mean, std } => {
            let radius = (-2. * (1. - unit(words[0], 53)).ln()).sqrt();
            let angle = std::f64::consts::TAU * unit(words[1], 53);
            Float(mean + std * (radius * if n.is_multiple_of(2) { angle.cos() } else { angle.sin() }))
        }
        Distribution::Integer { low, high } => {
            let range = u128::from(high.wrapping_sub(low) as u64);
            Int((low.wrapping_add(((u128::from(word) * range) >> 64) as i64)).into())
        }
        Distribution::Bernoulli { p } => Int((unit(word, 53) < p).into()),
    }
}
