//! Joining and repeating tensors.

use super::views::argument;
use crate::autograd::differentiable;
use crate::backend::TensorMut;
use crate::{BitNetTensor, Operand, Result, TensorOpError};

impl BitNetTensor {
    /// Concatenation along dimension `axis`, in the promoted dtype; the other extents must be equal. As in PyTorch, a
    /// tensor of shape `[0]` is compatible with any other.
    pub fn cat(tensors: &[&Self], axis: isize) -> Result<Self> {
        const OP: &str = "cat";
        let none = || argument(OP, "no tensors: give at least one".into());
        let one = *tensors.first().ok_or_else(none)?;
        // What goes with any other shape still counts for the dtype.
        let fits_all = |t: &Self| *t.dims() == [0];
        let first = tensors.iter().copied().find(|t| !fits_all(t)).unwrap_or(one);
        let axis = first.shape().axis(OP, axis)?;
        let mut dtype = one.dtype;
        let mut dims = first.dims().to_vec();
        dims[axis] = 0;
        for t in tensors {
            t.unpacked(OP)?;
            one.same_device(OP, t)?;
            dtype = crate::promote_types(dtype, t.dtype)?;
            if fits_all(t) {
                continue;
            }
            if t.rank() != dims.len() || (0..dims.len()).any(|d| d != axis && t.dims()[d] != dims[d]) {
                let needed = format!("{} but in dimension {axis}", first.shape());
                return Err(TensorOpError::Shape { op: OP, what: "tensor", got: *t.shape(), needed }.into());
            }
            dims[axis] = dims[axis].saturating_add(t.dims()[axis]);
        }
        let forward = || {
            let mut out = Self::empty(&dims, dtype, one.device())?;
            let mut start = 0;
            for t in tensors.iter().filter(|t| !fits_all(t)) {
                let len = t.dims()[axis];
                out.write(out.layout.narrow(axis, start, len)?, &t.to_dtype(dtype)?)?;
                start += len;
            }
            Ok(out)
        };
        differentiable(OP, tensors, forward, |_| {
            let len = |t: &Self| if fits_all(t) { None } else { Some(t.dims()[axis]) };
            let parts: Vec<_> = tensors.iter().map(|t| (len(t), t.dtype, t.requires_grad())).collect();
            move |grad: &Self| {
                let mut start = 0;
                let part = |&(len, dtype, wanted): &(Option<usize>, crate::BitNetDType, bool)| {
                    let from = start;
                    start += len.unwrap_or(0);
                    let part = || match len {
                        Some(len) => grad.narrow(axis as isize, from, len)?.to_dtype(dtype),
                        None => Self::zeros(&[0], dtype, grad.device()),
                    };
                    wanted.then(part).transpose()
                };
                parts.iter().map(part).collect()
            }
        })
    }

    /// Concatenation along a new dimension, `axis` of the result; the shapes must be equal.
    pub fn stack(tensors: &[&Self], axis: isize) -> Result<Self> {
        if let [first, rest @ ..] = tensors
            && let Some(other) = rest.iter().find(|t| t.shape() != first.shape())
        {
            return Err(other.needs("stack", &format!("{}, as the first", first.shape())));
        }
        let raised: Vec<_> = tensors.iter().map(|t| t.unsqueeze(axis)).collect::<Result<_>>()?;
        Self::cat(&raised.iter().collect::<Vec<_>>(), axis)
    }

    /// `repeats[i]` copies along dimension `i`; missing leading dimensions have extent 1 (`torch.Tensor.repeat`).
    pub fn repeat(&self, repeats: &[usize]) -> Result<Self> {
        let Some(lead) = repeats.len().checked_sub(self.rank()) else {
            return Err(argument(
                "repeat",
                format!("{repeats:?} needs a number for each dimension of {}", self.shape()),
            ));
        };
        let mut dims = [&vec![1; lead][..], self.dims()].concat();
        let mut out = self.reshape(&dims)?;
        for axis in (0..dims.len()).rev().filter(|&axis| repeats[axis] != 1) {
            out = out.copies(dims[..axis].iter().product(), repeats[axis], dims[axis..].iter().product())?;
            dims[axis] = dims[axis].saturating_mul(repeats[axis]);
            out = out.reshape(&dims)?;
        }
        if out.shares_storage(self) { out.copy() } else { Ok(out) }
    }

