//! Functions of two operands, element by element.

use crate::autograd::{differentiable, is_recording};
use crate::backend::BinaryOp::{self, *};
use crate::{BitNetDType, BitNetTensor, Operand, Result, Scalar, TensorOpError, TensorShape};

/// An operand that outlives the call.
enum Value {
    Tensor(BitNetTensor),
    Scalar(Scalar),
}

/// What the derivative by an operand needs of it.
struct Side {
    shape: TensorShape,
    dtype: BitNetDType,
}

/// `a op b`, broadcast and promoted, computed by `forward`.
pub fn binary(
    name: &'static str,
    op: BinaryOp,
    a: Operand,
    b: Operand,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    if matches!(op, And | Or | Xor | Shl | Shr) {
        return none(name);
    }
    let tensor = |x: Operand<'_>| if let Operand::Tensor(x) = x { Some(x.clone()) } else { None };
    let (left, right) = (tensor(a), tensor(b));
    let tensors: Vec<&BitNetTensor> = left.iter().chain(&right).collect();
    differentiable(name, &tensors, forward, |_| {
        let side = |x: &Option<BitNetTensor>| {
            let x = x.as_ref().filter(|x| x.requires_grad())?;
            Some(Side { shape: *x.shape(), dtype: x.dtype() })
        };
        let sides = [(a, side(&left)), (b, side(&right))];
        // Products save only the other factor, sums nothing.
        let kept = |x: Operand, other_needs: bool| match (op, x) {
            (Add | Sub, _) => Value::Scalar(0.into()),
            (Mul, Operand::Tensor(_)) if !other_needs => Value::Scalar(0.into()),
            (_, Operand::Tensor(x)) => Value::Tensor(x.clone()),
            (_, Operand::Scalar(x)) => Value::Scalar(x),
        };
        let values = [kept(a, sides[1].1.is_some()), kept(b, sides[0].1.is_some())];
        let sides = sides.map(|(x, side)| (matches!(x, Operand::Tensor(_)), side));
        move |grad: &BitNetTensor| {
            let g = grad.wide(name)?;
            let wide = |x: &Value| match x {
                Value::Tensor(x) => x.to_dtype(g.dtype()).map(Value::Tensor),
                Value::Scalar(x) => Ok(Value::Scalar(*x)),
            };
            let (a, b) = (wide(&values[0])?, wide(&values[1])?);
            let length = if op == Atan2 { Some(square_length(&g, a.operand(), b.operand())?) } else { None };
            let mut out = Vec::with_capacity(2);
            for (place, (_, side)) in sides.iter().enumerate().filter(|(_, (is_tensor, _))| *is_tensor) {
                out.push(match side {
                    Some(side) => {
                        let by = if place == 0 { by_left } else { by_right };
                        let mut part = by(name, op, &g, a.operand(), b.operand())?;
                        if let Some(length) = &length {
                            part.div_(length)?;
                        }
                        Some(part.sum_to_shape(side.shape.dims())?.to_dtype(side.dtype)?)
                    }
                    None => None,
                });
            }
            Ok(out)
        }
    })
}

impl Value {
    fn operand(&self) -> Operand<'_> {
        match self {
            Self::Tensor(x) => Operand::Tensor(x),
            Self::Scalar(x) => Operand::Scalar(*x),
        }
    }
}

fn none(op: &'static str) -> Result<BitNetTensor> {
    Err(TensorOpError::Argument { op, message: "not differentiable".into() }.into())
}

/// `x` as a tensor of the dtype of `g`.
fn tensor(x: Operand, g: &BitNetTensor) -> Result<BitNetTensor> {
    match x {
        Operand::Tensor(x) => Ok(x.clone()),
        Operand::Scalar(x) => BitNetTensor::scalar(x, g.dtype(), g.device()),
    }
}

/// `g` where `a` was selected, half of it where both are equal, else 0.
fn selected_gradient(op: BinaryOp, g: &BitNetTensor, a: &BitNetTensor, b: &BitNetTensor) -> Result<BitNetTensor> {
    let other = if op == Minimum { a.gt(b)? } else { a.lt(b)? };
    let halved = BitNetTensor::where_(&a.eq(b)?, &g.mul(0.5)?, g)?;
    halved.masked_fill(&other, 0)
}

/// `a^2 + b^2` in the shape of `g`. At the origin it is above 0, so that a product with `a` or `b` divided by it is 0 there.
fn square_length(g: &BitNetTensor, a: Operand, b: Operand) -> Result<BitNetTensor> {
    let mut length = tensor(a, g)?.square()?;
    if length.dims() != g.dims() {
        length = length.expand(g.dims())?;
    }
    let least = if g.dtype() == BitNetDType::F64 { f64::MIN_POSITIVE } else { f32::MIN_POSITIVE.into() };
    length.add_(&tensor(b, g)?.square()?)?.maximum_(least)?;
    Ok(length)
}

/// The gradient of the left operand, in the shape of the result.
fn by_left(name: &'static str, op: BinaryOp, g: &BitNetTensor, a: Operand, b: Operand) -> Result<BitNetTensor> {
    match op {
        Add | Sub | Remainder => Ok(g.clone()),
        Mul => g.mul(b),
        Div => g.div(b),
        FloorDiv => g.zeros_like(),
        Pow => {
            let a = tensor(a, g)?;
            let b = match b {
                Operand::Scalar(b) if b.to_f64() == 0. => return g.zeros_like(),
                Operand::Scalar(b) => return g.mul(&a.pow(b.to_f64() - 1.)?.mul(b)?),
                Operand::Tensor(b) => b,
            };
            // Of a constant, 0 too where the base is 0; a power of 0 there, for the slopes of the slope.
            let constant = b.eq(0)?;
            let mut power = b.sub(1)?;
            if is_recording() {
                power = power.masked_fill(&constant, 0)?;
            }
            let slope = a.pow(&power)?.mul(b)?;
            g.mul(&BitNetTensor::where_(&constant, 0., &slope)?)
        }
        // Divided by the square length where it is called.
        Atan2 => g.mul(b),
        Minimum | Maximum => selected_gradient(op, g, &tensor(a, g)?, &tensor(b, g)?),
        And | Or | Xor | Shl | Shr => none(name),
    }
}

/// The gradient of the right operand, in the shape of the result.
fn by_right(name: &'static str, op: BinaryOp, g: &BitNetTensor, a: Operand, b: Operand) -> Result<BitNetTensor> {
    match op {
        Add => Ok(g.clone()),
        Sub => g.neg(),
        Mul => g.mul(a),
        Div => {
            let b = tensor(b, g)?;
            g.mul(&tensor(a, g)?.div(&b)?)?.div(&b)?.neg()
        }
        FloorDiv => g.zeros_like(),
        Remainder => g.mul(&tensor(a, g)?.floor_div(b)?)?.neg(),
        Pow => {
            let (a, b) = (tensor(a, g)?, tensor(b, g)?);
            // 0^b is 0 for all b above 0, as 1^b is 1: there the slope is 0 too, and has finite slopes itself.
            let a = BitNetTensor::where_(&a.eq(0)?.logical_and(&b.ge(0)?)?, 1., &a)?;
            g.mul(&a.pow(&b)?.mul(&a.log()?)?)
        }
        // Divided by the square length where it is called.
        Atan2 => {
            let mut x = g.mul(a)?;
            x.neg_()?;
            Ok(x)
        }
        Minimum | Maximum => selected_gradient(op, g, &tensor(b, g)?, &tensor(a, g)?),
        And | Or | Xor | Shl | Shr => none(name),
    }
}
