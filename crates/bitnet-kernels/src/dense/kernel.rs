//! [`DenseKernel`] for every instruction set that has vectors.

use super::{Binary, DenseKernel, Half, Moments, columns, convert, elementwise, rows, transpose};
use crate::Isa;
use crate::float::simd::{Simd, inlined};
use bitnet_device::backend::UnaryOp;

/// Numbers that an operation in place takes at a time, from a copy in the nearest cache.
const BUFFER: usize = 512;

impl<S: Simd> DenseKernel for S {
    fn isa(&self) -> Isa {
        S::ISA
    }

    fn unary(&self, op: UnaryOp, x: &[f32], out: &mut [f32]) {
        let s = *self;
        assert_eq!(x.len(), out.len());
        s.enter(inlined!(|| elementwise::unary(s, op, x, out)));
    }

    fn unary_assign(&self, op: UnaryOp, x: &mut [f32]) {
        let mut buffer = [0.0; BUFFER];
        for x in x.chunks_mut(BUFFER) {
            let copy = &mut buffer[..x.len()];
            copy.copy_from_slice(x);
            self.unary(op, copy, x);
        }
    }

    fn binary(&self, op: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
        super::repeats(a, b);
        assert_eq!(a.len(), out.len());
        self.enter(inlined!(|| elementwise::binary(op, a, b, out)));
    }

    fn binary_assign(&self, op: Binary, a: &mut [f32], b: &[f32]) {
        super::repeats(a, b);
        let mut buffer = [0.0; BUFFER];
        // A part of one repetition, or some whole ones.
        let many = BUFFER / b.len() * b.len();
        if many > 0 {
            for a in a.chunks_mut(many) {
                let copy = &mut buffer[..a.len()];
                copy.copy_from_slice(a);
                DenseKernel::binary(self, op, copy, b, a);
            }
        } else {
            for a in a.chunks_exact_mut(b.len()) {
                for (a, b) in a.chunks_mut(BUFFER).zip(b.chunks(BUFFER)) {
                    let copy = &mut buffer[..a.len()];
                    copy.copy_from_slice(a);
                    DenseKernel::binary(self, op, copy, b, a);
                }
            }
        }
    }

    fn sum(&self, x: &[f32]) -> f64 {
        let s = *self;
        s.enter(inlined!(|| rows::sum(s, x)))
    }

    fn extreme(&self, largest: bool, x: &[f32]) -> f32 {
        let s = *self;
        s.enter(inlined!(|| rows::extreme(s, largest, x)))
    }

    fn moments(&self, x: &[f32]) -> Moments {
        let s = *self;
        s.enter(inlined!(|| rows::moments(s, x)))
    }

    fn column_sums(&self, x: &[f32], stride: usize, rows: usize, sums: &mut [f64]) {
        let s = *self;
        s.enter(inlined!(|| columns::sums(s, x, stride, rows, sums)));
    }

    fn column_extremes(&self, largest: bool, x: &[f32], stride: usize, rows: usize, out: &mut [f32]) {
        let s = *self;
        s.enter(inlined!(|| columns::extremes(s, largest, x, stride, rows, out)));
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
        let s = *self;
        s.enter(inlined!(|| columns::moments(s, x, stride, rows, before, sums, squares)));
    }

    fn softmax(&self, x: &[f32], columns: usize, logarithm: bool, out: &mut [f32]) {
        let s = *self;
        super::whole_rows(x, columns, out);
        s.enter(inlined!(|| rows::softmax(s, x, columns, logarithm, out)));
    }

    fn layer_norm(&self, x: &[f32], columns: usize, weight: &[f32], bias: &[f32], eps: f64, out: &mut [f32]) {
        let s = *self;
        super::whole_rows(x, columns, out);
        super::per_column(columns, &[weight, bias]);
        s.enter(inlined!(|| rows::layer_norm(s, x, columns, weight, bias, eps, out)));
    }

    fn transpose(&self, x: &[f32], stride: usize, rows: usize, first: usize, stream: bool, out: &mut [f32]) {
        let s = *self;
        s.enter(inlined!(|| transpose::transpose(s, x, stride, rows, first, stream, out)));
    }

    fn narrow(&self, to: Half, x: &[f32], out: &mut [u16]) {
        let s = *self;
        assert_eq!(x.len(), out.len());
        match to {
            Half::F16 => s.enter(inlined!(|| convert::to_f16(s, x, out))),
            Half::BF16 => s.enter(inlined!(|| convert::to_bf16(x, out))),
        }
    }

    fn widen(&self, from: Half, x: &[u16], out: &mut [f32]) {
        let s = *self;
        assert_eq!(x.len(), out.len());
        match from {
            Half::F16 => s.enter(inlined!(|| convert::from_f16(s, x, out))),
            Half::BF16 => s.enter(inlined!(|| convert::from_bf16(x, out))),
        }
    }

    fn to_i8(&self, x: &[f32], out: &mut [i8]) {
        assert_eq!(x.len(), out.len());
        self.enter(inlined!(|| convert::to_i8(x, out)));
    }

    fn widen_i8(&self, x: &[i8], out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        self.enter(inlined!(|| convert::widen_i8(x, out)));
    }
}
