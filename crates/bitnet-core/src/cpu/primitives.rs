//! The primitives of the CPU: plain strided loops, right for every layout.

use crate::backend::{BinaryOp, CompareOp, ReduceOp, TensorMut, TensorRef, UnaryOp};
use crate::dtype::Element;
use crate::{BitNetDType, BitNetError, Layout, Result, TensorOpError};
use BitNetDType::*;
use half::{bf16, f16};

fn unsupported(op: &'static str, dtype: BitNetDType) -> BitNetError {
    BitNetError::Unsupported { op, dtype, device: "cpu".into() }
}

/// The elements of `t` and their layout, of the one dtype the operation takes.
fn input<'a, T: Element>(op: &'static str, t: &TensorRef<'a>) -> Result<&'a [T]> {
    if t.dtype != T::DTYPE {
        return Err(unsupported(op, t.dtype));
    }
    t.storage.cpu(op, t.dtype)?.elements()
}

fn output<'a, T: Element>(op: &'static str, t: TensorMut<'a>) -> Result<(&'a mut [T], Layout)> {
    if t.dtype != T::DTYPE {
        return Err(unsupported(op, t.dtype));
    }
    Ok((t.storage.cpu_mut(op, t.dtype)?.elements_mut()?, t.layout))
}

fn same_shape(op: &'static str, what: &'static str, got: &Layout, out: &Layout) -> Result<()> {
    if got.dims() != out.dims() {
        return Err(TensorOpError::Shape { op, what, got: *got.shape(), needed: out.shape().to_string() }.into());
    }
    Ok(())
}

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

pub(super) fn unary(op: UnaryOp, x: TensorRef, out: TensorMut) -> Result<()> {
    same_shape("unary", "x", &x.layout, &out.layout)?;
    let f: fn(f32) -> f32 = match op {
        UnaryOp::Neg => |x| -x,
        UnaryOp::Abs => f32::abs,
        UnaryOp::Exp => f32::exp,
        UnaryOp::Sqrt => f32::sqrt,
        UnaryOp::Reciprocal => f32::recip,
        UnaryOp::Relu => |x| x.max(0.),
        UnaryOp::Sigmoid => |x| 1. / (1. + (-x).exp()),
        UnaryOp::Round => f32::round_ties_even,
    };
    let from = input::<f32>("unary", &x)?;
    let (to, layout) = output::<f32>("unary", out)?;
    for (i, o) in x.layout.indices().zip(layout.indices()) {
        to[o] = f(from[i]);
    }
    Ok(())
}

pub(super) fn binary(op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    same_shape("binary", "a", &a.layout, &out.layout)?;
    same_shape("binary", "b", &b.layout, &out.layout)?;
    let f: fn(f32, f32) -> f32 = match op {
        BinaryOp::Add => |a, b| a + b,
        BinaryOp::Sub => |a, b| a - b,
        BinaryOp::Mul => |a, b| a * b,
        BinaryOp::Div => |a, b| a / b,
        BinaryOp::Minimum => |a, b| if a.is_nan() || a < b { a } else { b },
        BinaryOp::Maximum => |a, b| if a.is_nan() || a > b { a } else { b },
    };
    let (left, right) = (input::<f32>("binary", &a)?, input::<f32>("binary", &b)?);
    let (to, layout) = output::<f32>("binary", out)?;
    for ((i, j), o) in a.layout.indices().zip(b.layout.indices()).zip(layout.indices()) {
        to[o] = f(left[i], right[j]);
    }
    Ok(())
}

pub(super) fn compare(op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    same_shape("compare", "a", &a.layout, &out.layout)?;
    same_shape("compare", "b", &b.layout, &out.layout)?;
    let f: fn(&f32, &f32) -> bool = match op {
        CompareOp::Eq => f32::eq,
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
        };
    }
    Ok(())
}

pub(super) fn matmul(a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    let rank = out.layout.shape().rank();
    let dims = (a.layout.dims(), b.layout.dims(), out.layout.dims());
    let fits = rank >= 2
        && dims.0.len() == rank
        && dims.1.len() == rank
        && dims.0[..rank - 2] == dims.2[..rank - 2]
        && dims.1[..rank - 2] == dims.2[..rank - 2]
        && dims.0[rank - 2] == dims.2[rank - 2]
        && dims.1[rank - 1] == dims.2[rank - 1]
        && dims.0[rank - 1] == dims.1[rank - 2];
    if !fits {
        let needed =
            format!("[.., M, K] by [.., K, N] = [.., M, N], got {} and {}", b.layout.shape(), out.layout.shape());
        return Err(TensorOpError::Shape { op: "matmul", what: "a", got: *a.layout.shape(), needed }.into());
    }
    let (inner, columns) = (dims.0[rank - 1], dims.2[rank - 1]);
    let (left, right) = (input::<f32>("matmul", &a)?, input::<f32>("matmul", &b)?);
    let (step_a, step_b) = (a.layout.strides()[rank - 1], b.layout.strides()[rank - 2]);
    // First element of each row of a, and of each column of b for the same batch.
    let rows = a.layout.narrow(rank - 1, 0, inner.min(1))?;
    let heads = b.layout.narrow(rank - 2, 0, inner.min(1))?;
    let heads: Vec<usize> = heads.indices().collect();
    let rows_a_batch = dims.2[rank - 2];
    let (to, layout) = output::<f32>("matmul", out)?;
    let mut results = layout.indices();
    if inner == 0 {
        results.for_each(|o| to[o] = 0.);
        return Ok(());
    }
    for (row, i) in rows.indices().enumerate() {
        let batch = row / rows_a_batch;
        for &j in &heads[batch * columns..(batch + 1) * columns] {
            let product = |k: usize| {
                let at = |start: usize, step: isize| start.wrapping_add_signed(step * k as isize);
                left[at(i, step_a)] as f64 * right[at(j, step_b)] as f64
            };
            let o = results.next().expect("a result for every row and column");
            to[o] = (0..inner).map(product).sum::<f64>() as f32;
        }
    }
    Ok(())
}

pub(super) fn gather(source: TensorRef, indices: TensorRef, out: TensorMut) -> Result<()> {
    let wanted = input::<u32>("gather", &indices)?;
    let count = source.layout.dims().first().copied().unwrap_or(0);
    for (t, i) in indices.layout.indices().enumerate() {
        let row = wanted[i] as usize;
        if row >= count {
            return Err(
                TensorOpError::OutOfRange { op: "gather", index: row, axis: 0, shape: *source.layout.shape() }.into()
            );
        }
        let from = TensorRef { layout: source.layout.narrow(0, row, 1)?, ..source };
        copy(from, TensorMut { layout: out.layout.narrow(0, t, 1)?, storage: out.storage, dtype: out.dtype })?;
    }
    Ok(())
}
