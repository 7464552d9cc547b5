//! Derivatives of the operations that many methods are made of, written in recorded operations. Those of functions of
//! neural networks stand in [`neural::derivative`](crate::neural::derivative), others beside their operation.

mod binary;
mod product;
mod reduce;
mod scan;
mod scatter;
mod unary;
mod view;

pub use binary::binary;
pub use product::matmul;
pub use reduce::{norm, reduce, var};
pub use scan::scan;
pub use scatter::{gather, scatter};
pub use unary::unary;
pub use view::view;
