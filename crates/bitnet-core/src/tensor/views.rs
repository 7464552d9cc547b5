//! Views: other shapes and strides over the same storage. Only `reshape`, `flatten` and `contiguous` may copy, where
//! strides cannot express the result.

use crate::INFER;
use crate::autograd::{derivative, is_recorded};
use crate::profile;
use std::sync::Arc;

use crate::{BitNetTensor, Layout, Result, TensorOpError, TensorShape};

impl BitNetTensor {
    /// The same elements with other extents, of which one may be [`INFER`]. A view where strides can express it, as in
    /// PyTorch, else a copy.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device, INFER};
    /// let x = BitNetTensor::from_slice(&[1f32, 2., 3., 4., 5., 6.], &[2, 3], &Device::cpu())?;
    /// assert_eq!(x.reshape(&[3, INFER])?.dims(), [3, 2]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        match self.reshaped(dims) {
            Err(crate::BitNetError::TensorOp(e)) if matches!(*e, TensorOpError::NotContiguous { .. }) => {
                profile::copies("reshape");
                self.copy()?.in_extents("reshape", dims)
            }
            _ => {
                profile::view("reshape");
                self.in_extents("reshape", dims)
            }
        }
    }

    /// [`reshape`](Self::reshape) that always shares storage; an error where that is not possible.
    pub fn view(&self, dims: &[usize]) -> Result<Self> {
        profile::view("view");
        self.in_extents("view", dims)
    }

    fn in_extents(&self, op: &'static str, dims: &[usize]) -> Result<Self> {
        let shape = *self.reshaped(dims)?.shape();
        self.change_layout(op, move |layout| layout.reshape(shape.dims()))
    }

    fn reshaped(&self, dims: &[usize]) -> Result<Layout> {
        let shape = TensorShape::inferred("reshape", dims, self.shape().elements())?;
        if self.dtype.is_packed() && shape.last() != self.shape().last() {
            let needed = format!("rows that stay whole: {} is packed along the last dimension", self.dtype);
            return Err(TensorOpError::Shape { op: "reshape", what: "tensor", got: *self.shape(), needed }.into());
        }
        self.layout.reshape(shape.dims())
    }

    /// The shape of `other`; see [`reshape`](Self::reshape).
    pub fn reshape_as(&self, other: &Self) -> Result<Self> {
        self.reshape(other.dims())
    }

    /// Without dimension `axis` if it has extent 1, else unchanged.
    pub fn squeeze(&self, axis: isize) -> Result<Self> {
        let Some(axis) = self.axis_of_any("squeeze", axis)? else { return Ok(self.clone()) };
        if self.dims()[axis] != 1 {
            return Ok(self.clone());
        }
        self.whole_rows("squeeze", axis)?;
        self.viewed("squeeze", move |layout| layout.squeeze(axis))
    }

    /// Without the dimensions of extent 1.
    pub fn squeeze_all(&self) -> Result<Self> {
        let dims: Vec<_> = self.dims().iter().copied().filter(|&extent| extent != 1).collect();
        self.view(&dims)
    }

    /// A new dimension of extent 1, `axis` of the result; negative axes count from its end.
    pub fn unsqueeze(&self, axis: isize) -> Result<Self> {
        let rank = self.shape().rank() as isize;
        let place = if axis < 0 { axis + rank + 1 } else { axis };
        if !(0..=rank).contains(&place) {
            return Err(TensorOpError::NoAxis { op: "unsqueeze", axis, shape: *self.shape() }.into());
        }
        if place == rank {
            self.unpacked("unsqueeze")?;
        }
        self.viewed("unsqueeze", move |layout| layout.unsqueeze(place as usize))
    }

    /// Dimension `axes[i]` as dimension `i`; every dimension once.
    pub fn permute(&self, axes: &[isize]) -> Result<Self> {
        self.unpacked("permute")?;
        let axes: Vec<_> = axes.iter().map(|&axis| self.shape().axis("permute", axis)).collect::<Result<_>>()?;
        self.viewed("permute", move |layout| layout.permute(&axes))
    }

    /// Dimensions `a` and `b` exchanged.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Self> {
        self.unpacked("transpose")?;
        match (self.axis_of_any("transpose", a)?, self.axis_of_any("transpose", b)?) {
            (Some(a), Some(b)) if is_recorded(&[self]) => {
                self.viewed("transpose", move |layout| layout.transpose(a, b))
            }
            (Some(a), Some(b)) => {
                profile::view("transpose");
                Ok(self.with_layout(self.layout.swapped(a, b)))
            }
            _ => Ok(self.clone()),
        }
    }

    /// A matrix transposed; vectors and scalars as they are.
    pub fn t(&self) -> Result<Self> {
        match self.shape().rank() {
            0 | 1 => Ok(self.clone()),
            2 => self.transpose(0, 1),
            _ => Err(self.needs("t", "at most 2 dimensions: use transpose(a, b)")),
        }
    }

    /// NumPy's alias of [`transpose`](Self::transpose).
    pub fn swapaxes(&self, a: isize, b: isize) -> Result<Self> {
        self.transpose(a, b)
    }

    /// Dimension `from` moved to position `to`, the others in their order.
    pub fn movedim(&self, from: isize, to: isize) -> Result<Self> {
        self.unpacked("movedim")?;
        let (Some(from), Some(to)) = (self.axis_of_any("movedim", from)?, self.axis_of_any("movedim", to)?) else {
            return Ok(self.clone());
        };
        self.viewed("movedim", move |layout| layout.movedim(from, to))
    }

    /// Elements `start..start + len` of dimension `axis`.
    pub fn narrow(&self, axis: isize, start: usize, len: usize) -> Result<Self> {
        self.unpacked("narrow")?;
        let axis = self.shape().axis("narrow", axis)?;
        self.viewed("narrow", move |layout| layout.narrow(axis, start, len))
    }

    /// `x[start:end:step]` of dimension `axis` by Python's rules: negative positions count from the end, `None` is the
    /// end of that side, positions out of range are clipped, a negative step runs backwards.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let x = BitNetTensor::from_slice(&[0i32, 1, 2, 3, 4], &[5], &Device::cpu())?;
    /// assert_eq!(x.slice(0, None, None, -2)?.to_vec::<i32>()?, [4, 2, 0]);
    /// assert_eq!(x.slice(0, 1, -1, 1)?.to_vec::<i32>()?, [1, 2, 3]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn slice(
        &self,
        axis: isize,
        start: impl Into<Option<isize>>,
        end: impl Into<Option<isize>>,
        step: isize,
    ) -> Result<Self> {
        self.unpacked("slice")?;
        let axis = self.shape().axis("slice", axis)?;
        let (start, end) = (start.into(), end.into());
        self.viewed("slice", move |layout| layout.slice(axis, start, end, step))
    }

    /// Element `index` (negative from the end) of dimension `axis`, which is removed.
    pub fn select(&self, axis: isize, index: isize) -> Result<Self> {
        self.unpacked("select")?;
        let axis = self.shape().axis("select", axis)?;
        let at = if index < 0 { index + self.dims()[axis] as isize } else { index };
        let Ok(at) = usize::try_from(at) else {
            let shape = *self.shape();
            return Err(TensorOpError::IndexOutOfRange { op: "select", index: index as i64, axis, shape }.into());
        };
        self.viewed("select", move |layout| layout.select(axis, at))
    }

    /// Broadcast to `dims`: missing leading dimensions and extents of 1 repeat without a copy; [`INFER`] keeps an
    /// extent.
    pub fn expand(&self, dims: &[usize]) -> Result<Self> {
        self.unpacked("expand")?;
        let lead = dims.len().saturating_sub(self.dims().len());
        let keep = |(axis, &extent): (usize, &usize)| match (extent, axis.checked_sub(lead)) {
            (INFER, Some(axis)) => self.dims()[axis],
            _ => extent,
        };
        let dims: Vec<_> = dims.iter().enumerate().map(keep).collect();
        self.viewed("expand", move |layout| layout.broadcast_to(&dims))
    }

    /// Alias of [`expand`](Self::expand).
    pub fn broadcast_to(&self, dims: &[usize]) -> Result<Self> {
        self.expand(dims)
    }

    /// Pieces of `size` along `axis`; the last may be shorter.
    pub fn split(&self, size: usize, axis: isize) -> Result<Vec<Self>> {
        let extent = self.dims()[self.shape().axis("split", axis)?];
        if size == 0 && extent > 0 {
            return Err(argument("split", "pieces of size 0: take at least 1".into()));
        }
        let count = if extent == 0 { 1 } else { extent.div_ceil(size) };
        self.pieces("split", count, axis, |i| size.min(extent - size * i))
    }

    /// Pieces of the given sizes, which sum to the extent of `axis`.
    pub fn split_sizes(&self, sizes: &[usize], axis: isize) -> Result<Vec<Self>> {
        let extent = self.dims()[self.shape().axis("split_sizes", axis)?];
        if sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(extent) {
            return Err(argument("split_sizes", format!("sizes {sizes:?} must sum to {extent}")));
        }
        self.pieces("split_sizes", sizes.len(), axis, |i| sizes[i])
    }

    /// `count` pieces one behind the other.
    fn pieces(&self, op: &'static str, count: usize, axis: isize, size: impl Fn(usize) -> usize) -> Result<Vec<Self>> {
        let mut out = super::try_with_capacity(op, count)?;
        let mut start = 0;
        for i in 0..count {
            out.push(self.narrow(axis, start, size(i))?);
            start += size(i);
        }
        Ok(out)
    }

    /// At most `n` pieces of equal size along `axis`; the last may be shorter.
    pub fn chunk(&self, n: usize, axis: isize) -> Result<Vec<Self>> {
        let extent = self.dims()[self.shape().axis("chunk", axis)?];
        match (n, extent) {
            (0, _) => Err(argument("chunk", "into 0 pieces: take at least 1".into())),
            // PyTorch gives all the pieces that were asked for, empty as they are.
            (_, 0) => self.pieces("chunk", n, axis, |_| 0),
            _ => self.split(extent.div_ceil(n), axis),
        }
    }

    /// Windows of `size` elements every `step` elements of dimension `axis`, as a new last dimension.
    pub fn unfold(&self, axis: isize, size: usize, step: usize) -> Result<Self> {
        self.unpacked("unfold")?;
        let Some(axis) = self.axis_of_any("unfold", axis)? else {
            // One element is one window.
            return self.view(&[1])?.unfold(0, size, step)?.select(0, 0);
        };
        self.viewed("unfold", move |layout| layout.unfold(axis, size, step))
    }

    /// The diagonal of dimensions `a` and `b`, `offset` columns to the right (negative: rows down), as the last
    /// dimension.
    pub fn diagonal(&self, offset: isize, a: isize, b: isize) -> Result<Self> {
        self.unpacked("diagonal")?;
        let (a, b) = (self.shape().axis("diagonal", a)?, self.shape().axis("diagonal", b)?);
        self.viewed("diagonal", move |layout| layout.diagonal(offset, a, b))
    }

    /// Dimensions `start..=end` merged into one.
    pub fn flatten(&self, start: isize, end: isize) -> Result<Self> {
        let (Some(start), Some(end)) = (self.axis_of_any("flatten", start)?, self.axis_of_any("flatten", end)?) else {
            return self.reshape(&[1]);
        };
        if start > end {
            return Err(argument("flatten", format!("dimension {start} comes after dimension {end}: exchange them")));
        }
        let dims = self.dims();
        let one = dims[start..=end].iter().product();
        self.reshape(&[&dims[..start], &[one], &dims[end + 1..]].concat())
    }

    /// Dimension `axis` split into dimensions of extents `dims`, of which one may be [`INFER`].
    pub fn unflatten(&self, axis: isize, dims: &[usize]) -> Result<Self> {
        let axis = self.shape().axis("unflatten", axis)?;
        let parts = TensorShape::inferred("unflatten", dims, self.dims()[axis])?;
        if parts.elements() != self.dims()[axis] || dims.is_empty() {
            let message = format!("extents {dims:?} do not make {} of dimension {axis}", self.dims()[axis]);
            return Err(argument("unflatten", message));
        }
        self.view(&[&self.dims()[..axis], parts.dims(), &self.dims()[axis + 1..]].concat())
    }

    /// Dimensions `axes` reversed. A view with negative strides as in NumPy (PyTorch copies).
    pub fn flip(&self, axes: &[isize]) -> Result<Self> {
        self.unpacked("flip")?;
        let mut turned = Vec::new();
        let mut seen = [false; crate::MAX_DIMS];
        for &axis in axes {
            let Some(axis) = self.axis_of_any("flip", axis)? else { continue };
            if std::mem::replace(&mut seen[axis], true) {
                return Err(argument("flip", format!("dimension {axis} twice: name each once")));
            }
            turned.push(axis);
        }
        self.viewed("flip", move |layout| turned.iter().try_fold(*layout, |layout, &axis| layout.flip(axis)))
    }

    /// The tensor itself if its elements are in row-major order without gaps, else a copy that is.
    pub fn contiguous(&self) -> Result<Self> {
        if self.is_contiguous() {
            profile::view("contiguous");
            return Ok(self.clone());
        }
        profile::copies("contiguous");
        self.copy()
    }

    /// Whether its elements are in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Whether both are views of the same storage.
    pub fn shares_storage(&self, other: &Self) -> bool {
        std::sync::Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// A view requested by the user, which profiles count: the same storage with the layout that `change` gives.
    pub(super) fn viewed(
        &self,
        op: &'static str,
        change: impl Fn(&Layout) -> Result<Layout> + Send + Sync + 'static,
    ) -> Result<Self> {
        let view = self.change_layout(op, change)?;
        profile::view(op);
        Ok(view)
    }

    fn change_layout(
        &self,
        op: &'static str,
        change: impl Fn(&Layout) -> Result<Layout> + Send + Sync + 'static,
    ) -> Result<Self> {
        let layout = change(&self.layout)?;
        match is_recorded(&[self]) {
            true => derivative::view(op, self, layout, Arc::new(change)),
            false => Ok(self.with_layout(layout)),
        }
    }

    /// The same storage with another layout, which must stay inside it, without gradient history.
    #[inline]
    pub(crate) fn with_layout(&self, layout: Layout) -> Self {
        Self { layout, storage: self.storage.clone(), dtype: self.dtype, device: self.device.clone(), node: None }
    }

    /// The dimension `axis`; `None` for a scalar, which counts as a vector of one element as in PyTorch.
    pub(crate) fn axis_of_any(&self, op: &'static str, axis: isize) -> Result<Option<usize>> {
        if self.shape().rank() == 0 && (axis == 0 || axis == -1) {
            return Ok(None);
        }
        self.shape().axis(op, axis).map(Some)
    }

    /// An error if `axis` cuts through the rows of a packed type.
    fn whole_rows(&self, op: &'static str, axis: usize) -> Result<()> {
        if axis + 1 == self.shape().rank() { self.unpacked(op) } else { Ok(()) }
    }

    pub(crate) fn needs(&self, op: &'static str, needed: &str) -> crate::BitNetError {
        TensorOpError::Shape { op, what: "tensor", got: *self.shape(), needed: needed.into() }.into()
    }
}

pub(crate) fn argument(op: &'static str, message: String) -> crate::BitNetError {
    TensorOpError::Argument { op, message }.into()
}
