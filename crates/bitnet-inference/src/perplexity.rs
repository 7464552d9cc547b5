//! Perplexity of a text.

use crate::{InferenceError, Result, Session};
use bitnet_model::tokenizer::Tokenizer;

/// Log-likelihood summed over windows of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perplexity {
    /// Sum of the negative log-likelihoods of all targets, in nats.
    pub nll: f64,
    /// Targets.
    pub tokens: usize,
    /// Bytes of text of the targets.
    pub bytes: usize,
    /// Windows.
    pub windows: usize,
}

impl Perplexity {
    /// Nats per token.
    pub fn mean_nll(&self) -> f64 {
        self.nll / self.tokens as f64
    }

    /// `exp` of the mean.
    pub fn perplexity(&self) -> f64 {
        self.mean_nll().exp()
    }

    /// Bits per byte of text: comparable between tokenizers.
    pub fn bits_per_byte(&self) -> f64 {
        self.nll / std::f64::consts::LN_2 / self.bytes as f64
    }
}

/// Number of windows in a text of `tokens` tokens: each has `window` inputs and as many targets, shifted by one.
pub fn count_windows(tokens: usize, window: usize) -> usize {
    tokens.saturating_sub(1) / window
}

/// Scores consecutive windows of `window` inputs, each from an empty context: the targets are the next tokens. An
/// incomplete last window is left out. `progress` receives the number of windows done.
pub fn perplexity(
    session: &mut Session,
    tokenizer: &Tokenizer,
    tokens: &[u32],
    window: usize,
    max_windows: usize,
    mut progress: impl FnMut(usize, &Perplexity),
) -> Result<Perplexity> {
    let windows = count_windows(tokens.len(), window.max(1)).min(max_windows);
    if windows == 0 || window == 0 {
        return Err(InferenceError::TextTooShort { tokens: tokens.len(), needed: window.saturating_add(1).max(2) });
    }
    let mut sum = Perplexity::default();
    for index in 0..windows {
        let inputs = &tokens[index * window..(index + 1) * window];
        let targets = &tokens[index * window + 1..(index + 1) * window + 1];
        session.truncate(0);
        session.feed_all(inputs, |i, logits| sum.nll += negative_log_likelihood(logits, targets[i] as usize))?;
        sum.tokens += targets.len();
        sum.bytes += targets.iter().map(|&id| tokenizer.token_bytes(id).map_or(0, <[u8]>::len)).sum::<usize>();
        sum.windows += 1;
        progress(index + 1, &sum);
    }
    Ok(sum)
}

/// `log(sum(exp(logits))) - logits[target]`, in f64.
fn negative_log_likelihood(logits: &[f32], target: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let sum: f64 = logits.iter().map(|&l| (l as f64 - largest).exp()).sum();
    match logits.get(target) {
        Some(&logit) => largest + sum.ln() - logit as f64,
        // A target that the model cannot produce.
        None => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihood_of_a_known_distribution() {
        let logits = [0f32, (3f32).ln(), f32::NEG_INFINITY];
        assert!((negative_log_likelihood(&logits, 1) - (4f64 / 3.).ln()).abs() < 1e-7);
        assert!((negative_log_likelihood(&logits, 0) - 4f64.ln()).abs() < 1e-7);
        assert_eq!(negative_log_likelihood(&logits, 2), f64::INFINITY);
    }

    #[test]
    fn windows_share_no_input() {
        assert_eq!(count_windows(257, 256), 1);
        assert_eq!(count_windows(256, 256), 0);
        assert_eq!(count_windows(513, 256), 2);
        assert_eq!(count_windows(0, 256), 0);
    }
}
