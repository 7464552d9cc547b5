//! Shapes and strided layouts, held inline so that a view allocates nothing.

use crate::error::{Result, TensorOpError};
use std::fmt;

/// Most dimensions a tensor can have.
pub const MAX_DIMS: usize = 8;

/// Extents of a tensor, outermost first; at most [`MAX_DIMS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorShape {
    dims: [usize; MAX_DIMS],
    rank: u8,
}

impl TensorShape {
    /// A shape of the given extents; an error beyond [`MAX_DIMS`] dimensions or when the product overflows.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.len() > MAX_DIMS {
            return Err(TensorOpError::TooManyDims { max: MAX_DIMS, got: dims.len() }.into());
        }
        let mut shape = Self { dims: [1; MAX_DIMS], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        // Extents of zero do not excuse the others: a stride could still overflow.
        let product = dims.iter().filter(|&&d| d > 0).try_fold(1usize, |n, &d| n.checked_mul(d));
        if product.is_none_or(|n| n > isize::MAX as usize / 8) {
            return Err(TensorOpError::TooLarge(shape).into());
        }
        Ok(shape)
    }

    /// Extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The dimension that `axis` names, negative from the end.
    pub fn axis(&self, op: &'static str, axis: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        let from_start = if axis < 0 { axis + rank } else { axis };
        if !(0..rank).contains(&from_start) {
            return Err(TensorOpError::NoAxis { op, axis, shape: *self }.into());
        }
        Ok(from_start as usize)
    }

    /// Extent of the last dimension; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }
}

impl fmt::Display for TensorShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for TensorShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the elements of a tensor lie in its storage: shape, stride of each dimension and offset, all in elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    shape: TensorShape,
    strides: [isize; MAX_DIMS],
    offset: usize,
}

impl Layout {
    /// Row-major elements without gaps, from the start of the storage.
    pub fn contiguous(shape: TensorShape) -> Self {
        let mut strides = [0; MAX_DIMS];
        let mut step = 1;
        for axis in (0..shape.rank()).rev() {
            strides[axis] = step as isize;
            step *= shape.dims()[axis].max(1);
        }
        Self { shape, strides, offset: 0 }
    }

    /// Extents.
    pub fn shape(&self) -> &TensorShape {
        &self.shape
    }

    /// Extents as a slice.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// Stride of each dimension, in elements.
    pub fn strides(&self) -> &[isize] {
        &self.strides[..self.shape.rank()]
    }

    /// First element, in elements from the start of the storage.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the elements follow each other in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1;
        for (&extent, &stride) in self.dims().iter().zip(self.strides()).rev() {
            if extent != 1 && stride != step {
                return self.shape.elements() == 0;
            }
            step *= extent as isize;
        }
        true
    }

    /// The same elements with other extents; an error unless contiguous and of equal size.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        let shape = TensorShape::new(dims)?;
        if shape.elements() != self.shape.elements() {
            let needed = format!("{} elements for {shape}", shape.elements());
            return Err(TensorOpError::Shape { op: "reshape", what: "tensor", got: self.shape, needed }.into());
        }
        if !self.is_contiguous() {
            return Err(TensorOpError::NotContiguous { op: "reshape", what: "tensor" }.into());
        }
        Ok(Self { offset: self.offset, ..Self::contiguous(shape) })
    }

    /// Elements `start..start + len` of one dimension.
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self> {
        let extent = *self.dims().get(axis).ok_or_else(|| self.out_of_range("narrow", axis, axis))?;
        let end = start.checked_add(len).filter(|&end| end <= extent);
        if end.is_none() {
            return Err(self.out_of_range("narrow", start.saturating_add(len), axis));
        }
        let mut out = *self;
        out.shape.dims[axis] = len;
        out.offset = self.offset.wrapping_add_signed(self.strides[axis] * start as isize);
        Ok(out)
    }

    /// Dimensions `a` and `b` exchanged.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        if let Some(&axis) = [a, b].iter().find(|&&axis| axis >= self.shape.rank()) {
            return Err(self.out_of_range("transpose", axis, axis));
        }
        let mut out = *self;
        out.shape.dims.swap(a, b);
        out.strides.swap(a, b);
        Ok(out)
    }

    /// A dimension of extent 1 before dimension `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        let rank = self.shape.rank();
        if axis > rank {
            return Err(self.out_of_range("unsqueeze", axis, axis));
        }
        let mut dims = [1; MAX_DIMS + 1];
        dims[..axis].copy_from_slice(&self.dims()[..axis]);
        dims[axis + 1..=rank].copy_from_slice(&self.dims()[axis..]);
        let mut out = Self { shape: TensorShape::new(&dims[..=rank])?, ..*self };
        out.strides[axis..].rotate_right(1);
        out.strides[axis] = 0;
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

    fn out_of_range(&self, op: &'static str, index: usize, axis: usize) -> crate::BitNetError {
        TensorOpError::OutOfRange { op, index, axis, shape: self.shape }.into()
    }

    /// Storage index of every element in row-major order.
    pub fn indices(&self) -> Indices {
        Indices { layout: *self, at: [0; MAX_DIMS], next: (self.shape.elements() > 0).then_some(self.offset) }
    }
}

