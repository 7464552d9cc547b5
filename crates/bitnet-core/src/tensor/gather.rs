//! Reading and writing along one dimension by index tensors. Indices are non-negative integers of any dtype.

use super::views::argument;
use crate::autograd::derivative;
use crate::backend::{ScatterOp, unsupported};
use crate::ops::broadcast_shapes;
use crate::{BitNetDType, BitNetTensor, Device, Operand, Result, Scalar, TensorOpError, TensorShape};
use BitNetDType::{I64, U32, U64};

/// The dtype of indices: `I64` as in PyTorch, `U32` where the device has no 64-bit types.
pub(crate) fn index_dtype(device: &Device) -> BitNetDType {
    if device.has(I64) { I64 } else { U32 }
}

impl BitNetTensor {
    /// `out[i, j, ..] = self[indices[i, j, ..], j, ..]` for `axis` 0, and so on (`torch.gather`): `indices` has the
    /// rank of the tensor and extents no larger but along `axis`; the result has its shape.
    pub fn gather(&self, axis: isize, indices: &Self) -> Result<Self> {
        const OP: &str = "gather";
        self.unpacked(OP)?;
        self.same_device(OP, indices)?;
        let Some(axis) = self.axis_of_any(OP, axis)? else {
            return self.reshape(&[1])?.gather(0, &indices.unsqueeze(0)?)?.squeeze(0);
        };
        let indices = indices.as_indices(OP)?;
        self.check_indices(OP, axis, &indices)?;
        let forward = || {
            let mut out = Self::empty(indices.dims(), self.dtype, &self.device)?;
            self.device.gather(self.as_ref(), axis, indices.as_ref(), out.as_mut()?)?;
            Ok(out)
        };
        derivative::gather(self, axis as isize, &indices, forward)
    }

    /// The entries `indices` (one dimension) of dimension `axis`.
    pub fn index_select(&self, axis: isize, indices: &Self) -> Result<Self> {
        const OP: &str = "index_select";
        let Some(axis) = self.axis_of_any(OP, axis)? else {
            // PyTorch lets a scalar pass as a vector of one.
            if indices.elements() != 1 {
                return Err(indices.needs(OP, "one element: a scalar has one place"));
            }
            return self.view(&[1])?.index_select(0, indices)?.squeeze(0);
        };
        let (_, expanded) = self.expand_along(OP, axis, indices)?;
        self.gather(axis as isize, &expanded)
    }

    /// [`gather`](Self::gather) with the dimensions other than `axis` broadcast (`numpy.take_along_axis`).
    pub fn take_along_axis(&self, axis: isize, indices: &Self) -> Result<Self> {
        const OP: &str = "take_along_axis";
        let axis = self.shape().axis(OP, axis)?;
        let (to, indices) = self.along(OP, axis, indices)?;
        self.expand(&to)?.gather(axis as isize, &indices)
    }

