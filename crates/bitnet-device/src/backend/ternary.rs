//! Ternary products composed of primitives.

use super::fused::temp::{Temp, binary, cast};
use super::*;
use BinaryOp::*;
use BitNetDType::{F16, F32, I8, I32};

/// Below 0.5, the number that added to a magnitude rounds it to the nearest integer, ties away from zero, when what is after the
/// point is cut off: 0.5 itself would round its predecessor up.
const HALF: f64 = 0.499_999_97;

/// See [`Op::QuantizeActivations`].
pub fn quantize_activations(
    backend: &dyn Backend,
    rule: ActivationRule,
    x: TensorRef,
    mut values: TensorMut,
    scales: TensorMut,
    mut sums: TensorMut,
) -> Result<()> {
    const UNIT: usize = ActivationRule::SUM_COLUMNS;
    let [tokens, columns] = [x.layout.dims()[0], x.layout.shape().last()];
    if tokens * columns == 0 {
        return Ok(());
    }
    let block = rule.block().unwrap_or(columns.next_multiple_of(UNIT));
    let blocks = rule.blocks(columns);
    let width = blocks * block;
    let mut padded = Temp::upload(backend, &[tokens, width], &vec![0f32; tokens * width])?;
    backend.copy(x, padded.view_mut().narrow(1, 0, columns)?)?;
    padded.layout = padded.layout.reshape(&[tokens * blocks, block])?;
    let magnitudes = padded.unary(UnaryOp::Abs)?;
    let least = if rule == ActivationRule::Token { 1e-5 } else { 1e-30 };
    let largest = magnitudes.reduce_last(ReduceOp::Max)?.scalar(Maximum, least)?;
    let over = |numerator: f32, x: &Temp| {
        let numerator = Temp::upload(backend, &[1], &[numerator])?;
        let layout = numerator.layout.broadcast_to(x.layout.dims())?;
        binary(backend, Div, TensorRef { layout, ..numerator.view() }, x.view())
    };
    let (mut scale, digits) = match rule {
        ActivationRule::Token => {
            let factor = over(127., &largest)?;
            let rounded = padded.binary(Mul, factor.view())?.unary(UnaryOp::Round)?;
            (factor, vec![rounded.scalar(Maximum, -128.)?.scalar(Minimum, 127.)?])
        }
        ActivationRule::Block32 => {
            let step = largest.scalar(Div, 127.)?;
            let exact = padded.binary(Mul, over(1., &step)?.view())?;
            let rounded = exact.unary(UnaryOp::Abs)?.scalar(Add, HALF)?.unary(UnaryOp::Floor)?;
            (step.cast(F16)?.cast(F32)?, vec![rounded.binary(Mul, exact.unary(UnaryOp::Sign)?.view())?])
        }
        ActivationRule::Block256 => {
            let index = if backend.has(BitNetDType::I64) { BitNetDType::I64 } else { BitNetDType::U32 };
            let mut first = Temp::new(backend, &[tokens * blocks, 1], index)?;
            backend.reduce(ReduceOp::ArgMax, magnitudes.view(), 1, first.view_mut())?;
            let mut signed = Temp::new(backend, &[tokens * blocks, 1], F32)?;
            backend.gather(padded.view(), 1, first.view(), signed.view_mut())?;
            // The sign, +1 of zero.
            let sign = signed.unary(UnaryOp::Sign)?;
            let zero = sign.unary(UnaryOp::Abs)?.scalar(Sub, 1.)?;
            let factor = over(-127., &largest.binary(Mul, sign.binary(Sub, zero.view())?.view())?)?;
            let rounded = padded.binary(Mul, factor.view())?.unary(UnaryOp::Round)?.scalar(Minimum, 127.)?;
            (over(1., &factor)?, vec![rounded])
        }
        ActivationRule::Float => {
            let mut rest = padded.binary(Mul, over(FLOAT_STEPS, &largest)?.view())?.unary(UnaryOp::Round)?;
            let mut digits = Vec::new();
            for _ in 1..rule.digits() {
                let upper = rest.scalar(Add, 128.)?.scalar(Mul, 1. / 256.)?.unary(UnaryOp::Floor)?;
                digits.push(rest.binary(Sub, upper.scalar(Mul, 256.)?.view())?);
                rest = upper;
            }
            digits.push(rest);
            (largest.scalar(Div, FLOAT_STEPS.into())?, digits)
        }
    };
    for (digit, mut q) in digits.into_iter().enumerate() {
        q.layout = q.layout.reshape(&[tokens, width / UNIT, UNIT])?;
        // Exact in f32: at most 128 * 32.
        let totals = q.reduce_last(ReduceOp::Sum)?.cast(I32)?;
        let totals = totals.view().narrow(1, 0, columns.div_ceil(UNIT))?.transpose(1, 2)?;
        backend.copy(totals, sums.reborrow().narrow(1, digit, 1)?)?;
        q.layout = q.layout.reshape(&[tokens, 1, width])?;
        let q = q.cast(I8)?;
        backend.copy(q.view().narrow(2, 0, columns)?, values.reborrow().narrow(1, digit, 1)?)?;
    }
    scale.layout = scale.layout.reshape(&[tokens, blocks])?;
    scale.copy_to(scales)
}

