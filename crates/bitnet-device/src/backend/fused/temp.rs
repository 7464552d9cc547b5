//! Intermediate results of composed operations.

use crate::backend::*;
use crate::dtype::Element;
use crate::{BitNetDType, Layout, Result, TensorShape, TensorStorage};
use BitNetDType::{F32, F64};

/// An intermediate result on the device.
pub(in crate::backend) struct Temp<'b> {
    backend: &'b dyn Backend,
    storage: TensorStorage,
    pub layout: Layout,
    dtype: BitNetDType,
}

/// An operand in the compute dtype: unchanged, or cast.
pub(in crate::backend) enum Wide<'a, 'b> {
    As(TensorRef<'a>),
    Cast(Temp<'b>),
}

impl Wide<'_, '_> {
    pub fn view(&self) -> TensorRef<'_> {
        match self {
            Self::As(tensor) => *tensor,
            Self::Cast(temp) => temp.view(),
        }
    }
}

/// The compute dtype: f64 for f64, f32 for all others.
pub(in crate::backend) fn width(dtype: BitNetDType) -> BitNetDType {
    if dtype == F64 { F64 } else { F32 }
}

/// `x` in the compute dtype.
pub(in crate::backend) fn wide<'a, 'b>(backend: &'b dyn Backend, x: TensorRef<'a>) -> Result<Wide<'a, 'b>> {
    let to = width(x.dtype);
    Ok(if x.dtype == to { Wide::As(x) } else { Wide::Cast(cast(backend, x, to)?) })
}

impl<'b> Temp<'b> {
    pub fn new(backend: &'b dyn Backend, dims: &[usize], dtype: BitNetDType) -> Result<Self> {
        let shape = TensorShape::new(dims)?;
        let storage = backend.allocate(shape.elements() * dtype.block().1)?;
        Ok(Self { backend, storage, layout: Layout::contiguous(shape), dtype })
    }

    /// A copy of `x`.
    pub fn copied(backend: &'b dyn Backend, x: TensorRef) -> Result<Self> {
        let mut out = Self::new(backend, x.layout.dims(), x.dtype)?;
        backend.copy(x, out.view_mut())?;
        Ok(out)
    }

    pub fn upload<T: Element>(backend: &'b dyn Backend, dims: &[usize], data: &[T]) -> Result<Self> {
        let layout = Layout::contiguous(TensorShape::new(dims)?);
        let storage = backend.upload(bytemuck::cast_slice(data))?;
        Ok(Self { backend, storage, layout, dtype: T::DTYPE })
    }

    pub fn view(&self) -> TensorRef<'_> {
        TensorRef { storage: &self.storage, layout: self.layout, dtype: self.dtype }
    }

    pub fn view_mut(&mut self) -> TensorMut<'_> {
        TensorMut { storage: &mut self.storage, layout: self.layout, dtype: self.dtype }
    }

    pub fn unary(&self, op: UnaryOp) -> Result<Self> {
        let mut out = Self::new(self.backend, self.layout.dims(), self.dtype)?;
        self.backend.unary(op, self.view(), out.view_mut())?;
        Ok(out)
    }

    /// `op(self, other)`, `other` broadcast to this shape.
    pub fn binary(&self, op: BinaryOp, other: TensorRef) -> Result<Self> {
        binary(self.backend, op, self.view(), other)
    }

    pub fn scalar(&self, op: BinaryOp, value: f64) -> Result<Self> {
        let value = match self.dtype {
            F64 => Self::upload(self.backend, &[1], &[value])?,
            _ => Self::upload(self.backend, &[1], &[value as f32])?,
        };
        self.binary(op, value.view())
    }

    /// Reduces the last dimension, which stays with extent 1.
    pub fn reduce_last(&self, op: ReduceOp) -> Result<Self> {
        reduce_last(self.backend, op, self.view())
    }

    pub fn cast(&self, dtype: BitNetDType) -> Result<Self> {
        cast(self.backend, self.view(), dtype)
    }

    pub fn copy_to(&self, out: TensorMut) -> Result<()> {
        self.backend.copy(self.view(), out)
    }

    /// Rounded to the dtype of `out`.
    pub fn cast_to(&self, out: TensorMut) -> Result<()> {
        if out.dtype == self.dtype { self.copy_to(out) } else { self.backend.cast(self.view(), out) }
    }
}

/// `op(a, b)`, `b` broadcast to the shape of `a`.
pub(in crate::backend) fn binary<'b>(
    backend: &'b dyn Backend,
    op: BinaryOp,
    a: TensorRef,
    b: TensorRef,
) -> Result<Temp<'b>> {
    let b = TensorRef { layout: b.layout.broadcast_to(a.layout.dims())?, ..b };
    let mut out = Temp::new(backend, a.layout.dims(), a.dtype)?;
    backend.binary(op, a, b, out.view_mut())?;
    Ok(out)
}

pub(in crate::backend) fn cast<'b>(backend: &'b dyn Backend, x: TensorRef, dtype: BitNetDType) -> Result<Temp<'b>> {
    let mut out = Temp::new(backend, x.layout.dims(), dtype)?;
    backend.cast(x, out.view_mut())?;
    Ok(out)
}

/// Reduces the last dimension, which stays with extent 1.
pub(in crate::backend) fn reduce_last<'b>(backend: &'b dyn Backend, op: ReduceOp, x: TensorRef) -> Result<Temp<'b>> {
    let axis = x.layout.shape().rank() - 1;
    let dims = TensorShape::new(&[&x.layout.dims()[..axis], &[1]].concat())?;
    let mut out = Temp::new(backend, dims.dims(), x.dtype)?;
    backend.reduce(op, x, axis, out.view_mut())?;
    Ok(out)
}
