//! Maxima and minima, and their positions.

use super::Axes;
use super::reduce::{Reduction, reduce};
use crate::backend::ReduceOp;
use crate::tensor::gather::index_dtype;
use crate::{BitNetDType, BitNetTensor, Result};
use BitNetDType::{Bool, U8};

impl BitNetTensor {
    /// The largest element over `axes`, NaN if any is (`torch.amax`); an error if there are no elements.
    pub fn amax(&self, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        let op = if self.dtype() == Bool { ReduceOp::Any } else { ReduceOp::Max };
        self.extreme("amax", op, axes.into(), keepdim)
    }

    /// The smallest element over `axes`, NaN if any is (`torch.amin`); an error if there are no elements.
    pub fn amin(&self, axes: impl Into<Axes>, keepdim: bool) -> Result<Self> {
        let op = if self.dtype() == Bool { ReduceOp::All } else { ReduceOp::Min };
        self.extreme("amin", op, axes.into(), keepdim)
    }

    fn extreme(&self, name: &'static str, op: ReduceOp, axes: Axes, keepdim: bool) -> Result<Self> {
        Reduction::new(name, self, axes, keepdim)?.not_empty(self)?;
        reduce(name, op, self, axes, keepdim)
    }

    /// The largest elements along `axis` and their positions, the first of equals; a NaN counts as the largest
    /// (`torch.max`). An error if there are no elements.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let x = BitNetTensor::from_slice(&[3f32, 9.0, 4.0, 1.0, 0.0, 1.0], &[2, 3], &Device::cpu())?;
    /// let (values, indices) = x.max(1, false)?;
    /// assert_eq!(values.to_vec::<f32>()?, [9.0, 1.0]);
    /// assert_eq!(indices.to_vec::<i64>()?, [1, 0]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn max(&self, axis: isize, keepdim: bool) -> Result<(Self, Self)> {
        self.extreme_at("max", ReduceOp::ArgMax, axis, keepdim)
    }

    /// The smallest elements along `axis` and their positions, the first of equals; a NaN counts as the smallest
    /// (`torch.min`). An error if there are no elements.
    pub fn min(&self, axis: isize, keepdim: bool) -> Result<(Self, Self)> {
        self.extreme_at("min", ReduceOp::ArgMin, axis, keepdim)
    }

    /// Position of the largest element along `axis`, or of all in row-major order; the first of equals, NaN is the
    /// largest (`torch.argmax`). `I64`, `U32` where the device lacks it. An error if there are no elements.
    pub fn argmax(&self, axis: Option<isize>, keepdim: bool) -> Result<Self> {
        self.position("argmax", ReduceOp::ArgMax, axis, keepdim)
    }

    /// Position of the smallest element along `axis`, or of all in row-major order; the first of equals, NaN is the
    /// smallest (`torch.argmin`). `I64`, `U32` where the device lacks it. An error if there are no elements.
    pub fn argmin(&self, axis: Option<isize>, keepdim: bool) -> Result<Self> {
        self.position("argmin", ReduceOp::ArgMin, axis, keepdim)
    }

    fn extreme_at(&self, name: &'static str, op: ReduceOp, axis: isize, keepdim: bool) -> Result<(Self, Self)> {
        let reduction = Reduction::new(name, self, axis, keepdim)?;
        // A 0-d tensor has only position 0.
        let line = if self.rank() == 0 { self.reshape(&[1])? } else { self.clone() };
        let indices = line.position(name, op, Some(axis), true)?;
        let values = line.gather(axis, &indices)?;
        Ok((values.reshape(reduction.result.dims())?, indices.reshape(reduction.result.dims())?))
    }

    fn position(&self, name: &'static str, op: ReduceOp, axis: Option<isize>, keepdim: bool) -> Result<Self> {
        let reduction = match axis {
            Some(axis) => Reduction::new(name, self, axis, keepdim)?,
            None => Reduction::new(name, self, .., keepdim)?,
        };
        reduction.not_empty(self)?;
        if self.dtype() == Bool {
            return self.to_dtype(U8)?.position(name, op, axis, keepdim);
        }
        if self.requires_grad() {
            return self.detach().position(name, op, axis, keepdim);
        }
        // Positions count in row-major order, whatever the strides.
        let (x, axis) = match axis {
            Some(axis) if self.rank() > 0 => (self.clone(), self.shape().axis(name, axis)?),
            _ => (self.reshape(&[self.elements()])?, 0),
        };
        let mut dims = x.dims().to_vec();
        dims[axis] = 1;
        let mut out = Self::empty(&dims, index_dtype(self.device()), self.device())?;
        if out.elements() > 0 {
            self.device().reduce(op, x.as_ref(), axis, out.as_mut()?)?;
        }
        out.reshape(reduction.result.dims())
    }
}
