//! The fused operations of training on the CPU: contiguous f32 rows go to the kernels, all else is composed.

use super::CpuBackend;
use super::fused::{slice, slice_mut};
use bitnet_device::backend::{AdamStep, CausalShape, GateActivation, TensorMut, TensorRef, attention, gradient};
use bitnet_device::{BitNetDType, Result, TensorOpError};
use bitnet_kernels::gradient as kernel;

fn plain(x: &TensorRef) -> bool {
    x.dtype == BitNetDType::F32 && x.layout.is_contiguous() && x.layout.shape().elements() > 0
}

fn expect(fits: bool, op: &'static str, what: &'static str, got: &TensorRef, needed: &str) -> Result<()> {
    if fits {
        return Ok(());
    }
    Err(TensorOpError::Shape { op, what, got: *got.layout.shape(), needed: needed.into() }.into())
}

pub(super) fn rms_norm_backward(
    cpu: &CpuBackend,
    grad: TensorRef,
    x: TensorRef,
    weight: TensorRef,
    eps: f32,
    dx: TensorMut,
    dweight: TensorMut,
) -> Result<()> {
    const OP: &str = "rms_norm_backward";
    let columns = x.layout.shape().last();
    expect(weight.layout.dims() == [columns], OP, "weight", &weight, "[H], the last dimension of x")?;
    expect(grad.layout.dims() == x.layout.dims(), OP, "grad", &grad, "that of x")?;
    expect(dx.layout.dims() == x.layout.dims(), OP, "dx", &dx.as_ref(), "that of x")?;
    expect(dweight.layout.dims() == weight.layout.dims(), OP, "dweight", &dweight.as_ref(), "that of weight")?;
    if ![&grad, &x, &weight, &dx.as_ref(), &dweight.as_ref()].into_iter().all(plain) {
        return gradient::rms_norm_backward(cpu, grad, x, weight, eps, dx, dweight);
    }
    let (grad, x, weight) = (slice(OP, "grad", &grad)?, slice(OP, "x", &x)?, slice(OP, "weight", &weight)?);
    let (dx, dweight) = (slice_mut(OP, "dx", dx)?, slice_mut(OP, "dweight", dweight)?);
    kernel::rms_norm_backward(cpu.kernels()?.isa, &cpu.threads, grad, x, weight, eps, dx, dweight);
    Ok(())
}

/// An error unless `both` is `[.., 2 I]` where `one` is `[.., I]`.
fn halves(op: &'static str, both: &TensorRef, one: &TensorRef) -> Result<()> {
    let fits = match (both.layout.dims(), one.layout.dims()) {
        ([rows @ .., width], [lead @ .., inner]) => rows == lead && *width == 2 * inner,
        _ => false,
    };
    expect(fits, op, "both", both, "[.., 2 I], gate and up of [.., I]")
}

pub(super) fn gated_halves(cpu: &CpuBackend, act: GateActivation, both: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "gated_halves";
    halves(OP, &both, &out.as_ref())?;
    if act != GateActivation::Relu2 || !plain(&both) || !plain(&out.as_ref()) {
        return gradient::gated_halves(cpu, act, both, out);
    }
    let inner = out.layout.shape().last();
    kernel::relu2_gated_halves(
        cpu.kernels()?.isa,
        &cpu.threads,
        slice(OP, "both", &both)?,
        inner,
        slice_mut(OP, "out", out)?,
    );
    Ok(())
}

pub(super) fn gated_halves_backward(
    cpu: &CpuBackend,
    act: GateActivation,
    grad: TensorRef,
    both: TensorRef,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "gated_halves_backward";
    halves(OP, &both, &grad)?;
    expect(out.layout.dims() == both.layout.dims(), OP, "out", &out.as_ref(), "that of both")?;
    if act != GateActivation::Relu2 || ![&grad, &both, &out.as_ref()].into_iter().all(plain) {
        return gradient::gated_halves_backward(cpu, act, grad, both, out);
    }
    let inner = grad.layout.shape().last();
    let (grad, both, out) = (slice(OP, "grad", &grad)?, slice(OP, "both", &both)?, slice_mut(OP, "out", out)?);
    kernel::relu2_gated_halves_backward(cpu.kernels()?.isa, &cpu.threads, grad, both, inner, out);
    Ok(())
}

