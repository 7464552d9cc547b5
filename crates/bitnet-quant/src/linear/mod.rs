//! Ternary linear layers: with latent weights for training, packed for inference.

mod bit_linear;
mod learned_step;
mod packed;
mod product;
mod straight_through;

pub use bit_linear::{BitLinear, BitLinearConfig, ProductOptions, WeightQuantizer, product};
pub use learned_step::learned_step;
pub use packed::PackedBitLinear;
pub use product::{Compute, bit_linear, linear, matmul};
pub use straight_through::StraightThroughEstimator;
