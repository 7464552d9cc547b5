//! DRY, "don't repeat yourself", as in llama.cpp: the longer a token would make a repetition, the lower its logit.

use super::edits::Edits;
use crate::Sampling;

/// The end of the text and room for its comparison with itself.
#[derive(Debug, Clone)]
pub(super) struct Dry {
    /// Up to twice the tokens that are compared, so that few are moved.
    text: Vec<u32>,
    /// Of each place before the end, how many tokens up to it equal those up to the end.
    equal: Vec<usize>,
    /// Tokens that would lengthen a repetition, and of how many.
    found: Vec<(u32, usize)>,
    /// Ascending.
    breakers: Vec<u32>,
}

impl Dry {
    /// Room for what `sampling` compares; none where it does not.
    pub fn new(sampling: &Sampling) -> Self {
        let most = if sampling.dry_multiplier > 0. { sampling.dry_penalty_last_n } else { 0 };
        let (text, equal, found) =
            (Vec::with_capacity(most.saturating_mul(2)), Vec::with_capacity(most), Vec::with_capacity(most));
        let mut breakers = sampling.dry_sequence_breakers.clone();
        breakers.sort_unstable();
        Self { text, equal, found, breakers }
    }

    pub fn note(&mut self, token: u32, sampling: &Sampling) {
        let most = sampling.dry_penalty_last_n;
        if sampling.dry_multiplier == 0. || most == 0 {
            return;
        }
        if self.text.len() == 2 * most {
            self.text.drain(..most);
        }
        self.text.push(token);
    }

    pub fn penalize(&mut self, edits: &mut Edits, sampling: &Sampling) {
        if sampling.dry_multiplier == 0. {
            return;
        }
        edits.forget_repeated();
        let text = &self.text[self.text.len().saturating_sub(sampling.dry_penalty_last_n)..];
        let breaks = |token: &u32| self.breakers.binary_search(token).is_ok();
        let longest = text.iter().rev().position(breaks).unwrap_or(text.len());
        if longest < sampling.dry_allowed_length {
            return;
        }
        self.found.clear();
        suffixes(text, &mut self.equal);
        for (back, &equal) in self.equal.iter().enumerate().skip(1) {
            let (length, token) = (equal.min(longest), text[text.len() - back]);
            if length >= sampling.dry_allowed_length && !breaks(&token) {
                self.found.push((token, length));
            }
        }
        // Of each token the longest is last.
        self.found.sort_unstable();
        for (i, &(token, length)) in self.found.iter().enumerate() {
            if self.found.get(i + 1).is_some_and(|next| next.0 == token) {
                continue;
            }
            let power = sampling.dry_base.powf((length - sampling.dry_allowed_length) as f32);
            edits.repeated(token, (sampling.dry_multiplier * power).min(f32::MAX));
        }
    }
}

/// `equal[back]`: how many tokens before the last `back` of the text equal those at its end (the Z function of the text
/// backwards, Gusfield 1997), in time proportional to the text.
fn suffixes(text: &[u32], equal: &mut Vec<usize>) {
    let at = |i: usize| text[text.len() - 1 - i];
    equal.clear();
    equal.resize(text.len(), 0);
    let (mut start, mut end) = (0, 0);
    for back in 1..text.len() {
        let mut length = if back < end { equal[back - start].min(end - back) } else { 0 };
        while back + length < text.len() && at(length) == at(back + length) {
            length += 1;
        }
        equal[back] = length;
        if back + length > end {
            (start, end) = (back, back + length);
        }
    }
}
