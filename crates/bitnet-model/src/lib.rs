//! Checkpoints: GGUF, safetensors, configurations, tokenizers and chat templates.
#![forbid(unsafe_code)]

pub mod chat_template;
pub mod tokenizer;
