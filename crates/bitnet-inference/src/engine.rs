//! Many sequences over one model: admission, order, preemption.

mod texts;

use crate::batch::StepBatch;
use crate::kv_cache::{KvCache, PAGE};
use crate::samples::Samples;
use crate::session::ROWS;
use crate::step::Step;
use crate::{FinishReason, InferenceError, KvType, Model, Result, Sampler, Sampling};
use std::collections::VecDeque;
use std::sync::Arc;
pub use texts::Pooling;

/// Rows of prompts in a step beside sequences that decode, so that these do not wait long.
const ROWS_BESIDE: usize = 64;

/// Sizes of an [`Engine`].
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Longest sequence, prompt and answer, in tokens; the length that a rotary embedding is for, where it depends on one.
    pub context: usize,
    /// Sequences that run at once, at most 128.
    pub parallel: usize,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Tokens of all sequences together that the cache holds; `None`: `parallel` contexts.
    pub cache_tokens: Option<usize>,
}

/// Which tokens may come next, for answers of a given form.
pub trait TokenMask: std::fmt::Debug + Send {
    /// The tokens that may follow these of the answer: token `t` is bit `t % 32` of word `t / 32`, tokens beyond the words are
    /// forbidden. Called once before each token. Where none may follow, the sequence fails.
    fn allowed(&mut self, answer: &[u32]) -> &[u32];
}

/// A text to continue. By default one token follows.
#[derive(Debug, Default)]
pub struct Request {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Tokens that end the answer, beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Whether the model's end tokens are tokens like others.
    pub ignore_eos: bool,
    /// With each token, its log-probability and those of so many most likely ones.
    pub log_probabilities: Option<usize>,
    /// Which tokens may come; `None`: all.
    pub mask: Option<Box<dyn TokenMask>>,
}

/// Names a sequence of an [`Engine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(u64);

/// A token that was generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Of which sequence.
    pub sequence: SequenceId,
    /// The token, an end token as well; `None` where the logits were not finite.
    pub token: Option<u32>,
    /// Set with the last token.
    pub finish: Option<FinishReason>,
    /// Tokens of the prompt that were found in the cache; with the first token of a sequence.
    pub cached_tokens: Option<usize>,
    /// Of the model, before penalties, temperature and cuts; where they were asked for.
    pub log_probabilities: Option<LogProbabilities>,
}

/// Natural logarithms of probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct LogProbabilities {
    /// Of the token that was chosen.
    pub token: f64,
    /// The most likely tokens, the likeliest first; of equal ones the smaller token.
    pub top: Vec<(u32, f64)>,
}

/// What the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheUsage {
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Pages of running sequences.
    pub used: usize,
    /// Pages that hold beginnings of texts that ended.
    pub idle: usize,
    /// Pages there may be.
    pub budget: usize,
}

/// Continues any number of sequences, each step all of them at once.
///
/// Sequences start in the order of [`Engine::submit`], as soon as one of `parallel` places and pages for the prompt are free.
/// Prompts are computed in chunks beside the tokens of those that run. Where pages run out the sequence that started last gives
/// its own back and is computed again later. What a sequence generates does not depend on the others.
#[derive(Debug)]
pub struct Engine {
    model: Arc<Model>,
    options: EngineOptions,
    cache: KvCache,
    batch: StepBatch,
    step: Step,
    samples: Samples,
    /// In the order in which they started.
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    /// Rows of the step: index in `running` and how many.
    plan: Vec<(usize, usize)>,
    /// Index in `running` of those whose next token the step chooses, in the order of their rows.
    asked: Vec<usize>,
    events: Vec<Event>,
    submitted: u64,
}

#[derive(Debug)]
struct Sequence {
    id: SequenceId,
    /// Prompt and answer.
    tokens: Vec<u32>,
    /// Tokens of the prompt.
    prompt: usize,
    pages: Vec<u32>,
    /// Where its states are, while it runs.
    state: u32,
    /// Tokens whose keys and values are in the pages; fewer than there are.
    computed: usize,
    /// Full pages that are in the index.
    published: usize,
    /// Tokens found in the cache when it started first.
    cached: Option<usize>,
    sampler: Sampler,
    max_tokens: usize,
    stop_tokens: Vec<u32>,
    log_probabilities: Option<usize>,
    mask: Option<Box<dyn TokenMask>>,
}

