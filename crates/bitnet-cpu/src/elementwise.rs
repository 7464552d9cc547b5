//! Functions of one and two operands, element by element.

use super::operand::{map, unsupported, update};
use super::wide::{Number, Wide, read, wide, write};
use super::{CpuBackend, float, integer};
use bitnet_device::backend::{BinaryOp, TensorMut, TensorRef, UnaryOp};
use bitnet_device::{BitNetDType, Result, TensorOpError};
use bitnet_kernels::ThreadPool;
use bitnet_kernels::dense::strided::CHUNK;
use bitnet_kernels::dense::{DenseKernel, UNARY};

pub(super) fn unary(cpu: &CpuBackend, op: UnaryOp, x: TensorRef, out: TensorMut) -> Result<()> {
    let threads = &cpu.threads;
    if let Some(kernel) = kernel(cpu, op, x.dtype)? {
        return map("unary", threads, &[x], out, &|chunk, out| {
            with_first::<f32>(x.dtype, chunk.first().copied(), out, |x, out| kernel.unary(op, x, out));
        });
    }
    let f = unary_chunk(op, x.dtype)?;
    map("unary", threads, &[x], out, &|x, out| f(op, x.first().copied(), out))
}

pub(super) fn unary_assign(cpu: &CpuBackend, op: UnaryOp, x: TensorMut) -> Result<()> {
    let threads = &cpu.threads;
    let dtype = x.dtype;
    if let Some(kernel) = kernel(cpu, op, dtype)? {
        return update("unary", threads, &[], x, &|_, out| {
            with_first::<f32>(dtype, None, out, |x, out| kernel.unary(op, x, out));
        });
    }
    let f = unary_chunk(op, x.dtype)?;
    update("unary", threads, &[], x, &|_, out| f(op, None, out))
}

pub(super) fn binary(threads: &ThreadPool, op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    let f = binary_chunk(op, a.dtype, &b, out.dtype)?;
    map("binary", threads, &[a, b], out, &|x, out| f(op, Some(x[0]), x[1], out))
}

pub(super) fn binary_assign(threads: &ThreadPool, op: BinaryOp, y: TensorMut, x: TensorRef) -> Result<()> {
    let x = TensorRef { layout: x.layout.broadcast_to(y.layout.dims())?, ..x };
    let f = binary_chunk(op, y.dtype, &x, y.dtype)?;
    update("binary", threads, &[x], y, &|x, out| f(op, None, x[0], out))
}

/// The kernel of a function computed in f32, the same as for contiguous tensors, so that strides do not change results.
fn kernel(cpu: &CpuBackend, op: UnaryOp, dtype: BitNetDType) -> Result<Option<&'static dyn DenseKernel>> {
    let known = wide(dtype) == Some(Wide::F32) && UNARY.contains(&op);
    known.then(|| Ok(cpu.kernels()?.dense)).transpose()
}

/// A function of a chunk, or of the present content of its result.
type UnaryChunk = fn(UnaryOp, Option<&[u8]>, &mut [u8]);
/// A function of two chunks, the first of which may be the present content of its result.
type BinaryChunk = fn(BinaryOp, Option<&[u8]>, &[u8], &mut [u8]);

fn unary_chunk(op: UnaryOp, dtype: BitNetDType) -> Result<UnaryChunk> {
    use BitNetDType::*;
    macro_rules! chunk {
        ($number:ty, $function:path, $dtype:ident) => {
            |op, x, out| with_first::<$number>($dtype, x, out, |x, out| $function(op, x, out))
        };
    }
    let known = if dtype.is_float() { float::has_unary(op) } else { integer::has_unary(op, dtype) };
    if !known {
        return Err(unsupported("unary", dtype));
    }
    Ok(match dtype {
        F64 => chunk!(f64, float::unary_f64, F64),
        F32 => chunk!(f32, float::unary_f32, F32),
        F16 => chunk!(f32, float::unary_f32, F16),
        BF16 => chunk!(f32, float::unary_f32, BF16),
        I64 => chunk!(i64, integer::unary_i64, I64),
        I32 => chunk!(i64, integer::unary_i64, I32),
        I16 => chunk!(i64, integer::unary_i64, I16),
        I8 => chunk!(i64, integer::unary_i64, I8),
        U64 => chunk!(u64, integer::unary_u64, U64),
        U32 => chunk!(i64, integer::unary_i64, U32),
        U16 => chunk!(i64, integer::unary_i64, U16),
        U8 => chunk!(i64, integer::unary_i64, U8),
        Bool => chunk!(i64, integer::unary_bool, Bool),
        _ => return Err(unsupported("unary", dtype)),
    })
}

