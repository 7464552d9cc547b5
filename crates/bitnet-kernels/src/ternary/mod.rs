//! Products of packed ternary weights with 8-bit activations.

pub mod scalar;

use crate::Isa;

/// Activation quantization and ternary products of one instruction set.
pub trait TernaryKernel: Send + Sync {
    /// The instruction set.
    fn isa(&self) -> Isa;
}

/// The ternary kernel of `isa`, or `None` when this CPU cannot run it.
pub fn for_isa(isa: Isa) -> Option<&'static dyn TernaryKernel> {
    // The kernels have no size, so these boxes allocate nothing.
    match isa {
        Isa::Scalar => Some(Box::leak(Box::new(scalar::Scalar))),
        _ => None,
    }
}
