//! Conversions between element types.

use super::operand::{map, output, unsupported};
use super::wide::{Number, Wide, read, wide};
use bitnet_device::BitNetDType::{self, Ternary2};
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::{Result, TensorOpError};
use bitnet_kernels::ThreadPool;
use bitnet_kernels::dense::strided::CHUNK;

pub(super) fn cast(threads: &ThreadPool, x: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "cast";
    let (from, to) = (x.dtype, out.dtype);
    let Some(source) = wide(from) else { return unpack(x, out) };
    if from == to {
        return map(OP, threads, &[x], out, &|x, out| out.copy_from_slice(x[0]));
    }
    let f = match source {
        Wide::F32 => chunk::<f32>,
        Wide::F64 => chunk::<f64>,
        Wide::I64 => chunk::<i64>,
        Wide::U64 => chunk::<u64>,
    };
    map(OP, threads, &[x], out, &|x, out| f(from, to, x[0], out))
}

fn chunk<N: Number>(from: BitNetDType, to: BitNetDType, x: &[u8], out: &mut [u8]) {
    if to == N::DTYPE {
        return N::load(from, x, bytemuck::cast_slice_mut(out));
    }
    let mut buffer = [N::default(); CHUNK];
    N::store(to, read(from, x, &mut buffer), out);
}

/// Rows of a packed type to f32.
fn unpack(x: TensorRef, out: TensorMut) -> Result<()> {
    let dtype = x.dtype;
    let from = x.storage.cpu("cast", dtype)?.bytes();
    let columns = x.layout.shape().last();
    let (to, layout) = output::<f32>("cast", out)?;
    if !x.layout.is_contiguous() || !layout.is_contiguous() || x.layout.offset() != 0 {
        return Err(TensorOpError::NotContiguous { op: "cast", what: "packed tensor" }.into());
    }
    let to = &mut to[layout.offset()..layout.offset() + layout.shape().elements()];
    for (row, to) in from.chunks_exact(dtype.row_bytes(columns)).zip(to.chunks_exact_mut(columns.max(1))) {
        if dtype == Ternary2 {
            for (i, value) in to.iter_mut().enumerate() {
                *value = (row[i / 4] >> (2 * (i % 4)) & 3) as f32 - 1.;
            }
        } else {
            let weight = dtype.weight_type().ok_or_else(|| unsupported("cast", dtype))?;
            bitnet_kernels::blocks::dequantize_row(weight, row, to);
        }
    }
    Ok(())
}
