//! Fused operations composed of primitives: the defaults of [`Backend`], and the reference for overrides.
//!
//! Floats narrower than f32 are computed in f32 and rounded once, f64 in f64.

pub(super) mod temp;

use super::*;
use crate::{TensorOpError, TensorShape};
use BinaryOp::*;
use BitNetDType::{Bool, F32, F64, I8};
use temp::{Temp, binary, cast, wide};

/// See [`Backend::unary_assign`].
pub fn unary_assign(backend: &dyn Backend, op: UnaryOp, x: TensorMut) -> Result<()> {
    let mut out = Temp::new(backend, x.layout.dims(), x.dtype)?;
    backend.unary(op, x.as_ref(), out.view_mut())?;
    out.copy_to(x)
}

/// See [`Backend::binary_assign`].
pub fn binary_assign(backend: &dyn Backend, op: BinaryOp, y: TensorMut, x: TensorRef) -> Result<()> {
    let x = TensorRef { layout: x.layout.broadcast_to(y.layout.dims())?, ..x };
    let mut out = Temp::new(backend, y.layout.dims(), y.dtype)?;
    backend.binary(op, y.as_ref(), x, out.view_mut())?;
    out.copy_to(y)
}

/// See [`Backend::rms_norm`].
pub fn rms_norm(backend: &dyn Backend, x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) -> Result<()> {
    if *weight.layout.dims() != [x.layout.shape().last()] {
        return Err(shape_error("rms_norm", "weight", &weight, "[H], the last dimension of x"));
    }
    let (x, weight) = (wide(backend, x)?, wide(backend, weight)?);
    let columns = x.view().layout.shape().last() as f64;
    let mean = binary(backend, Mul, x.view(), x.view())?.reduce_last(ReduceOp::Sum)?.scalar(Div, columns)?;
    let factor = mean.scalar(Add, eps.into())?.unary(UnaryOp::Sqrt)?.unary(UnaryOp::Reciprocal)?;
    binary(backend, Mul, x.view(), factor.view())?.binary(Mul, weight.view())?.cast_to(out)
}

/// See [`Backend::softmax`].
pub fn softmax(backend: &dyn Backend, x: TensorRef, out: TensorMut) -> Result<()> {
    if x.layout.shape().elements() == 0 {
        return Ok(());
    }
    let exp = shifted(backend, x)?.unary(UnaryOp::Exp)?;
    exp.binary(Div, exp.reduce_last(ReduceOp::Sum)?.view())?.cast_to(out)
}

/// See [`Backend::log_softmax`].
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

/// See [`Backend::layer_norm`].
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

/// See [`Backend::variance`].
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

/// See [`Backend::standard_deviation`]: in f64, which holds the squares of f32.
pub fn standard_deviation(
    backend: &dyn Backend,
    x: TensorRef,
    axis: usize,
    correction: f64,
    out: TensorMut,
) -> Result<()> {
    let x = if x.dtype == F64 { temp::Wide::As(x) } else { temp::Wide::Cast(cast(backend, x, F64)?) };
    let dims = *out.layout.shape();
    let (mut mean, mut squares) = (Temp::new(backend, dims.dims(), F64)?, Temp::new(backend, dims.dims(), F64)?);
    variance(backend, x.view(), axis, correction, mean.view_mut(), squares.view_mut())?;
    squares.unary(UnaryOp::Sqrt)?.cast_to(out)
}

/// See [`Backend::rope`].
pub fn rope(backend: &dyn Backend, mut x: TensorMut, cos: TensorRef, sin: TensorRef, start: usize) -> Result<()> {
    let (tokens, half) = (x.layout.dims()[0], x.layout.shape().last() / 2);
    // [positions, D/2] -> [T, 1, D/2], which broadcasts over heads.
    let rows = |t: TensorRef| -> Result<Layout> { t.layout.narrow(0, start, tokens)?.unsqueeze(1) };
    let cos = wide(backend, TensorRef { layout: rows(cos)?, ..cos })?;
    let sin = wide(backend, TensorRef { layout: rows(sin)?, ..sin })?;
    let (low_layout, high_layout) = (x.layout.narrow(2, 0, half)?, x.layout.narrow(2, half, half)?);
    let low = wide(backend, TensorRef { layout: low_layout, ..x.as_ref() })?;
    let high = wide(backend, TensorRef { layout: high_layout, ..x.as_ref() })?;
    let times = |part: &temp::Wide, angle: &temp::Wide| binary(backend, Mul, part.view(), angle.view());
    let new_low = times(&low, &cos)?.binary(Sub, times(&high, &sin)?.view())?;
    let new_high = times(&high, &cos)?.binary(Add, times(&low, &sin)?.view())?;
    drop((low, high));
    new_low.cast_to(TensorMut { layout: low_layout, ..x.reborrow() })?;
    new_high.cast_to(TensorMut { layout: high_layout, ..x })
}

