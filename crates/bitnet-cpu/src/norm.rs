//! Euclid's norm and the standard deviation along a dimension, of numbers that their dtype cannot square too.

use super::CpuBackend;
use super::operand::unsupported;
use super::reduce::{Lanes, Value};
use bitnet_device::BitNetDType::{F32, F64};
use bitnet_device::backend::{Backend, Op, ReduceOp, TensorMut, TensorRef, UnaryOp};
use bitnet_device::{Layout, Result};
use std::ops::RangeInclusive;

/// Sums of squares of f32 in f32 that lost nothing that counts.
const SAFE_F32: RangeInclusive<f32> = 1e-28..=f32::MAX;

/// See [`ReduceOp::Norm`]: the root of a sum of squares, and where that left the range of normal numbers, once more by the
/// largest element.
pub(super) fn norm(cpu: &CpuBackend, x: TensorRef, axis: usize, mut out: TensorMut) -> Result<()> {
    if !matches!(x.dtype, F32 | F64) {
        return Err(unsupported("norm", x.dtype));
    }
    let layout = Layout::contiguous(*x.layout.shape());
    let mut squares = cpu.allocate(layout.shape().elements() * x.dtype.size())?;
    cpu.as_dyn().unary(UnaryOp::Square, x, TensorMut { storage: &mut squares, layout, dtype: x.dtype })?;
    cpu.as_dyn().reduce(
        ReduceOp::Sum,
        TensorRef { storage: &squares, layout, dtype: x.dtype },
        axis,
        out.reborrow(),
    )?;
    match x.dtype {
        F32 => finish(cpu, x, axis, out, SAFE_F32, |x| x as f32),
        _ => finish(cpu, x, axis, out, 1e-280..=f64::MAX, |x| x),
    }
}

/// Roots of the sums in `out`; those that are not `safe` are made of the elements again.
fn finish<T: Value<Wide = f64> + PartialOrd>(
    cpu: &CpuBackend,
    x: TensorRef,
    axis: usize,
    out: TensorMut,
    safe: RangeInclusive<T>,
    narrow: fn(f64) -> T,
) -> Result<()> {
    let layout = out.layout;
    let lanes = Lanes::<T>::new("norm", &x, axis)?;
    let sums = out.storage.cpu_mut("norm", out.dtype)?.elements_mut::<T>()?;
    let plain = layout.is_contiguous().then(|| &sums[layout.offset()..][..layout.shape().elements()]);
    // All are looked at: that is done many at a time.
    if plain.is_some_and(|sums| sums.iter().fold(true, |all, sum| all & (sum >= safe.start()) & (sum <= safe.end()))) {
        return cpu.as_dyn().unary_assign(UnaryOp::Sqrt, out);
    }
    for (start, place) in lanes.starts.indices().zip(layout.indices()) {
        let sum = sums[place];
        sums[place] = narrow(match safe.contains(&sum) {
            true => sum.wide().sqrt(),
            false => length(lanes.lane(start).map(T::wide)),
        });
    }
    Ok(())
}

/// The root of the sum of squares of what may have no square.
fn length(x: impl Iterator<Item = f64> + Clone) -> f64 {
    // f64::max would lose a NaN.
    let largest = x.clone().map(f64::abs).fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let exponent = largest.log2() as i32;
    let squares: f64 = x.map(|x| libm::scalbn(x, -exponent)).map(|x| x * x).sum();
    libm::scalbn(squares.sqrt(), exponent)
}

/// Root of the variance of f32 numbers that the kernels do not take, by the variance in f32; `false` where that left its range,
/// and for other dtypes.
pub(super) fn standard_deviation(
    cpu: &CpuBackend,
    x: TensorRef,
    axis: usize,
    correction: f64,
    out: &mut TensorMut,
) -> Result<bool> {
    if x.dtype != F32 || !out.layout.is_contiguous() {
        return Ok(false);
    }
    let layout = Layout::contiguous(*out.layout.shape());
    let mut mean = cpu.allocate(layout.shape().elements() * size_of::<f32>())?;
    let mean = TensorMut { storage: &mut mean, layout, dtype: F32 };
    Op::Variance { axis, correction }.compose(cpu, &[x], &mut [mean, out.reborrow()])?;
    let variances = out.storage.cpu("standard_deviation", F32)?.elements::<f32>()?;
    let variances = &variances[out.layout.offset()..][..out.layout.shape().elements()];
    if !variances.iter().all(|v| SAFE_F32.contains(v)) {
        return Ok(false);
    }
    cpu.as_dyn().unary_assign(UnaryOp::Sqrt, out.reborrow()).map(|()| true)
}

/// Whether a sum of squares of f32 that was made in f32 lost nothing that counts.
pub(super) fn is_safe(squares: f64) -> bool {
    (f64::from(*SAFE_F32.start())..=f64::from(*SAFE_F32.end())).contains(&squares)
}

/// The sum of squared differences of f32 numbers from their mean, in f64.
pub(super) fn squares_in_f64(x: impl Iterator<Item = f32> + Clone) -> f64 {
    let (mut numbers, mut sum, mut differ) = (0, 0.0, false);
    let first = x.clone().next();
    for x in x.clone() {
        differ |= Some(x) != first;
        sum += f64::from(x);
        numbers += 1;
    }
    let mean = sum / f64::from(numbers);
    if differ { x.map(|x| (f64::from(x) - mean).powi(2)).sum() } else { 0.0 }
}
