//! Strided copies.

use super::operand::same_shape;
use crate::backend::{TensorMut, TensorRef};
use crate::{Layout, Result, TensorOpError};

pub(super) fn copy(source: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "copy";
    same_shape(OP, "source", &source.layout, &out.layout)?;
    if source.dtype != out.dtype {
        let (got, needed) = (source.dtype, out.dtype);
        return Err(TensorOpError::DType { op: OP, what: "source", got, needed }.into());
    }
    let from = source.storage.cpu(OP, source.dtype)?.bytes();
    let (from_layout, to_layout) = (source.layout, out.layout);
    let (block, size) = source.dtype.block();
    let whole = from_layout.is_contiguous() && to_layout.is_contiguous();
    if block > 1 && !whole {
        return Err(TensorOpError::NotContiguous { op: OP, what: "packed tensor" }.into());
    }
    let to = out.storage.cpu_mut(OP, out.dtype)?.bytes_mut()?;
    if whole {
        let (from_start, to_start) = (from_layout.offset() / block * size, to_layout.offset() / block * size);
        let shape = from_layout.shape();
        let len = shape.elements() / shape.last().max(1) * source.dtype.row_bytes(shape.last());
        to[to_start..to_start + len].copy_from_slice(&from[from_start..from_start + len]);
        return Ok(());
    }
    // Rows that are contiguous on both sides move as one piece.
    let last = from_layout.shape().rank() - 1;
    let unit = |l: &Layout| l.strides()[last] == 1 && l.dims()[last] > 0;
    let run = if unit(&from_layout) && unit(&to_layout) { from_layout.dims()[last] } else { 1 };
    let starts = |l: Layout| if run > 1 { l.narrow(last, 0, 1) } else { Ok(l) };
    for (i, o) in starts(from_layout)?.indices().zip(starts(to_layout)?.indices()) {
        to[o * size..(o + run) * size].copy_from_slice(&from[i * size..(i + run) * size]);
    }
    Ok(())
}
