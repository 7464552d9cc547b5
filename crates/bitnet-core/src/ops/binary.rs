//! Functions of two operands, element by element, broadcast and promoted: `add` gives a new tensor, `add_` works in
//! place, `add_into` writes to an existing tensor. The right operand is a tensor or a number.

use super::promote::can_cast;
use super::{Operand, broadcast_shapes, result_type};
use crate::autograd::{derivative, is_recording, no_grad, not_into};
use crate::backend::{BinaryOp, TensorMut, TensorRef};
use crate::{BitNetDType, BitNetTensor, DTypeCategory, Device, Result, Scalar, TensorOpError, TensorShape};
use BitNetDType::{BF16, Bool, F16, F32};
use std::borrow::Cow;

/// The promoted dtype and broadcast shape of two operands; an error if there is none, or if they are on different
/// devices.
pub(super) fn broadcast_and_promote(name: &'static str, a: Operand, b: Operand) -> Result<(BitNetDType, TensorShape)> {
    let shape = |x: Operand| match x {
        Operand::Tensor(tensor) => Ok(*tensor.shape()),
        Operand::Scalar(_) => TensorShape::new(&[]),
    };
    let shape = broadcast_shapes(name, &shape(a)?, &shape(b)?)?;
    if let (Operand::Tensor(a), Operand::Tensor(b)) = (a, b) {
        a.same_device(name, b)?;
    }
    Ok((result_type(&[a, b])?, shape))
}

/// The operand as a tensor of `dtype`, not yet broadcast; a number has no dimensions.
pub(super) fn in_dtype<'a>(x: Operand<'a>, dtype: BitNetDType, device: &Device) -> Result<Cow<'a, BitNetTensor>> {
    Ok(match x {
        Operand::Tensor(tensor) if tensor.dtype() == dtype => Cow::Borrowed(tensor),
        Operand::Tensor(tensor) => Cow::Owned(tensor.to_dtype(dtype)?),
        Operand::Scalar(value) => Cow::Owned(BitNetTensor::scalar(value, dtype, device)?),
    })
}

/// The device call: a function of two tensors of one dtype.
struct Plan {
    op: BinaryOp,
    dtype: BitNetDType,
    shape: TensorShape,
}

impl Plan {
    fn new(name: &'static str, op: BinaryOp, a: Operand, b: Operand) -> Result<Self> {
        use BinaryOp::*;
        if let (Operand::Tensor(a), Operand::Tensor(b)) = (a, b)
            && a.dtype() == b.dtype()
            && a.dtype().is_float()
            && a.shape() == b.shape()
            && !matches!(op, And | Or | Xor | Shl | Shr)
        {
            a.same_device(name, b)?;
            return Ok(Self { op, dtype: a.dtype(), shape: *a.shape() });
        }
        let (mut dtype, shape) = broadcast_and_promote(name, a, b)?;
        let category = dtype.category();
        let defined = match op {
            Add | Mul | Minimum | Maximum | Div | Atan2 => category != DTypeCategory::Packed,
            Sub | FloorDiv | Remainder | Pow => matches!(category, DTypeCategory::Integer | DTypeCategory::Float),
            And | Or | Xor => matches!(category, DTypeCategory::Integer | DTypeCategory::Bool),
            Shl | Shr => category == DTypeCategory::Integer,
        };
        if !defined {
            let message = format!("not defined for {dtype}: cast with to_dtype()");
            return Err(TensorOpError::Argument { op: name, message }.into());
        }
        if matches!(op, Div | Atan2) && !dtype.is_float() {
            dtype = F32;
        }
        let negative = |b| matches!(b, Operand::Scalar(Scalar::Int(power)) if power < 0);
        if op == Pow && dtype.is_integer() && negative(b) {
            let message = "integers have no negative integer powers: make one of them a float".into();
            return Err(TensorOpError::Argument { op: name, message }.into());
        }
        let op = match (dtype, op) {
            (Bool, Add | Maximum) => Or,
            (Bool, Mul | Minimum) => And,
            _ => op,
        };
        Ok(Self { op, dtype, shape })
    }

    /// The operand as the device takes it. In sums, products and quotients a number beside f16 or bf16 is an f32, so that
    /// only the result is rounded, as in PyTorch.
    fn prepared<'a>(&self, x: Operand<'a>, device: &Device) -> Result<Cow<'a, BitNetTensor>> {
        use BinaryOp::*;
        let number = match x {
            Operand::Scalar(_) => true,
            Operand::Tensor(tensor) => tensor.rank() == 0 && tensor.dtype() != self.dtype,
        };
        let exact = number && matches!(self.dtype, F16 | BF16) && matches!(self.op, Add | Sub | Mul | Div);
        in_dtype(x, if exact { F32 } else { self.dtype }, device)
    }
}