/// Steps between 0 and the largest magnitude of a block of [`ActivationRule::Float`]: 127 * 2^16, the most that keeps the highest
/// digit within 8 bits.
pub const FLOAT_STEPS: f32 = 8_323_072.;

/// See [`Backend::pack_ternary`]; the canonical codes stacked, the scales of every row.
pub fn pack_ternary(backend: &dyn Backend, parts: &[TernarySource]) -> Result<PackedTernary> {
    parts.iter().try_for_each(TernarySource::check)?;
    let (columns, groups) = parts.first().map_or((0, 1), |part| (part.columns, part.groups()));
    let codes: Vec<u8> = parts.iter().flat_map(|part| part.codes.iter().copied()).collect();
    let of_rows = parts.iter().flat_map(|part| (0..part.rows).flat_map(|row| part.row_scales(row)));
    let scales: Vec<f32> = of_rows.copied().collect();
    let rows = parts.iter().map(|part| part.rows).sum();
    let (storage, scales) = (backend.upload(&codes)?, backend.upload(bytemuck::cast_slice(&scales))?);
    PackedTernary::new(storage, scales, groups, rows, columns)
}

/// See [`Op::TernaryMatmul`]. With one scale for the input and each row the integer product is exact while `128 * K < 2^24`;
/// with more, both operands are multiplied by theirs first.
pub fn ternary_matmul(
    backend: &dyn Backend,
    x: QuantizedActivations,
    weights: TensorRef,
    row_scales: TensorRef,
    out: TensorMut,
) -> Result<()> {
    let (dims, inputs) = (*out.layout.shape(), weights.layout.shape().last());
    let token = x.rule == ActivationRule::Token;
    let groups = row_scales.layout.shape().last();
    // The digits, the highest first.
    let digit = |at: usize| cast(backend, TensorRef { layout: x.values.layout.select(1, at)?, ..x.values }, F32);
    let mut values = digit(x.rule.digits() - 1)?;
    for at in (0..x.rule.digits() - 1).rev() {
        values = values.scalar(Mul, 256.)?.binary(Add, digit(at)?.view())?;
    }
    if !token {
        values = scaled(backend, values, x.scales, x.rule.block().unwrap_or(inputs))?;
    }
    let mut w = cast(backend, weights, F32)?;
    if groups > 1 {
        w = scaled(backend, w, row_scales, inputs / groups)?;
    }
    let mut product = Temp::new(backend, dims.dims(), F32)?;
    backend.matmul(values.view(), w.view().transpose(0, 1)?, product.view_mut())?;
    if groups == 1 {
        product = product.binary(Mul, row_scales.transpose(0, 1)?)?;
    }
    if token {
        product = product.binary(Div, x.scales)?;
    }
    product.copy_to(out)
}

/// `x` `[N, K]` times the scale of each stretch of `block` columns, `scales` `[N, ceil(K / block)]`.
fn scaled<'b>(backend: &'b dyn Backend, x: Temp<'b>, scales: TensorRef, block: usize) -> Result<Temp<'b>> {
    let (rows, columns, blocks) = (x.layout.dims()[0], x.layout.shape().last(), scales.layout.shape().last());
    let mut out = Temp::new(backend, &[rows, columns], F32)?;
    let whole = columns / block;
    for (first, count, width) in [(0, whole, block), (whole, blocks - whole, columns - whole * block)] {
        if count * width > 0 {
            let part = |t: &Layout| t.narrow(1, first * block, count * width)?.unfold(1, width, width);
            let scales = scales.narrow(1, first, count)?;
            let scales = TensorRef { layout: scales.layout.unsqueeze(2)?, ..scales };
            let product = binary(backend, Mul, TensorRef { layout: part(&x.layout)?, ..x.view() }, scales)?;
            product.copy_to(TensorMut { layout: part(&out.layout)?, ..out.view_mut() })?;
        }
    }
    Ok(out)
}
