//! From a prompt to text, token by token.

use crate::{Result, Sampler, Sampling, Session};
use bitnet_model::tokenizer::{StopMatcher, StreamDecoder, StreamStart, Tokenizer};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What to generate.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    EndOfText,
    /// A stop string came up.
    StopString,
    /// As many tokens as asked for.
    MaxTokens,
    /// The session has no room for more.
    ContextFull,
    /// The receiver of the text asked to stop.
    Interrupted,
}

impl FinishReason {
    /// A word for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfText => "end_of_text",
            Self::StopString => "stop_string",
            Self::MaxTokens => "max_tokens",
            Self::ContextFull => "context_full",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What was generated.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The tokens, an end token included.
    pub tokens: Vec<u32>,
    /// The text, stop strings and special tokens left out.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens of the prompt that had to be read, those the session knew left out.
    pub prompt_tokens: usize,
    /// Time until the first logits.
    pub prompt_time: Duration,
    /// Tokens that were decoded in `decode_time`, each by one step.
    pub decode_steps: usize,
    /// Time of all decode steps.
    pub decode_time: Duration,
}

impl Generation {
    /// Tokens of the prompt read in a second.
    pub fn prompt_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prompt_time.as_secs_f64()
    }

    /// Tokens decoded in a second; `None` without a decode step.
    pub fn decode_rate(&self) -> Option<f64> {
        (self.decode_steps > 0).then(|| self.decode_steps as f64 / self.decode_time.as_secs_f64())
    }
}

/// Continues `prompt` and passes the text on as it comes, in whole characters.
///
/// What the session already holds of the prompt is not read again. Tokens of the prompt count for the repetition penalty.
pub fn generate(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation> {
    let vocab = session.model().config().vocab_size;
    let mut sampler = Sampler::new(options.sampling.clone(), vocab)?;
    sampler.observe_prompt(prompt);
    let (mut decoder, mut stop) = (StreamDecoder::new(StreamStart::Continuation), StopMatcher::new(&options.stop));
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
    out.prompt_tokens = session.resume(prompt)?;
    out.prompt_time = start.elapsed();

    while out.tokens.len() < options.max_tokens {
        let token = sampler.sample(session.logits())?;
        out.tokens.push(token);
        if tokenizer.is_stop(token) || session.model().config().eos.contains(&token) {
            out.finish = FinishReason::EndOfText;
            break;
        }
        let text = stop.push(decoder.push(tokenizer, token)?);
        out.text.push_str(text);
        if !text.is_empty() && on_text(text).is_break() {
            out.finish = FinishReason::Interrupted;
            return Ok(out);
        }
        if stop.stopped().is_some() {
            out.finish = FinishReason::StopString;
            return Ok(out);
        }
        if out.tokens.len() == options.max_tokens {
            break;
        }
        if session.position() == session.capacity() {
            out.finish = FinishReason::ContextFull;
            break;
        }
        let step = Instant::now();
        session.feed(&[token])?;
        out.decode_time += step.elapsed();
        out.decode_steps += 1;
    }
    let mut tail = stop.push(decoder.finish()).to_string();
    tail.push_str(stop.finish());
    out.text.push_str(&tail);
    if !tail.is_empty() && on_text(&tail).is_break() {
        out.finish = FinishReason::Interrupted;
    }
    Ok(out)
}