impl Sequence {
    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Adds the row by which its next token is chosen.
    fn ask(&mut self, samples: &mut Samples) {
        let answer = &self.tokens[self.prompt..];
        samples.push(&mut self.sampler, self.mask.as_mut().map(|mask| mask.allowed(answer)));
    }

    /// Appends the token that was chosen from `logits`, which are there if log-probabilities were asked for.
    fn accept(&mut self, token: u32, probability: f32, logits: &[f32], context: usize) -> Result<Event> {
        let cached_tokens = (self.tokens.len() == self.prompt).then_some(self.cached).flatten();
        let mut event = Event { sequence: self.id, token: None, finish: None, cached_tokens, log_probabilities: None };
        let token = match self.sampler.chosen(token, probability) {
            Ok(token) => token,
            // It ends alone: the others go on.
            Err(InferenceError::NoFiniteLogits) => {
                event.finish = Some(FinishReason::Failed);
                return Ok(event);
            }
            Err(error) => return Err(error),
        };
        self.tokens.push(token);
        event.token = Some(token);
        event.log_probabilities = self.log_probabilities.map(|count| LogProbabilities::new(logits, token, count));
        event.finish = if self.stop_tokens.contains(&token) {
            Some(FinishReason::EndOfText)
        } else if self.tokens.len() - self.prompt == self.max_tokens {
            Some(FinishReason::MaxTokens)
        } else if self.tokens.len() > context {
            Some(FinishReason::ContextFull)
        } else {
            None
        };
        Ok(event)
    }
}

impl LogProbabilities {
    fn new(logits: &[f32], token: u32, count: usize) -> Self {
        let shift = log_sum(logits);
        let log_probability = |token: u32| f64::from(logits[token as usize]) - shift;
        let mut top: Vec<u32> = Vec::with_capacity(count + 1);
        for candidate in 0..logits.len() as u32 {
            let above = |other: &u32| logits[*other as usize] >= logits[candidate as usize];
            let place = top.iter().rposition(above).map_or(0, |last| last + 1);
            if place < count {
                top.insert(place, candidate);
                top.truncate(count);
            }
        }
        Self { token: log_probability(token), top: top.into_iter().map(|t| (t, log_probability(t))).collect() }
    }
}

impl Engine {
    /// An engine without sequences.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Result<Self> {
        let (config, device) = (model.config(), model.device());
        if options.context == 0 || options.context > config.max_positions {
            return Err(InferenceError::ContextFull { needed: options.context, capacity: config.max_positions });
        }
        if options.parallel == 0 || options.parallel > ROWS {
            return Err(InferenceError::Parallel { given: options.parallel, most: ROWS });
        }
        let pages = match options.cache_tokens {
            Some(tokens) => tokens.div_ceil(PAGE),
            None => options.parallel.saturating_mul(options.context.div_ceil(PAGE)),
        };
        Ok(Self {
            cache: // One more for texts that are measured while sequences wait.
                KvCache::new(config, device, options.kv_type, pages, options.parallel + 1)?,
            batch: StepBatch::new(ROWS, device)?,
            step: Step::new(model.clone(), ROWS, options.context)?,
            samples: Samples::new(options.parallel, config.vocab_size, device)?,
            model,
            // A sequence alone must fit.
            options: EngineOptions { context: options.context.min(pages * PAGE), ..options },
            running: Vec::new(),
            waiting: VecDeque::new(),
            plan: Vec::new(),
            asked: Vec::new(),
            events: Vec::new(),
            submitted: 0,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Queues a text. Its first token comes from a later [`Engine::step`].
    ///
    /// # Errors
    /// No tokens or some outside the vocabulary, a prompt that fills the context or the cache, sampling parameters out of range.
    pub fn submit(&mut self, request: Request) -> Result<SequenceId> {
        let Request { tokens, sampling, max_tokens, mut stop_tokens, ignore_eos, log_probabilities, mask } = request;
        self.model.check_tokens(&tokens)?;
        let most = self.options.context;
        if tokens.len() > most {
            return Err(InferenceError::ContextFull { needed: tokens.len(), capacity: most });
        }
        if !ignore_eos {
            stop_tokens.extend_from_slice(&self.model.config().eos);
        }
        let mut sampler = Sampler::new(sampling, self.model.config().vocab_size)?;
        sampler.observe_prompt(&tokens);
        self.submitted += 1;
        let id = SequenceId(self.submitted);
        self.waiting.push_back(Sequence {
            id,
            prompt: tokens.len(),
            tokens,
            pages: Vec::new(),
            state: 0,
            computed: 0,
            published: 0,
            cached: None,
            sampler,
            max_tokens: max_tokens.max(1),
            stop_tokens,
            log_probabilities,
            mask,
        });
        Ok(id)
    }

    /// Ends a sequence; whether there was one.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            self.remove(index);
            return true;
        }
        let before = self.waiting.len();
        self.waiting.retain(|sequence| sequence.id != id);
        self.waiting.len() < before
    }

