//! Text generation, token by token.

use crate::{Engine, Request, Result, Sampler, Sampling, SequenceId, Session};
use bitnet_model::tokenizer::{StopMatcher, StreamDecoder, StreamStart, Tokenizer};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Options of [`generate`].
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Maximum number of tokens to generate.
    pub max_tokens: usize,
    /// Sampling parameters.
    pub sampling: Sampling,
    /// Stop strings; they are not part of the text.
    pub stop: Vec<String>,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model generated an end token.
    EndOfText,
    /// A stop string was generated.
    StopString,
    /// [`GenerateOptions::max_tokens`] was reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The callback asked to stop.
    Interrupted,
    /// The model gave no finite logits.
    Failed,
}

impl FinishReason {
    /// Its name in machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfText => "end_of_text",
            Self::StopString => "stop_string",
            Self::MaxTokens => "max_tokens",
            Self::ContextFull => "context_full",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

/// The result of [`generate`].
#[derive(Debug, Clone)]
pub struct Generation {
    /// The generated tokens, including an end token.
    pub tokens: Vec<u32>,
    /// The text, without stop strings and special tokens.
    pub text: String,
    /// Why generation ended.
    pub finish: FinishReason,
    /// Tokens of the prompt that were processed, without those already in the cache.
    pub prompt_tokens: usize,
    /// Time until the first token.
    pub prompt_time: Duration,
    /// Tokens decoded in `decode_time`, one per step.
    pub decode_steps: usize,
    /// Time from the first token to the end of the text: decode steps, sampling, and the receiver of the text.
    pub decode_time: Duration,
}

impl Generation {
    /// Tokens of the prompt per second.
    pub fn prompt_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prompt_time.as_secs_f64()
    }

    /// Tokens generated per second, sampling included; `None` without a decode step.
    pub fn decode_rate(&self) -> Option<f64> {
        (self.decode_steps > 0).then(|| self.decode_steps as f64 / self.decode_time.as_secs_f64())
    }
}

/// Continues `prompt` and streams the text to a callback, in whole characters.
///
/// The part of the prompt that is already in the cache is not processed again. Prompt tokens count for the repetition
/// penalty.
pub fn generate(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions,
    on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation> {
    let vocab = session.model().config().vocab_size;
    let mut sampler = Sampler::new(options.sampling.clone(), vocab)?;
    sampler.observe_prompt(prompt);
    let mut out = Generation {
        tokens: Vec::with_capacity(options.max_tokens.min(session.capacity())),
        text: String::new(),
        finish: FinishReason::MaxTokens,
        prompt_tokens: 0,
        prompt_time: Duration::ZERO,
        decode_steps: 0,
        decode_time: Duration::ZERO,
    };
    let start = Instant::now();
    if options.max_tokens == 0 {
        out.prompt_tokens = session.resume(prompt)?;
        out.prompt_time = start.elapsed();
        return Ok(out);
    }
    let (processed, first) = session.resume_and_sample(prompt, &mut sampler)?;
    (out.prompt_tokens, out.prompt_time) = (processed, start.elapsed());
    let start = Instant::now();
    decode(session, tokenizer, &mut sampler, first, options, &mut out, on_text)?;
    out.decode_time = start.elapsed();
    Ok(out)
}

/// Continues `prompt` in `count` ways that are computed together: with the seed of the options and those after it. Of each
/// generation `decode_time` is that of all; `stopped` is asked between steps whether to end.
pub fn generate_together(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions,
    count: usize,
    mut stopped: impl FnMut() -> bool,
) -> Result<Vec<Generation>> {
    let stop_tokens: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|&token| tokenizer.is_stop(token)).collect();
    let mut open: Vec<(SequenceId, Generation, StreamDecoder, StopMatcher)> = Vec::with_capacity(count);
    for seed in (options.sampling.seed..).take(count) {
        let id = engine.submit(Request {
            tokens: prompt.to_vec(),
            sampling: Sampling { seed, ..options.sampling.clone() },
            max_tokens: options.max_tokens,
            stop_tokens: stop_tokens.clone(),
            ..Request::default()
        })?;
        let generation = Generation {
            tokens: Vec::new(),
            text: String::new(),
            finish: FinishReason::Interrupted,
            prompt_tokens: prompt.len(),
            prompt_time: Duration::ZERO,
            decode_steps: 0,
            decode_time: Duration::ZERO,
        };
        open.push((id, generation, StreamDecoder::new(StreamStart::Continuation), StopMatcher::new(&options.stop)));
    }
    let start = Instant::now();
    while !engine.is_idle() && !stopped() {
        let mut ended = Vec::new();
        for event in engine.step()? {
            let known = open.iter_mut().find(|(id, ..)| *id == event.sequence);
            let Some((id, generation, decoder, stop)) = known else { continue };
            let Some(token) = event.token else {
                generation.finish = FinishReason::Failed;
                continue;
            };
            generation.tokens.push(token);
            if generation.tokens.len() == 1 {
                generation.prompt_time = start.elapsed();
                generation.prompt_tokens -= event.cached_tokens.unwrap_or(0);
            } else {
                generation.decode_steps += 1;
            }
            if event.finish != Some(FinishReason::EndOfText) {
                generation.text.push_str(stop.push(decoder.push(tokenizer, token)?));
                if stop.stopped().is_some() {
                    generation.finish = FinishReason::StopString;
                    ended.push(*id);
                    continue;
                }
            }
            if let Some(finish) = event.finish {
                generation.finish = finish;
            }
        }
        for id in ended {
            engine.cancel(id);
        }
    }
    for (id, generation, decoder, stop) in &mut open {
        engine.cancel(*id);
        generation.decode_time = start.elapsed().saturating_sub(generation.prompt_time);
        if generation.finish != FinishReason::StopString {
            generation.text.push_str(stop.push(decoder.finish()));
            generation.text.push_str(stop.finish());
        }
    }
    Ok(open.into_iter().map(|(_, generation, ..)| generation).collect())
}

/// Generates tokens after `token`, the first, until one of the reasons to finish.
fn decode(
    session: &mut Session,
    tokenizer: &Tokenizer,
    sampler: &mut Sampler,
    mut token: u32,
    options: &GenerateOptions,
    out: &mut Generation,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<()> {
    let (mut decoder, mut stop) = (StreamDecoder::new(StreamStart::Continuation), StopMatcher::new(&options.stop));
    loop {
        out.tokens.push(token);
        if tokenizer.is_stop(token) || session.model().config().eos.contains(&token) {
            out.finish = FinishReason::EndOfText;
            break;
        }
        let text = stop.push(decoder.push(tokenizer, token)?);
        out.text.push_str(text);
        if !text.is_empty() && on_text(text).is_break() {
            out.finish = FinishReason::Interrupted;
            return Ok(());
        }
        if stop.stopped().is_some() {
            out.finish = FinishReason::StopString;
            return Ok(());
        }
        if out.tokens.len() == options.max_tokens {
            break;
        }
        if session.position() == session.capacity() {
            out.finish = FinishReason::ContextFull;
            break;
        }
        token = session.sample(&[token], sampler)?;
        out.decode_steps += 1;
    }
    let mut tail = stop.push(decoder.finish()).to_string();
    tail.push_str(stop.finish());
    out.text.push_str(&tail);
    if !tail.is_empty() && on_text(&tail).is_break() {
        out.finish = FinishReason::Interrupted;
    }
    Ok(())
}
