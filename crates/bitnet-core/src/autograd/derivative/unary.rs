//! Functions of one operand, element by element.

use crate::autograd::{differentiable, differentiable_by_result};
use crate::backend::UnaryOp::{self, *};
use crate::neural::derivative::*;
use crate::{BitNetTensor, Gelu, Result, TensorOpError};
use std::f64::consts::{FRAC_2_SQRT_PI, LN_2, LN_10};

/// `op(x)`, computed by `forward`.
pub fn unary(
    name: &'static str,
    op: UnaryOp,
    x: &BitNetTensor,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    match op {
        Neg | Sign | Floor | Ceil | Round | Trunc => {
            differentiable(name, &[x], forward, |_| move |grad: &BitNetTensor| Ok(vec![Some(constant(op, grad)?)]))
        }
        Sqrt | Rsqrt | Reciprocal | Exp | Exp2 | Expm1 | Tan | Tanh | Sigmoid => {
            differentiable_by_result(name, &[x], forward, || {
                move |grad: &BitNetTensor, y: &BitNetTensor| Ok(vec![Some(by_result(name, op, grad, y)?)])
            })
        }
        _ => differentiable(name, &[x], forward, |_| {
            let x = x.clone();
            move |grad: &BitNetTensor| Ok(vec![Some(by_operand(name, op, grad, &x)?)])
        }),
    }
}

/// Functions with a constant derivative; that of step functions is 0.
fn constant(op: UnaryOp, grad: &BitNetTensor) -> Result<BitNetTensor> {
    if op == Neg { grad.neg() } else { grad.zeros_like() }
}

/// From the gradient and the result `y`.
fn by_result(name: &'static str, op: UnaryOp, grad: &BitNetTensor, y: &BitNetTensor) -> Result<BitNetTensor> {
    let (g, dtype) = (grad.wide(name)?, y.dtype());
    let y = y.wide(name)?;
    let out = match op {
        Sqrt => g.div(&y)?.mul(0.5)?,
        Rsqrt => g.mul(&y.square()?.mul(&y)?)?.mul(-0.5)?,
        Reciprocal => g.mul(&y.square()?)?.neg()?,
        Exp => g.mul(&y)?,
        Exp2 => g.mul(&y)?.mul(LN_2)?,
        Expm1 => g.mul(&y.add(1)?)?,
        Tan => g.mul(&y.square()?.add(1)?)?,
        Tanh => tanh_backward(&g, &y)?,
        Sigmoid => sigmoid_backward(&g, &y)?,
        _ => return none(name),
    };
    out.to_dtype(dtype)
}

/// From the gradient and the operand `x`.
fn by_operand(name: &'static str, op: UnaryOp, grad: &BitNetTensor, x: &BitNetTensor) -> Result<BitNetTensor> {
    let (g, dtype) = (grad.wide(name)?, x.dtype());
    let x = x.wide(name)?;
    let out = match op {
        Abs => g.mul(&x.sign()?)?,
        Square => g.mul(&x)?.mul(2)?,
        Relu => relu_backward(&g, &x)?,
        Relu2 => relu2_backward(&g, &x)?,
        Log => g.div(&x)?,
        Log2 => g.div(&x.mul(LN_2)?)?,
        Log10 => g.div(&x.mul(LN_10)?)?,
        Log1p => g.div(&x.add(1)?)?,
        Sin => g.mul(&x.cos()?)?,
        Cos => g.mul(&x.sin()?.neg()?)?,
        Asin => g.mul(&x.square()?.neg()?.add(1)?.rsqrt()?)?,
        Acos => g.mul(&x.square()?.neg()?.add(1)?.rsqrt()?.neg()?)?,
        Atan => g.div(&x.square()?.add(1)?)?,
        Sinh => g.mul(&x.cosh()?)?,
        Cosh => g.mul(&x.sinh()?)?,
        Erf => g.mul(&x.square()?.neg()?.exp()?.mul(FRAC_2_SQRT_PI)?)?,
        Silu => silu_backward(&g, &x)?,
        GeluErf => gelu_backward(&g, &x, Gelu::Erf)?,
        GeluTanh => gelu_backward(&g, &x, Gelu::Tanh)?,
        _ => return none(name),
    };
    out.to_dtype(dtype)
}

fn none(op: &'static str) -> Result<BitNetTensor> {
    Err(TensorOpError::Argument { op, message: "not differentiable".into() }.into())
}
