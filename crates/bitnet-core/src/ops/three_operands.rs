//! Functions of three operands: `clamp`, `lerp`, `addcmul`, `addcdiv`.

use super::binary::in_dtype;
use super::{Operand, result_type};
use crate::autograd::{derivative, is_recorded};
use crate::backend::BinaryOp;
use crate::{BitNetDType, BitNetTensor, Result, Scalar, TensorOpError};
use BitNetDType::{BF16, Bool, F16, F32};

/// The dtype of intermediate results: f16 and bf16 are computed in f32 and rounded once.
pub(super) fn wide(dtype: BitNetDType) -> BitNetDType {
    match dtype {
        F16 | BF16 => F32,
        _ => dtype,
    }
}

/// Replaces the elements of a tensor by a result of the same shape, whose dtype can be cast to the tensor's.
fn replace<'t>(op: &'static str, tensor: &'t mut BitNetTensor, result: BitNetTensor) -> Result<&'t mut BitNetTensor> {
    let (from, to) = (result.dtype(), tensor.dtype());
    if !super::promote::can_cast(from, to) {
        return Err(TensorOpError::CannotCast { op, from, to }.into());
    }
    if result.shape() != tensor.shape() {
        let needed = format!("{}, that of the result", result.shape());
        return Err(TensorOpError::Shape { op, what: "the tensor", got: *tensor.shape(), needed }.into());
    }
    let result = result.to_dtype(to)?;
    match tensor.is_rewritten(op, &[&result])? {
        true => *tensor = result,
        false => tensor.set_values(result),
    }
    Ok(tensor)
}

