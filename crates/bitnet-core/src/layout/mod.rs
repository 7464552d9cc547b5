//! Strided layouts: where the elements of a tensor lie in its storage.

mod views;

use crate::{MAX_DIMS, TensorShape};

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
mod tests;