pub(super) fn scale(
    cpu: &CpuBackend,
    x: TensorRef,
    rows: Option<TensorRef>,
    columns: Option<TensorRef>,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "scale";
    let &[count, width] = x.layout.dims() else {
        return Err(TensorOpError::Shape { op: OP, what: "x", got: *x.layout.shape(), needed: "[R, C]".into() }.into());
    };
    expect(out.layout.dims() == x.layout.dims(), OP, "out", &out.as_ref(), "that of x")?;
    for (what, factors, needed) in [("rows", &rows, count), ("columns", &columns, width)] {
        if let Some(factors) = factors {
            expect(factors.layout.dims() == [needed], OP, what, factors, "a factor of each")?;
        }
    }
    let bytes = x.dtype == BitNetDType::I8 && x.layout.is_contiguous();
    let all_plain = (bytes || plain(&x)) && [&rows, &columns].into_iter().flatten().all(plain);
    let out_fits = matches!(out.dtype, BitNetDType::F32 | BitNetDType::BF16) && out.layout.is_contiguous();
    if !all_plain || !out_fits {
        return gradient::scale(cpu, x, rows, columns, out);
    }
    let factors = |factors: Option<TensorRef>, what| match factors {
        Some(factors) => Ok::<_, bitnet_device::BitNetError>(slice::<f32>(OP, what, &factors)?.to_vec()),
        None => Ok(Vec::new()),
    };
    let (rows, columns) = (factors(rows, "rows")?, factors(columns, "columns")?);
    let out = match out.dtype {
        BitNetDType::BF16 => kernel::Scaled::BF16(bytemuck::cast_slice_mut(slice_mut::<half::bf16>(OP, "out", out)?)),
        _ => kernel::Scaled::F32(slice_mut(OP, "out", out)?),
    };
    let isa = cpu.kernels()?.isa;
    match bytes {
        true => kernel::scale(isa, &cpu.threads, slice::<i8>(OP, "x", &x)?, width, &rows, &columns, out),
        false => kernel::scale(isa, &cpu.threads, slice::<f32>(OP, "x", &x)?, width, &rows, &columns, out),
    }
    Ok(())
}

/// Whether the kernels take these operands.
fn attends(op: &'static str, shape: &CausalShape, tables: [&TensorRef; 2], all: [&TensorRef; 3]) -> Result<bool> {
    let angles = [shape.tokens, shape.head_dim / 2];
    for (what, table) in ["cos", "sin"].into_iter().zip(tables) {
        expect(table.layout.dims() == angles, op, what, table, "[T, D / 2]")?;
    }
    let grouped = shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads) && shape.head_dim.is_multiple_of(2);
    let rows = shape.batch * shape.tokens;
    let fits =
        |x: &TensorRef| matches!(*x.layout.dims(), [r, c] if r == rows && (c == shape.row() || c == shape.out_row()));
    // The composition refuses what does not fit, with the reason.
    Ok(grouped && all.into_iter().all(fits) && tables.into_iter().chain(all).all(plain))
}

pub(super) fn causal_attention(
    cpu: &CpuBackend,
    shape: CausalShape,
    qkv: TensorRef,
    cos: TensorRef,
    sin: TensorRef,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "causal_attention";
    let wide = qkv.layout.shape().last() == shape.row() && out.layout.shape().last() == shape.out_row();
    if !(attends(OP, &shape, [&cos, &sin], [&qkv, &qkv, &out.as_ref()])? && wide) {
        return attention::causal_attention(cpu, shape, qkv, cos, sin, out);
    }
    let (qkv, cos, sin) = (slice(OP, "qkv", &qkv)?, slice(OP, "cos", &cos)?, slice(OP, "sin", &sin)?);
    let out = slice_mut(OP, "out", out)?;
    kernel::causal_attention(cpu.kernels()?.float, &cpu.threads, shape, qkv, cos, sin, out);
    Ok(())
}

pub(super) fn causal_attention_backward(
    cpu: &CpuBackend,
    shape: CausalShape,
    grad: TensorRef,
    qkv: TensorRef,
    cos: TensorRef,
    sin: TensorRef,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "causal_attention_backward";
    let wide = [&qkv, &out.as_ref()].into_iter().all(|x| x.layout.shape().last() == shape.row())
        && grad.layout.shape().last() == shape.out_row();
    if !(attends(OP, &shape, [&cos, &sin], [&grad, &qkv, &out.as_ref()])? && wide) {
        return attention::causal_attention_backward(cpu, shape, grad, qkv, cos, sin, out);
    }
    let (grad, qkv) = (slice(OP, "grad", &grad)?, slice(OP, "qkv", &qkv)?);
    let (cos, sin, out) = (slice(OP, "cos", &cos)?, slice(OP, "sin", &sin)?, slice_mut(OP, "out", out)?);
    kernel::causal_attention_backward(cpu.kernels()?.float, &cpu.threads, shape, grad, qkv, cos, sin, out);
    Ok(())
}

pub(super) fn adam_step(
    cpu: &CpuBackend,
    step: AdamStep,
    x: TensorMut,
    grad: TensorRef,
    first: TensorMut,
    second: TensorMut,
) -> Result<()> {
    const OP: &str = "adam_step";
    for (what, t) in [("grad", &grad), ("first", &first.as_ref()), ("second", &second.as_ref())] {
        expect(t.layout.dims() == x.layout.dims(), OP, what, t, "that of x")?;
    }
    if ![&x.as_ref(), &grad, &first.as_ref(), &second.as_ref()].into_iter().all(plain) {
        return gradient::adam_step(cpu, step, x, grad, first, second);
    }
    let (x, grad) = (slice_mut(OP, "x", x)?, slice(OP, "grad", &grad)?);
    let (first, second) = (slice_mut(OP, "first", first)?, slice_mut(OP, "second", second)?);
    kernel::adam(cpu.kernels()?.isa, &cpu.threads, step, x, grad, first, second);
    Ok(())
}
