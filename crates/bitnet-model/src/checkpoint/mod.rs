//! Checkpoints of every form, read as one.

mod weights;

pub use weights::{DenseTensor, LinearSource, Norm, Projection, WeightSource, Weights};
