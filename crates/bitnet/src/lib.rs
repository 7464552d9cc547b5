#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub use bitnet_core as core;
pub use bitnet_inference as inference;
pub use bitnet_kernels as kernels;
pub use bitnet_model as model;
pub use bitnet_model::tokenizer;
pub use bitnet_quant as quant;
#[cfg(feature = "qat")]
pub use bitnet_training as training;

pub mod sequence {
    //! Sequences of tokens: sessions, generation, sampling, stop strings and streamed text.

    pub use bitnet_inference::{FinishReason, GenerateOptions, Generation, Sampler, Sampling, Session, generate};
    pub use bitnet_model::tokenizer::{StopMatcher, StreamDecoder, StreamStart};
}

/// What most programs need.
pub mod prelude {
    pub use bitnet_core::{BitNetDType, BitNetTensor, Device, DeviceCapabilities, auto_select_device};
    pub use bitnet_inference::{
        FinishReason, GenerateOptions, Generation, InferenceError, Model, Sampler, Sampling, Session, generate,
    };
    pub use bitnet_model::chat_template::{ChatMessage, ChatTemplate};
    pub use bitnet_model::checkpoint::{Checkpoint, OpenOptions, Weights};
    pub use bitnet_model::tokenizer::Tokenizer;
    pub use bitnet_quant::BitLinear;
}
