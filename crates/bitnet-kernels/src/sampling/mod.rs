//! The choice of a token from logits, without a sort of the vocabulary.
//!
//! A candidate has a key, `(logit - largest) / temperature`, and a weight, `e^key` as a multiple of 2^-30. A cut keeps the
//! first candidates by key; where keys are equal, the smaller token is first. Sums of weights are sums of integers: exact,
//! and the same in any order, on any CPU and with any number of threads. Tokens less likely than 2^-30 of the most likely
//! are no candidates.

mod choose;
mod select;
#[cfg(test)]
mod tests;

use crate::Isa;
use crate::float::simd::inlined;
use crate::isa::wide;
pub use choose::{Choice, Choices, choose};
use select::{Cut, Scratch, UNIT};

/// Bits of a fraction that draws, see [`Candidates::draw`].
pub const FRACTION_BITS: u32 = 48;

/// The candidates of one choice. Nothing allocates but [`Candidates::new`].
#[derive(Debug, Clone)]
pub struct Candidates {
    /// First the logits, then the keys; minus infinity for what is cut. Of the first `len`.
    keys: Vec<f32>,
    /// 0 for what is cut.
    weights: Vec<u32>,
    /// The tokens, where not all are candidates any more; ascending.
    tokens: Vec<u32>,
    compact: bool,
    len: usize,
    kept: usize,
    /// Of the weights.
    total: u64,
    scratch: Scratch,
    isa: Isa,
}

/// The largest number of `x`; minus infinity without one.
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (top, &x) in lanes.iter_mut().zip(chunk) {
            *top = if x > *top { x } else { *top };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |top, &x| if x > top { x } else { top })
}

/// The token with the largest logit, the smaller of equal ones; `None` where the largest is not finite.
pub fn most_likely(logits: &[f32]) -> Option<u32> {
    let top = largest(logits);
    if !top.is_finite() {
        return None;
    }
    logits.iter().position(|&x| x == top).map(|token| token as u32)
}

/// Candidates are moved together when no more than one of so many is left.
const COMPACT: usize = 8;

impl Candidates {
    /// Room for the tokens of a vocabulary.
    pub fn new(vocab: usize) -> Self {
        // An unknown word in the variable is an error of the device that computes the logits.
        Self::with_isa(vocab, Isa::selected().unwrap_or(Isa::Scalar))
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.keys.len()
    }

    fn with_isa(vocab: usize, isa: Isa) -> Self {
        Self {
            keys: vec![0.0; vocab],
            weights: vec![0; vocab],
            tokens: vec![0; vocab / COMPACT],
            compact: false,
            len: vocab,
            kept: 0,
            total: 0,
            scratch: Scratch::new(vocab),
            isa,
        }
    }

    /// Begins a choice with logits `[vocab]`, and gives them to be changed before [`Candidates::weigh`].
    ///
    /// # Panics
    /// When there are not as many as the vocabulary has tokens.
    pub fn load(&mut self, logits: &[f32]) -> &mut [f32] {
        self.keys.copy_from_slice(logits);
        &mut self.keys
    }

    /// Makes all tokens candidates whose logits are `sigmas` standard deviations below the largest or less (top-n-sigma,
    /// Tang et al. 2024, over the finite logits; 0 sets no bound). `false` where the largest logit is not finite; NaN is
    /// no candidate.
    pub fn weigh(&mut self, temperature: f32, sigmas: f32) -> bool {
        let top = largest(&self.keys);
        if !top.is_finite() {
            return false;
        }
        let floor =
            if sigmas > 0.0 { (f64::from(top) - f64::from(sigmas) * deviation(&self.keys)) as f32 } else { f32::MIN };
        let scale = temperature.recip().min(f32::MAX);
        (self.compact, self.len) = (false, self.keys.len());
        let (keys, weights) = (&mut self.keys[..], &mut self.weights[..]);
        (self.kept, self.total) = wide(
            self.isa,
            inlined!(|| {
                for (key, weight) in keys.iter_mut().zip(&mut *weights) {
                    let scaled = (*key - top) * scale;
                    let keep = (*key >= floor) & (scaled >= LOWEST);
                    // Computed for all, as vectors have no branches.
                    let some = weight_of(if keep { scaled } else { LOWEST });
                    *weight = if keep { some } else { 0 };
                    // There is one zero: -0.0 + 0.0 is 0.0.
                    *key = if keep { scaled + 0.0 } else { f32::NEG_INFINITY };
                }
                sums(weights)
            }),
        );
        self.compact();
        true
    }

