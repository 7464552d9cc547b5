//! Strided layouts: the positions of a tensor's elements in its storage.

mod views;

use crate::{MAX_DIMS, Result, TensorShape};

/// Positions of a tensor's elements in its storage: shape, stride of each dimension and offset, all in elements.
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

    /// A layout of these strides; all elements must be inside the storage.
    pub fn strided(dims: &[usize], strides: &[isize], offset: usize) -> Result<Self> {
        let mut out = Self { shape: TensorShape::new(dims)?, strides: [0; MAX_DIMS], offset };
        out.strides[..strides.len()].copy_from_slice(strides);
        Ok(out)
    }

    /// The first `rank` dimensions, at index 0 of the others.
    pub fn head(&self, rank: usize) -> Result<Self> {
        Self::strided(&self.dims()[..rank], &self.strides()[..rank], self.offset)
    }

    /// The dimensions from `first` on, at index 0 of the others.
    pub fn tail(&self, first: usize) -> Result<Self> {
        Self::strided(&self.dims()[first..], &self.strides()[first..], self.offset)
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

    /// [`Layout::indices`] from element number `start` on.
    pub fn indices_from(&self, start: usize) -> Indices {
        let mut indices = self.indices();
        if indices.next.is_some() {
            let (mut place, mut rest) = (self.offset, start);
            for axis in (0..self.shape.rank()).rev() {
                let extent = self.shape.dims[axis];
                indices.at[axis] = rest % extent;
                place = place.wrapping_add_signed(self.strides[axis] * indices.at[axis] as isize);
                rest /= extent;
            }
            indices.next = (rest == 0).then_some(place);
        }
        indices
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