fn binary_chunk(op: BinaryOp, a: BitNetDType, b: &TensorRef, out: BitNetDType) -> Result<BinaryChunk> {
    use BitNetDType::*;
    /// The right operand is an f32 beside a half.
    macro_rules! number_right {
        ($half:ident) => {
            |op, a, b, out| {
                let b: &[f32] = bytemuck::cast_slice(b);
                with_first::<f32>($half, a, out, |a, out| float::binary_f32(op, a, b, out))
            }
        };
    }
    /// The left one is.
    macro_rules! number_left {
        ($half:ident) => {
            |op, a, b, out| {
                let mut buffer = [0f32; CHUNK];
                let b = read($half, b, &mut buffer);
                match a {
                    Some(a) => write($half, out, |out| float::binary_f32(op, bytemuck::cast_slice(a), b, out)),
                    None => with_first::<f32>($half, None, out, |a, out| float::binary_f32(op, a, b, out)),
                }
            }
        };
    }
    let f: BinaryChunk = match (a, b.dtype, out) {
        (F16, F32, F16) => number_right!(F16),
        (F32, F16, F16) => number_left!(F16),
        (BF16, F32, BF16) => number_right!(BF16),
        (F32, BF16, BF16) => number_left!(BF16),
        _ => return binary_chunk_of_one(op, b),
    };
    if float::has_binary(op) { Ok(f) } else { Err(unsupported("binary", out)) }
}

/// [`binary_chunk`] of operands and a result of one dtype.
fn binary_chunk_of_one(op: BinaryOp, b: &TensorRef) -> Result<BinaryChunk> {
    use BitNetDType::*;
    macro_rules! chunk {
        ($number:ty, $function:path, $dtype:ident) => {
            |op, a, b, out| {
                let mut buffer = [<$number>::default(); CHUNK];
                let b = read($dtype, b, &mut buffer);
                with_first::<$number>($dtype, a, out, |a, out| $function(op, a, b, out))
            }
        };
        // The width decides what a shift does.
        ($dtype:ident, $bits:literal) => {
            |op, a, b, out| {
                let mut buffer = [0i64; CHUNK];
                let b = read($dtype, b, &mut buffer);
                with_first::<i64>($dtype, a, out, |a, out| integer::binary_i64(op, $bits, a, b, out))
            }
        };
    }
    let known = if b.dtype.is_float() { float::has_binary(op) } else { integer::has_binary(op, b.dtype) };
    if !known {
        return Err(unsupported("binary", b.dtype));
    }
    if matches!(op, BinaryOp::FloorDiv | BinaryOp::Remainder) && !b.dtype.is_float() && has_zero(b)? {
        return Err(TensorOpError::DivisionByZero { op: "binary" }.into());
    }
    Ok(match b.dtype {
        F64 => chunk!(f64, float::binary_f64, F64),
        F32 => chunk!(f32, float::binary_f32, F32),
        F16 => chunk!(f32, float::binary_f32, F16),
        BF16 => chunk!(f32, float::binary_f32, BF16),
        I64 => chunk!(I64, 64),
        I32 => chunk!(I32, 32),
        I16 => chunk!(I16, 16),
        I8 => chunk!(I8, 8),
        U64 => chunk!(u64, integer::binary_u64, U64),
        U32 => chunk!(U32, 32),
        U16 => chunk!(U16, 16),
        U8 => chunk!(U8, 8),
        Bool => chunk!(i64, integer::binary_bool, Bool),
        other => return Err(unsupported("binary", other)),
    })
}

/// Runs `f` on a chunk, or on a copy of the present content of its result.
fn with_first<N: Number>(dtype: BitNetDType, x: Option<&[u8]>, out: &mut [u8], f: impl FnOnce(&[N], &mut [N])) {
    let mut buffer = [N::default(); CHUNK];
    match x {
        Some(x) => {
            let x = read(dtype, x, &mut buffer);
            write(dtype, out, |out| f(x, out));
        }
        None => {
            let len = out.len() / dtype.size();
            N::load(dtype, out, &mut buffer[..len]);
            write(dtype, out, |out| f(&buffer[..len], out));
        }
    }
}

/// Whether an integer tensor holds a zero; checked before anything is written.
fn has_zero(x: &TensorRef) -> Result<bool> {
    let bytes = x.storage.cpu("binary", x.dtype)?.bytes();
    let size = x.dtype.size();
    let zero = |i: usize| bytes[i * size..][..size].iter().all(|&b| b == 0);
    // A broadcast element is checked once.
    let mut layout = x.layout;
    for axis in 0..layout.dims().len() {
        if layout.strides()[axis] == 0 && layout.dims()[axis] > 1 {
            layout = layout.narrow(axis, 0, 1)?;
        }
    }
    Ok(wide(x.dtype).is_some_and(|w| matches!(w, Wide::I64 | Wide::U64)) && layout.indices().any(zero))
}
