//! Operands of the CPU's primitives: checked host memory for the strided engine.

use bitnet_device::Element;
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::{BitNetDType, BitNetError, Layout, Result, TensorOpError};
use bitnet_kernels::ThreadPool;
use bitnet_kernels::dense::strided::{self, Operand, OperandMut};

pub(super) fn unsupported(op: &'static str, dtype: BitNetDType) -> BitNetError {
    BitNetError::Unsupported { op, dtype, device: "cpu".into() }
}

/// The elements of `t`, which must have the type `T`, and their layout.
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

pub(super) fn same_dtype(op: &'static str, what: &'static str, got: BitNetDType, needed: BitNetDType) -> Result<()> {
    if got != needed {
        return Err(TensorOpError::DType { op, what, got, needed }.into());
    }
    Ok(())
}

/// Runs `f` over chunks of `inputs` and `out`, all of `out`'s shape and of unpacked dtypes; see [`strided::map`].
pub(super) fn map(
    op: &'static str,
    threads: &ThreadPool,
    inputs: &[TensorRef],
    out: TensorMut,
    f: strided::Map,
) -> Result<()> {
    walk(op, threads, inputs, out, strided::map, f)
}

/// As [`map`]; the result of `f` holds the present elements at first.
pub(super) fn update(
    op: &'static str,
    threads: &ThreadPool,
    inputs: &[TensorRef],
    out: TensorMut,
    f: strided::Map,
) -> Result<()> {
    walk(op, threads, inputs, out, strided::update, f)
}

type Walk = fn(&ThreadPool, &[usize], &[Operand], OperandMut, strided::Map);

fn walk(
    op: &'static str,
    threads: &ThreadPool,
    inputs: &[TensorRef],
    out: TensorMut,
    walk: Walk,
    f: strided::Map,
) -> Result<()> {
    const NONE: Operand = Operand { bytes: &[], size: 1, offset: 0, strides: &[] };
    let mut operands = [NONE; 3];
    for (operand, x) in operands.iter_mut().zip(inputs) {
        same_shape(op, "an operand", &x.layout, &out.layout)?;
        if x.dtype.is_packed() {
            return Err(unsupported(op, x.dtype));
        }
        let bytes = x.storage.cpu(op, x.dtype)?.bytes();
        *operand = Operand { bytes, size: x.dtype.size(), offset: x.layout.offset(), strides: x.layout.strides() };
    }
    if out.dtype.is_packed() {
        return Err(unsupported(op, out.dtype));
    }
    let layout = out.layout;
    let bytes = out.storage.cpu_mut(op, out.dtype)?.bytes_mut()?;
    let target = OperandMut { bytes, size: out.dtype.size(), offset: layout.offset(), strides: layout.strides() };
    walk(threads, layout.dims(), &operands[..inputs.len()], target, f);
    Ok(())
}
