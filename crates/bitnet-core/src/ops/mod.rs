//! Operations on tensors: type promotion, broadcasting, and calls to the device.

mod axes;
mod binary;
mod broadcast;
mod compare;
mod extremes;
mod operand;
mod operators;
mod promote;
mod reduce;
mod scan;
mod statistics;
mod three_operands;
mod unary;

pub use axes::Axes;
pub(crate) use binary::binary;
pub(crate) use broadcast::broadcast_shapes;
pub use operand::Operand;
pub use promote::{promote_types, result_type};
pub(crate) use unary::Domain;
pub(crate) use unary::unary_methods;
