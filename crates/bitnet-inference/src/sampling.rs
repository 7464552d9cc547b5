//! Parameters of sampling.

use crate::{InferenceError, Result};

/// The largest [`Sampling::dry_penalty_last_n`]: memory is set aside for it.
const MOST_COMPARED: usize = 1 << 20;

/// How tokens are chosen. The defaults do not change the model's distribution, apart from a temperature of 0.7.
///
/// The fields apply in this order: `logit_bias`, `repeat_penalty`, `frequency_penalty`, `presence_penalty`, `dry_*`, the
/// tokens that are allowed, `top_n_sigma`, `temperature`, `top_k`, `top_p`, `min_p`, `typical_p`, `xtc_*`, `mirostat`, then a
/// draw. It is the order of transformers' `generate` where that has the step, else that of llama.cpp. Each cut sees the
/// distribution that the one before left, and leaves at least one token. With a temperature of 0 the most likely token
/// is taken before the cuts.
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
    /// Keep the tokens whose surprise is nearest to the entropy, until they reach this probability (Meister et al. 2022);
    /// 1 keeps all.
    pub typical_p: f32,
    /// How often, as a probability, all tokens of at least [`xtc_threshold`](Self::xtc_threshold) but the least likely of
    /// them are excluded (XTC, as in llama.cpp); 0 never.
    pub xtc_probability: f32,
    /// See [`xtc_probability`](Self::xtc_probability).
    pub xtc_threshold: f32,
    /// Keep tokens whose logits are at most so many standard deviations of all logits below the largest (Tang et al.
    /// 2024); 0 keeps all.
    pub top_n_sigma: f32,
    /// Logits of tokens in the text are divided by it if positive, multiplied if negative; 1 changes nothing
    /// (Keskar et al. 2019, as in transformers).
    pub repeat_penalty: f32,
    /// Frequency penalty: subtracted from a token's logit for each time it was generated.
    pub frequency_penalty: f32,
    /// Presence penalty: subtracted from the logit of every token that was generated.
    pub presence_penalty: f32,
    /// From the logit of a token that would repeat the last `n` tokens of the text and what followed them before,
    /// `dry_multiplier * dry_base^(n - dry_allowed_length)` is subtracted, for the largest `n` of at least
    /// `dry_allowed_length` (DRY, as in llama.cpp); 0 for never.
    pub dry_multiplier: f32,
    /// See [`dry_multiplier`](Self::dry_multiplier).
    pub dry_base: f32,
    /// See [`dry_multiplier`](Self::dry_multiplier).
    pub dry_allowed_length: usize,
    /// Tokens at the end of the text, the prompt included, in which DRY looks for repetitions.
    pub dry_penalty_last_n: usize,
    /// Tokens that no repetition contains and that DRY never lowers, such as those of a new line.
    pub dry_sequence_breakers: Vec<u32>,
    /// 2 for mirostat 2 (Basu et al. 2021), which keeps the tokens of a surprise up to a bound that follows the surprise of
    /// the tokens drawn; 0 for none.
    pub mirostat: u8,
    /// The surprise in bits that mirostat aims at.
    pub mirostat_tau: f32,
    /// The rate at which the bound of mirostat follows.
    pub mirostat_eta: f32,
    /// Added to the logits of these tokens; minus infinity forbids one.
    pub logit_bias: Vec<(u32, f32)>,
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
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            top_n_sigma: 0.0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: 4096,
            dry_sequence_breakers: Vec::new(),
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Greedy decoding: always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// An error that names the first parameter out of its range.
    pub fn validate(&self) -> Result<()> {
        const PROBABILITY: &str = "between 0 and 1";
        const PART: &str = "above 0 and at most 1";
        const POSITIVE: &str = "above 0";
        const NOT_NEGATIVE: &str = "0 or more";
        let probability = |p: f32| (0. ..=1.).contains(&p);
        let part = |p: f32| p > 0. && p <= 1.;
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0., NOT_NEGATIVE),
            ("top-p", self.top_p, part(self.top_p), PART),
            ("min-p", self.min_p, probability(self.min_p), PROBABILITY),
            ("typical-p", self.typical_p, part(self.typical_p), PART),
            ("xtc-probability", self.xtc_probability, probability(self.xtc_probability), PROBABILITY),
            ("xtc-threshold", self.xtc_threshold, probability(self.xtc_threshold), PROBABILITY),
            ("top-n-sigma", self.top_n_sigma, self.top_n_sigma >= 0., NOT_NEGATIVE),
            ("repeat-penalty", self.repeat_penalty, self.repeat_penalty > 0., POSITIVE),
            ("frequency-penalty", self.frequency_penalty, true, "a number"),
            ("presence-penalty", self.presence_penalty, true, "a number"),
            ("dry-multiplier", self.dry_multiplier, self.dry_multiplier >= 0., NOT_NEGATIVE),
            ("dry-base", self.dry_base, self.dry_base >= 1., "1 or more"),
            ("dry-allowed-length", self.dry_allowed_length as f32, self.dry_allowed_length > 0, "1 or more"),
            (
                "dry-penalty-last-n",
                self.dry_penalty_last_n as f32,
                self.dry_penalty_last_n <= MOST_COMPARED,
                "at most 1048576",
            ),
            ("mirostat", self.mirostat.into(), [0, 2].contains(&self.mirostat), "0 or 2"),
            ("mirostat-tau", self.mirostat_tau, self.mirostat_tau >= 0., NOT_NEGATIVE),
            ("mirostat-eta", self.mirostat_eta, self.mirostat_eta >= 0., NOT_NEGATIVE),
        ];
        for (name, value, fits, range) in checks {
            if !fits || !value.is_finite() {
                return Err(InferenceError::Sampling { name, value: value.into(), range });
            }
        }
        match self.logit_bias.iter().find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY) {
            Some(&(_, bias)) => {
                Err(InferenceError::Sampling { name: "logit-bias", value: bias.into(), range: "a number, or -inf" })
            }
            None => Ok(()),
        }
    }
}
