//! Whole texts through an engine: log-likelihoods of their tokens, and vectors.

use super::{Engine, log_sum};
use crate::kv_cache::PAGE;
use crate::session::ROWS;
use crate::step::Activation;
use crate::{InferenceError, Result};
pub use bitnet_model::checkpoint::Pooling;
use std::collections::VecDeque;

impl Engine {
    /// The natural logarithm of the probability of each token but the first, given those before it.
    ///
    /// Texts are computed together as far as rows and pages go; sequences that run wait.
    pub fn log_likelihoods(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f64>>> {
        let mut all: Vec<Vec<f64>> = texts.iter().map(|text| Vec::with_capacity(text.len())).collect();
        texts.iter().try_for_each(|text| self.model.check_tokens(text))?;
        // The last token is predicted, not read.
        let inputs: Vec<&[u32]> = texts.iter().map(|text| &text[..text.len() - 1]).collect();
        self.each_chunk(&inputs, true, |engine, chunks| {
            // The next token of each row.
            let mut next = Vec::new();
            for &(text, start, len) in chunks {
                next.extend(texts[text][start + 1..][..len].iter().map(|&token| (text, token)));
            }
            let vocab = engine.model.config().vocab_size;
            engine.step.run(&mut engine.batch, &mut engine.cache, |first, logits| {
                for (&(text, token), logits) in next[first..].iter().zip(logits.chunks_exact(vocab)) {
                    all[text].push(f64::from(logits[token as usize]) - log_sum(logits));
                }
                Ok(())
            })
        })?;
        Ok(all)
    }

    /// Passes the logits `[vocab]` after each token of each text to `each`, text after text.
    pub fn logits(&mut self, texts: &[&[u32]], mut each: impl FnMut(&[f32])) -> Result<()> {
        texts.iter().try_for_each(|text| self.model.check_tokens(text))?;
        // The first text that is not done has rows first: so no text is begun before the one before it ends in the same step.
        self.each_chunk(texts, true, |engine, _| {
            let vocab = engine.model.config().vocab_size;
            engine.step.run(&mut engine.batch, &mut engine.cache, |_, logits| {
                logits.chunks_exact(vocab).for_each(&mut each);
                Ok(())
            })
        })
    }

    /// The hidden states after the last norm, pooled, `[hidden]` for each text; `[tokens * hidden]` without pooling.
    pub fn embed(&mut self, texts: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f32>>> {
        let (width, last) = (self.model.config().hidden_size, self.model.layers.len());
        let mut sums = vec![vec![0f64; if pooling == Pooling::None { 0 } else { width }]; texts.len()];
        let mut states = Vec::new();
        texts.iter().try_for_each(|text| self.model.check_tokens(text))?;
        self.each_chunk(texts, false, |engine, chunks| {
            let device = engine.model.device().clone();
            engine.step.observe(&mut engine.batch, &mut engine.cache, &mut |seen, state| {
                if !matches!(seen, Activation::Residual(layer) if layer == last) {
                    return Ok(());
                }
                states.resize(state.layout.shape().elements(), 0f32);
                Ok(device.download(state.storage, 0, bytemuck::cast_slice_mut(&mut states))?)
            })?;
            let mut rows = states.chunks_exact(width);
            for &(text, start, len) in chunks {
                for (at, row) in (start..start + len).zip(&mut rows) {
                    let counts = match pooling {
                        Pooling::None => {
                            sums[text].extend(row.iter().map(|&x| f64::from(x)));
                            false
                        }
                        Pooling::Mean => true,
                        Pooling::Last => at + 1 == texts[text].len(),
                        Pooling::First => at == 0,
                    };
                    if counts {
                        sums[text].iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                    }
                }
            }
            Ok(())
        })?;
        let count = |text: &[u32]| if pooling == Pooling::Mean { text.len() as f64 } else { 1. };
        let pooled = sums.into_iter().zip(texts);
        Ok(pooled.map(|(sum, text)| sum.into_iter().map(|x| (x / count(text)) as f32).collect()).collect())
    }

    /// Calls `run` with the batch filled with chunks of texts, `(text, first token, tokens)`, until all are done. The logits of
    /// all tokens are wanted, or none.
    fn each_chunk(
        &mut self,
        texts: &[&[u32]],
        wanted: bool,
        mut run: impl FnMut(&mut Self, &[(usize, usize, usize)]) -> Result<()>,
    ) -> Result<()> {
        if let Some(text) = texts.iter().find(|text| text.len() > self.options.context) {
            return Err(InferenceError::ContextFull { needed: text.len(), capacity: self.options.context });
        }
        // Texts in work: index, tokens done, pages, place of states.
        let mut open: VecDeque<(usize, usize, Vec<u32>, u32)> = VecDeque::new();
        let mut next = 0;
        let result = loop {
            while next < texts.len()
                && open.iter().map(|(text, done, ..)| texts[*text].len() - done).sum::<usize>() < ROWS
            {
                let needed = texts[next].len().div_ceil(PAGE);
                if needed > self.cache.pages.available() {
                    break;
                }
                let Some(state) = self.cache.state() else { break };
                let mut pages = Vec::with_capacity(needed);
                let failure = (0..needed).find_map(|_| match self.cache.page() {
                    Ok(page) => {
                        pages.extend(page);
                        None
                    }
                    Err(error) => Some(error),
                });
                open.push_back((next, 0, pages, state));
                next += 1;
                if let Some(error) = failure {
                    open.into_iter().for_each(|(.., pages, state)| self.release(pages, state));
                    return Err(error);
                }
            }
            if open.is_empty() {
                let full = InferenceError::CacheFull { pages: self.cache.pages.budget() };
                break if next == texts.len() { Ok(()) } else { Err(full) };
            }
            self.batch.clear();
            let (mut left, mut chunks) = (ROWS, Vec::new());
            for (text, done, pages, state) in &mut open {
                let len = (texts[*text].len() - *done).min(left);
                if len > 0 {
                    self.batch.push((pages, *state), *done, &texts[*text][*done..*done + len], |_| wanted);
                    chunks.push((*text, *done, len));
                    (*done, left) = (*done + len, left - len);
                }
            }
            if !chunks.is_empty()
                && let Err(error) = run(self, &chunks)
            {
                break Err(error);
            }
            let (finished, rest) = open.into_iter().partition(|(text, done, ..)| *done == texts[*text].len());
            open = rest;
            VecDeque::into_iter(finished).for_each(|(.., pages, state)| self.release(pages, state));
        };
        open.into_iter().for_each(|(.., pages, state)| self.release(pages, state));
        result
    }
}
