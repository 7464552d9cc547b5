//! Post-training quantization: from the dense weights of a trained layer to ternary, without training.
//!
//! [`round_to_nearest`] uses the weights alone. [`error_feedback`] also uses the inputs of the layer: weights rounded
//! later compensate the error of earlier ones, so that the outputs on the calibration data change least (OBQ, Frantar
//! and Alistarh 2022; in column order and with the single factorization of GPTQ, Frantar et al. 2022).
//!
//! ```
//! use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
//! use bitnet_quant::post_training::{InputStatistics, error_feedback, output_error, round_to_nearest};
//! let (device, mut random) = (Device::cpu(), Generator::new(1));
//! let mut randn = |dims: &[usize]| BitNetTensor::randn(dims, BitNetDType::F32, &device, &mut random);
//! // Correlated inputs of 32 columns, as in a network.
//! let x = randn(&[256, 8])?.matmul(&randn(&[8, 32])?)?;
//! let weights = randn(&[16, 32])?.to_vec::<f32>()?;
//! let mut inputs = InputStatistics::new(32)?;
//! inputs.observe(&x)?;
//! let plain = round_to_nearest(&weights, 16, 32)?;
//! let better = error_feedback(&weights, 16, 32, &inputs)?;
//! let error = |fit| output_error(&weights, fit, &inputs);
//! assert!(error(&better)? < 0.5 * error(&plain)?);
//! # Ok::<(), bitnet_quant::QuantError>(())
//! ```

mod cholesky;
mod feedback;
mod policy;
mod statistics;

pub use feedback::{TernaryFit, error_feedback, output_error, round_to_nearest};
pub use policy::{MixedPrecision, matches_pattern};
pub use statistics::InputStatistics;
