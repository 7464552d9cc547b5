//! Perplexity of a text.

use crate::{Engine, InferenceError, Result};
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
/// incomplete last window is left out. `together` windows are computed at once. `progress` receives the number of windows done.
pub fn perplexity(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    tokens: &[u32],
    (window, max_windows): (usize, usize),
    together: usize,
    mut progress: impl FnMut(usize, &Perplexity),
) -> Result<Perplexity> {
    let windows = count_windows(tokens.len(), window.max(1)).min(max_windows);
    if windows == 0 || window == 0 {
        return Err(InferenceError::TextTooShort { tokens: tokens.len(), needed: window.saturating_add(1).max(2) });
    }
    let mut sum = Perplexity::default();
    let texts: Vec<&[u32]> = (0..windows).map(|index| &tokens[index * window..(index + 1) * window + 1]).collect();
    for texts in texts.chunks(together.max(1)) {
        for (text, log_likelihoods) in texts.iter().zip(engine.log_likelihoods(texts)?) {
            let targets = &text[1..];
            sum.nll -= log_likelihoods.iter().sum::<f64>();
            sum.tokens += targets.len();
            sum.bytes += targets.iter().map(|&id| tokenizer.token_bytes(id).map_or(0, <[u8]>::len)).sum::<usize>();
            sum.windows += 1;
        }
        progress(sum.windows, &sum);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_share_no_input() {
        assert_eq!(count_windows(257, 256), 1);
        assert_eq!(count_windows(256, 256), 0);
        assert_eq!(count_windows(513, 256), 2);
        assert_eq!(count_windows(0, 256), 0);
    }
}
