//! Operations on tensors: promotion of types, broadcasting, and what devices are asked to do.

mod axes;
mod promote;
mod scalar;

pub use axes::Axes;
pub use promote::{promote_types, result_type};
pub use scalar::{Operand, Scalar};
