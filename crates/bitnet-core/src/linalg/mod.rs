//! Linear algebra: products on every device, decompositions on the CPU (the cargo feature `linalg`, on by default).

mod einsum;
mod products;

#[cfg(feature = "linalg")]
mod decompose;
#[cfg(feature = "linalg")]
mod derivative;
#[cfg(feature = "linalg")]
mod eigen;
#[cfg(feature = "linalg")]
mod factors;
#[cfg(feature = "linalg")]
mod norms;
#[cfg(all(test, feature = "linalg"))]
mod scale_tests;
#[cfg(feature = "linalg")]
mod scaled;
#[cfg(feature = "linalg")]
mod solve;
#[cfg(feature = "linalg")]
mod stack;
#[cfg(all(test, feature = "linalg"))]
mod tests;

#[cfg(feature = "linalg")]
pub use eigen::Eigen;
#[cfg(feature = "linalg")]
pub use norms::MatrixNorm;

fn argument(op: &'static str, message: String) -> crate::BitNetError {
    crate::TensorOpError::Argument { op, message }.into()
}
