//! Checkpoints: GGUF, safetensors, configurations, tokenizers and chat templates.
