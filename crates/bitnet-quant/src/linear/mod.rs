//! Ternary linear layers: with latent weights for training, packed for inference.

mod bit_linear;
mod packed;
mod product;
mod straight_through;

pub use bit_linear::{BitLinear, BitLinearConfig, product};
pub use packed::PackedBitLinear;
pub use product::{Compute, bit_linear, linear, matmul};
pub use straight_through::StraightThroughEstimator;
