//! Functions of one and two operands, element by element.

use super::operand::{input, output, same_shape, unsupported};
use crate::Result;
use crate::backend::{BinaryOp, TensorMut, TensorRef, UnaryOp};

pub(super) fn unary(op: UnaryOp, x: TensorRef, out: TensorMut) -> Result<()> {
    same_shape("unary", "x", &x.layout, &out.layout)?;
    let f: fn(f32) -> f32 = match op {
        UnaryOp::Neg => |x| -x,
        UnaryOp::Abs => f32::abs,
        UnaryOp::Exp => f32::exp,
        UnaryOp::Sqrt => f32::sqrt,
        UnaryOp::Reciprocal => f32::recip,
        UnaryOp::Relu => |x| x.max(0.),
        UnaryOp::Sigmoid => |x| 1. / (1. + (-x).exp()),
        UnaryOp::Round => f32::round_ties_even,
        UnaryOp::Log => f32::ln,
        _ => return Err(unsupported("unary", x.dtype)),
    };
    let from = input::<f32>("unary", &x)?;
    let (to, layout) = output::<f32>("unary", out)?;
    for (i, o) in x.layout.indices().zip(layout.indices()) {
        to[o] = f(from[i]);
    }
    Ok(())
}

pub(super) fn binary(op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    same_shape("binary", "a", &a.layout, &out.layout)?;
    same_shape("binary", "b", &b.layout, &out.layout)?;
    let f: fn(f32, f32) -> f32 = match op {
        BinaryOp::Add => |a, b| a + b,
        BinaryOp::Sub => |a, b| a - b,
        BinaryOp::Mul => |a, b| a * b,
        BinaryOp::Div => |a, b| a / b,
        BinaryOp::Minimum => |a, b| if a.is_nan() || a < b { a } else { b },
        BinaryOp::Maximum => |a, b| if a.is_nan() || a > b { a } else { b },
        _ => return Err(unsupported("binary", a.dtype)),
    };
    let (left, right) = (input::<f32>("binary", &a)?, input::<f32>("binary", &b)?);
    let (to, layout) = output::<f32>("binary", out)?;
    for ((i, j), o) in a.layout.indices().zip(b.layout.indices()).zip(layout.indices()) {
        to[o] = f(left[i], right[j]);
    }
    Ok(())
}
