//! Sampling of the next token, in the order that [`Sampling`] states.

mod dry;

use crate::{InferenceError, Result, Sampling};
use bitnet_kernels::philox::philox;
use bitnet_kernels::sampling::{Candidates, most_likely};
use dry::Dry;

/// Samples tokens and keeps what the penalties need of the text. Allocates only when constructed.
///
/// The token is a function of the logits, the parameters, the text and how many tokens were drawn before, `n`: the draw
/// takes numbers `4 n` to `4 n + 2` of the stream of the seed, as `Op::Random` gives uniform f32 numbers. The first and the
/// second are the upper and the lower 24 bits of the fraction of the sum of the probabilities, in the order of tokens, at which
/// the token lies; the third decides on XTC.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    drawn: u64,
    /// How often each token was generated, and whether it is in the text at all; empty without these penalties.
    seen: Vec<(u32, bool)>,
    /// Tokens with an entry in `seen`.
    text: Vec<u32>,
    dry: Dry,
    /// The largest surprise in bits that mirostat keeps.
    surprise: f32,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens; an error for a parameter out of range, or a bias of no token.
    pub fn new(sampling: Sampling, vocab: usize) -> Result<Self> {
        sampling.validate()?;
        if let Some(&(id, _)) = sampling.logit_bias.iter().find(|(token, _)| *token as usize >= vocab) {
            return Err(InferenceError::TokenOutOfRange { id, vocab });
        }
        let penalties =
            sampling.repeat_penalty != 1. || sampling.frequency_penalty != 0. || sampling.presence_penalty != 0.;
        let counted = if penalties { vocab } else { 0 };
        Ok(Self {
            drawn: 0,
            seen: vec![(0, false); counted],
            text: Vec::with_capacity(counted),
            dry: Dry::new(&sampling),
            surprise: 2. * sampling.mirostat_tau,
            candidates: Candidates::new(vocab),
            sampling,
        })
    }

    /// Adds tokens of the prompt, which count for the repetition penalty and for DRY.
    pub fn observe_prompt(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.note(token, 0);
        }
    }

    fn note(&mut self, token: u32, generated: u32) {
        self.dry.note(token, &self.sampling);
        if let Some((count, present)) = self.seen.get_mut(token as usize) {
            if !*present {
                self.text.push(token);
            }
            (*count, *present) = (*count + generated, true);
        }
    }

    /// Samples a token from `logits` `[vocab]`; ties go to the smaller token.
    ///
    /// # Errors
    /// [`InferenceError::NoFiniteLogits`]. The text is as before.
    ///
    /// # Panics
    /// When there are not `vocab` logits.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.sample_allowed(logits, None)
    }

    /// As [`Sampler::sample`], only of the tokens whose bits are set: token `t` is bit `t % 32` of word `t / 32`; tokens beyond
    /// the words are forbidden.
    pub fn sample_allowed(&mut self, logits: &[f32], allowed: Option<&[u32]>) -> Result<u32> {
        let values = self.candidates.load(logits);
        for &(token, bias) in &self.sampling.logit_bias {
            values[token as usize] += bias;
        }
        penalize(values, &self.sampling, &self.text, &self.seen);
        if self.sampling.dry_multiplier > 0. {
            self.dry.penalize(values, &self.sampling);
        }
        if let Some(allowed) = allowed {
            forbid(values, allowed);
        }
        let token = if self.sampling.temperature == 0. { most_likely(values) } else { self.draw() };
        let token = token.ok_or(InferenceError::NoFiniteLogits)?;
        self.drawn += 1;
        self.note(token, 1);
        Ok(token)
    }

    /// The tokens between which the last draw chose, ascending, and their probabilities; without meaning after a greedy choice.
    pub fn candidates(&self) -> impl Iterator<Item = (u32, f64)> {
        self.candidates.probabilities()
    }

    fn draw(&mut self) -> Option<u32> {
        let (s, candidates) = (&self.sampling, &mut self.candidates);
        if !candidates.weigh(s.temperature, s.top_n_sigma) {
            return None;
        }
        let block = [self.drawn as u32, (self.drawn >> 32) as u32, 0, 0].map(|word| [word]);
        let [upper, lower, chance, _] = philox(block, [s.seed as u32, (s.seed >> 32) as u32]).map(|[word]| word >> 8);
        if s.top_k > 0 {
            candidates.top_k(s.top_k);
        }
        candidates.top_p(s.top_p);
        if s.min_p > 0. {
            candidates.min_p(s.min_p);
        }
        candidates.typical(s.typical_p);
        if f64::from(chance) < f64::from(s.xtc_probability) * f64::from(1 << 24) {
            candidates.exclude_top_choices(s.xtc_threshold);
        }
        if s.mirostat == 2 {
            candidates.surprise(self.surprise);
        }
        let (token, probability) = candidates.draw(u64::from(upper) << 24 | u64::from(lower));
        if s.mirostat == 2 {
            self.surprise -= s.mirostat_eta * (-probability.log2() as f32 - s.mirostat_tau);
        }
        Some(token)
    }
}

/// Lowers the tokens of the text, each once for the repetition penalty, then for how often it was generated.
fn penalize(logits: &mut [f32], s: &Sampling, text: &[u32], seen: &[(u32, bool)]) {
    for &token in text {
        let (logit, count) = (&mut logits[token as usize], seen[token as usize].0);
        *logit = if *logit > 0. { *logit / s.repeat_penalty } else { *logit * s.repeat_penalty };
        *logit -= count as f32 * s.frequency_penalty + if count > 0 { s.presence_penalty } else { 0. };
    }
}

fn forbid(logits: &mut [f32], allowed: &[u32]) {
    let words = allowed.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(32).zip(words) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
        }
    }
}

#[cfg(test)]
mod tests;
