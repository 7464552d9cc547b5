//! The specification of the dense operations: plain loops, functions and sums in f64.

use super::{Binary, DenseKernel, Half, Moments, convert, elementwise, rows::further};
use crate::float::half::{bf16_to_f32, f16_to_f32, f32_to_f16};
use crate::isa::{Isa, Scalar};
use crate::lengths::check_rows;
use bitnet_device::backend::UnaryOp;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, SQRT_2};

fn function(op: UnaryOp, x: f64) -> f64 {
    match op {
        UnaryOp::Exp => x.exp(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Erf => libm::erf(x),
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        UnaryOp::Silu => x / (1.0 + (-x).exp()),
        UnaryOp::GeluErf => x * (libm::erfc(-x * FRAC_1_SQRT_2) / 2.0),
        UnaryOp::GeluTanh => x / (1.0 + (-SQRT_2 * FRAC_2_SQRT_PI * (x + 0.044_715 * x * x * x)).exp()),
        _ => unreachable!("{op:?} is plain"),
    }
}

/// Column `column` of rows `stride` apart.
fn column(x: &[f32], stride: usize, rows: usize, column: usize) -> impl Iterator<Item = f32> + Clone {
    (0..rows).map(move |row| x[row * stride + column])
}

fn moments(x: impl Iterator<Item = f32> + Clone) -> Moments {
    let (count, sum) = x.clone().fold((0.0, 0.0), |(count, sum), v| (count + 1.0, sum + v as f64));
    let mean = sum / count;
    let squares = x.map(|v| (v as f64 - mean) * (v as f64 - mean)).sum();
    Moments { count, sum, squares }
}

impl DenseKernel for Scalar {
    fn isa(&self) -> Isa {
        Isa::Scalar
    }

    fn unary(&self, op: UnaryOp, x: &[f32], out: &mut [f32]) {
        use UnaryOp::*;
        assert_eq!(x.len(), out.len());
        if matches!(op, Exp | Tanh | Erf | Sigmoid | Silu | GeluErf | GeluTanh) {
            out.iter_mut().zip(x).for_each(|(out, &x)| *out = function(op, x as f64) as f32);
        } else {
            elementwise::plain(op, x, out);
        }
    }

    fn unary_assign(&self, op: UnaryOp, x: &mut [f32]) {
        for x in x {
            let before = [*x];
            DenseKernel::unary(self, op, &before, std::slice::from_mut(x));
        }
    }

    fn binary(&self, op: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
        super::repeats(a, b);
        assert_eq!(a.len(), out.len());
        elementwise::binary(op, a, b, out);
    }

    fn binary_assign(&self, op: Binary, a: &mut [f32], b: &[f32]) {
        super::repeats(a, b);
        for (a, b) in a.iter_mut().zip(b.iter().cycle()) {
            let before = [*a];
            elementwise::binary(op, &before, &[*b], std::slice::from_mut(a));
        }
    }

    fn sum(&self, x: &[f32]) -> f64 {
        x.iter().map(|&v| v as f64).sum()
    }

    fn extreme(&self, largest: bool, x: &[f32]) -> f32 {
        let none = if largest { f32::NEG_INFINITY } else { f32::INFINITY };
        x.iter().fold(none, |a, &b| further(largest, a, b))
    }

    fn moments(&self, x: &[f32]) -> Moments {
        moments(x.iter().copied())
    }

    fn column_sums(&self, x: &[f32], stride: usize, rows: usize, sums: &mut [f64]) {
        check_rows(x.len(), stride, rows, 0, sums.len());
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += column(x, stride, rows, i).map(f64::from).sum::<f64>();
        }
    }

    fn column_extremes(&self, largest: bool, x: &[f32], stride: usize, rows: usize, out: &mut [f32]) {
        check_rows(x.len(), stride, rows, 0, out.len());
        for (i, out) in out.iter_mut().enumerate() {
            *out = column(x, stride, rows, i).fold(*out, |a, b| further(largest, a, b));
        }
    }

    fn column_moments(
        &self,
        x: &[f32],
        stride: usize,
        rows: usize,
        before: f64,
        sums: &mut [f64],
        squares: &mut [f64],
    ) {
        check_rows(x.len(), stride, rows, 0, sums.len());
        assert_eq!(sums.len(), squares.len(), "sums and squares of the same columns");
        for (i, (sum, squares)) in sums.iter_mut().zip(squares).enumerate() {
            let so_far = Moments { count: before, sum: *sum, squares: *squares };
            let all = if rows == 0 { so_far } else { so_far.join(moments(column(x, stride, rows, i))) };
            (*sum, *squares) = (all.sum, all.squares);
        }
    }

    fn softmax(&self, x: &[f32], columns: usize, logarithm: bool, out: &mut [f32]) {
        super::whole_rows(x, columns, out);
        for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
            let top = self.extreme(true, x);
            // The difference is rounded to f32, as PyTorch and the vectors do.
            let sum: f64 = x.iter().map(|&v| f64::from(v - top).exp()).sum();
            for (out, &x) in out.iter_mut().zip(x) {
                let below = f64::from(x - top);
                *out = if logarithm { below - sum.ln() } else { below.exp() / sum } as f32;
            }
        }
    }

    fn layer_norm(&self, x: &[f32], columns: usize, weight: &[f32], bias: &[f32], eps: f64, out: &mut [f32]) {
        super::whole_rows(x, columns, out);
        super::per_column(columns, &[weight, bias]);
        for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
            let all = moments(x.iter().copied());
            let (mean, scale) = (all.sum / all.count, 1.0 / (all.squares / all.count + eps).sqrt());
            for i in 0..columns {
                let weight = weight.get(i).map_or(1.0, |&w| w as f64);
                out[i] = ((x[i] as f64 - mean) * scale * weight + bias.get(i).map_or(0.0, |&b| b as f64)) as f32;
            }
        }
    }

    fn transpose(&self, x: &[f32], stride: usize, rows: usize, first: usize, _stream: bool, out: &mut [f32]) {
        if super::columns_of(x, stride, rows, first, out).is_none() {
            return;
        }
        for (i, out) in out.chunks_exact_mut(rows).enumerate() {
            out.iter_mut().zip(column(x, stride, rows, first + i)).for_each(|(out, v)| *out = v);
        }
    }

    fn narrow(&self, to: Half, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len());
        for (out, &x) in out.iter_mut().zip(x) {
            *out = if to == Half::F16 { f32_to_f16(x) } else { convert::f32_to_bf16(x) };
        }
    }

    fn widen(&self, from: Half, x: &[u16], out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        for (out, &x) in out.iter_mut().zip(x) {
            *out = if from == Half::F16 { f16_to_f32(x) } else { bf16_to_f32(x) };
        }
    }

    fn to_i8(&self, x: &[f32], out: &mut [i8]) {
        assert_eq!(x.len(), out.len());
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = x as i8);
    }

    fn widen_i8(&self, x: &[i8], out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        convert::widen_i8(x, out);
    }
}
