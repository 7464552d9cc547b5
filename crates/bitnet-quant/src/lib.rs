#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod activations;
mod bit_linear;
pub mod codes;
pub mod error;
pub mod formats;
pub mod ternarize;

pub use activations::ActivationBuffer;
pub use bit_linear::BitLinear;
pub use codes::TernaryCodes;
pub use error::QuantError;