/// See [`Backend::attention`].
pub fn attention(
    backend: &dyn Backend,
    q: TensorRef,
    keys: TensorRef,
    values: TensorRef,
    start: usize,
    out: TensorMut,
) -> Result<()> {
    let [tokens, heads, width] = q.layout.dims() else {
        return Err(shape_error("attention", "q", &q, "[T, heads, D]"));
    };
    let (tokens, kv_heads, seen) = (tokens.to_owned(), keys.layout.dims()[0], start + tokens);
    let group = heads / kv_heads;
    // [T, heads, D] -> [kv_heads, group, T, D]
    let by_head = |l: &Layout| l.reshape(&[tokens, kv_heads, group, *width])?.transpose(0, 1)?.transpose(1, 2);
    // [kv_heads, capacity, D] -> [kv_heads, group, seen, D], f32
    let cached = |t: TensorRef| -> Result<(Temp, Layout)> {
        let temp = cast(backend, TensorRef { layout: t.layout.narrow(1, 0, seen)?, ..t }, F32)?;
        let layout = temp.layout.unsqueeze(1)?.broadcast_to(&[kv_heads, group, seen, *width])?;
        Ok((temp, layout))
    };
    let (keys, key_layout) = cached(keys)?;
    let mut scores = Temp::new(backend, &[kv_heads, group, tokens, seen], F32)?;
    let transposed = TensorRef { layout: key_layout.transpose(2, 3)?, ..keys.view() };
    backend.matmul(TensorRef { layout: by_head(&q.layout)?, ..q }, transposed, scores.view_mut())?;
    let scores = scores.scalar(Div, (*width as f64).sqrt())?;

    // Token t attends to positions 0..=start + t.
    let rows: Vec<f32> = (0..tokens).map(|t| (start + t) as f32).collect();
    let columns: Vec<f32> = (0..seen).map(|s| s as f32).collect();
    let (rows, columns) = (Temp::upload(backend, &[tokens, 1], &rows)?, Temp::upload(backend, &[seen], &columns)?);
    let dims = [kv_heads, group, tokens, seen];
    let expand = |t: &Temp| t.layout.broadcast_to(&dims);
    let mut visible = Temp::new(backend, &dims, Bool)?;
    let (row, column) = (expand(&rows)?, expand(&columns)?);
    backend.compare(
        CompareOp::Le,
        TensorRef { layout: column, ..columns.view() },
        TensorRef { layout: row, ..rows.view() },
        visible.view_mut(),
    )?;
    let hidden = Temp::upload(backend, &[1], &[f32::NEG_INFINITY])?;
    let mut masked = Temp::new(backend, &dims, F32)?;
    let hidden = TensorRef { layout: expand(&hidden)?, ..hidden.view() };
    backend.select(visible.view(), scores.view(), hidden, masked.view_mut())?;

    let mut weights = Temp::new(backend, &dims, F32)?;
    softmax(backend, masked.view(), weights.view_mut())?;
    let (values, value_layout) = cached(values)?;
    let layout = by_head(&out.layout)?;
    backend.matmul(weights.view(), TensorRef { layout: value_layout, ..values.view() }, TensorMut { layout, ..out })
}

/// See [`Backend::gated`].
pub fn gated(backend: &dyn Backend, act: GateActivation, gate: TensorMut, up: TensorRef) -> Result<()> {
    let g = cast(backend, gate.as_ref(), temp::width(gate.dtype))?;
    let active = match act {
        GateActivation::Relu2 => {
            let relu = g.unary(UnaryOp::Relu)?;
            relu.binary(Mul, relu.view())?
        }
        GateActivation::Silu => g.binary(Mul, g.unary(UnaryOp::Sigmoid)?.view())?,
    };
    active.binary(Mul, wide(backend, up)?.view())?.cast_to(gate)
}