/// `x` broadcast to the shape of the result.
#[inline]
pub(super) fn expand<'a>(x: &'a BitNetTensor, shape: &TensorShape) -> Result<TensorRef<'a>> {
    if x.shape() == shape {
        return Ok(x.as_ref());
    }
    let x = x.as_ref();
    Ok(TensorRef { layout: x.layout.broadcast_to(shape.dims())?, ..x })
}

/// Whether an operation on these operands is recorded.
#[inline]
fn recorded(a: Operand, b: Operand) -> bool {
    let history = |x| matches!(x, Operand::Tensor(x) if x.requires_grad());
    (history(a) || history(b)) && is_recording()
}

/// The operands that are tensors.
fn tensors<'a>(a: Operand<'a>, b: Operand<'a>) -> Vec<&'a BitNetTensor> {
    let tensor = |x| if let Operand::Tensor(x) = x { Some(x) } else { None };
    [a, b].into_iter().filter_map(tensor).collect()
}

/// `a op b`, one of which is a tensor.
pub(crate) fn binary(name: &'static str, op: BinaryOp, a: Operand, b: Operand) -> Result<BitNetTensor> {
    let ((Operand::Tensor(tensor), _) | (_, Operand::Tensor(tensor))) = (a, b) else {
        let message = "two numbers: make one a tensor with BitNetTensor::scalar()".into();
        return Err(TensorOpError::Argument { op: name, message }.into());
    };
    let device = tensor.device();
    let plan = Plan::new(name, op, a, b)?;
    if recorded(a, b) {
        return derivative::binary(name, op, a, b, || plan.run(a, b, device));
    }
    plan.run(a, b, device)
}

impl Plan {
    fn run(&self, a: Operand, b: Operand, device: &Device) -> Result<BitNetTensor> {
        if let Operand::Tensor(x) = a
            && (x.dtype() != self.dtype && *x.shape() == self.shape)
            && let Cow::Owned(mut out) = self.prepared(a, device)?
            && out.dtype() == self.dtype
        {
            // The cast made new storage, which the result can reuse.
            device.binary_assign(self.op, out.as_mut()?, self.prepared(b, device)?.as_ref().as_ref())?;
            return Ok(out);
        }
        BitNetTensor::made(self.shape, self.dtype, device, |out| self.write(a, b, device, out))
    }

    fn write(&self, a: Operand, b: Operand, device: &Device, out: TensorMut) -> Result<()> {
        match (a, b) {
            (Operand::Tensor(a), Operand::Tensor(b)) if a.dtype() == self.dtype && b.dtype() == self.dtype => {
                // Layouts are long: here each is copied once.
                if *a.shape() == self.shape && *b.shape() == self.shape {
                    return device.binary(self.op, a.as_ref(), b.as_ref(), out);
                }
                device.binary(self.op, expand(a, &self.shape)?, expand(b, &self.shape)?, out)
            }
            _ => {
                let (a, b) = (self.prepared(a, device)?, self.prepared(b, device)?);
                device.binary(self.op, expand(&a, &self.shape)?, expand(&b, &self.shape)?, out)
            }
        }
    }
}

impl BitNetTensor {
    pub(crate) fn binary_assign(&mut self, name: &'static str, op: BinaryOp, b: Operand) -> Result<&mut Self> {
        let plan = Plan::new(name, op, (&*self).into(), b)?;
        if !can_cast(plan.dtype, self.dtype()) {
            return Err(TensorOpError::CannotCast { op: name, from: plan.dtype, to: self.dtype() }.into());
        }
        if plan.shape != *self.shape() {
            let needed = format!("{}, that of the result", plan.shape);
            return Err(TensorOpError::Shape { op: name, what: "the tensor", got: *self.shape(), needed }.into());
        }
        if recorded((&*self).into(), b) && self.is_rewritten(name, &tensors(b, b))? {
            *self = binary(name, op, (&*self).into(), b)?.to_dtype(self.dtype())?;
            return Ok(self);
        }
        if plan.dtype == self.dtype() && self.is_writable() {
            let device = self.device().clone();
            let b = plan.prepared(b, &device)?;
            device.binary_assign(plan.op, self.as_mut()?, b.as_ref().as_ref())?;
        } else {
            self.set_values(no_grad(|| binary(name, op, (&*self).into(), b)?.to_dtype(self.dtype()))?);
        }
        Ok(self)
    }

    pub(crate) fn binary_into(&self, name: &'static str, op: BinaryOp, b: Operand, out: &mut Self) -> Result<()> {
        if recorded(self.into(), b) {
            not_into(name, &tensors(self.into(), b))?;
        }
        let plan = Plan::new(name, op, self.into(), b)?;
        out.check_out(name, &plan.shape, plan.dtype, self)?;
        if !out.is_writable() {
            out.set_values(binary(name, op, self.into(), b)?);
            return Ok(());
        }
        plan.write(self.into(), b, self.device(), out.as_mut()?)
    }

