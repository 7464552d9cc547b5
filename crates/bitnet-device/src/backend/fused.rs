//! Fused operations composed of primitives: the defaults of [`Backend`], and the reference for overrides.
//!
//! Floats narrower than f32 are computed in f32 and rounded once, f64 in f64.

pub(super) mod temp;

use super::*;
use BinaryOp::*;
use BitNetDType::{F32, F64};
use temp::{Temp, binary, cast, wide};

/// See [`Op::UnaryAssign`].
pub fn unary_assign(backend: &dyn Backend, op: UnaryOp, x: TensorMut) -> Result<()> {
    let mut out = Temp::new(backend, x.layout.dims(), x.dtype)?;
    backend.unary(op, x.as_ref(), out.view_mut())?;
    out.copy_to(x)
}

/// See [`Op::BinaryAssign`].
pub fn binary_assign(backend: &dyn Backend, op: BinaryOp, y: TensorMut, x: TensorRef) -> Result<()> {
    let x = TensorRef { layout: x.layout.broadcast_to(y.layout.dims())?, ..x };
    let mut out = Temp::new(backend, y.layout.dims(), y.dtype)?;
    backend.binary(op, y.as_ref(), x, out.view_mut())?;
    out.copy_to(y)
}

/// See [`Op::RmsNorm`].
pub fn rms_norm(backend: &dyn Backend, x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) -> Result<()> {
    let (x, weight) = (wide(backend, x)?, wide(backend, weight)?);
    let columns = x.view().layout.shape().last() as f64;
    let mean = binary(backend, Mul, x.view(), x.view())?.reduce_last(ReduceOp::Sum)?.scalar(Div, columns)?;
    let factor = mean.scalar(Add, eps.into())?.unary(UnaryOp::Sqrt)?.unary(UnaryOp::Reciprocal)?;
    binary(backend, Mul, x.view(), factor.view())?.binary(Mul, weight.view())?.cast_to(out)
}

/// See [`Op::Softmax`].
pub fn softmax(backend: &dyn Backend, x: TensorRef, out: TensorMut) -> Result<()> {
    if x.layout.shape().elements() == 0 {
        return Ok(());
    }
    let exp = shifted(backend, x)?.unary(UnaryOp::Exp)?;
    exp.binary(Div, exp.reduce_last(ReduceOp::Sum)?.view())?.cast_to(out)
}

/// See [`Op::LogSoftmax`].
pub fn log_softmax(backend: &dyn Backend, x: TensorRef, out: TensorMut) -> Result<()> {
    if x.layout.shape().elements() == 0 {
        return Ok(());
    }
    let shifted = shifted(backend, x)?;
    let sum = shifted.unary(UnaryOp::Exp)?.reduce_last(ReduceOp::Sum)?.unary(UnaryOp::Log)?;
    shifted.binary(Sub, sum.view())?.cast_to(out)
}

/// `x` minus the maximum of its row.
fn shifted<'b>(backend: &'b dyn Backend, x: TensorRef) -> Result<Temp<'b>> {
    let x = wide(backend, x)?;
    let max = temp::reduce_last(backend, ReduceOp::Max, x.view())?;
    binary(backend, Sub, x.view(), max.view())
}

/// See [`Op::LayerNorm`].
pub fn layer_norm(
    backend: &dyn Backend,
    x: TensorRef,
    weight: Option<TensorRef>,
    bias: Option<TensorRef>,
    eps: f64,
    out: TensorMut,
) -> Result<()> {
    let columns = x.layout.shape().last() as f64;
    let x = wide(backend, x)?;
    let mean = temp::reduce_last(backend, ReduceOp::Sum, x.view())?.scalar(Div, columns)?;
    let centred = binary(backend, Sub, x.view(), mean.view())?;
    let variance = centred.binary(Mul, centred.view())?.reduce_last(ReduceOp::Sum)?.scalar(Div, columns)?;
    let mut normed = centred.binary(Div, variance.scalar(Add, eps)?.unary(UnaryOp::Sqrt)?.view())?;
    if let Some(weight) = weight {
        normed = normed.binary(Mul, wide(backend, weight)?.view())?;
    }
    if let Some(bias) = bias {
        normed = normed.binary(Add, wide(backend, bias)?.view())?;
    }
    normed.cast_to(out)
}