    /// [`repeat`](Self::repeat) that also accepts fewer numbers than dimensions, for the last ones (`torch.tile`).
    pub fn tile(&self, repeats: &[usize]) -> Result<Self> {
        let lead = self.rank().saturating_sub(repeats.len());
        self.repeat(&[&vec![1; lead][..], repeats].concat())
    }

    /// Every element `repeats` times along dimension `axis`.
    pub fn repeat_interleave(&self, repeats: usize, axis: isize) -> Result<Self> {
        let axis = self.shape().axis("repeat_interleave", axis)?;
        let mut dims = self.dims().to_vec();
        let out = self.copies(dims[..=axis].iter().product(), repeats, dims[axis + 1..].iter().product())?;
        dims[axis] = dims[axis].saturating_mul(repeats);
        out.reshape(&dims)
    }

    /// Viewed as `[outer, inner]`, every row `repeats` times: `[outer, repeats, inner]`.
    fn copies(&self, outer: usize, repeats: usize, inner: usize) -> Result<Self> {
        self.reshape(&[outer, 1, inner])?.expand(&[outer, repeats, inner])?.copy()
    }

    /// Elements shifted cyclically by `shifts[i]` along `axes[i]`. Without axes, one shift in row-major order.
    pub fn roll(&self, shifts: &[isize], axes: &[isize]) -> Result<Self> {
        if let ([shift], []) = (shifts, axes) {
            return self.reshape(&[self.elements()])?.roll(&[*shift], &[0])?.reshape(self.dims());
        }
        if shifts.len() != axes.len() {
            return Err(argument("roll", format!("{} shifts for {} axes: give as many", shifts.len(), axes.len())));
        }
        self.unpacked("roll")?;
        let mut x = self.clone();
        for (&shift, &axis) in shifts.iter().zip(axes) {
            let axis = self.shape().axis("roll", axis)?;
            let extent = self.dims()[axis];
            let shift = shift.rem_euclid(extent.max(1) as isize) as usize;
            let (low, high) =
                (x.narrow(axis as isize, 0, extent - shift)?, x.narrow(axis as isize, extent - shift, shift)?);
            x = Self::cat(&[&high, &low], axis as isize)?;
        }
        Ok(x)
    }

    /// Coordinate grids of vectors: result `i` varies along dimension `i` (`torch.meshgrid`, `"ij"`).
    pub fn meshgrid(vectors: &[&Self]) -> Result<Vec<Self>> {
        if let Some(t) = vectors.iter().find(|t| t.rank() > 1) {
            return Err(t.needs("meshgrid", "at most one dimension"));
        }
        let dims: Vec<_> = vectors.iter().map(|t| t.elements()).collect();
        let grid = |(axis, t): (usize, &&Self)| {
            let mut column = vec![1; dims.len() - axis];
            column[0] = dims[axis];
            t.reshape(&column)?.expand(&dims)
        };
        vectors.iter().enumerate().map(grid).collect()
    }

    /// `source`, broadcast, into the part of this tensor that `layout` describes. The part's shape and dtypes must fit.
    pub(crate) fn write(&mut self, layout: crate::Layout, source: &Self) -> Result<()> {
        let (device, source) = (self.device.clone(), source.expand(layout.dims())?);
        let out = self.as_mut()?;
        device.copy(source.as_ref(), TensorMut { layout, ..out })
    }

    /// An operand as a tensor of this dtype on this device; a tensor of another is an error.
    pub(super) fn operand(&self, op: &'static str, operand: Operand) -> Result<Self> {
        let tensor = match operand {
            Operand::Tensor(tensor) => tensor.clone(),
            Operand::Scalar(value) => Self::scalar(value, self.dtype, &self.device)?,
        };
        self.same_device(op, &tensor)?;
        if tensor.dtype != self.dtype {
            let (got, needed) = (tensor.dtype, self.dtype);
            return Err(TensorOpError::DType { op, what: "source", got, needed }.into());
        }
        Ok(tensor)
    }
}