/// See [`Backend::embedding`].
pub fn embedding(backend: &dyn Backend, ids: &[u32], table: TensorRef, out: TensorMut) -> Result<()> {
    let ids = Temp::upload(backend, &[ids.len(), 1], ids)?;
    let table = cast(backend, table, out.dtype)?;
    backend.gather(
        table.view(),
        0,
        TensorRef { layout: ids.layout.broadcast_to(out.layout.dims())?, ..ids.view() },
        out,
    )
}

/// See [`Backend::linear`].
pub fn linear(backend: &dyn Backend, x: TensorRef, w: TensorRef, out: TensorMut) -> Result<()> {
    let w = cast(backend, w, F32)?;
    backend.matmul(x, TensorRef { layout: w.layout.transpose(0, 1)?, ..w.view() }, out)
}

/// See [`Backend::quantize_activations`].
pub fn quantize_activations(
    backend: &dyn Backend,
    x: TensorRef,
    values: TensorMut,
    mut scales: TensorMut,
    sums: TensorMut,
) -> Result<()> {
    let tokens = x.layout.dims()[0];
    let largest = cast(backend, x, F32)?.unary(UnaryOp::Abs)?.reduce_last(ReduceOp::Max)?.scalar(Maximum, 1e-5)?;
    let numerator = Temp::upload(backend, &[1], &[127f32])?;
    let numerator = TensorRef { layout: numerator.layout.broadcast_to(largest.layout.dims())?, ..numerator.view() };
    let factor = binary(backend, Div, numerator, largest.view())?;
    let rounded = binary(backend, Mul, x, factor.view())?.unary(UnaryOp::Round)?;
    let clamped = rounded.scalar(Maximum, -128.)?.scalar(Minimum, 127.)?;
    clamped.cast(I8)?.copy_to(values)?;
    let column = |layout: &Layout| layout.unsqueeze(1);
    factor.copy_to(TensorMut { layout: column(&scales.layout)?, ..scales.reborrow() })?;
    // Exact in f32: at most 128 * K, below 2^24 for any K up to 131072.
    let total = clamped.reduce_last(ReduceOp::Sum)?;
    debug_assert_eq!(total.layout.dims(), [tokens, 1]);
    backend.cast(total.view(), TensorMut { layout: column(&sums.layout)?, ..sums })
}

/// See [`Backend::pack_ternary`]; the canonical codes stacked, a scale for every row.
pub fn pack_ternary(backend: &dyn Backend, parts: &[TernarySource]) -> Result<PackedTernary> {
    let columns = parts.first().map_or(0, |part| part.columns);
    let codes: Vec<u8> = parts.iter().flat_map(|part| part.codes.iter().copied()).collect();
    let scales: Vec<f32> = parts.iter().flat_map(|part| std::iter::repeat_n(part.scale, part.rows)).collect();
    Ok(PackedTernary { storage: backend.upload(&codes)?, rows: scales.len(), columns, scales })
}

/// See [`Backend::ternary_matmul`]; exact while `128 * K < 2^24`.
pub fn ternary_matmul(backend: &dyn Backend, x: QuantizedActivations, w: &PackedTernary, out: TensorMut) -> Result<()> {
    let codes = TensorRef {
        storage: &w.storage,
        layout: Layout::contiguous(TensorShape::new(&[w.rows, w.columns])?),
        dtype: BitNetDType::Ternary2,
    };
    let (values, weights) = (cast(backend, x.values, F32)?, cast(backend, codes, F32)?);
    let mut product = Temp::new(backend, out.layout.dims(), F32)?;
    let transposed = TensorRef { layout: weights.layout.transpose(0, 1)?, ..weights.view() };
    backend.matmul(values.view(), transposed, product.view_mut())?;
    let factors = Temp::upload(backend, &[w.rows], &w.scales)?;
    let scales = TensorRef { layout: x.scales.layout.unsqueeze(1)?, ..x.scales };
    product.binary(Mul, factors.view())?.binary(Div, scales)?.copy_to(out)
}

fn shape_error(op: &'static str, what: &'static str, got: &TensorRef, needed: &str) -> BitNetError {
    TensorOpError::Shape { op, what, got: *got.layout.shape(), needed: needed.into() }.into()
}
