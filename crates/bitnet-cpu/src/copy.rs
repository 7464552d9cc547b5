//! Strided copies.

use super::operand::map;
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::{Result, TensorOpError};
use bitnet_kernels::ThreadPool;

pub(super) fn copy(threads: &ThreadPool, source: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "copy";
    if source.dtype.is_packed() {
        return copy_packed(source, out);
    }
    map(OP, threads, &[source], out, &|x, out| out.copy_from_slice(x[0]))
}

/// Rows of a packed type have no strides: whole tensors only.
fn copy_packed(source: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "copy";
    if !source.layout.is_contiguous() || !out.layout.is_contiguous() {
        return Err(TensorOpError::NotContiguous { op: OP, what: "packed tensor" }.into());
    }
    let (block, size) = source.dtype.block();
    let (from, to) = (source.layout.offset() / block * size, out.layout.offset() / block * size);
    let shape = source.layout.shape();
    let len = shape.elements() / shape.last().max(1) * source.dtype.row_bytes(shape.last());
    let bytes = source.storage.cpu(OP, source.dtype)?.bytes();
    let target = out.storage.cpu_mut(OP, out.dtype)?.bytes_mut()?;
    target[to..to + len].copy_from_slice(&bytes[from..from + len]);
    Ok(())
}
