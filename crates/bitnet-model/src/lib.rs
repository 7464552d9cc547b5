#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod convert;
mod error;
pub mod gguf;
pub mod hub;
pub mod safetensors;
pub mod tokenizer;

pub use config::Config;
pub use error::{ModelError, Result};