/// See [`Op::Variance`].
pub fn variance(
    backend: &dyn Backend,
    x: TensorRef,
    axis: usize,
    correction: f64,
    mean: TensorMut,
    out: TensorMut,
) -> Result<()> {
    let count = x.layout.dims()[axis] as f64;
    let x = wide(backend, x)?;
    let mut sum = Temp::new(backend, mean.layout.dims(), x.view().dtype)?;
    backend.reduce(ReduceOp::Sum, x.view(), axis, sum.view_mut())?;
    let average = sum.scalar(Div, count)?;
    let centred = binary(backend, Sub, x.view(), average.view())?;
    let squares = centred.binary(Mul, centred.view())?;
    backend.reduce(ReduceOp::Sum, squares.view(), axis, sum.view_mut())?;
    average.cast_to(mean)?;
    sum.scalar(Div, (count - correction).max(0.))?.cast_to(out)
}

/// See [`Op::StandardDeviation`]: in f64, which holds the squares of f32; on a device without it by [`ReduceOp::Norm`], whose
/// squares do not leave the range.
pub fn standard_deviation(
    backend: &dyn Backend,
    x: TensorRef,
    axis: usize,
    correction: f64,
    out: TensorMut,
) -> Result<()> {
    if !backend.has(F64) {
        return deviation_by_norm(backend, x, axis, correction, out);
    }
    let x = if x.dtype == F64 { temp::Wide::As(x) } else { temp::Wide::Cast(cast(backend, x, F64)?) };
    let dims = *out.layout.shape();
    let (mut mean, mut squares) = (Temp::new(backend, dims.dims(), F64)?, Temp::new(backend, dims.dims(), F64)?);
    variance(backend, x.view(), axis, correction, mean.view_mut(), squares.view_mut())?;
    squares.unary(UnaryOp::Sqrt)?.cast_to(out)
}

fn deviation_by_norm(backend: &dyn Backend, x: TensorRef, axis: usize, correction: f64, out: TensorMut) -> Result<()> {
    let count = x.layout.dims()[axis] as f64;
    // x less its mean, and once more: the sum of large numbers is rounded.
    let mut centred = Temp::copied(backend, wide(backend, x)?.view())?;
    let mut reduced = Temp::new(backend, out.layout.dims(), F32)?;
    for _ in 0..2 {
        let share = centred.scalar(Div, count)?;
        backend.reduce(ReduceOp::Sum, share.view(), axis, reduced.view_mut())?;
        centred = centred.binary(Sub, reduced.view())?;
    }
    backend.reduce(ReduceOp::Norm, centred.view(), axis, reduced.view_mut())?;
    reduced.scalar(Div, (count - correction).max(0.).sqrt())?.cast_to(out)
}

