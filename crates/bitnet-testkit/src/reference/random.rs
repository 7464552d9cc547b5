//! Random numbers by counter, word for word as [`Op::Random`](bitnet_core::backend::Op::Random) defines them.

use super::number::Number::{self, Float, Int};
use super::number::rounded;
use bitnet_core::BitNetDType::{self, *};
use bitnet_core::backend::Distribution;
use std::f64::consts::TAU;

/// The block of a counter, the lower words of its two halves first: Philox4x32-10 (Salmon et al. 2011).
fn block(seed: u64, [low, high]: [u64; 2]) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    let mut c = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
    for _ in 0..10 {
        let (a, b) = (u64::from(c[0]) * 0xd251_1f53, u64::from(c[2]) * 0xcd9e_8d57);
        c = [(b >> 32) as u32 ^ c[1] ^ key[0], b as u32, (a >> 32) as u32 ^ c[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    c
}

/// Word `n` of 32 bits.
fn word(seed: u64, n: u64) -> u32 {
    block(seed, [n / 4, 0])[(n % 4) as usize]
}

/// Word `n` of 64 bits.
fn long_word(seed: u64, n: u64) -> u64 {
    let [a, b, c, d] = block(seed, [n / 2, 1]).map(u64::from);
    if n.is_multiple_of(2) { a | b << 32 } else { c | d << 32 }
}

/// The upper 53 bits as a fraction of 1.
fn unit(word: u64) -> f64 {
    (word >> 11) as f64 * 2f64.powi(-53)
}

/// Number `n` of the stream as an element of `dtype`.
pub(super) fn draw(distribution: Distribution, dtype: BitNetDType, seed: u64, n: u64) -> Number {
    let polar = |radius: f64, angle: f64| radius * if n.is_multiple_of(2) { angle.cos() } else { angle.sin() };
    match distribution {
        Distribution::Uniform { low, high } if dtype == F64 => {
            let value = low + (high - low) * unit(long_word(seed, n));
            Float(if value < high { value } else { low })
        }
        Distribution::Uniform { low, high } => {
            let bits = match dtype {
                F16 => 11,
                BF16 => 8,
                _ => 24,
            };
            let (low, high, span) = (low as f32, high as f32, (high - low) as f32);
            let value = low + span * ((word(seed, n) >> (32 - bits)) as f32 * 2f32.powi(-bits));
            let value = rounded(dtype, Float(value.into()));
            if value.float() < high.into() { value } else { Float(low.into()) }
        }
        Distribution::Normal { mean, std } if dtype == F64 => {
            let [first, second] = [n & !1, n | 1].map(|n| unit(long_word(seed, n)));
            Float(mean + std * polar((-2. * (1. - first).ln()).sqrt(), TAU * second))
        }
        Distribution::Normal { mean, std } => {
            let [first, second] = [n & !1, n | 1].map(|n| word(seed, n));
            let share = f64::from(first.max(1) as f32 * 2f32.powi(-32));
            let z = polar((-2. * share.ln()).sqrt(), TAU * f64::from(second) * 2f64.powi(-32)) as f32;
            Float((mean as f32 + std as f32 * z).into())
        }
        Distribution::Integer { low, high } => {
            let range = u128::from(high.wrapping_sub(low) as u64);
            Int((low.wrapping_add(((u128::from(long_word(seed, n)) * range) >> 64) as i64)).into())
        }
        Distribution::Bernoulli { p } => Int((f64::from(word(seed, n)) < p * 2f64.powi(32)).into()),
    }
}
