//! Sampling of the next token, in the order that [`Sampling`] states: what an `Op::Sample` needs to know of a sequence, and the
//! same choice of logits in host memory.

mod dry;
mod edits;

use crate::{InferenceError, Result, Sampling};
use bitnet_core::backend::SampleRow;
use bitnet_kernels::philox::philox;
use bitnet_kernels::sampling::{Candidates, Choice};
use dry::Dry;
use edits::Edits;

/// Samples tokens and keeps what the penalties need of the text. Allocates only when constructed, and when it first chooses of
/// logits in host memory.
///
/// The token is a function of the logits, the parameters, the text and how many tokens were drawn before, `n`: the draw
/// takes numbers `4 n` to `4 n + 2` of the stream of the seed, as `Op::Random` gives uniform f32 numbers. The first and the
/// second are the upper and the lower 24 bits of the fraction of the sum of the probabilities, in the order of tokens, at which
/// the token lies; the third decides on XTC.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    vocab: usize,
    drawn: u64,
    edits: Edits,
    dry: Dry,
    /// The largest surprise in bits that mirostat keeps.
    surprise: f32,
    /// Of choices on the host.
    candidates: Option<Candidates>,
    mask: Vec<u32>,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens; an error for a parameter out of range, or a bias of no token.
    pub fn new(sampling: Sampling, vocab: usize) -> Result<Self> {
        sampling.validate()?;
        if let Some(&(id, _)) = sampling.logit_bias.iter().find(|(token, _)| *token as usize >= vocab) {
            return Err(InferenceError::TokenOutOfRange { id, vocab });
        }
        Ok(Self {
            vocab,
            drawn: 0,
            edits: Edits::new(&sampling, vocab),
            dry: Dry::new(&sampling),
            surprise: 2. * sampling.mirostat_tau,
            candidates: None,
            mask: Vec::new(),
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
        self.edits.note(token, generated, &self.sampling);
    }

    /// How the next token is to be chosen, with [`Sampler::edits`].
    pub(crate) fn row(&mut self) -> SampleRow {
        let s = &self.sampling;
        self.dry.penalize(&mut self.edits, s);
        let block = [self.drawn as u32, (self.drawn >> 32) as u32, 0, 0].map(|word| [word]);
        let words = philox(block, [s.seed as u32, (s.seed >> 32) as u32]);
        let [upper, lower, chance, _] = words.map(|[word]| (word >> 8) as f32);
        let exclude = f64::from(chance) < f64::from(s.xtc_probability) * f64::from(1 << 24);
        SampleRow {
            temperature: s.temperature,
            // Exact in f32; no vocabulary is larger.
            top_k: s.top_k.min(self.vocab.min(1 << 24)) as f32,
            top_p: s.top_p,
            min_p: s.min_p,
            typical_p: s.typical_p,
            top_n_sigma: s.top_n_sigma,
            xtc_threshold: if exclude { s.xtc_threshold } else { 2. },
            surprise: if s.mirostat == 2 { self.surprise } else { f32::INFINITY },
            upper,
            lower,
        }
    }

    /// Tokens whose logits are changed, each once, and how; see `Op::Sample`.
    pub(crate) fn edits(&self) -> (&[u32], &[[f32; 4]]) {
        (&self.edits.tokens, &self.edits.values)
    }

    /// Whether [`Sampler::chosen`] needs the probability.
    pub(crate) fn needs_probability(&self) -> bool {
        self.sampling.mirostat == 2
    }

    /// Notes what was chosen; an error, and the text is as before, where no logit was finite.
    pub(crate) fn chosen(&mut self, token: u32, probability: f32) -> Result<u32> {
        if token == u32::MAX {
            return Err(InferenceError::NoFiniteLogits);
        }
        if self.needs_probability() && self.sampling.temperature > 0. {
            self.surprise -= self.sampling.mirostat_eta * (-probability.log2() - self.sampling.mirostat_tau);
        }
        self.drawn += 1;
        self.note(token, 1);
        Ok(token)
    }

    /// Samples a token from `logits` `[vocab]`; ties go to the smaller token.
    ///
    /// # Errors
    /// [`InferenceError::NoFiniteLogits`]. The text is as before.
    ///
    /// # Panics
    /// When there are not `vocab` logits.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.choose(logits, false)
    }

    /// As [`Sampler::sample`], only of the tokens whose bits are set: token `t` is bit `t % 32` of word `t / 32`; tokens beyond
    /// the words are forbidden.
    pub fn sample_allowed(&mut self, logits: &[f32], allowed: &[u32]) -> Result<u32> {
        self.mask.clear();
        self.mask.extend_from_slice(allowed);
        self.mask.resize(self.vocab.div_ceil(32), 0);
        self.choose(logits, true)
    }

    fn choose(&mut self, logits: &[f32], masked: bool) -> Result<u32> {
        let row = self.row().to_array();
        let choice = Choice {
            logits,
            row: &row,
            edited: &self.edits.tokens,
            edits: self.edits.values.as_flattened(),
            mask: if masked { &self.mask } else { &[] },
        };
        let candidates = self.candidates.get_or_insert_with(|| Candidates::new(self.vocab));
        let (token, probability) = candidates.choose(&choice).ok_or(InferenceError::NoFiniteLogits)?;
        self.chosen(token, probability)
    }

    /// The tokens between which the last [`Sampler::sample`] chose, ascending, and their probabilities; without meaning after a
    /// greedy choice.
    pub fn candidates(&self) -> impl Iterator<Item = (u32, f64)> {
        self.candidates.iter().flat_map(Candidates::probabilities)
    }
}

#[cfg(test)]
mod tests;
