//! Operands of the CPU's primitives: host memory of the right type and shape.

use crate::backend::{TensorMut, TensorRef};
use crate::dtype::Element;
use crate::{BitNetDType, BitNetError, Layout, Result, TensorOpError};

pub(super) fn unsupported(op: &'static str, dtype: BitNetDType) -> BitNetError {
    BitNetError::Unsupported { op, dtype, device: "cpu".into() }
}

/// The elements of `t` and their layout, of the one dtype the operation takes.
pub(super) fn input<'a, T: Element>(op: &'static str, t: &TensorRef<'a>) -> Result<&'a [T]> {
    if t.dtype != T::DTYPE {
        return Err(unsupported(op, t.dtype));
    }
    t.storage.cpu(op, t.dtype)?.elements()
}

pub(super) fn output<'a, T: Element>(op: &'static str, t: TensorMut<'a>) -> Result<(&'a mut [T], Layout)> {
    if t.dtype != T::DTYPE {
        return Err(unsupported(op, t.dtype));
    }
    Ok((t.storage.cpu_mut(op, t.dtype)?.elements_mut()?, t.layout))
}

pub(super) fn same_shape(op: &'static str, what: &'static str, got: &Layout, out: &Layout) -> Result<()> {
    if got.dims() != out.dims() {
        return Err(TensorOpError::Shape { op, what, got: *got.shape(), needed: out.shape().to_string() }.into());
    }
    Ok(())
}