impl BitNetTensor {
    /// Elements below `min` become `min`, those above `max` become `max`, NaN stays (`torch.clamp`); where `min` is
    /// above `max` all become `max`. Limits beyond an integer type are those of the type.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let x = BitNetTensor::from_slice(&[-2f32, 0.5, 7.0], &[3], &Device::cpu())?;
    /// assert_eq!(x.clamp(Some(0.into()), Some(1.into()))?.to_vec::<f32>()?, [0.0, 0.5, 1.0]);
    /// assert_eq!(x.clamp(None, Some(1.into()))?.to_vec::<f32>()?, [-2.0, 0.5, 1.0]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn clamp(&self, min: Option<Scalar>, max: Option<Scalar>) -> Result<Self> {
        let (low, high, dtype) = self.limits("clamp", min, max)?;
        if is_recorded(&[self]) {
            return derivative::clamp(self, low, high, || self.clamp(min, max));
        }
        // A limit of another kind decides for both.
        let x = in_dtype(self.into(), dtype, self.device())?;
        match (low, high) {
            (Some(low), Some(high)) => {
                let mut out = x.maximum(low)?;
                out.minimum_(high)?;
                Ok(out)
            }
            (Some(low), None) => x.maximum(low),
            (_, Some(high)) => x.minimum(high),
            (None, None) => unreachable!("one limit is there"),
        }
    }

    /// [`clamp`](Self::clamp) in place.
    pub fn clamp_(&mut self, min: Option<Scalar>, max: Option<Scalar>) -> Result<&mut Self> {
        let (low, high, from) = self.limits("clamp_", min, max)?;
        if !super::promote::can_cast(from, self.dtype()) {
            return Err(TensorOpError::CannotCast { op: "clamp_", from, to: self.dtype() }.into());
        }
        if self.is_rewritten("clamp_", &[])? {
            *self = self.clamp(min, max)?.to_dtype(self.dtype())?;
            return Ok(self);
        }
        for (op, limit) in [(BinaryOp::Maximum, low), (BinaryOp::Minimum, high)] {
            if let Some(limit) = limit {
                self.binary_assign("clamp_", op, limit.into())?;
            }
        }
        Ok(self)
    }

    /// The limits saturated to the common dtype of the limits and this tensor, and that dtype.
    fn limits(
        &self,
        op: &'static str,
        min: Option<Scalar>,
        max: Option<Scalar>,
    ) -> Result<(Option<Scalar>, Option<Scalar>, BitNetDType)> {
        let operands: Vec<Operand> = [min, max].into_iter().flatten().map(Operand::from).chain([self.into()]).collect();
        if operands.len() == 1 {
            let message = "neither a lower nor an upper limit is given".into();
            return Err(TensorOpError::Argument { op, message }.into());
        }
        let dtype = result_type(&operands)?;
        let fit = |limit: Option<Scalar>| limit.map(|limit| limit.saturate(dtype));
        Ok((fit(min), fit(max), dtype))
    }

    /// `self + weight * (end - self)` (`torch.lerp`), exact at the weights 0 and 1; floats.
    pub fn lerp<'w>(&self, end: &Self, weight: impl Into<Operand<'w>>) -> Result<Self> {
        const OP: &str = "lerp";
        let weight = weight.into();
        let dtype = result_type(&[self.into(), end.into(), weight])?;
        if !dtype.is_float() {
            let message = format!("not defined for {dtype}: cast with to_dtype()");
            return Err(TensorOpError::Argument { op: OP, message }.into());
        }
        let (start, end) = (self.to_dtype(wide(dtype))?, end.to_dtype(wide(dtype))?);
        let mut difference = end.sub(&start)?;
        // From the nearer end: start + weight * difference, or end + (weight - 1) * difference.
        let out = match weight {
            Operand::Scalar(weight) => {
                let weight = weight.to_f64();
                let (factor, base) = if weight.abs() < 0.5 { (weight, &start) } else { (weight - 1., &end) };
                difference.mul_(factor)?.add_(base)?;
                difference
            }
            Operand::Tensor(weight) => {
                let weight = weight.to_dtype(wide(dtype))?;
                let from_start = difference.mul(&weight)?.add(&start)?;
                let from_end = weight.sub(1.)?.mul(&difference)?.add(&end)?;
                Self::where_(&weight.abs()?.lt(0.5)?, &from_start, &from_end)?
            }
        };
        out.to_dtype(dtype)
    }

    /// [`lerp`](Self::lerp) in place.
    pub fn lerp_<'w>(&mut self, end: &Self, weight: impl Into<Operand<'w>>) -> Result<&mut Self> {
        let result = self.lerp(end, weight)?;
        replace("lerp_", self, result)
    }

    /// `self + value * a * b` (`torch.addcmul`).
    pub fn addcmul(&self, a: &Self, b: &Self, value: impl Into<Scalar>) -> Result<Self> {
        self.add_scaled("addcmul", BinaryOp::Mul, a, b, value.into())
    }

    /// [`addcmul`](Self::addcmul) in place.
    pub fn addcmul_(&mut self, a: &Self, b: &Self, value: impl Into<Scalar>) -> Result<&mut Self> {
        let result = self.add_scaled("addcmul_", BinaryOp::Mul, a, b, value.into())?;
        replace("addcmul_", self, result)
    }

    /// `self + value * a / b` (`torch.addcdiv`); floats.
    pub fn addcdiv(&self, a: &Self, b: &Self, value: impl Into<Scalar>) -> Result<Self> {
        self.add_scaled("addcdiv", BinaryOp::Div, a, b, value.into())
    }

    /// [`addcdiv`](Self::addcdiv) in place.
    pub fn addcdiv_(&mut self, a: &Self, b: &Self, value: impl Into<Scalar>) -> Result<&mut Self> {
        let result = self.add_scaled("addcdiv_", BinaryOp::Div, a, b, value.into())?;
        replace("addcdiv_", self, result)
    }

    /// `self + value * (a op b)` in the dtype common to the three; of integers `value` is cast to it.
    fn add_scaled(&self, name: &'static str, op: BinaryOp, a: &Self, b: &Self, value: Scalar) -> Result<Self> {
        let dtype = result_type(&[self.into(), a.into(), b.into()])?;
        if dtype == Bool || op == BinaryOp::Div && !dtype.is_float() {
            let message = format!("not defined for {dtype}: cast with to_dtype()");
            return Err(TensorOpError::Argument { op: name, message }.into());
        }
        self.same_device(name, a)?;
        let compute = wide(dtype);
        let a = in_dtype(a.into(), compute, self.device())?;
        let mut product = super::binary::binary(name, op, a.as_ref().into(), (&b.to_dtype(compute)?).into())?;
        if value.to_f64() != 1. {
            let value = if dtype.is_float() { value } else { value.cast(dtype) };
            product.binary_assign(name, BinaryOp::Mul, value.into())?;
        }
        product.binary_owned(name, BinaryOp::Add, (&self.to_dtype(compute)?).into())?.to_dtype(dtype)
    }
}

#[cfg(test)]
#[path = "three_operands_tests.rs"]
mod tests;
