//! Fast paths for contiguous f32 tensors: the kernels of `bitnet-kernels::dense` on all threads.
//!
//! Each function returns whether it did the work; otherwise the strided engine or the composed operation does.

use super::operand::{plain, slice, slice_mut};
use super::{CpuBackend, norm};
use bitnet_device::BitNetDType::{BF16, F16, F32, I8, I32, U32};
use bitnet_device::backend::{BinaryOp, ReduceOp, TensorMut, TensorRef, UnaryOp};
use bitnet_device::{Layout, Result, TensorOpError};
use bitnet_kernels::dense::parallel::{self, Reduction};
use bitnet_kernels::dense::{Binary, Half, UNARY};

/// With fewer columns a row is less than a vector, and the strided engine is faster than the column kernels.
const NARROW: usize = 16;

/// The function, and the function with exchanged operands.
fn function_of_two(op: BinaryOp) -> Option<[Binary; 2]> {
    Some(match op {
        BinaryOp::Add => [Binary::Add, Binary::Add],
        BinaryOp::Sub => [Binary::Sub, Binary::ReverseSub],
        BinaryOp::Mul => [Binary::Mul, Binary::Mul],
        BinaryOp::Div => [Binary::Div, Binary::ReverseDiv],
        BinaryOp::Minimum => [Binary::Minimum, Binary::Minimum],
        BinaryOp::Maximum => [Binary::Maximum, Binary::Maximum],
        _ => return None,
    })
}

pub(super) fn unary(cpu: &CpuBackend, op: UnaryOp, x: &TensorRef, out: &mut TensorMut) -> Result<bool> {
    if !UNARY.contains(&op) || !plain(x) || !plain(out) {
        return Ok(false);
    }
    let (x, out) = (slice("unary", "x", x)?, slice_mut("unary", "out", out.reborrow())?);
    parallel::unary(cpu.kernels()?.dense, &cpu.threads, op, x, out);
    Ok(true)
}

pub(super) fn unary_assign(cpu: &CpuBackend, op: UnaryOp, x: TensorMut) -> Result<bool> {
    if !UNARY.contains(&op) || !plain(&x) {
        return Ok(false);
    }
    parallel::unary_assign(cpu.kernels()?.dense, &cpu.threads, op, slice_mut("unary", "x", x)?);
    Ok(true)
}

/// The elements that `t` repeats, if it is a row broadcast over rows, a single broadcast element, or contiguous.
fn repeated<'a>(op: &'static str, t: &TensorRef<'a>) -> Result<Option<&'a [f32]>> {
    let mut period = 1;
    let mut repeats = false;
    for (&extent, &stride) in t.layout.dims().iter().zip(t.layout.strides()).rev() {
        if extent == 1 {
            continue;
        }
        if !repeats && stride == period as isize {
            period *= extent;
        } else if stride == 0 {
            repeats = true;
        } else {
            return Ok(None);
        }
    }
    if t.dtype != F32 || t.layout.shape().elements() == 0 {
        return Ok(None);
    }
    let start = t.layout.offset();
    Ok(t.storage.cpu(op, t.dtype)?.elements::<f32>()?.get(start..start + period))
}

