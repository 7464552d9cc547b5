#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod engine;
mod error;
mod experts;
mod generate;
mod kv_cache;
mod linear;
mod model;
mod pages;
mod perplexity;
mod quantize;
mod sampler;
mod samples;
mod sampling;
mod session;
mod step;

pub use engine::{CacheUsage, Engine, EngineOptions, Event, LogProbabilities, Pooling, Request, SequenceId, TokenMask};
pub use error::{InferenceError, Result};
pub use generate::{FinishReason, GenerateOptions, Generation, generate, generate_together};
pub use kv_cache::KvType;
pub use model::Model;
pub use perplexity::{Perplexity, count_windows, perplexity};
pub use quantize::{CalibrationData, Method, Quantization, QuantizeOptions, QuantizedWeights, quantize};
pub use sampler::Sampler;
pub use sampling::Sampling;
pub use session::Session;