/// Iterator over storage indices, see [`Layout::indices`].
#[derive(Debug, Clone)]
pub struct Indices {
    layout: Layout,
    at: [usize; MAX_DIMS],
    next: Option<usize>,
}

impl Iterator for Indices {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let current = self.next?;
        let mut index = current as isize;
        let mut axis = self.layout.shape.rank();
        self.next = loop {
            if axis == 0 {
                break None;
            }
            axis -= 1;
            self.at[axis] += 1;
            index += self.layout.strides[axis];
            if self.at[axis] < self.layout.shape.dims[axis] {
                break Some(index as usize);
            }
            index -= self.layout.strides[axis] * self.at[axis] as isize;
            self.at[axis] = 0;
        };
        Some(current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dims: &[usize]) -> Layout {
        Layout::contiguous(TensorShape::new(dims).unwrap())
    }

    #[test]
    fn views_visit_the_elements_numpy_visits() {
        let l = layout(&[2, 3]);
        assert_eq!(l.indices().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(l.transpose(0, 1).unwrap().indices().collect::<Vec<_>>(), [0, 3, 1, 4, 2, 5]);
        assert_eq!(l.narrow(1, 1, 2).unwrap().indices().collect::<Vec<_>>(), [1, 2, 4, 5]);
        assert_eq!(layout(&[3]).broadcast_to(&[2, 3]).unwrap().indices().collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(layout(&[]).indices().collect::<Vec<_>>(), [0]);
        assert_eq!(layout(&[2, 0]).indices().count(), 0);
    }

    #[test]
    fn what_cannot_be_viewed_is_an_error() {
        let l = layout(&[2, 3]);
        assert!(l.narrow(1, 2, 2).is_err());
        assert!(l.narrow(1, usize::MAX, 2).is_err());
        assert!(l.transpose(0, 2).is_err());
        assert!(l.reshape(&[7]).is_err());
        assert!(l.transpose(0, 1).unwrap().reshape(&[6]).is_err());
        assert!(l.broadcast_to(&[2, 4]).is_err());
        assert!(TensorShape::new(&[usize::MAX, 2]).is_err());
        assert!(TensorShape::new(&[0, usize::MAX, 2]).is_err());
        assert!(TensorShape::new(&[1; 9]).is_err());
    }

    #[test]
    fn contiguity_ignores_dimensions_of_one() {
        let l = layout(&[4, 1, 3]);
        assert!(l.transpose(0, 1).unwrap().is_contiguous());
        assert!(!l.transpose(0, 2).unwrap().is_contiguous());
        assert!(l.narrow(0, 1, 2).unwrap().is_contiguous());
    }
}