    /// `self op b`, in the storage of `self` if that is not shared and the result fits.
    pub(crate) fn binary_owned(mut self, name: &'static str, op: BinaryOp, b: Operand) -> Result<Self> {
        if recorded((&self).into(), b) {
            return binary(name, op, (&self).into(), b);
        }
        let plan = Plan::new(name, op, (&self).into(), b)?;
        let fits = plan.dtype == self.dtype() && plan.shape == *self.shape() && self.is_contiguous();
        // A small part of a large storage would keep all of it alive.
        let whole = self.storage_bytes() == self.elements() * self.dtype().size();
        if fits && whole && self.is_writable() {
            self.binary_assign(name, op, b)?;
            return Ok(self);
        }
        binary(name, op, (&self).into(), b)
    }
}

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $name:ident $in_place:ident $into:ident => $op:ident;)*) => {
        impl BitNetTensor { $(
            $(#[$doc])*
            pub fn $name<'b>(&self, other: impl Into<Operand<'b>>) -> Result<Self> {
                binary(stringify!($name), BinaryOp::$op, self.into(), other.into())
            }

            #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), ") in place: `other` is broadcast to this shape; an error where the result's dtype cannot be cast to this one.")]
            pub fn $in_place<'b>(&mut self, other: impl Into<Operand<'b>>) -> Result<&mut Self> {
                self.binary_assign(stringify!($in_place), BinaryOp::$op, other.into())
            }

            #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), ") written to `out`, of the result's shape and dtype.")]
            pub fn $into<'b>(&self, other: impl Into<Operand<'b>>, out: &mut Self) -> Result<()> {
                self.binary_into(stringify!($into), BinaryOp::$op, other.into(), out)
            }
        )* }
    };
}

binary_methods! {
    /// `self + other` (`torch.add`); integers wrap, logical or for `Bool`.
    ///
    /// ```
    /// use bitnet_core::{BitNetDType, BitNetTensor, Device};
    /// let column = BitNetTensor::from_slice(&[10i32, 20], &[2, 1], &Device::cpu())?;
    /// let row = BitNetTensor::from_slice(&[1i32, 2, 3], &[3], &Device::cpu())?;
    /// assert_eq!(column.add(&row)?.to_vec::<i32>()?, [11, 12, 13, 21, 22, 23]);
    /// // A number does not change the dtype within its category; a float makes integers F32.
    /// assert_eq!(row.add(1)?.dtype(), BitNetDType::I32);
    /// assert_eq!(row.add(0.5)?.dtype(), BitNetDType::F32);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    add add_ add_into => Add;
    /// `self - other` (`torch.sub`); integers wrap, not defined for two `Bool`.
    sub sub_ sub_into => Sub;
    /// `self * other` (`torch.mul`); integers wrap, logical and for `Bool`.
    mul mul_ mul_into => Mul;
    /// `self / other` (`torch.div`); integers are divided as `F32`.
    div div_ div_into => Div;
    /// `floor(self / other)` (`torch.floor_divide`); an integer divided by zero is an error.
    floor_div floor_div_ floor_div_into => FloorDiv;
    /// `self - floor(self / other) * other`, with the sign of `other` (`torch.remainder`); an integer divided by zero
    /// is an error.
    remainder remainder_ remainder_into => Remainder;
    /// `self` to the power of `other` (`torch.pow`); integers wrap, and a negative power of one is 0 unless it is 1 or
    /// -1.
    pow pow_ pow_into => Pow;
    /// Angle of the point `(other, self)` in radians, in `[-pi, pi]` (`torch.atan2`).
    atan2 atan2_ atan2_into => Atan2;
    /// The smaller of both, NaN if either is (`torch.minimum`).
    minimum minimum_ minimum_into => Minimum;
    /// The larger of both, NaN if either is (`torch.maximum`).
    maximum maximum_ maximum_into => Maximum;
    /// Bitwise and of integers, logical and of `Bool` (`torch.bitwise_and`).
    bitwise_and bitwise_and_ bitwise_and_into => And;
    /// Bitwise or of integers, logical or of `Bool` (`torch.bitwise_or`).
    bitwise_or bitwise_or_ bitwise_or_into => Or;
    /// Bitwise exclusive or of integers, logical of `Bool` (`torch.bitwise_xor`).
    bitwise_xor bitwise_xor_ bitwise_xor_into => Xor;
    /// `self << other` of integers; 0 where `other` is negative or not below the width (`torch.bitwise_left_shift`).
    bitwise_left_shift bitwise_left_shift_ bitwise_left_shift_into => Shl;
    /// `self >> other` of integers, arithmetic for signed ones; 0, or -1 for negative numbers, where `other` is
    /// negative or not below the width (`torch.bitwise_right_shift`).
    bitwise_right_shift bitwise_right_shift_ bitwise_right_shift_into => Shr;
}

#[cfg(test)]
#[path = "binary_tests.rs"]
mod tests;