    /// Sequences that run, and that wait.
    pub fn sequences(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// What the cache holds.
    pub fn cache_usage(&self) -> CacheUsage {
        let pages = &self.cache.pages;
        CacheUsage {
            page_tokens: PAGE,
            page_bytes: self.cache.page_bytes(),
            used: pages.used(),
            idle: pages.idle(),
            budget: pages.budget(),
        }
    }

    /// One step of all sequences: the tokens that it generated.
    pub fn step(&mut self) -> Result<&[Event]> {
        self.events.clear();
        self.admit();
        while !self.plan()? {
            if self.running.is_empty() {
                return Ok(&self.events);
            }
            // Nobody got a page.
            self.preempt(self.running.len() - 1);
        }
        let Self { running, plan, asked, events, options, model, batch, cache, step, samples, .. } = self;
        let vocab = model.config().vocab_size;
        asked.clear();
        asked.extend(plan.iter().filter(|&&(index, rows)| running[index].pending() == rows).map(|&(index, _)| index));
        samples.clear();
        asked.iter().for_each(|&index| running[index].ask(samples));
        let logits = asked.iter().any(|&index| running[index].log_probabilities.is_some());
        step.sample(batch, cache, samples, logits, |first, chosen| {
            let mut rows = chosen.logits.chunks_exact(vocab);
            for (row, &index) in asked[first..].iter().enumerate().take(chosen.tokens.len()) {
                let (token, probability) = (chosen.tokens[row], chosen.probabilities[row]);
                let logits = rows.next().unwrap_or_default();
                events.push(running[index].accept(token, probability, logits, options.context)?);
            }
            Ok(())
        })?;
        for at in 0..self.plan.len() {
            let (index, rows) = self.plan[at];
            self.running[index].computed += rows;
            self.publish(index);
        }
        for at in 0..self.events.len() {
            if self.events[at].finish.is_some() {
                let id = self.events[at].sequence;
                let index = self.running.iter().position(|sequence| sequence.id == id);
                self.remove(index.expect("it ran in this step"));
            }
        }
        Ok(&self.events)
    }

    /// Starts sequences that wait, in their order, while there are places and pages.
    fn admit(&mut self) {
        while self.running.len() < self.options.parallel && self.cache.has_free_state() {
            let Some(sequence) = self.waiting.front() else { return };
            let found = self.known(&sequence.tokens);
            // Another computes the same beginning: it is shared when it is there.
            let others = self.running.iter().filter(|other| other.pending() > 1 && !self.cache.has_states);
            let coming = others.into_iter().any(|other| {
                let common = other.tokens.iter().zip(&sequence.tokens).take_while(|(a, b)| a == b).count();
                common.min(sequence.tokens.len() - 1) / PAGE > found.len()
            });
            let idle = found.iter().filter(|&&page| self.cache.pages.is_idle(page)).count();
            let needed = sequence.tokens.len().div_ceil(PAGE) - found.len();
            if coming || needed + idle > self.cache.pages.available() {
                return;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            found.iter().for_each(|&page| self.cache.pages.share(page));
            sequence.computed = found.len() * PAGE;
            sequence.published = found.len();
            sequence.cached.get_or_insert(sequence.computed);
            sequence.pages = found;
            sequence.state = self.cache.state().expect("there is one");
            self.running.push(sequence);
        }
    }

    /// Pages of the index with the beginning of these tokens, without the last token.
    fn known(&self, tokens: &[u32]) -> Vec<u32> {
        let mut found = Vec::new();
        // The states at the end of a page are not kept.
        if self.cache.has_states {
            return found;
        }
        let mut before = None;
        for page in tokens[..tokens.len() - 1].chunks_exact(PAGE) {
            let Some(known) = self.cache.pages.find(before, page) else { break };
            found.push(known);
            before = Some(self.cache.pages.link(known));
        }
        found
    }

    /// Fills the batch; whether it has rows.
    fn plan(&mut self) -> Result<bool> {
        self.batch.clear();
        self.plan.clear();
        // One token each of those that decode. Who started last makes room.
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].pending() == 1 {
                let mut fits = self.pages_for(index, 1)? == 1;
                while !fits && self.running.len() > index + 1 {
                    self.preempt(self.running.len() - 1);
                    fits = self.pages_for(index, 1)? == 1;
                }
                if !fits {
                    self.preempt(index);
                    continue;
                }
                self.push(index, 1);
            }
            index += 1;
        }
        let mut left = if self.plan.is_empty() { ROWS } else { ROWS_BESIDE.min(ROWS - self.plan.len()) };
        for index in 0..self.running.len() {
            let wanted = self.running[index].pending().min(left);
            if self.running[index].pending() == 1 || wanted == 0 {
                continue;
            }
            let rows = self.pages_for(index, wanted)?;
            if rows > 0 {
                self.push(index, rows);
                left -= rows;
            }
        }
        Ok(!self.plan.is_empty())
    }

