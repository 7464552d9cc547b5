//! Conversions between element types.

use super::operand::{output, same_shape, unsupported};
use crate::backend::{TensorMut, TensorRef};
use crate::dtype::Element;
use crate::{BitNetDType, Result, TensorOpError};
use BitNetDType::*;
use half::{bf16, f16};

/// Reads element `index` as f64, which holds every value of the smaller types exactly.
fn reader(dtype: BitNetDType) -> Option<fn(&[u8], usize) -> f64> {
    fn read<T: Element>(bytes: &[u8], index: usize) -> T {
        bytemuck::pod_read_unaligned(&bytes[index * size_of::<T>()..][..size_of::<T>()])
    }
    Some(match dtype {
        F64 => |b, i| read::<f64>(b, i),
        F32 => |b, i| read::<f32>(b, i) as f64,
        F16 => |b, i| read::<f16>(b, i).to_f64(),
        BF16 => |b, i| read::<bf16>(b, i).to_f64(),
        I8 => |b, i| read::<i8>(b, i) as f64,
        I16 => |b, i| read::<i16>(b, i) as f64,
        I32 => |b, i| read::<i32>(b, i) as f64,
        U8 => |b, i| b[i] as f64,
        U16 => |b, i| read::<u16>(b, i) as f64,
        U32 => |b, i| read::<u32>(b, i) as f64,
        Bool => |b, i| (b[i] != 0) as u8 as f64,
        _ => return None,
    })
}

/// Writes element `index`; floats are rounded to the nearest, integers truncated and saturated as Rust's `as`.
fn writer(dtype: BitNetDType) -> Option<fn(&mut [u8], usize, f64)> {
    fn write<T: Element>(bytes: &mut [u8], index: usize, value: T) {
        bytes[index * size_of::<T>()..][..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
    }
    Some(match dtype {
        F64 => |b, i, v| write(b, i, v),
        F32 => |b, i, v| write(b, i, v as f32),
        F16 => |b, i, v| write(b, i, f16::from_f64(v)),
        BF16 => |b, i, v| write(b, i, bf16::from_f64(v)),
        I8 => |b, i, v| write(b, i, v as i8),
        I16 => |b, i, v| write(b, i, v as i16),
        I32 => |b, i, v| write(b, i, v as i32),
        U8 => |b, i, v| b[i] = v as u8,
        U16 => |b, i, v| write(b, i, v as u16),
        U32 => |b, i, v| write(b, i, v as u32),
        Bool => |b, i, v| b[i] = (v != 0.) as u8,
        _ => return None,
    })
}

pub(super) fn cast(x: TensorRef, out: TensorMut) -> Result<()> {
    same_shape("cast", "x", &x.layout, &out.layout)?;
    let from = x.storage.cpu("cast", x.dtype)?.bytes();
    if x.dtype.is_packed() {
        return unpack(x, from, out);
    }
    let read = reader(x.dtype).ok_or_else(|| unsupported("cast", x.dtype))?;
    let write = writer(out.dtype).ok_or_else(|| unsupported("cast", out.dtype))?;
    let layout = out.layout;
    let to = out.storage.cpu_mut("cast", out.dtype)?.bytes_mut()?;
    for (i, o) in x.layout.indices().zip(layout.indices()) {
        write(to, o, read(from, i));
    }
    Ok(())
}

/// Rows of a packed type to f32.
fn unpack(x: TensorRef, from: &[u8], out: TensorMut) -> Result<()> {
    let dtype = x.dtype;
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