    /// Keeps the first `k`.
    pub fn top_k(&mut self, k: usize) {
        if k < self.kept {
            let sums = [k as u64, self.kept as u64];
            let cut =
                self.scratch.cut(self.isa, &self.keys[..self.len], &self.weights[..self.len], sums, |w| (w > 0).into());
            self.keep_to(cut);
        }
    }

    /// Keeps the first whose probabilities together reach `p`, at least one (Holtzman et al. 2020).
    pub fn top_p(&mut self, p: f32) {
        if p < 1.0 {
            let cut = self.cut_weight(p);
            self.keep_to(cut);
        }
    }

    /// Keeps those at least `p` times as likely as the most likely token (Nguyen et al. 2024).
    pub fn min_p(&mut self, p: f32) {
        let least = f64::from(p).ln() as f32;
        self.retain(|key, _, _| key >= least);
    }

    /// Keeps those whose surprise is nearest to the entropy, until their probabilities together reach `p` (Meister et al.
    /// 2022). Their distance is the key from now on.
    pub fn typical(&mut self, p: f32) {
        if p >= 1.0 || self.kept < 2 {
            return;
        }
        // With a probability e^key / sum, surprise minus entropy is the expected key minus the key.
        let alive = self.keys[..self.len].iter().zip(&self.weights).filter(|(_, weight)| **weight > 0);
        let mean = sum(alive.map(|(&key, &weight)| f64::from(key) * f64::from(weight))) / self.total as f64;
        let mean = mean as f32;
        let keys = &mut self.keys[..self.len];
        keys.iter_mut().for_each(|key| *key = 0.0 - (mean - *key).abs());
        let cut = self.cut_weight(p);
        self.keep_to(cut);
    }

    /// Removes all candidates of a probability of `threshold` or more but the least likely of them ("exclude top choices",
    /// as in llama.cpp).
    pub fn exclude_top_choices(&mut self, threshold: f32) {
        let enough = (f64::from(threshold) * self.total as f64).ceil().max(1.0) as u64;
        let mut least = None;
        for (index, &weight) in self.weights[..self.len].iter().enumerate() {
            if u64::from(weight) >= enough && least.is_none_or(|(least, _)| weight <= least) {
                least = Some((weight, index));
            }
        }
        let Some((_, least)) = least else { return };
        self.retain(|_, weight, index| u64::from(weight) < enough || index == least);
    }

    /// Keeps those of a surprise of at most `bits`, at least the most likely (the cut of mirostat 2, Basu et al. 2021).
    pub fn surprise(&mut self, bits: f32) {
        let top = self.weights[..self.len].iter().copied().max().unwrap_or(0);
        let enough = ((-f64::from(bits)).exp2() * self.total as f64).ceil();
        if enough <= f64::from(top) {
            self.retain(|_, weight, _| f64::from(weight) >= enough);
        } else if let Some(first) = self.weights[..self.len].iter().position(|&weight| weight == top) {
            self.retain(|_, _, index| index == first);
        }
    }

    /// The token at `fraction / 2^48` of the sum of the weights in the order of tokens, and its probability.
    ///
    /// # Panics
    /// Without candidates, or where the fraction is not below 2^48.
    pub fn draw(&self, fraction: u64) -> (u32, f64) {
        assert!(fraction < 1 << FRACTION_BITS, "a fraction of {FRACTION_BITS} bits");
        let mut left = ((u128::from(fraction) * u128::from(self.total)) >> FRACTION_BITS) as u64;
        for (chunk, weights) in self.weights[..self.len].chunks(CHUNK).enumerate() {
            let (_, total) = sums(weights);
            if left >= total {
                left -= total;
                continue;
            }
            for (index, &weight) in weights.iter().enumerate() {
                if left < u64::from(weight) {
                    return (self.token(chunk * CHUNK + index), f64::from(weight) / self.total as f64);
                }
                left -= u64::from(weight);
            }
        }
        unreachable!("a draw is below the sum of the weights")
    }

    /// The candidates and their probabilities, in the order of tokens.
    pub fn probabilities(&self) -> impl Iterator<Item = (u32, f64)> {
        let weights = self.weights[..self.len].iter().enumerate().filter(|(_, weight)| **weight > 0);
        weights.map(|(index, &weight)| (self.token(index), f64::from(weight) / self.total as f64))
    }

    fn token(&self, index: usize) -> u32 {
        if self.compact { self.tokens[index] } else { index as u32 }
    }

    fn cut_weight(&mut self, p: f32) -> Cut {
        let enough = (f64::from(p) * self.total as f64).ceil().max(1.0) as u64;
        self.scratch.cut(self.isa, &self.keys[..self.len], &self.weights[..self.len], [enough, self.total], u64::from)
    }

