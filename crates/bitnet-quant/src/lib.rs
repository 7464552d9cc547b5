#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod activations;
pub mod analysis;
pub mod calibration;
pub mod codes;
pub mod error;
pub mod formats;
pub mod hadamard;
pub mod linear;
pub mod packed;
pub mod post_training;
pub mod quantizers;
mod scales;
pub mod ternarize;

pub use activations::ActivationBuffer;
pub use bitnet_core::backend::ActivationRule;
pub use codes::TernaryCodes;
pub use error::QuantError;
pub use linear::{BitLinear, BitLinearConfig, PackedBitLinear, StraightThroughEstimator};
pub use packed::{PackedFormat, PackedProduct, QuantizedTensor};
pub use scales::TernaryScales;
