//! The fused operations of training on the CPU: contiguous f32 rows go to the kernels; each function returns whether they ran.

use super::CpuBackend;
use super::fused::rows;
use super::operand::{self, Operands, slice, slice_mut};
use bitnet_device::backend::{AdamStep, CausalShape, GateActivation, TensorMut, TensorRef};
use bitnet_device::{BitNetDType, Result};
use bitnet_kernels::gradient as kernel;

fn plain(x: &impl Operands) -> bool {
    operand::plain(x) && x.layout().shape().elements() > 0
}

pub(super) fn rms_norm_backward(
    cpu: &CpuBackend,
    grad: &TensorRef,
    x: &TensorRef,
    weight: &TensorRef,
    eps: f32,
    dx: &mut TensorMut,
    dweight: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "rms_norm_backward";
    if ![grad, x, weight, &dx.as_ref(), &dweight.as_ref()].into_iter().all(plain) {
        return Ok(false);
    }
    let (grad, x, weight) = (slice(OP, "grad", grad)?, slice(OP, "x", x)?, slice(OP, "weight", weight)?);
    let (dx, dweight) = (slice_mut(OP, "dx", dx.reborrow())?, slice_mut(OP, "dweight", dweight.reborrow())?);
    kernel::rms_norm_backward(cpu.kernels()?.isa, &cpu.threads, grad, x, weight, eps, dx, dweight);
    Ok(true)
}

pub(super) fn gated_halves(
    cpu: &CpuBackend,
    act: GateActivation,
    both: &TensorRef,
    out: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "gated_halves";
    if !plain(both) || !plain(out) {
        return Ok(false);
    }
    let inner = out.layout.shape().last();
    let (both, kernel) = (slice::<f32>(OP, "both", both)?, cpu.kernels()?.float);
    rows(cpu, slice_mut(OP, "out", out.reborrow())?, inner, |first, out| {
        for (both, out) in both[2 * first * inner..].chunks_exact(2 * inner).zip(out.chunks_exact_mut(inner)) {
            let (gate, up) = both.split_at(inner);
            out.copy_from_slice(gate);
            kernel.gated(act, out, up);
        }
    });
    Ok(true)
}

pub(super) fn gated_halves_backward(
    cpu: &CpuBackend,
    act: GateActivation,
    grad: &TensorRef,
    both: &TensorRef,
    out: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "gated_halves_backward";
    if act != GateActivation::Relu2 || ![grad, both, &out.as_ref()].into_iter().all(plain) {
        return Ok(false);
    }
    let inner = grad.layout.shape().last();
    let (grad, both) = (slice(OP, "grad", grad)?, slice(OP, "both", both)?);
    let out = slice_mut(OP, "out", out.reborrow())?;
    kernel::relu2_gated_halves_backward(cpu.kernels()?.isa, &cpu.threads, grad, both, inner, out);
    Ok(true)
}

pub(super) fn scale(
    cpu: &CpuBackend,
    x: &TensorRef,
    rows: Option<TensorRef>,
    columns: Option<TensorRef>,
    out: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "scale";
    let bytes = x.dtype == BitNetDType::I8 && x.layout.is_contiguous();
    let all_plain = (bytes || plain(x)) && [&rows, &columns].into_iter().flatten().all(plain);
    let out_fits = matches!(out.dtype, BitNetDType::F32 | BitNetDType::BF16) && out.layout.is_contiguous();
    if !all_plain || !out_fits {
        return Ok(false);
    }
    let width = x.layout.shape().last();
    let factors = |factors: Option<TensorRef>, what| match factors {
        Some(factors) => Ok::<_, bitnet_device::BitNetError>(slice::<f32>(OP, what, &factors)?.to_vec()),
        None => Ok(Vec::new()),
    };
    let (rows, columns) = (factors(rows, "rows")?, factors(columns, "columns")?);
    let out = out.reborrow();
    let out = match out.dtype {
        BitNetDType::BF16 => kernel::Scaled::BF16(bytemuck::cast_slice_mut(slice_mut::<half::bf16>(OP, "out", out)?)),
        _ => kernel::Scaled::F32(slice_mut(OP, "out", out)?),
    };
    let isa = cpu.kernels()?.isa;
    match bytes {
        true => kernel::scale(isa, &cpu.threads, slice::<i8>(OP, "x", x)?, width, &rows, &columns, out),
        false => kernel::scale(isa, &cpu.threads, slice::<f32>(OP, "x", x)?, width, &rows, &columns, out),
    }
    Ok(true)
}

pub(super) fn causal_attention(
    cpu: &CpuBackend,
    shape: CausalShape,
    qkv: &TensorRef,
    cos: &TensorRef,
    sin: &TensorRef,
    out: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "causal_attention";
    if ![qkv, cos, sin, &out.as_ref()].into_iter().all(plain) {
        return Ok(false);
    }
    let (qkv, cos, sin) = (slice(OP, "qkv", qkv)?, slice(OP, "cos", cos)?, slice(OP, "sin", sin)?);
    let out = slice_mut(OP, "out", out.reborrow())?;
    kernel::causal_attention(*cpu.kernels()?, &cpu.threads, shape, qkv, cos, sin, out);
    Ok(true)
}

pub(super) fn causal_attention_backward(
    cpu: &CpuBackend,
    shape: CausalShape,
    grad: &TensorRef,
    qkv: &TensorRef,
    cos: &TensorRef,
    sin: &TensorRef,
    out: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "causal_attention_backward";
    if ![grad, qkv, cos, sin, &out.as_ref()].into_iter().all(plain) {
        return Ok(false);
    }
    let (grad, qkv) = (slice(OP, "grad", grad)?, slice(OP, "qkv", qkv)?);
    let (cos, sin, out) = (slice(OP, "cos", cos)?, slice(OP, "sin", sin)?, slice_mut(OP, "out", out.reborrow())?);
    kernel::causal_attention_backward(*cpu.kernels()?, &cpu.threads, shape, grad, qkv, cos, sin, out);
    Ok(true)
}

pub(super) fn adam_step(
    cpu: &CpuBackend,
    step: AdamStep,
    rates: &TensorRef,
    grad: &TensorRef,
    x: &mut TensorMut,
    first: &mut TensorMut,
    second: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "adam_step";
    if ![&x.as_ref(), grad, rates, &first.as_ref(), &second.as_ref()].into_iter().all(plain) {
        return Ok(false);
    }
    let &[shrink, rate, root] = slice::<f32>(OP, "rates", rates)? else { return Ok(false) };
    let (x, grad) = (slice_mut(OP, "x", x.reborrow())?, slice(OP, "grad", grad)?);
    let (first, second) = (slice_mut(OP, "first", first.reborrow())?, slice_mut(OP, "second", second.reborrow())?);
    kernel::adam(cpu.kernels()?.isa, &cpu.threads, step, [shrink, rate, root], x, grad, first, second);
    Ok(true)
}