/// See [`Op::Rope`].
pub fn rope(
    backend: &dyn Backend,
    mut x: TensorMut,
    cos: TensorRef,
    sin: TensorRef,
    positions: TensorRef,
) -> Result<()> {
    let (tokens, half) = (x.layout.dims()[0], x.layout.shape().last() / 2);
    // [P, D/2] -> [T, D/2] -> [T, 1, D/2], which broadcasts over heads.
    let rows = |table: TensorRef| -> Result<Temp> {
        let mut out = Temp::new(backend, &[tokens, half], F32)?;
        let layout = positions.layout.unsqueeze(1)?.broadcast_to(&[tokens, half])?;
        backend.gather(wide(backend, table)?.view(), 0, TensorRef { layout, ..positions }, out.view_mut())?;
        out.layout = out.layout.unsqueeze(1)?;
        Ok(out)
    };
    let (cos, sin) = (rows(cos)?, rows(sin)?);
    let (low_layout, high_layout) = (x.layout.narrow(2, 0, half)?, x.layout.narrow(2, half, half)?);
    let low = wide(backend, TensorRef { layout: low_layout, ..x.as_ref() })?;
    let high = wide(backend, TensorRef { layout: high_layout, ..x.as_ref() })?;
    let times = |part: &temp::Wide, angle: &Temp| binary(backend, Mul, part.view(), angle.view());
    let new_low = times(&low, &cos)?.binary(Sub, times(&high, &sin)?.view())?;
    let new_high = times(&high, &cos)?.binary(Add, times(&low, &sin)?.view())?;
    drop((low, high));
    new_low.cast_to(TensorMut { layout: low_layout, ..x.reborrow() })?;
    new_high.cast_to(TensorMut { layout: high_layout, ..x })
}

/// See [`Op::Gated`].
pub fn gated(backend: &dyn Backend, act: GateActivation, gate: TensorMut, up: TensorRef) -> Result<()> {
    let active = active(act, &cast(backend, gate.as_ref(), temp::width(gate.dtype))?)?;
    active.binary(Mul, wide(backend, up)?.view())?.cast_to(gate)
}

/// The activation of a gate.
pub fn active<'b>(act: GateActivation, g: &Temp<'b>) -> Result<Temp<'b>> {
    match act {
        GateActivation::Relu2 => {
            let relu = g.unary(UnaryOp::Relu)?;
            relu.binary(Mul, relu.view())
        }
        GateActivation::Silu => g.binary(Mul, g.unary(UnaryOp::Sigmoid)?.view()),
        GateActivation::GeluTanh => g.unary(UnaryOp::GeluTanh),
    }
}

/// See [`Op::Embedding`].
pub fn embedding(backend: &dyn Backend, ids: TensorRef, table: TensorRef, out: TensorMut) -> Result<()> {
    let table = cast(backend, table, out.dtype)?;
    let layout = ids.layout.unsqueeze(1)?.broadcast_to(out.layout.dims())?;
    backend.gather(table.view(), 0, TensorRef { layout, ..ids }, out)
}

/// See [`Op::Linear`].
pub fn linear(backend: &dyn Backend, x: TensorRef, w: TensorRef, out: TensorMut) -> Result<()> {
    let w = cast(backend, w, F32)?;
    backend.matmul(x, TensorRef { layout: w.layout.transpose(0, 1)?, ..w.view() }, out)
}

/// See [`Op::ExpertLinear`].
pub fn expert_linear(
    backend: &dyn Backend,
    x: TensorRef,
    w: TensorRef,
    experts: TensorRef,
    out: TensorMut,
) -> Result<()> {
    let (&[tokens, inputs], &[rows, outputs]) = (x.layout.dims(), out.layout.dims()) else { unreachable!("checked") };
    let all = w.layout.dims()[0];
    let w = cast(backend, w, F32)?;
    let mut chosen = Temp::new(backend, &[rows, outputs, inputs], F32)?;
    let layout = experts.layout.unsqueeze(1)?.unsqueeze(2)?.broadcast_to(&[rows, outputs, inputs])?;
    let stacked = w.view().reshape(&[all / outputs, outputs, inputs])?;
    backend.gather(stacked, 0, TensorRef { layout, ..experts }, chosen.view_mut())?;
    let layout = x.layout.unsqueeze(1)?.broadcast_to(&[tokens, rows / tokens, inputs])?;
    let repeated = Temp::copied(backend, TensorRef { layout, ..x })?;
    backend.matmul(chosen.view(), repeated.view().reshape(&[rows, inputs, 1])?, out.reshape(&[rows, outputs, 1])?)
}
