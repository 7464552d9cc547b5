//! Views: other extents and strides over the same storage, without copies.

use super::Layout;
use crate::{BitNetError, MAX_DIMS, Result, TensorOpError, TensorShape};

impl Layout {
    /// The same elements with other extents; an error if the sizes differ or a copy would be needed.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        let shape = TensorShape::new(dims)?;
        if shape.elements() != self.shape.elements() {
            let needed = format!("{} elements for {shape}", shape.elements());
            return Err(TensorOpError::Shape { op: "reshape", what: "tensor", got: self.shape, needed }.into());
        }
        if self.is_contiguous() {
            return Ok(Self { offset: self.offset, ..Self::contiguous(shape) });
        }
        // Adjacent dimensions with one common stride merged, outermost first, as (elements, stride).
        let mut runs = [(1, 0); MAX_DIMS + 1];
        let mut count = 0;
        for (&extent, &stride) in self.dims().iter().zip(self.strides()).filter(|(extent, _)| **extent != 1) {
            if count > 0 && runs[count].1 == stride * extent as isize {
                runs[count] = (runs[count].0 * extent, stride);
            } else {
                count += 1;
                runs[count] = (extent, stride);
            }
        }
        let mut out = Self { shape, strides: [0; MAX_DIMS], offset: self.offset };
        let (mut left, mut step) = (1, 0);
        for axis in (0..shape.rank()).rev() {
            let extent = dims[axis];
            if extent != 1 && left == 1 {
                (left, step) = runs[count];
                count -= 1;
            }
            if left % extent != 0 {
                return Err(TensorOpError::NotContiguous { op: "reshape", what: "tensor" }.into());
            }
            out.strides[axis] = step;
            step *= extent as isize;
            left /= extent;
        }
        Ok(out)
    }

    /// Elements `start..start + len` of one dimension.
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self> {
        let extent = self.extent("narrow", axis)?;
        if start.checked_add(len).is_none_or(|end| end > extent) {
            return Err(self.out_of_range("narrow", start.saturating_add(len), axis));
        }
        let mut out = *self;
        out.shape.dims[axis] = len;
        Ok(out.moved(start, self.strides[axis]))
    }

    /// Elements `start..end` of one dimension in steps of `step`, by Python's rules: negative positions count from the
    /// end, positions outside are cut off, a negative step goes backwards.
    pub fn slice(&self, axis: usize, start: Option<isize>, end: Option<isize>, step: isize) -> Result<Self> {
        let extent = self.extent("slice", axis)? as isize;
        if step == 0 {
            return Err(argument("slice", "the step is zero: take a positive or a negative one".into()));
        }
        let (low, high) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
        let place = |i: isize| if i < 0 { i.saturating_add(extent) } else { i }.clamp(low, high);
        let (first, last) = if step > 0 { (low, high) } else { (high, low) };
        let (start, end) = (start.map_or(first, place), end.map_or(last, place));
        let span = if step > 0 { end - start } else { start - end };
        let mut out = *self;
        out.shape.dims[axis] = (span.max(0) as usize).div_ceil(step.unsigned_abs());
        // A step longer than the dimension leaves one element, and the product might overflow.
        if out.shape.dims[axis] > 1 {
            out.strides[axis] *= step;
        }
        Ok(out.moved(start.max(0) as usize, self.strides[axis]))
    }

    /// Element `index` of one dimension, which is removed.
    pub fn select(&self, axis: usize, index: usize) -> Result<Self> {
        if index >= self.extent("select", axis)? {
            return Err(self.out_of_range("select", index, axis));
        }
        self.narrow(axis, index, 1)?.squeeze(axis)
    }

    /// Without dimension `axis`, which must have extent 1.
    pub fn squeeze(&self, axis: usize) -> Result<Self> {
        if self.extent("squeeze", axis)? != 1 {
            let needed = format!("extent 1 in dimension {axis}");
            return Err(TensorOpError::Shape { op: "squeeze", what: "tensor", got: self.shape, needed }.into());
        }
        let mut out = *self;
        out.shape.dims[axis..].rotate_left(1);
        out.shape.rank -= 1;
        out.strides[axis..].rotate_left(1);
        out.strides[MAX_DIMS - 1] = 0;
        Ok(out)
    }

    /// A dimension of extent 1 before dimension `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        let rank = self.shape.rank();
        if axis > rank {
            return Err(self.no_axis("unsqueeze", axis));
        }
        if rank == MAX_DIMS {
            return Err(TensorOpError::TooManyDims { max: MAX_DIMS, got: rank + 1 }.into());
        }
        let mut out = *self;
        out.shape.rank += 1;
        out.shape.dims[axis..].rotate_right(1);
        out.shape.dims[axis] = 1;
        out.strides[axis..].rotate_right(1);
        out.strides[axis] = 0;
        Ok(out)
    }

    /// Dimensions `a` and `b` exchanged.
    #[inline]
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        self.extent("transpose", a)?;
        self.extent("transpose", b)?;
        Ok(self.swapped(a, b))
    }

    /// [`transpose`](Self::transpose) of dimensions that are there.
    #[inline(never)] // so that it is written once, where the caller wants it
    pub fn swapped(&self, a: usize, b: usize) -> Self {
        let mut out = *self;
        (out.shape.dims[a], out.shape.dims[b]) = (self.shape.dims[b], self.shape.dims[a]);
        (out.strides[a], out.strides[b]) = (self.strides[b], self.strides[a]);
        out
    }

    /// Dimension `axes[i]` as dimension `i`; every dimension once.
    pub fn permute(&self, axes: &[usize]) -> Result<Self> {
        let rank = self.shape.rank();
        let mut seen = [false; MAX_DIMS];
        let once = axes.iter().all(|&axis| axis < rank && !std::mem::replace(&mut seen[axis], true));
        if axes.len() != rank || !once {
            return Err(argument("permute", format!("{axes:?} must name each dimension of {} once", self.shape)));
        }
        let mut out = *self;
        for (to, &from) in axes.iter().enumerate() {
            out.shape.dims[to] = self.shape.dims[from];
            out.strides[to] = self.strides[from];
        }
        Ok(out)
    }

    /// Dimension `from` moved to position `to`, the others in their order.
    pub fn movedim(&self, from: usize, to: usize) -> Result<Self> {
        self.extent("movedim", from)?;
        self.extent("movedim", to)?;
        let mut out = *self;
        if from < to {
            out.shape.dims[from..=to].rotate_left(1);
            out.strides[from..=to].rotate_left(1);
        } else {
            out.shape.dims[to..=from].rotate_right(1);
            out.strides[to..=from].rotate_right(1);
        }
        Ok(out)
    }

    /// Broadcast to `dims` by NumPy's rule: missing leading dimensions and extents of 1 repeat with stride 0.
    pub fn broadcast_to(&self, dims: &[usize]) -> Result<Self> {
        let shape = TensorShape::new(dims)?;
        let lead = shape.rank().checked_sub(self.shape.rank());
        let mut out = Self { shape, strides: [0; MAX_DIMS], offset: self.offset };
        let fits = lead.is_some_and(|lead| {
            self.dims().iter().zip(self.strides()).enumerate().all(|(axis, (&extent, &stride))| {
                out.strides[lead + axis] = if extent == 1 { 0 } else { stride };
                extent == 1 || extent == dims[lead + axis]
            })
        });
        if !fits {
            let needed = format!("one that broadcasts to {shape}");
            return Err(TensorOpError::Shape { op: "broadcast", what: "tensor", got: self.shape, needed }.into());
        }
        Ok(out)
    }

    /// Windows of `size` elements every `step` elements of dimension `axis`, as a new last dimension. Windows overlap
    /// where `step` is smaller than `size`; what does not fill a window is left out.
    pub fn unfold(&self, axis: usize, size: usize, step: usize) -> Result<Self> {
        let extent = self.extent("unfold", axis)?;
        if step == 0 || size > extent {
            let message = format!("a window of {size} every {step} does not fit dimension {axis} of {}", self.shape);
            return Err(argument("unfold", message));
        }
        let mut out = self.unsqueeze(self.shape.rank())?;
        let last = self.shape.rank();
        out.shape.dims[axis] = (extent - size) / step + 1;
        out.shape.dims[last] = size;
        out.strides[last] = self.strides[axis];
        if out.shape.dims[axis] > 1 {
            out.strides[axis] *= step as isize;
        }
        out.shape = TensorShape::new(out.dims())?;
        Ok(out)
    }

    /// The diagonal of dimensions `a` and `b`, `offset` columns to the right, as a new last dimension in their place.
    pub fn diagonal(&self, offset: isize, a: usize, b: usize) -> Result<Self> {
        let (rows, columns) = (self.extent("diagonal", a)?, self.extent("diagonal", b)?);
        if a == b {
            return Err(argument("diagonal", format!("dimension {a} twice: name two different ones")));
        }
        let (down, right) = if offset < 0 { (offset.unsigned_abs(), 0) } else { (0, offset as usize) };
        let len = rows.saturating_sub(down).min(columns.saturating_sub(right));
        let mut out = *self;
        out.shape.dims[a] = len;
        out.strides[a] += self.strides[b];
        out.shape.dims[b] = 1;
        let (steps, stride) = if offset < 0 { (down, self.strides[a]) } else { (right, self.strides[b]) };
        let out = out.moved(steps, stride).squeeze(b)?;
        out.movedim(if a > b { a - 1 } else { a }, self.shape.rank() - 2)
    }

    /// Dimension `axis` reversed.
    pub fn flip(&self, axis: usize) -> Result<Self> {
        self.slice(axis, None, None, -1)
    }

    /// Whether two elements may share a position, as after a broadcast or in overlapping windows; writes through such a
    /// layout are ambiguous. Never wrongly `false`.
    pub fn overlaps(&self) -> bool {
        if self.is_contiguous() {
            return false;
        }
        let mut dims = [(0, 1); MAX_DIMS];
        let rank = self.shape.rank();
        for (axis, (&extent, &stride)) in self.dims().iter().zip(self.strides()).enumerate() {
            dims[axis] = if extent == 1 { (0, 1) } else { (stride.unsigned_abs(), extent) };
        }
        dims[..rank].sort_unstable();
        // Every stride must exceed the extent covered by the smaller strides.
        let mut reach = 0;
        self.shape.elements() > 0
            && dims[..rank].iter().filter(|(_, extent)| *extent > 1).any(|&(stride, extent)| {
                let short = stride <= reach;
                reach += stride * (extent - 1);
                short
            })
    }

    /// `steps` strides further; a layout without elements stays where it is, so that its offset is inside the storage.
    fn moved(mut self, steps: usize, stride: isize) -> Self {
        if self.shape.elements() > 0 {
            self.offset = self.offset.wrapping_add_signed(stride * steps as isize);
        }
        self
    }

    fn extent(&self, op: &'static str, axis: usize) -> Result<usize> {
        self.dims().get(axis).copied().ok_or_else(|| self.no_axis(op, axis))
    }

    fn no_axis(&self, op: &'static str, axis: usize) -> BitNetError {
        TensorOpError::NoAxis { op, axis: axis as isize, shape: self.shape }.into()
    }

    fn out_of_range(&self, op: &'static str, index: usize, axis: usize) -> BitNetError {
        TensorOpError::OutOfRange { op, index, axis, shape: self.shape }.into()
    }
}

fn argument(op: &'static str, message: String) -> BitNetError {
    TensorOpError::Argument { op, message }.into()
}
