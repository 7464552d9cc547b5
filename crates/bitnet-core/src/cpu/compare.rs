//! Comparisons and choices.

use super::operand::{input, output, same_shape};
use crate::BitNetDType::Bool;
use crate::backend::{CompareOp, TensorMut, TensorRef};
use crate::{Layout, Result, TensorOpError};

pub(super) fn compare(op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    same_shape("compare", "a", &a.layout, &out.layout)?;
    same_shape("compare", "b", &b.layout, &out.layout)?;
    let f: fn(&f32, &f32) -> bool = match op {
        CompareOp::Eq => f32::eq,
        CompareOp::Ne => f32::ne,
        CompareOp::Lt => f32::lt,
        CompareOp::Le => f32::le,
        CompareOp::Gt => f32::gt,
        CompareOp::Ge => f32::ge,
    };
    let (left, right) = (input::<f32>("compare", &a)?, input::<f32>("compare", &b)?);
    let (to, layout) = bools(out)?;
    for ((i, j), o) in a.layout.indices().zip(b.layout.indices()).zip(layout.indices()) {
        to[o] = f(&left[i], &right[j]) as u8;
    }
    Ok(())
}

fn bools<'a>(out: TensorMut<'a>) -> Result<(&'a mut [u8], Layout)> {
    if out.dtype != Bool {
        return Err(TensorOpError::DType { op: "compare", what: "out", got: out.dtype, needed: Bool }.into());
    }
    Ok((out.storage.cpu_mut("compare", Bool)?.bytes_mut()?, out.layout))
}

pub(super) fn select(condition: TensorRef, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    for (what, t) in [("condition", &condition), ("a", &a), ("b", &b)] {
        same_shape("select", what, &t.layout, &out.layout)?;
    }
    if condition.dtype != Bool {
        let got = condition.dtype;
        return Err(TensorOpError::DType { op: "select", what: "condition", got, needed: Bool }.into());
    }
    let choose = condition.storage.cpu("select", Bool)?.bytes();
    let (left, right) = (input::<f32>("select", &a)?, input::<f32>("select", &b)?);
    let (to, layout) = output::<f32>("select", out)?;
    let operands = a.layout.indices().zip(b.layout.indices());
    for ((c, (i, j)), o) in condition.layout.indices().zip(operands).zip(layout.indices()) {
        to[o] = if choose[c] != 0 { left[i] } else { right[j] };
    }
    Ok(())
}
