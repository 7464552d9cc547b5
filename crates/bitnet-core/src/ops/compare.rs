//! Comparisons and logic; the results are `Bool` tensors.

use super::Operand;
use super::binary::{binary, broadcast_and_promote, expand, in_dtype};
use crate::autograd::no_grad;
use crate::backend::{BinaryOp, CompareOp, UnaryOp};
use crate::{BitNetDType, BitNetTensor, DTypeCategory, Result, Scalar};
use BitNetDType::{BF16, Bool, F16, F32, F64, I64, U8, U64};

fn compare(name: &'static str, op: CompareOp, a: &BitNetTensor, b: Operand) -> Result<BitNetTensor> {
    let (_, shape) = broadcast_and_promote(name, a.into(), b)?;
    let mut out = BitNetTensor::empty(shape.dims(), Bool, a.device())?;
    compare_into(name, op, a, b, &mut out)?;
    Ok(out)
}

fn compare_into(name: &'static str, op: CompareOp, a: &BitNetTensor, b: Operand, out: &mut BitNetTensor) -> Result<()> {
    let (dtype, shape) = broadcast_and_promote(name, a.into(), b)?;
    out.check_out(name, &shape, Bool, a)?;
    if !out.is_writable() {
        *out = BitNetTensor::empty(shape.dims(), Bool, a.device())?;
    }
    let device = a.device();
    // A comparison has no derivative.
    no_grad(|| {
        let (a, b) = (in_dtype(a.into(), dtype, device)?, in_dtype(b, dtype, device)?);
        device.compare(op, expand(&a, &shape)?, expand(&b, &shape)?, out.as_mut()?)
    })
}

macro_rules! comparisons {
    ($($doc:literal, $name:ident $into:ident => $op:ident;)*) => {
        impl BitNetTensor { $(
            #[doc = $doc]
            pub fn $name<'b>(&self, other: impl Into<Operand<'b>>) -> Result<Self> {
                compare(stringify!($name), CompareOp::$op, self, other.into())
            }

            #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), ") written to `out`, a `Bool` tensor of the result's shape.")]
            pub fn $into<'b>(&self, other: impl Into<Operand<'b>>, out: &mut Self) -> Result<()> {
                compare_into(stringify!($into), CompareOp::$op, self, other.into(), out)
            }
        )* }
    };
}

comparisons! {
    "Where `self == other` (`torch.eq`); NaN equals nothing.", eq eq_into => Eq;
    "Where `self != other` (`torch.ne`).", ne ne_into => Ne;
    "Where `self < other` (`torch.lt`).", lt lt_into => Lt;
    "Where `self <= other` (`torch.le`).", le le_into => Le;
    "Where `self > other` (`torch.gt`).", gt gt_into => Gt;
    "Where `self >= other` (`torch.ge`).", ge ge_into => Ge;
}

/// A `Bool` operand: whether each element is not zero.
fn logical(op: BinaryOp, name: &'static str, a: &BitNetTensor, b: Operand) -> Result<BitNetTensor> {
    let a = a.to_dtype(Bool)?;
    match b {
        Operand::Tensor(b) => binary(name, op, (&a).into(), (&b.to_dtype(Bool)?).into()),
        Operand::Scalar(b) => binary(name, op, (&a).into(), b.to_bool().into()),
    }
}

