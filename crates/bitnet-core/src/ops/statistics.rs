//! Sums, means, variances, norms and counts over any dimensions.

use super::Axes;
use super::reduce::{Reduction, moments, reduce, standard_deviation};
use super::three_operands::wide;
use crate::autograd::{derivative, is_recorded};
use crate::backend::ReduceOp;
use crate::mixed_precision::operand;
use crate::{BitNetDType, BitNetTensor, Result, TensorOpError, TensorShape};
use BitNetDType::F32;
use std::borrow::Cow;

impl BitNetTensor {
    /// Sum over `axes` (`torch.sum`): floats keep their dtype and are accumulated in f32 or f64; integers and `Bool`
    /// give `I64` (`U64` stays), wrapping; `I32` (`U32` stays) on a device without 64-bit types. 0 for no elements.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let x = BitNetTensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::cpu())?;
    /// assert_eq!(x.sum(.., false)?.to_vec::<f32>()?, [21.0]);
    /// assert_eq!(x.sum(-1, false)?.to_vec::<f32>()?, [6.0, 15.0]);
    /// assert_eq!(x.sum([0, 1], true)?.dims(), [1, 1]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn sum(&self, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        if let Cow::Owned(x) = operand("sum", self)? {
            return x.sum(axes, keepdim);
        }
        reduce("sum", ReduceOp::Sum, self, axes, keepdim)
    }

    /// Product over `axes` (`torch.prod`); dtypes as [`sum`](Self::sum). 1 for no elements.
    pub fn prod(&self, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        if let Cow::Owned(x) = operand("prod", self)? {
            return x.prod(axes, keepdim);
        }
        reduce("prod", ReduceOp::Prod, self, axes, keepdim)
    }

    /// Whether any element over `axes` is not zero, `Bool` (`torch.any`). False for no elements.
    pub fn any(&self, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        reduce("any", ReduceOp::Any, self, axes, keepdim)
    }

    /// Whether no element over `axes` is zero, `Bool` (`torch.all`). True for no elements.
    pub fn all(&self, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        reduce("all", ReduceOp::All, self, axes, keepdim)
    }

    /// Number of elements over `axes` that are not zero, `I64` (`torch.count_nonzero`).
    pub fn count_nonzero(&self, axes: impl Into<Axes>) -> Result<Self> {
        self.unpacked("count_nonzero")?;
        reduce("count_nonzero", ReduceOp::Sum, &self.to_dtype(BitNetDType::Bool)?, axes, false)
    }

    /// Mean over `axes` (`torch.mean`), floats; NaN for no elements.
    pub fn mean(&self, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        if let Cow::Owned(x) = operand("mean", self)? {
            return x.mean(axes, keepdim);
        }
        self.floats("mean")?;
        let axes = axes.into();
        let count = Reduction::new("mean", self, axes, keepdim)?.count;
        // f16 would overflow before the division, and round twice.
        let mut out = reduce("mean", ReduceOp::Sum, &self.to_dtype(wide(self.dtype()))?, axes, keepdim)?;
        out.div_(count)?;
        out.to_dtype(self.dtype())
    }

    /// Variance over `axes` (`torch.var`), floats: squared differences from the mean (two passes or Welford), divided
    /// by `max(0, N - correction)`; 1 is Bessel's correction, 0 gives the population variance. NaN for no elements.
    pub fn var(&self, axes: impl Into<Axes>, correction: f64, keepdim: bool) -> Result<Self> {
        if let Cow::Owned(x) = operand("var", self)? {
            return x.var(axes, correction, keepdim);
        }
        self.floats("var")?;
        let reduction = Reduction::new("var", self, axes, keepdim)?;
        let forward = || match reduction.count {
            0 => reduction.filled(f64::NAN.into(), self.dtype(), self),
            _ => Ok(moments(self, &reduction, correction)?.1),
        };
        if !is_recorded(&[self]) {
            return forward();
        }
        let kept = reduction.kept;
        derivative::var(self, reduction.reduced_axes(self), kept, reduction.count, correction, forward)
    }

    /// Standard deviation over `axes` (`torch.std`), the root of [`var`](Self::var).
    pub fn std(&self, axes: impl Into<Axes>, correction: f64, keepdim: bool) -> Result<Self> {
        if let Cow::Owned(x) = operand("std", self)? {
            return x.std(axes, correction, keepdim);
        }
        self.floats("std")?;
        // f16 would round twice.
        let x = self.to_dtype(wide(self.dtype()))?;
        let reduction = Reduction::new("std", &x, axes, keepdim)?;
        let forward = || match reduction.count {
            0 => reduction.filled(f64::NAN.into(), x.dtype(), &x),
            _ => standard_deviation(&x, &reduction, correction),
        };
        let out = match is_recorded(&[&x]) {
            true => {
                derivative::std(&x, reduction.reduced_axes(&x), reduction.kept, reduction.count, correction, forward)
            }
            false => forward(),
        };
        out?.to_dtype(self.dtype())
    }

    /// The p-norm over `axes`, `(sum |x|^p)^(1/p)` (`torch.linalg.vector_norm`), floats: `p` 2 is the Euclidean norm,
    /// infinity the largest and minus infinity the smallest magnitude, 0 the number of elements that are not zero.
    pub fn norm(&self, p: f64, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        if let Cow::Owned(x) = operand("norm", self)? {
            return x.norm(p, axes, keepdim);
        }
        self.floats("norm")?;
        let axes = axes.into();
        let x = self.to_dtype(wide(self.dtype()))?;
        let sum = |x: &Self| reduce("norm", ReduceOp::Sum, x, axes, keepdim);
        if is_recorded(&[&x]) {
            let reduction = Reduction::new("norm", &x, axes, keepdim)?;
            let forward = || x.norm(p, axes, keepdim);
            let kept = reduction.kept;
            return derivative::norm(&x, p, reduction.reduced_axes(&x), kept, forward)?.to_dtype(self.dtype());
        }
        let out = if p == 0. {
            sum(&x.ne(0.)?)?
        } else if p.is_infinite() {
            let op = if p > 0. { ReduceOp::Max } else { ReduceOp::Min };
            reduce("norm", op, &x.abs()?, axes, keepdim)?
        } else if p == 1. {
            sum(&x.abs()?)?
        } else if p == 2. {
            reduce("norm", ReduceOp::Norm, &x, axes, keepdim)?
        } else {
            x.norm_of_powers(p, axes, keepdim)?
        };
        out.to_dtype(self.dtype())
    }

    /// `(sum |x|^p)^(1/p)` for a finite `p` other than 0, of f32 or f64.
    fn norm_of_powers(&self, p: f64, axes: Axes, keepdim: bool) -> Result<Self> {
        let powers = |mut sizes: Self| -> Result<Self> {
            if p == 3. {
                sizes = sizes.square()?.mul(&sizes)?;
            } else {
                sizes.pow_(p)?;
            }
            reduce("norm", ReduceOp::Sum, &sizes, axes, keepdim)
        };
        let mut out = powers(self.abs()?)?;
        let least = if self.dtype() == F32 { 1e-28 } else { 1e-280 };
        let lost = out.lt(least)?.bitwise_or(&out.eq(f64::INFINITY)?)?.any(.., false)?.to_bools()?[0];
        if !lost || self.elements() == 0 {
            out.pow_(p.recip())?;
            return Ok(out);
        }
        // Powers of what is near 1 neither overflow nor vanish: divided by what counts most.
        let mut sizes = self.abs()?;
        let op = if p > 0. { ReduceOp::Max } else { ReduceOp::Min };
        let most = reduce("norm", op, &sizes, axes, true)?;
        let usable = most.gt(0)?.bitwise_and(&most.lt(f64::INFINITY)?)?;
        let most = most.masked_fill(&usable.bitwise_not()?, 1)?;
        sizes.div_(&most)?;
        let mut out = powers(sizes)?;
        let most = most.reshape(out.dims())?;
        out.pow_(p.recip())?.mul_(&most)?;
        Ok(out)
    }

    /// `log(sum(exp(x)))` over `axes`, without overflow (`torch.logsumexp`); integers are computed as `F32`. Minus
    /// infinity for no elements.
    pub fn logsumexp(&self, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        if let Cow::Owned(x) = operand("logsumexp", self)? {
            return x.logsumexp(axes, keepdim);
        }
        let axes = axes.into();
        let reduction = Reduction::new("logsumexp", self, axes, keepdim)?;
        let dtype = if self.dtype().is_float() { self.dtype() } else { F32 };
        if is_recorded(&[self]) {
            return derivative::logsumexp(self, reduction.kept, || self.logsumexp(axes, keepdim));
        }
        if reduction.count == 0 {
            return reduction.filled(f64::NEG_INFINITY.into(), dtype, self);
        }
        let x = self.to_dtype(wide(dtype))?;
        let largest = reduce("logsumexp", ReduceOp::Max, &x, axes, true)?;
        // Where the maximum is infinite nothing is subtracted: inf - inf would be NaN.
        let infinite = largest.isinf()?;
        let zero = Self::scalar(0, largest.dtype(), self.device())?.broadcast_to(largest.dims())?;
        let mut shift = Self::empty(largest.dims(), largest.dtype(), self.device())?;
        self.device().select(infinite.as_ref(), zero.as_ref(), largest.as_ref(), shift.as_mut()?)?;
        let mut shifted = x.sub(&shift)?;
        let mut out = reduce("logsumexp", ReduceOp::Sum, shifted.exp_()?, axes, true)?;
        out.log_()?.add_(&shift)?;
        out.reshape(reduction.result.dims())?.to_dtype(dtype)
    }

    /// This tensor summed to `dims`, a shape that broadcasts to this tensor's: the derivative of
    /// [`broadcast_to`](Self::broadcast_to) (`torch.sum_to_size`).
    pub fn sum_to_shape(&self, dims: &[usize]) -> Result<Self> {
        let target = TensorShape::new(dims)?;
        if target == *self.shape() {
            return Ok(self.clone());
        }
        let lead = self.rank().checked_sub(dims.len());
        let fits =
            lead.is_some_and(|lead| dims.iter().zip(&self.dims()[lead..]).all(|(&to, &from)| to == from || to == 1));
        let Some(lead) = lead.filter(|_| fits) else {
            let needed = format!("one that {target} broadcasts to");
            return Err(
                TensorOpError::Shape { op: "sum_to_shape", what: "the tensor", got: *self.shape(), needed }.into()
            );
        };
        let repeated = |axis: usize| axis < lead || dims[axis - lead] != self.dims()[axis];
        let axes: Vec<_> = (0..self.rank()).filter(|&axis| repeated(axis)).map(|axis| axis as isize).collect();
        reduce("sum_to_shape", ReduceOp::Sum, self, &axes[..], false)?.reshape(dims)
    }

    fn floats(&self, op: &'static str) -> Result<()> {
        if self.dtype().is_float() {
            return Ok(());
        }
        let message = format!("takes floats, not {}: cast with to_dtype()", self.dtype());
        Err(TensorOpError::Argument { op, message }.into())
    }
}