    fn push(&mut self, index: usize, rows: usize) {
        let Sequence { tokens, pages, state, computed, .. } = &self.running[index];
        let last = tokens.len() - 1 - computed;
        self.batch.push((pages, *state), *computed, &tokens[*computed..*computed + rows], |row| row == last);
        self.plan.push((index, rows));
    }

    /// Pages for the next `rows` tokens; gives for how many there are.
    fn pages_for(&mut self, index: usize, rows: usize) -> Result<usize> {
        let sequence = &mut self.running[index];
        while sequence.pages.len() * PAGE < sequence.computed + rows {
            let Some(page) = self.cache.page()? else { break };
            sequence.pages.push(page);
        }
        Ok(rows.min(sequence.pages.len() * PAGE - sequence.computed))
    }

    /// Puts the full pages of a sequence into the index.
    fn publish(&mut self, index: usize) {
        let (sequence, pages) = (&mut self.running[index], &mut self.cache.pages);
        while (sequence.published + 1) * PAGE <= sequence.computed {
            let at = sequence.published;
            let before = at.checked_sub(1).map(|at| pages.link(sequence.pages[at]));
            let own = sequence.pages[at];
            let known = pages.publish(own, before, &sequence.tokens[at * PAGE..][..PAGE]);
            if known != own {
                pages.share(known);
                pages.release(own);
                sequence.pages[at] = known;
            }
            sequence.published += 1;
        }
    }

    fn release(&mut self, pages: Vec<u32>, state: u32) {
        self.cache.release_state(state);
        // What follows is forgotten before what it follows.
        pages.into_iter().rev().for_each(|page| self.cache.pages.release(page));
    }

    fn remove(&mut self, index: usize) {
        let sequence = self.running.remove(index);
        self.release(sequence.pages, sequence.state);
    }

    /// Takes the pages of a sequence, which is then the first to wait.
    fn preempt(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        self.release(std::mem::take(&mut sequence.pages), sequence.state);
        (sequence.computed, sequence.published) = (0, 0);
        self.waiting.push_front(sequence);
    }
}

/// `ln(sum(e^x))`, in f64.
fn log_sum(logits: &[f32]) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - f64::from(top)).exp()).sum();
    f64::from(top) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_of_a_known_distribution() {
        let logits = [0f32, (3f32).ln(), f32::NEG_INFINITY, 0.];
        let known = LogProbabilities::new(&logits, 1, 3);
        assert!((known.token - (0.6f64).ln()).abs() < 1e-7);
        let tokens: Vec<u32> = known.top.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [1, 0, 3], "of equal ones the smaller first");
        assert!((known.top[2].1 - (0.2f64).ln()).abs() < 1e-7);
        assert_eq!(LogProbabilities::new(&logits, 2, 0), LogProbabilities { token: f64::NEG_INFINITY, top: vec![] });
    }
}
