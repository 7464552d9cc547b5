#![doc = include_str!("../README.md")]

pub mod activation;
pub mod blocks;
pub mod dense;
pub mod float;
pub mod gradient;
pub mod isa;
mod lengths;
pub mod philox;
pub mod probe;
pub mod recurrent;
pub mod sampling;
pub mod ternary;
pub mod threads;

pub use dense::DenseKernel;
pub use float::FloatKernel;
pub use isa::{Isa, IsaError};
pub use ternary::TernaryKernel;
pub use threads::ThreadPool;

/// The kernels of one instruction set, chosen once and passed to whatever computes.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// The instruction set that all of them use.
    pub isa: Isa,
    /// Activation quantization and ternary products.
    pub ternary: &'static dyn TernaryKernel,
    /// Norms, gates, rotary embeddings, attention and dense linear layers.
    pub float: &'static dyn FloatKernel,
    /// Dense tensors.
    pub dense: &'static dyn DenseKernel,
}

impl Kernels {
    /// The best kernels of this CPU, capped by the environment variable `BITNET_ISA`.
    ///
    /// # Errors
    /// [`IsaError`] when the variable holds a word that this build does not know.
    pub fn select() -> Result<Kernels, IsaError> {
        let isa = Isa::selected()?;
        Ok(Kernels::for_isa(isa).expect("a selected instruction set is available"))
    }

    /// The kernels of `isa`, or `None` when this CPU cannot run them.
    pub fn for_isa(isa: Isa) -> Option<Kernels> {
        // The kernels have no size, so these boxes allocate nothing.
        fn all<F: FloatKernel + DenseKernel + 'static>(
            isa: Isa,
            ternary: impl TernaryKernel + 'static,
            float: F,
        ) -> Kernels {
            let float = Box::leak(Box::new(float));
            Kernels { isa, ternary: Box::leak(Box::new(ternary)), float, dense: float }
        }
        if !isa.is_available() {
            return None;
        }
        #[cfg(target_arch = "aarch64")]
        if isa == Isa::NeonDotprod {
            return isa::NeonDotprod::new().zip(isa::Neon::new()).map(|(dots, neon)| all(isa, dots, neon));
        }
        Some(isa::dispatch!(isa, |s| all(isa, s, s), all(isa, isa::Scalar, isa::Scalar)))
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernels({})", self.isa)
    }
}