pub(super) fn binary(
    cpu: &CpuBackend,
    op: BinaryOp,
    a: &TensorRef,
    b: &TensorRef,
    out: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "binary";
    let Some([forward, backward]) = function_of_two(op) else { return Ok(false) };
    if !plain(out) {
        return Ok(false);
    }
    let (Some(left), Some(right)) = (repeated(OP, a)?, repeated(OP, b)?) else { return Ok(false) };
    let all = out.layout.shape().elements();
    let out = slice_mut::<f32>(OP, "out", out.reborrow())?;
    let kernel = cpu.kernels()?.dense;
    if left.len() == all {
        parallel::binary(kernel, &cpu.threads, forward, left, right, out);
    } else if right.len() == all {
        parallel::binary(kernel, &cpu.threads, backward, right, left, out);
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// `x` has the shape of `y`.
pub(super) fn binary_assign(cpu: &CpuBackend, op: BinaryOp, y: TensorMut, x: &TensorRef) -> Result<bool> {
    const OP: &str = "binary";
    let Some([op, _]) = function_of_two(op) else { return Ok(false) };
    if !plain(&y) || x.layout.dims() != y.layout.dims() {
        return Ok(false);
    }
    let Some(x) = repeated(OP, x)? else { return Ok(false) };
    parallel::binary_assign(cpu.kernels()?.dense, &cpu.threads, op, slice_mut(OP, "y", y)?, x);
    Ok(true)
}

/// Extents before, of and after dimension `axis`.
fn extents_around(layout: &Layout, axis: usize) -> [usize; 3] {
    let dims = layout.dims();
    [dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product()]
}

/// Whether the column kernels suit these extents.
fn wide([outer, n, inner]: [usize; 3]) -> bool {
    outer > 0 && n > 0 && (inner == 1 || inner >= NARROW)
}

pub(super) fn reduce(cpu: &CpuBackend, op: ReduceOp, x: &TensorRef, axis: usize, out: TensorMut) -> Result<bool> {
    const OP: &str = "reduce";
    let op = match op {
        ReduceOp::Sum => Reduction::Sum,
        ReduceOp::Max => Reduction::Max,
        ReduceOp::Min => Reduction::Min,
        _ => return Ok(false),
    };
    if !plain(x) || !plain(&out) || axis >= x.layout.dims().len() {
        return Ok(false);
    }
    let extents = extents_around(&x.layout, axis);
    if !wide(extents) || out.layout.shape().elements() != extents[0] * extents[2] {
        return Ok(false);
    }
    let (x, out) = (slice(OP, "x", x)?, slice_mut(OP, "out", out)?);
    parallel::reduce(cpu.kernels()?.dense, &cpu.threads, op, x, extents, out);
    Ok(true)
}

pub(super) fn variance(
    cpu: &CpuBackend,
    x: &TensorRef,
    axis: usize,
    correction: f64,
    mean: TensorMut,
    out: TensorMut,
) -> Result<bool> {
    const OP: &str = "variance";
    let Some(extents) = lanes(x, axis, &[&mean.as_ref(), &out.as_ref()]) else { return Ok(false) };
    let (means, out) = (slice_mut::<f32>(OP, "mean", mean)?, slice_mut::<f32>(OP, "out", out)?);
    parallel::moments(cpu.kernels()?.dense, &cpu.threads, slice(OP, "x", x)?, extents, |i, all| {
        means[i] = (all.sum / all.count) as f32;
        out[i] = (all.squares / (all.count - correction).max(0.)) as f32;
    });
    Ok(true)
}

pub(super) fn standard_deviation(
    cpu: &CpuBackend,
    x: &TensorRef,
    axis: usize,
    correction: f64,
    out: TensorMut,
) -> Result<bool> {
    const OP: &str = "standard_deviation";
    let Some(extents) = lanes(x, axis, &[&out.as_ref()]) else { return Ok(false) };
    let [_, n, inner] = extents;
    let (x, out) = (slice::<f32>(OP, "x", x)?, slice_mut::<f32>(OP, "out", out)?);
    let (kernel, divisor) = (cpu.kernels()?.dense, (n as f64 - correction).max(0.));
    let mut safe = true;
    parallel::moments(kernel, &cpu.threads, x, extents, |i, all| {
        safe &= norm::is_safe(all.squares);
        out[i] = (all.squares / divisor) as f32;
    });
    parallel::unary_assign(kernel, &cpu.threads, UnaryOp::Sqrt, out);
    if !safe {
        // The kernel squares in f32, which has no squares of the smallest and largest numbers.
        for (i, out) in out.iter_mut().enumerate() {
            let lane = x[i / inner * n * inner + i % inner..].iter().step_by(inner).take(n).copied();
            if !norm::is_safe(f64::from(*out).powi(2) * divisor) {
                *out = (norm::squares_in_f64(lane) / divisor).sqrt() as f32;
            }
        }
    }
    Ok(true)
}

/// Extents before, of and after dimension `axis` of `x`, where the kernels can reduce it to `results`.
fn lanes(x: &TensorRef, axis: usize, results: &[&TensorRef]) -> Option<[usize; 3]> {
    if !plain(x) || !results.iter().all(|&t| plain(t)) || axis >= x.layout.dims().len() {
        return None;
    }
    let extents = extents_around(&x.layout, axis);
    let fit = results.iter().all(|t| t.layout.shape().elements() == extents[0] * extents[2]);
    (wide(extents) && fit).then_some(extents)
}

pub(super) fn softmax(cpu: &CpuBackend, x: &TensorRef, logarithm: bool, out: TensorMut) -> Result<bool> {
    const OP: &str = "softmax";
    let width = x.layout.shape().last();
    if !plain(x) || !plain(&out) || x.layout.dims() != out.layout.dims() || width == 0 {
        return Ok(false);
    }
    let (x, out) = (slice(OP, "x", x)?, slice_mut(OP, "out", out)?);
    parallel::softmax(cpu.kernels()?.dense, &cpu.threads, x, width, logarithm, out);
    Ok(true)
}

pub(super) fn layer_norm(
    cpu: &CpuBackend,
    x: &TensorRef,
    weight: Option<TensorRef>,
    bias: Option<TensorRef>,
    eps: f64,
    out: TensorMut,
) -> Result<bool> {
    const OP: &str = "layer_norm";
    let width = x.layout.shape().last();
    let row = |t: &Option<TensorRef>| t.as_ref().is_none_or(|t| plain(t) && t.layout.dims() == [width]);
    let rows = plain(x) && plain(&out) && x.layout.dims() == out.layout.dims() && width > 0;
    if !rows || !row(&weight) || !row(&bias) {
        return Ok(false);
    }
    let weight = weight.as_ref().map_or(Ok(&[][..]), |t| slice(OP, "weight", t))?;
    let bias = bias.as_ref().map_or(Ok(&[][..]), |t| slice(OP, "bias", t))?;
    let (x, out) = (slice(OP, "x", x)?, slice_mut(OP, "out", out)?);
    parallel::layer_norm(cpu.kernels()?.dense, &cpu.threads, x, width, [weight, bias], eps, out);
    Ok(true)
}

/// Copies of 4-byte elements with the last two dimensions transposed.
pub(super) fn transpose(cpu: &CpuBackend, source: &TensorRef, out: TensorMut) -> Result<bool> {
    const OP: &str = "copy";
    let (dims, strides) = (source.layout.dims(), source.layout.strides());
    let fits = matches!(source.dtype, F32 | I32 | U32)
        && source.dtype == out.dtype
        && dims == out.layout.dims()
        && out.layout.is_contiguous()
        && source.layout.shape().elements() > 0;
    let [.., across, along] = *strides else { return Ok(false) };
    let [.., columns, rows] = *dims else { return Ok(false) };
    if !fits || across != 1 || along < columns as isize || columns < NARROW || rows < NARROW {
        return Ok(false);
    }
    let stride = along as usize;
    let from: &[f32] = bytes_as(source.storage.cpu(OP, source.dtype)?.bytes(), source)?;
    let layout = out.layout;
    let all = out.storage.cpu_mut(OP, out.dtype)?.bytes_mut()?;
    let to = bytemuck::try_cast_slice_mut::<u8, f32>(all);
    let to = to.map_err(|_| TensorOpError::Unaligned { dtype: source.dtype })?;
    let to = &mut to[layout.offset()..][..layout.shape().elements()];
    let kernel = cpu.kernels()?.dense;
    let heads = source.layout.head(dims.len() - 2)?;
    for (start, to) in heads.indices().zip(to.chunks_exact_mut(rows * columns)) {
        let from = &from[start..start + (rows - 1) * stride + columns];
        parallel::transpose(kernel, &cpu.threads, from, stride, rows, to);
    }
    Ok(true)
}

/// 4-byte elements as floats of the same bits: they are only copied.
fn bytes_as<'a>(bytes: &'a [u8], t: &TensorRef) -> Result<&'a [f32]> {
    bytemuck::try_cast_slice(bytes).map_err(|_| TensorOpError::Unaligned { dtype: t.dtype }.into())
}

