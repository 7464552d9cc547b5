//! Sampling of the next token.
//!
//! The order is that of transformers' `generate`: penalties, temperature, top-k, top-p, min-p, then a draw.

use crate::{InferenceError, Result};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// Parameters of a sampler. The defaults do not change the model's distribution, apart from a temperature of 0.7.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token (greedy).
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens whose probability is at least this fraction of the highest; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens in the text are divided by it if positive, multiplied if negative; 1 changes nothing
    /// (Keskar et al. 2019, as in transformers).
    pub repeat_penalty: f32,
    /// Frequency penalty: subtracted from a token's logit for each time it was generated.
    pub frequency_penalty: f32,
    /// Presence penalty: subtracted from the logit of every token that was generated.
    pub presence_penalty: f32,
    /// Equal seeds give equal texts.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Greedy decoding: always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    fn validate(&self) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0., "0 or more"),
            ("top-p", self.top_p, self.top_p > 0. && self.top_p <= 1., "above 0 and at most 1"),
            ("min-p", self.min_p, (0. ..=1.).contains(&self.min_p), "between 0 and 1"),
            ("repeat-penalty", self.repeat_penalty, self.repeat_penalty > 0., "above 0"),
            ("frequency-penalty", self.frequency_penalty, true, "a number"),
            ("presence-penalty", self.presence_penalty, true, "a number"),
        ];
        for (name, value, fits, range) in checks {
            if !fits || !value.is_finite() {
                return Err(InferenceError::Sampling { name, value: value as f64, range });
            }
        }
        Ok(())
    }
}

