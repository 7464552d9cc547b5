//! Views: other shapes and strides over the same storage.

use crate::{BitNetTensor, Result, TensorOpError};

impl BitNetTensor {
    /// The same elements with other extents; see [`Layout::reshape`].
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        if self.dtype.is_packed() && dims.last() != self.dims().last() {
            let needed = format!("rows that stay whole: {} is packed along the last dimension", self.dtype);
            return Err(TensorOpError::Shape { op: "reshape", what: "tensor", got: *self.shape(), needed }.into());
        }
        Ok(Self { layout: self.layout.reshape(dims)?, ..self.clone() })
    }

    /// Elements `start..start + len` of dimension `axis`, sharing storage.
    pub fn narrow(&self, axis: isize, start: usize, len: usize) -> Result<Self> {
        self.unpacked("narrow")?;
        Ok(Self { layout: self.layout.narrow(self.shape().axis("narrow", axis)?, start, len)?, ..self.clone() })
    }

    /// Dimensions `a` and `b` exchanged, sharing storage.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Self> {
        self.unpacked("transpose")?;
        let (a, b) = (self.shape().axis("transpose", a)?, self.shape().axis("transpose", b)?);
        Ok(Self { layout: self.layout.transpose(a, b)?, ..self.clone() })
    }
}