pub(super) fn cast(cpu: &CpuBackend, x: &TensorRef, out: TensorMut) -> Result<bool> {
    const OP: &str = "cast";
    if !x.layout.is_contiguous() || !out.layout.is_contiguous() || x.layout.dims() != out.layout.dims() {
        return Ok(false);
    }
    let (kernel, threads) = (cpu.kernels()?.dense, &cpu.threads);
    match (x.dtype, out.dtype) {
        (F32, F16) => {
            let (x, out) = (slice(OP, "x", x)?, slice_mut::<half::f16>(OP, "out", out)?);
            parallel::narrow(kernel, threads, Half::F16, x, bytemuck::cast_slice_mut(out));
        }
        (F32, BF16) => {
            let (x, out) = (slice(OP, "x", x)?, slice_mut::<half::bf16>(OP, "out", out)?);
            parallel::narrow(kernel, threads, Half::BF16, x, bytemuck::cast_slice_mut(out));
        }
        (F16, F32) => {
            let (x, out) = (slice::<half::f16>(OP, "x", x)?, slice_mut(OP, "out", out)?);
            parallel::widen(kernel, threads, Half::F16, bytemuck::cast_slice(x), out);
        }
        (BF16, F32) => {
            let (x, out) = (slice::<half::bf16>(OP, "x", x)?, slice_mut(OP, "out", out)?);
            parallel::widen(kernel, threads, Half::BF16, bytemuck::cast_slice(x), out);
        }
        (F32, I8) => parallel::to_i8(kernel, threads, slice(OP, "x", x)?, slice_mut(OP, "out", out)?),
        (I8, F32) => parallel::widen_i8(kernel, threads, slice(OP, "x", x)?, slice_mut(OP, "out", out)?),
        (I8, BF16) => {
            let (x, out) = (slice(OP, "x", x)?, slice_mut::<half::bf16>(OP, "out", out)?);
            bitnet_kernels::gradient::i8_to_bf16(cpu.kernels()?.isa, threads, x, bytemuck::cast_slice_mut(out));
        }
        _ => return Ok(false),
    }
    Ok(true)
}