/// Samples tokens and keeps counts for the penalties. Allocates only when constructed.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: Pcg64Mcg,
    /// How often each token was generated, and whether it is in the text at all.
    seen: Vec<(u32, bool)>,
    /// Tokens with an entry in `seen`.
    text: Vec<u32>,
    /// Logit or weight, and token.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens; an error for a parameter out of range.
    pub fn new(sampling: Sampling, vocab: usize) -> Result<Self> {
        sampling.validate()?;
        Ok(Self {
            rng: Pcg64Mcg::seed_from_u64(sampling.seed),
            sampling,
            seen: vec![(0, false); vocab],
            text: Vec::with_capacity(vocab),
            candidates: Vec::with_capacity(vocab),
        })
    }

    /// Adds tokens of the prompt, which also count for the repetition penalty.
    pub fn observe_prompt(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.note(token);
        }
    }

    fn note(&mut self, token: u32) -> Option<&mut (u32, bool)> {
        let entry = self.seen.get_mut(token as usize)?;
        if !entry.1 {
            entry.1 = true;
            self.text.push(token);
        }
        Some(entry)
    }

    /// Samples a token from `logits` `[vocab]`; ties go to the smaller token.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.candidates.clear();
        self.candidates.extend(logits.iter().copied().zip(0..));
        self.penalize();
        let token = if self.sampling.temperature == 0. { self.greedy() } else { self.draw() }?;
        if let Some(entry) = self.note(token) {
            entry.0 += 1;
        }
        Ok(token)
    }

    fn penalize(&mut self) {
        let s = &self.sampling;
        if s.repeat_penalty == 1. && s.frequency_penalty == 0. && s.presence_penalty == 0. {
            return;
        }
        for &token in &self.text {
            let Some((logit, _)) = self.candidates.get_mut(token as usize) else { continue };
            *logit = if *logit > 0. { *logit / s.repeat_penalty } else { *logit * s.repeat_penalty };
            let count = self.seen[token as usize].0;
            *logit -= count as f32 * s.frequency_penalty + if count > 0 { s.presence_penalty } else { 0. };
        }
    }

    fn greedy(&self) -> Result<u32> {
        let mut best: Option<(f32, u32)> = None;
        for &(logit, token) in &self.candidates {
            if best.is_none_or(|(top, _)| logit > top) && !logit.is_nan() {
                best = Some((logit, token));
            }
        }
        best.filter(|(top, _)| *top > f32::NEG_INFINITY && top.is_finite())
            .map(|b| b.1)
            .ok_or(InferenceError::NoFiniteLogits)
    }

    fn draw(&mut self) -> Result<u32> {
        let top = self.greedy()? as usize;
        let s = &self.sampling;
        let largest = self.candidates[top].0;
        // The weight of the most likely token is 1; the order of tokens does not change.
        for (weight, _) in &mut self.candidates {
            *weight = ((*weight - largest) / s.temperature).exp();
        }
        self.candidates.retain(|(weight, _)| *weight > 0.);
        let by_weight = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if s.top_k > 0 && s.top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(s.top_k - 1, by_weight);
            self.candidates.truncate(s.top_k);
        }
        if s.top_p < 1. {
            self.candidates.sort_unstable_by(by_weight);
            let enough = s.top_p as f64 * self.total();
            let mut sum = 0.;
            let kept = self.candidates.iter().take_while(|(weight, _)| {
                let before = sum;
                sum += *weight as f64;
                before < enough
            });
            let kept = kept.count();
            self.candidates.truncate(kept);
        }
        if s.min_p > 0. {
            self.candidates.retain(|(weight, _)| *weight >= s.min_p);
        }
        // Selection does not keep an order; a fixed one makes the draw depend on the seed alone.
        self.candidates.sort_unstable_by(by_weight);
        // 53 random bits, as many as an f64 holds.
        let mut left = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * self.total();
        for &(weight, token) in &self.candidates {
            left -= weight as f64;
            if left < 0. {
                return Ok(token);
            }
        }
        self.candidates.last().map(|c| c.1).ok_or(InferenceError::NoFiniteLogits)
    }

    fn total(&self) -> f64 {
        self.candidates.iter().map(|c| c.0 as f64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of 4 tokens is drawn with these logits.
    fn frequencies(sampling: Sampling, logits: [f32; 4]) -> [f64; 4] {
        let mut counts = [0; 4];
        let mut sampler = Sampler::new(sampling, 4).unwrap();
        const DRAWS: usize = 20_000;
        for _ in 0..DRAWS {
            counts[sampler.sample(&logits).unwrap() as usize] += 1;
        }
        counts.map(|n| n as f64 / DRAWS as f64)
    }

    fn assert_close(got: [f64; 4], expected: [f64; 4]) {
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() < 0.015 && (e > 0. || *g == 0.), "{got:?} is not {expected:?}");
        }
    }

    /// Weights 1, 4, 0, 2.
    const LOGITS: [f32; 4] = [0.0, 2. * std::f32::consts::LN_2, -f32::INFINITY, std::f32::consts::LN_2];

    #[test]
    fn temperature_scales_the_distribution() {
        let plain = Sampling { temperature: 1., ..Sampling::default() };
        assert_close(frequencies(plain.clone(), LOGITS), [1. / 7., 4. / 7., 0., 2. / 7.]);
        assert_close(frequencies(Sampling { temperature: 0.5, ..plain }, LOGITS), [1. / 21., 16. / 21., 0., 4. / 21.]);
        assert_eq!(frequencies(Sampling::greedy(), LOGITS), [0., 1., 0., 0.]);
    }

    #[test]
    fn cuts_keep_the_likeliest() {
        let plain = Sampling { temperature: 1., ..Sampling::default() };
        assert_close(frequencies(Sampling { top_k: 2, ..plain.clone() }, LOGITS), [0., 4. / 6., 0., 2. / 6.]);
        assert_close(frequencies(Sampling { top_p: 0.5, ..plain.clone() }, LOGITS), [0., 1., 0., 0.]);
        assert_close(frequencies(Sampling { top_p: 0.6, ..plain.clone() }, LOGITS), [0., 4. / 6., 0., 2. / 6.]);
        assert_close(frequencies(Sampling { min_p: 0.5, ..plain }, LOGITS), [0., 4. / 6., 0., 2. / 6.]);
    }

    #[test]
    fn penalties_lower_what_was_said() {
        let base = Sampling::greedy();
        let mut sampler = Sampler::new(Sampling { repeat_penalty: 2., ..base.clone() }, 3).unwrap();
        sampler.observe_prompt(&[0]);
        assert_eq!(sampler.sample(&[1.9, 1.0, -1.0]).unwrap(), 1, "1.9 / 2 < 1.0");
        assert_eq!(sampler.sample(&[-1.0, -1.0, -1.5]).unwrap(), 2, "-1 * 2 < -1.5");
        let mut sampler = Sampler::new(Sampling { frequency_penalty: 1., ..base.clone() }, 2).unwrap();
        let said: Vec<u32> = (0..4).map(|_| sampler.sample(&[2.5, 1.0]).unwrap()).collect();
        assert_eq!(said, [0, 0, 1, 0]);
        let mut sampler = Sampler::new(Sampling { presence_penalty: 1., ..base }, 2).unwrap();
        sampler.observe_prompt(&[0]);
        let said: Vec<u32> = (0..3).map(|_| sampler.sample(&[1.5, 1.0]).unwrap()).collect();
        assert_eq!(said, [0, 1, 0], "the prompt does not count; once both were said, both are lowered alike");
    }

    #[test]
    fn equal_seeds_draw_equally() {
        let draw = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, temperature: 1., ..Sampling::default() }, 100).unwrap();
            (0..50).map(|_| sampler.sample(&[0.; 100]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn sampling_parameters_out_of_range_are_errors() {
        for bad in [
            Sampling { temperature: -1., ..Sampling::default() },
            Sampling { temperature: f32::NAN, ..Sampling::default() },
            Sampling { top_p: 0., ..Sampling::default() },
            Sampling { top_p: 1.1, ..Sampling::default() },
            Sampling { min_p: -0.1, ..Sampling::default() },
            Sampling { repeat_penalty: 0., ..Sampling::default() },
        ] {
            assert!(matches!(Sampler::new(bad, 4), Err(InferenceError::Sampling { .. })));
        }
        let mut sampler = Sampler::new(Sampling::greedy(), 2).unwrap();
        assert!(matches!(sampler.sample(&[f32::NAN; 2]), Err(InferenceError::NoFiniteLogits)));
        assert!(matches!(sampler.sample(&[f32::NEG_INFINITY; 2]), Err(InferenceError::NoFiniteLogits)));
    }
}
