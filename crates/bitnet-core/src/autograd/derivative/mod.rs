//! Derivatives of the basic operations, written in recorded operations. Those of neural network functions are in
//! [`neural::derivative`](crate::neural::derivative), others beside their operation.

mod binary;
mod clamp;
mod product;
mod reduce;
mod scan;
mod scatter;
mod unary;
mod view;

pub use binary::binary;
pub use clamp::clamp;
pub use product::matmul;
#[cfg(feature = "linalg")]
pub use reduce::others;
pub use reduce::{logsumexp, norm, reduce, std, var};
pub use scan::scan;
pub use scatter::{gather, scatter};
pub use unary::unary;
pub use view::view;