impl BitNetTensor {
    /// Where both are not zero (`torch.logical_and`).
    pub fn logical_and<'b>(&self, other: impl Into<Operand<'b>>) -> Result<Self> {
        logical(BinaryOp::And, "logical_and", self, other.into())
    }

    /// Where one is not zero (`torch.logical_or`).
    pub fn logical_or<'b>(&self, other: impl Into<Operand<'b>>) -> Result<Self> {
        logical(BinaryOp::Or, "logical_or", self, other.into())
    }

    /// Where exactly one is not zero (`torch.logical_xor`).
    pub fn logical_xor<'b>(&self, other: impl Into<Operand<'b>>) -> Result<Self> {
        logical(BinaryOp::Xor, "logical_xor", self, other.into())
    }

    /// Where it is zero (`torch.logical_not`).
    pub fn logical_not(&self) -> Result<Self> {
        match self.dtype() {
            Bool => self.unary("logical_not", UnaryOp::Not, super::Domain::Bits),
            _ => compare("logical_not", CompareOp::Eq, self, 0.into()),
        }
    }

    /// Where it is NaN (`torch.isnan`).
    pub fn isnan(&self) -> Result<Self> {
        match self.dtype().is_float() {
            true => compare("isnan", CompareOp::Ne, self, self.into()),
            false => self.constant_mask("isnan", false),
        }
    }

    /// Where it is an infinity of either sign (`torch.isinf`).
    pub fn isinf(&self) -> Result<Self> {
        match self.dtype().is_float() {
            true => compare("isinf", CompareOp::Eq, &self.abs()?, f64::INFINITY.into()),
            false => self.constant_mask("isinf", false),
        }
    }

    /// Where it is neither NaN nor an infinity (`torch.isfinite`).
    pub fn isfinite(&self) -> Result<Self> {
        match self.dtype().is_float() {
            true => compare("isfinite", CompareOp::Lt, &self.abs()?, f64::INFINITY.into()),
            false => self.constant_mask("isfinite", true),
        }
    }

    fn constant_mask(&self, op: &'static str, value: bool) -> Result<Self> {
        self.unpacked(op)?;
        Self::filled(self.dims(), value.into(), Bool, self.device())
    }

    /// A tensor of one value.
    pub(super) fn filled(dims: &[usize], value: Scalar, dtype: BitNetDType, device: &crate::Device) -> Result<Self> {
        Self::scalar(value, dtype, device)?.broadcast_to(dims)?.copy()
    }

    /// Where `|self - other| <= atol + rtol * |other|`, or both are the same infinity, or (`equal_nan`) both NaN
    /// (`torch.isclose`).
    pub fn isclose(&self, other: &Self, rtol: f64, atol: f64, equal_nan: bool) -> Result<Self> {
        const OP: &str = "isclose";
        let (dtype, _) = broadcast_and_promote(OP, self.into(), other.into())?;
        if dtype.is_integer() {
            return self.isclose_exactly(other, dtype, rtol, atol);
        }
        // Differences of f16 and bf16 would be rounded twice.
        let wide = match dtype {
            F16 | BF16 => F32,
            F32 => F32,
            _ => F64,
        };
        let (a, b) = (self.to_dtype(wide)?, other.to_dtype(wide)?);
        let mut close = a.eq(&b)?;
        if equal_nan && dtype.category() == DTypeCategory::Float {
            close.bitwise_or_(&a.isnan()?.bitwise_and(&b.isnan()?)?)?;
        }
        let mut difference = a.sub(&b)?;
        difference.abs_()?;
        let mut allowed = b.abs()?;
        allowed.mul_(rtol.abs())?.add_(atol)?;
        // An infinite difference is within no tolerance, even one that is infinite.
        let near = difference.le(&allowed)?.bitwise_and(&difference.lt(f64::INFINITY)?)?;
        close.bitwise_or_(&near)?;
        Ok(close)
    }

    /// [`isclose`](Self::isclose) of integers: f64 does not hold them all.
    fn isclose_exactly(&self, other: &Self, dtype: BitNetDType, rtol: f64, atol: f64) -> Result<Self> {
        let (a, b) = (self.to_dtype(dtype)?, other.to_dtype(dtype)?);
        let mut allowed = b.to_dtype(F64)?.abs()?;
        allowed.mul_(rtol.abs())?.add_(atol)?;
        // In 64 bits, where what wraps below zero is the distance without its sign.
        let wide = if dtype == U64 { U64 } else { I64 };
        let (a, b) = (a.to_dtype(wide)?, b.to_dtype(wide)?);
        let distance = a.maximum(&b)?.sub(&a.minimum(&b)?)?.to_dtype(U64)?;
        distance.le(&allowed.floor()?.to_dtype(U64)?)
    }

    /// Whether all elements are close, see [`isclose`](Self::isclose) (`torch.allclose`).
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let x = BitNetTensor::from_slice(&[1f32, 2.0], &[2], &Device::cpu())?;
    /// assert!(x.allclose(&x.add(1e-7)?, 1e-5, 1e-8, false)?);
    /// assert!(!x.allclose(&x.add(1e-3)?, 1e-5, 1e-8, false)?);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn allclose(&self, other: &Self, rtol: f64, atol: f64, equal_nan: bool) -> Result<bool> {
        self.isclose(other, rtol, atol, equal_nan)?.all_true()
    }

    /// Whether both have one shape and equal elements (`torch.equal`); NaN equals nothing. Different dtypes are
    /// compared after promotion, where PyTorch gives an error.
    pub fn equal(&self, other: &Self) -> Result<bool> {
        self.same_device("equal", other)?;
        if self.shape() != other.shape() {
            return Ok(false);
        }
        self.eq(other)?.all_true()
    }

    fn all_true(&self) -> Result<bool> {
        Ok(self.all(.., false)?.to_dtype(U8)?.to_vec::<u8>()? == [1])
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
