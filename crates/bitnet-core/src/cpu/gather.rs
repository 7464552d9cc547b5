//! Reading by index.

use super::copy::copy;
use super::operand::{same_shape, unsupported};
use crate::BitNetDType::{I64, U32};
use crate::backend::{TensorMut, TensorRef};
use crate::{BitNetError, Layout, Result, TensorOpError};

/// An index as the user gave it: checked against the extent where it is used.
pub(super) fn indices<'a>(op: &'static str, t: &TensorRef<'a>) -> Result<Box<dyn Fn(usize) -> i64 + 'a>> {
    let storage = t.storage.cpu(op, t.dtype)?;
    Ok(match t.dtype {
        I64 => {
            let values = storage.elements::<i64>()?;
            Box::new(move |i| values[i])
        }
        U32 => {
            let values = storage.elements::<u32>()?;
            Box::new(move |i| i64::from(values[i]))
        }
        other => return Err(unsupported(op, other)),
    })
}

/// The error of an index that is negative or not below the extent of `axis`.
pub(super) fn out_of_range(op: &'static str, index: i64, axis: usize, layout: &Layout) -> BitNetError {
    TensorOpError::IndexOutOfRange { op, index, axis, shape: *layout.shape() }.into()
}

pub(super) fn gather(source: TensorRef, axis: usize, index: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "gather";
    same_shape(OP, "indices", &index.layout, &out.layout)?;
    let extent = *source.layout.dims().get(axis).ok_or_else(|| out_of_range(OP, axis as i64, axis, &source.layout))?;
    let at = indices(OP, &index)?;
    // Where all dimensions behind `axis` share an index, whole rows are copied.
    let rank = out.layout.shape().rank();
    let shared = (axis + 1..rank).all(|d| index.layout.strides()[d] == 0 || index.layout.dims()[d] == 1)
        && source.layout.dims()[axis + 1..] == out.layout.dims()[axis + 1..];
    if shared && axis == 0 {
        for t in 0..out.layout.dims()[0] {
            let row = at(index.layout.offset().wrapping_add_signed(index.layout.strides()[0] * t as isize));
            if row < 0 || row as usize >= extent {
                return Err(out_of_range(OP, row, axis, &source.layout));
            }
            let from = TensorRef { layout: source.layout.narrow(0, row as usize, 1)?, ..source };
            copy(
                from,
                TensorMut { layout: out.layout.narrow(0, t, 1)?, storage: &mut *out.storage, dtype: out.dtype },
            )?;
        }
        return Ok(());
    }
    Err(unsupported(OP, source.dtype))
}