    fn keep_to(&mut self, cut: Cut) {
        // Two loops that compare with one number are faster than one that also compares places.
        let (keys, weights) = (&mut self.keys[..self.len], &mut self.weights[..self.len]);
        let ((first, second), (w0, w1)) = (keys.split_at_mut(cut.index + 1), weights.split_at_mut(cut.index + 1));
        wide(
            self.isa,
            inlined!(|| {
                zero(first, w0, |key| key >= cut.key);
                zero(second, w1, |key| key > cut.key);
            }),
        );
        (self.kept, self.total) = sums(&self.weights[..self.len]);
        self.compact();
    }

    /// Keeps the candidates of which `keep` says so, by key, weight and place.
    fn retain(&mut self, keep: impl Fn(f32, u32, usize) -> bool) {
        for (index, (key, weight)) in self.keys[..self.len].iter_mut().zip(&mut self.weights).enumerate() {
            let keep = keep(*key, *weight, index);
            *weight = if keep { *weight } else { 0 };
            *key = if keep { *key } else { f32::NEG_INFINITY };
        }
        (self.kept, self.total) = sums(&self.weights[..self.len]);
        self.compact();
    }

    /// Moves the candidates together where few of many are left, so that what follows passes over few.
    fn compact(&mut self) {
        if self.kept > self.len / COMPACT {
            return;
        }
        let mut to = 0;
        for block in (0..self.len).step_by(64) {
            let end = self.len.min(block + 64);
            if self.weights[block..end].iter().fold(0, |any, weight| any | weight) == 0 {
                continue;
            }
            for from in block..end {
                if self.weights[from] > 0 {
                    let token = self.token(from);
                    (self.keys[to], self.weights[to], self.tokens[to]) = (self.keys[from], self.weights[from], token);
                    to += 1;
                }
            }
        }
        (self.compact, self.len) = (true, to);
    }
}

/// Weights of which a draw takes one sum.
const CHUNK: usize = 1024;

#[inline(always)]
fn zero(keys: &mut [f32], weights: &mut [u32], keep: impl Fn(f32) -> bool) {
    for (key, weight) in keys.iter_mut().zip(weights) {
        let keep = keep(*key);
        *weight &= u32::from(keep).wrapping_neg();
        *key = if keep { *key } else { f32::NEG_INFINITY };
    }
}

/// How many are above 0, and their sum: in 32-bit halves, as a vector holds more of them than of 64-bit sums.
#[inline(always)]
fn sums(weights: &[u32]) -> (usize, u64) {
    let (mut kept, mut total) = (0, 0);
    for block in weights.chunks(1 << 16) {
        let (mut count, mut lower, mut upper) = (0, 0, 0);
        for &weight in block {
            count += u32::from(weight > 0);
            lower += weight & 0xffff;
            upper += weight >> 16;
        }
        kept += count as usize;
        total += (u64::from(upper) << 16) + u64::from(lower);
    }
    (kept, total)
}

/// The standard deviation of the finite numbers of `x`.
fn deviation(x: &[f32]) -> f64 {
    let finite = || x.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x));
    let count = finite().count() as f64;
    let mean = sum(finite()) / count;
    (sum(finite().map(|x| (x - mean) * (x - mean))) / count).sqrt()
}

/// In eight lanes, so that a sum does not wait for the one before.
fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; 8];
    numbers.enumerate().for_each(|(i, x)| lanes[i % 8] += x);
    lanes.iter().sum()
}

/// The key of a weight of 1 in 2^30.
const LOWEST: f32 = -30.0 * std::f32::consts::LN_2;

/// `e^key` as a multiple of 2^-30 for keys from [`LOWEST`] to 0, within 2^-22 of itself and 2^-31. Products and sums are
/// rounded one by one, so that all CPUs agree to the last bit.
#[inline(always)]
fn weight_of(key: f32) -> u32 {
    // Adding it rounds to an integer, which the lowest bits of the sum hold: a conversion would not use vectors.
    const ROUND: f32 = 12_582_912.0;
    let integer = |shifted: f32| shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let shifted = key * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln(2) in two parts, the first short enough that its products with n are exact.
    let r = key - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let mut p = 1.381_314_5e-3;
    for k in [8.369_419e-3, 4.166_845_6e-2, 1.666_651_5e-1, 4.999_999_4e-1] {
        p = p * r + k;
    }
    let e = (p * (r * r) + r) + 1.0;
    let weight = e * f32::from_bits(integer(shifted).wrapping_add(127 + UNIT) << 23);
    // The sum holds 22 bits.
    const HALF: f32 = 32_768.0;
    let upper = weight / HALF + ROUND;
    let lower = weight - (upper - ROUND) * HALF + ROUND;
    (integer(upper) << 15).wrapping_add(integer(lower))
}