    /// `self[indices[i, j, ..], j, ..] = source[i, j, ..]` for `axis` 0, and so on (`torch.scatter_`); of several
    /// writes to one element the last wins. `source` is a number, or a tensor of this dtype at least as large as
    /// `indices`.
    pub fn scatter_<'a>(&mut self, axis: isize, indices: &Self, source: impl Into<Operand<'a>>) -> Result<&mut Self> {
        self.scatter_with("scatter_", ScatterOp::Assign, axis, indices, source.into())
    }

    /// [`scatter_`](Self::scatter_) that adds to the elements instead of replacing them.
    pub fn scatter_add_<'a>(
        &mut self,
        axis: isize,
        indices: &Self,
        source: impl Into<Operand<'a>>,
    ) -> Result<&mut Self> {
        self.scatter_with("scatter_add_", ScatterOp::Add, axis, indices, source.into())
    }

    /// [`scatter_`](Self::scatter_) with the dimensions other than `axis` broadcast (`numpy.put_along_axis`).
    pub fn put_along_axis_<'a>(
        &mut self,
        axis: isize,
        indices: &Self,
        values: impl Into<Operand<'a>>,
    ) -> Result<&mut Self> {
        const OP: &str = "put_along_axis_";
        let axis = self.shape().axis(OP, axis)?;
        let (to, indices) = self.along(OP, axis, indices)?;
        if to != self.dims() {
            return Err(self.needs(OP, "extents that the indices broadcast to"));
        }
        match values.into() {
            Operand::Tensor(values) => {
                let values = values.expand(indices.dims())?;
                self.scatter_with(OP, ScatterOp::Assign, axis as isize, &indices, Operand::Tensor(&values))
            }
            value => self.scatter_with(OP, ScatterOp::Assign, axis as isize, &indices, value),
        }
    }

    /// Row `i` of `source` along `axis` is added to row `indices[i]`.
    pub fn index_add_(&mut self, axis: isize, indices: &Self, source: &Self) -> Result<&mut Self> {
        self.index_with("index_add_", ScatterOp::Add, axis, indices, source.into())
    }

    /// Row `i` of `source` along `axis` replaces row `indices[i]`.
    pub fn index_copy_(&mut self, axis: isize, indices: &Self, source: &Self) -> Result<&mut Self> {
        self.index_with("index_copy_", ScatterOp::Assign, axis, indices, source.into())
    }

    /// Rows `indices` along `axis` become `value`, cast to the dtype.
    pub fn index_fill_(&mut self, axis: isize, indices: &Self, value: impl Into<Scalar>) -> Result<&mut Self> {
        self.index_with("index_fill_", ScatterOp::Assign, axis, indices, value.into().into())
    }

    fn index_with(
        &mut self,
        op: &'static str,
        scatter: ScatterOp,
        axis: isize,
        indices: &Self,
        source: Operand,
    ) -> Result<&mut Self> {
        let Some(axis) = self.axis_of_any(op, axis)? else {
            let one = indices.elements() == 1 && !matches!(source, Operand::Tensor(source) if source.rank() > 0);
            if !one {
                return Err(indices.needs(op, "one element, and the source no dimensions: a scalar has one place"));
            }
            return self.scatter_with(op, scatter, 0, &indices.reshape(&[])?, source);
        };
        let (rows, expanded) = self.expand_along(op, axis, indices)?;
        if let Operand::Tensor(source) = source
            && source.dims() != rows.dims()
        {
            return Err(source.needs(op, &format!("{rows}, a row for each index")));
        }
        self.scatter_with(op, scatter, axis as isize, &expanded, source)
    }

    pub(super) fn scatter_with(
        &mut self,
        op: &'static str,
        scatter: ScatterOp,
        axis: isize,
        indices: &Self,
        source: Operand,
    ) -> Result<&mut Self> {
        self.unpacked(op)?;
        self.same_device(op, indices)?;
        let indices = indices.as_indices(op)?;
        let whole = matches!(source, Operand::Tensor(_));
        let mut source = self.operand(op, source)?;
        if !whole {
            source = source.expand(indices.dims())?;
        }
        if self.axis_of_any(op, axis)?.is_none() {
            // As in PyTorch, a scalar counts as a vector of one element.
            let mut line = self.reshape(&[1])?;
            let rewritten = self.is_rewritten(op, &[&source])?;
            line.scatter_with(op, scatter, 0, &indices.reshape(&[1])?, (&source.reshape(&[1])?).into())?;
            let line = line.reshape(&[])?;
            match rewritten {
                true => *self = line,
                false => self.set_values(line),
            }
            return Ok(self);
        }
        let axis = self.shape().axis(op, axis)?;
        self.check_indices(op, axis, &indices)?;
        if source.rank() != indices.rank() {
            return Err(source.needs(op, &format!("as many dimensions as the indices, {}", indices.rank())));
        }
        for (axis, &extent) in indices.dims().iter().enumerate() {
            source = source.narrow(axis as isize, 0, extent)?;
        }
        if self.is_rewritten(op, &[&source])? {
            *self = derivative::scatter(op, scatter, self, axis as isize, &indices, &source)?;
            return Ok(self);
        }
        let device = self.device.clone();
        device.scatter(scatter, source.as_ref(), axis, indices.as_ref(), self.as_mut()?)?;
        Ok(self)
    }

    /// Itself as `I64` or `U32`, which backends read; an error unless it holds integers.
    pub(crate) fn as_indices(&self, op: &'static str) -> Result<Self> {
        match self.dtype {
            I64 | U32 => Ok(self.clone()),
            // Beyond i64 they would wrap to negative ones; the largest i64 is outside of every dimension too.
            U64 => self.minimum(i64::MAX)?.to_dtype(I64),
            dtype if dtype.is_integer() => self.to_dtype(index_dtype(&self.device)),
            got => Err(TensorOpError::DType { op, what: "indices", got, needed: I64 }.into()),
        }
    }

    /// Indices that the host computed, as [`index_dtype`].
    pub(crate) fn from_places(op: &'static str, places: Vec<i64>, dims: &[usize], device: &Device) -> Result<Self> {
        if device.has(I64) {
            return Self::from_vec(places, dims, device);
        }
        let narrow: Result<Vec<u32>, _> = places.into_iter().map(u32::try_from).collect();
        Self::from_vec(narrow.map_err(|_| unsupported(device.as_dyn(), op, I64))?, dims, device)
    }

    /// An error unless `indices` has this rank and no larger extents but along `axis`.
    fn check_indices(&self, op: &'static str, axis: usize, indices: &Self) -> Result<()> {
        let smaller = |d: usize| d == axis || indices.dims()[d] <= self.dims()[d];
        if indices.rank() != self.rank() || !(0..self.rank()).all(smaller) {
            return Err(indices
                .needs(op, &format!("the rank and no larger extents than {}, but in dimension {axis}", self.shape())));
        }
        Ok(())
    }

    /// `indices` of one dimension along `axis`, expanded along the other dimensions: the shape, and the view.
    fn expand_along(&self, op: &'static str, axis: usize, indices: &Self) -> Result<(TensorShape, Self)> {
        if indices.rank() > 1 {
            return Err(indices.needs(op, "one dimension: use index or gather"));
        }
        let mut dims = self.dims().to_vec();
        dims[axis] = indices.elements();
        let mut column = vec![1; dims.len() - axis];
        column[0] = dims[axis];
        Ok((TensorShape::new(&dims)?, indices.view(&column)?.expand(&dims)?))
    }

    /// This shape and `indices` broadcast to each other, except along `axis`.
    fn along(&self, op: &'static str, axis: usize, indices: &Self) -> Result<(Vec<usize>, Self)> {
        if indices.rank() != self.rank() {
            return Err(argument(op, format!("the indices need {} dimensions, got {}", self.rank(), indices.rank())));
        }
        let (mut mine, mut theirs) = (self.dims().to_vec(), indices.dims().to_vec());
        (mine[axis], theirs[axis]) = (1, 1);
        let shape = broadcast_shapes(op, &TensorShape::new(&mine)?, &TensorShape::new(&theirs)?)?;
        (mine, theirs) = (shape.dims().to_vec(), shape.dims().to_vec());
        (mine[axis], theirs[axis]) = (self.dims()[axis], indices.dims()[axis]);
        Ok((mine, indices.expand(&theirs)?))
    }
}
