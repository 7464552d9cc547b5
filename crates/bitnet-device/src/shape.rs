//! Shapes, stored inline so that a view allocates nothing.

use crate::error::{Result, TensorOpError};
use std::fmt;

/// Maximum number of dimensions of a tensor.
pub const MAX_DIMS: usize = 8;

/// The extent that follows from the others, in `reshape` and similar methods: PyTorch's
/// -1.
pub const INFER: usize = usize::MAX;

/// Extents of a tensor, outermost first; at most [`MAX_DIMS`].
#[derive(Clone, Copy, Eq)]
pub struct TensorShape {
    pub(crate) dims: [usize; MAX_DIMS],
    pub(crate) rank: u8,
}

impl TensorShape {
    /// A shape of the given extents; an error beyond [`MAX_DIMS`] dimensions or when the product overflows.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.len() > MAX_DIMS {
            return Err(TensorOpError::TooManyDims { max: MAX_DIMS, got: dims.len() }.into());
        }
        let mut shape = Self { dims: [1; MAX_DIMS], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        // Zero extents do not prevent overflow: the product of the others is still a stride.
        let product = dims.iter().filter(|&&d| d > 0).try_fold(1usize, |n, &d| n.checked_mul(d));
        if product.is_none_or(|n| n > isize::MAX as usize / 8) {
            return Err(TensorOpError::TooLarge(shape).into());
        }
        Ok(shape)
    }

    /// A shape of `elements` elements; at most one extent is [`INFER`].
    pub fn inferred(op: &'static str, dims: &[usize], elements: usize) -> Result<Self> {
        let Some(axis) = dims.iter().position(|&d| d == INFER) else { return Self::new(dims) };
        let mut shape = Self::new(&dims.iter().map(|&d| if d == INFER { 1 } else { d }).collect::<Vec<_>>())?;
        let rest = shape.elements();
        let one = dims.iter().filter(|&&d| d == INFER).count() == 1;
        if !one || rest == 0 || !elements.is_multiple_of(rest) {
            let message = {
                let dims: Vec<_> = dims.iter().map(|&d| if d == INFER { "?".into() } else { d.to_string() }).collect();
                format!("[{}] cannot be inferred from {elements} elements: give every extent", dims.join(", "))
            };
            return Err(TensorOpError::Argument { op, message }.into());
        }
        shape.dims[axis] = elements / rest;
        Ok(shape)
    }

    /// Extents, outermost first.
    #[inline]
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }

    /// Number of dimensions.
    #[inline]
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The dimension that `axis` names, negative from the end.
    #[inline]
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

impl PartialEq for TensorShape {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        same_dims(self.dims(), other.dims())
    }
}

impl std::hash::Hash for TensorShape {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.dims().hash(state);
    }
}

/// Whether extents are equal: a loop, which for so few is faster than the call that `==` makes.
#[inline]
pub(crate) fn same_dims(a: &[usize], b: &[usize]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b)
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
