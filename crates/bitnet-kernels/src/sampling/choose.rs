//! The choice of a token for each row of logits: they are changed, the candidates cut, one of them drawn.

use super::{Candidates, FRACTION_BITS, most_likely};
use crate::lengths::elements;
use crate::threads::{Parts, ThreadPool};
use bitnet_device::backend::SampleRow;
use std::cell::RefCell;

/// Rows of logits, and how the token of each is chosen: the operands of `Op::Sample`.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'a> {
    /// `[T, V]`
    pub logits: &'a [f32],
    /// Temperature, top-k, top-p, min-p, typical-p, top-n-sigma, the threshold of XTC, the surprise, and the two halves of the
    /// fraction that draws, `[T]`.
    pub rows: &'a [[f32; SampleRow::LEN]],
    /// Tokens whose logits are changed, `[T, L]`; what equals the one before is skipped.
    pub edited: &'a [u32],
    /// `[T, L, 4]`: what is added, the penalty of repetition, and two numbers that are subtracted.
    pub edits: &'a [f32],
    /// Token `t` may come if bit `t % 32` of word `t / 32` is set, `[T, ceil(V / 32)]`; empty: all.
    pub mask: &'a [u32],
}

thread_local! {
    /// Kept, so that the next choice allocates nothing.
    static CANDIDATES: RefCell<Option<Candidates>> = const { RefCell::new(None) };
}

/// Logits below which the tokens are chosen on one thread: it is done before another has started.
const SMALL: usize = 1 << 17;

/// For each row its token and the probability of it among the candidates (1 of a greedy choice), `tokens` and
/// `probabilities` `[T]`; where the largest logit is not finite `u32::MAX` and 0.
///
/// # Panics
/// When the lengths contradict each other, or an edited token is not of the vocabulary.
pub fn choose(pool: &ThreadPool, choices: &Choices, tokens: &mut [u32], probabilities: &mut [f32]) {
    let count = choices.rows.len();
    let vocab = choices.logits.len() / count.max(1);
    let (edits, words) = (choices.edited.len() / count.max(1), choices.mask.len() / count.max(1));
    for (len, width) in [
        (choices.logits.len(), vocab),
        (choices.edited.len(), edits),
        (choices.edits.len(), 4 * edits),
        (choices.mask.len(), words),
        (tokens.len(), 1),
        (probabilities.len(), 1),
    ] {
        assert_eq!(Some(len), elements([count, width]), "operands of {count} rows");
    }
    let (tokens, probabilities) = (Parts::new(tokens), Parts::new(probabilities));
    let one = |row: usize| {
        let choice = Choice {
            logits: &choices.logits[row * vocab..][..vocab],
            row: &choices.rows[row],
            edited: &choices.edited[row * edits..][..edits],
            edits: &choices.edits[row * edits * 4..][..edits * 4],
            mask: &choices.mask[row * words..][..words],
        };
        // SAFETY: each task has its own row.
        let (token, probability) = unsafe { (tokens.part(row, 1), probabilities.part(row, 1)) };
        let chosen = CANDIDATES.with_borrow_mut(|kept| match kept {
            Some(kept) if kept.vocab() == vocab => kept.choose(&choice),
            _ => kept.insert(Candidates::new(vocab)).choose(&choice),
        });
        (token[0], probability[0]) = chosen.unwrap_or((u32::MAX, 0.0));
    };
    match choices.logits.len() < SMALL {
        true => (0..count).for_each(one),
        false => pool.run(count, &one),
    }
}

/// One row of [`Choices`].
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Choice<'a> {
    pub logits: &'a [f32],
    pub row: &'a [f32; SampleRow::LEN],
    pub edited: &'a [u32],
    pub edits: &'a [f32],
    pub mask: &'a [u32],
}

impl Candidates {
    /// The token, and its probability among the candidates (1 of a greedy choice); `None` where no logit is finite.
    ///
    /// # Panics
    /// When there are not as many logits as the vocabulary has tokens, or a token is not of the vocabulary.
    pub fn choose(&mut self, choice: &Choice) -> Option<(u32, f32)> {
        let [temperature, top_k, top_p, min_p, typical_p, sigmas, xtc, surprise, upper, lower] = *choice.row;
        let greedy = temperature == 0.0;
        if greedy && choice.edited.is_empty() && choice.mask.is_empty() {
            return most_likely(choice.logits).map(|token| (token, 1.0));
        }
        let values = self.load(choice.logits);
        edit(values, choice.edited, choice.edits);
        if !choice.mask.is_empty() {
            forbid(values, choice.mask);
        }
        if greedy {
            return most_likely(values).map(|token| (token, 1.0));
        }
        if !self.weigh(temperature, sigmas) {
            return None;
        }
        if top_k > 0.0 {
            self.top_k(top_k as usize);
        }
        self.top_p(top_p);
        if min_p > 0.0 {
            self.min_p(min_p);
        }
        self.typical(typical_p);
        if xtc <= 1.0 {
            self.exclude_top_choices(xtc);
        }
        if surprise.is_finite() {
            self.surprise(surprise);
        }
        let (token, probability) = self.draw((upper as u64) << (FRACTION_BITS / 2) | lower as u64);
        Some((token, probability as f32))
    }
}

fn edit(logits: &mut [f32], tokens: &[u32], edits: &[f32]) {
    let mut before = None;
    for (&token, &[added, penalty, first, second]) in tokens.iter().zip(edits.as_chunks().0) {
        if before.replace(token) == Some(token) {
            continue;
        }
        let logit = &mut logits[token as usize];
        let x = *logit + added;
        *logit = if x > 0.0 { x / penalty } else { x * penalty } - first - second;
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
