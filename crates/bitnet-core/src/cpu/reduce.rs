//! Reductions over one dimension.

use super::operand::{input, output, same_shape, unsupported};
use crate::backend::{ReduceOp, TensorMut, TensorRef};
use crate::{Result, TensorOpError};

pub(super) fn reduce(op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
    let one = x.layout.narrow(axis, 0, 1)?;
    let (extent, stride) = (x.layout.dims()[axis], x.layout.strides()[axis]);
    same_shape("reduce", "x with the reduced extent 1", &one, &out.layout)?;
    if extent == 0 && op != ReduceOp::Sum {
        let needed = "at least one element to reduce".into();
        return Err(TensorOpError::Shape { op: "reduce", what: "x", got: *x.layout.shape(), needed }.into());
    }
    let from = input::<f32>("reduce", &x)?;
    let (to, layout) = output::<f32>("reduce", out)?;
    for (i, o) in one.indices().zip(layout.indices()) {
        let values = (0..extent).map(|k| from[i.wrapping_add_signed(stride * k as isize)]);
        to[o] = match op {
            ReduceOp::Sum => values.map(f64::from).sum::<f64>() as f32,
            ReduceOp::Max => values.fold(f32::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b }),
            ReduceOp::Min => values.fold(f32::INFINITY, |a, b| if a.is_nan() || a < b { a } else { b }),
            _ => return Err(unsupported("reduce", x.dtype)),
        };
    }
    Ok(())
}
