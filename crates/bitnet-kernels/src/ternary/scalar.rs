//! The specification: plain loops that every other kernel equals bit for bit.

use super::TernaryKernel;
use crate::Isa;

/// Plain Rust.
pub struct Scalar;

impl TernaryKernel for Scalar {
    fn isa(&self) -> Isa {
        Isa::Scalar
    }
}
