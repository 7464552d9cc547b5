//! Selection by `Bool` tensors.

use crate::autograd::{differentiable, no_grad};
use crate::ops::broadcast_shapes;
use crate::{BitNetDType, BitNetTensor, Operand, Result, Scalar, TensorOpError};
use BitNetDType::Bool;

impl BitNetTensor {
    /// `a` where `condition` is true, else `b` (`torch.where`): all broadcast, `a` and `b` promoted to one dtype.
    pub fn where_<'a>(condition: &Self, a: impl Into<Operand<'a>>, b: impl Into<Operand<'a>>) -> Result<Self> {
        const OP: &str = "where_";
        condition.is_mask(OP, "condition")?;
        let (a, b) = (a.into(), b.into());
        let dtype = crate::result_type(&[a, b])?;
        let tensor = |operand: Operand| match operand {
            Operand::Tensor(tensor) => condition.same_device(OP, tensor).and_then(|()| tensor.to_dtype(dtype)),
            Operand::Scalar(value) => Self::scalar(value, dtype, condition.device()),
        };
        let (a, b) = (tensor(a)?, tensor(b)?);
        let shape = broadcast_shapes(OP, &broadcast_shapes(OP, condition.shape(), a.shape())?, b.shape())?;
        let condition = condition.expand(shape.dims())?;
        let (a, b) = (a.expand(shape.dims())?, b.expand(shape.dims())?);
        let forward = || {
            let mut out = Self::empty(shape.dims(), dtype, condition.device())?;
            condition.device.select(condition.as_ref(), a.as_ref(), b.as_ref(), out.as_mut()?)?;
            Ok(out)
        };
        differentiable(OP, &[&a, &b], forward, |_| {
            let (condition, wanted) = (condition.clone(), (a.requires_grad(), b.requires_grad()));
            move |grad: &Self| {
                let of_a = wanted.0.then(|| Self::where_(&condition, grad, 0.)?.to_dtype(dtype)).transpose()?;
                let of_b = wanted.1.then(|| grad.masked_fill(&condition, 0.)).transpose()?;
                Ok(vec![of_a, of_b])
            }
        })
    }

    /// `value`, cast to the dtype, where `mask` is true; `mask` broadcasts to the shape.
    pub fn masked_fill(&self, mask: &Self, value: impl Into<Scalar>) -> Result<Self> {
        const OP: &str = "masked_fill";
        mask.is_mask(OP, "mask")?;
        self.same_device(OP, mask)?;
        let (mask, value) = (mask.expand(self.dims())?, Self::scalar(value, self.dtype, &self.device)?);
        let forward = || {
            let mut out = self.empty_like()?;
            self.device.select(mask.as_ref(), value.expand(self.dims())?.as_ref(), self.as_ref(), out.as_mut()?)?;
            Ok(out)
        };
        differentiable(OP, &[self], forward, |_| {
            let mask = mask.clone();
            move |grad: &Self| Ok(vec![Some(grad.masked_fill(&mask, 0.)?)])
        })
    }

    /// [`masked_fill`](Self::masked_fill) in place.
    pub fn masked_fill_(&mut self, mask: &Self, value: impl Into<Scalar>) -> Result<&mut Self> {
        match self.is_rewritten("masked_fill_", &[])? {
            true => *self = self.masked_fill(mask, value)?,
            false => self.set_values(no_grad(|| self.masked_fill(mask, value))?),
        }
        Ok(self)
    }

    /// The elements where `mask` is true, in row-major order, as one dimension; both broadcast.
    pub fn masked_select(&self, mask: &Self) -> Result<Self> {
        const OP: &str = "masked_select";
        mask.is_mask(OP, "mask")?;
        let shape = broadcast_shapes(OP, self.shape(), mask.shape())?;
        let places = mask.expand(shape.dims())?.true_places()?;
        let count = places.len();
        let ids = Self::from_places(OP, places, &[count], &self.device)?;
        self.expand(shape.dims())?.reshape(&[shape.elements()])?.index_select(0, &ids)
    }

    /// The positions of the elements that are not zero, `I64` `[count, rank]`, in row-major order.
    pub fn nonzero(&self) -> Result<Self> {
        let places = self.true_mask()?.true_places()?;
        let dims = self.dims();
        let mut positions = Vec::with_capacity(places.len() * dims.len());
        for &place in &places {
            let mut rest = place as usize;
            let start = positions.len();
            positions.resize(start + dims.len(), 0);
            for axis in (0..dims.len()).rev() {
                positions[start + axis] = (rest % dims[axis]) as i64;
                rest /= dims[axis];
            }
        }
        Self::from_places("nonzero", positions, &[places.len(), dims.len()], &self.device)
    }

    /// Whether each element is not zero.
    fn true_mask(&self) -> Result<Self> {
        self.unpacked("nonzero")?;
        if self.dtype == Bool { Ok(self.clone()) } else { self.to_dtype(Bool) }
    }

    /// Row-major indices of the elements of a `Bool` tensor that are true.
    pub(super) fn true_places(&self) -> Result<Vec<i64>> {
        let bytes = self.to_bytes()?;
        Ok(bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(i, _)| i as i64).collect())
    }

    fn is_mask(&self, op: &'static str, what: &'static str) -> Result<()> {
        if self.dtype != Bool {
            return Err(TensorOpError::DType { op, what, got: self.dtype, needed: Bool }.into());
        }
        Ok(())
    }
}
