//! Elementwise operations. What is one instruction is a plain loop, which the compiler vectorizes where it is inlined into
//! [`Simd::enter`]; the functions of [`math`] take a vector at a time.

use super::{Binary, math};
use crate::float::simd::{MAX_LANES, Simd, inlined};
use bitnet_device::backend::UnaryOp;

/// See [`super::DenseKernel::unary`].
#[inline(always)]
pub(super) fn unary<S: Simd>(s: S, op: UnaryOp, x: &[f32], out: &mut [f32]) {
    match op {
        UnaryOp::Exp => vectors(s, x, out, inlined!(|v| s.exp(v))),
        UnaryOp::Tanh => vectors(s, x, out, inlined!(|v| math::tanh(s, v))),
        UnaryOp::Erf => vectors(s, x, out, inlined!(|v| math::erf(s, v))),
        UnaryOp::Sigmoid => vectors(s, x, out, inlined!(|v| math::sigmoid(s, v))),
        UnaryOp::Silu => vectors(s, x, out, inlined!(|v| math::silu(s, v))),
        UnaryOp::GeluErf => vectors(s, x, out, inlined!(|v| math::gelu_erf(s, v))),
        UnaryOp::GeluTanh => vectors(s, x, out, inlined!(|v| math::gelu_tanh(s, v))),
        _ => plain(op, x, out),
    }
}

/// The functions that are one instruction or two.
#[inline(always)]
pub(super) fn plain(op: UnaryOp, x: &[f32], out: &mut [f32]) {
    match op {
        UnaryOp::Neg => map(x, out, inlined!(|x| -x)),
        UnaryOp::Abs => map(x, out, inlined!(|x| x.abs())),
        UnaryOp::Square => map(x, out, inlined!(|x| x * x)),
        UnaryOp::Relu => map(x, out, relu),
        UnaryOp::Relu2 => map(x, out, inlined!(|x| relu(x) * relu(x))),
        UnaryOp::Sqrt => map(x, out, inlined!(|x| x.sqrt())),
        UnaryOp::Rsqrt => map(x, out, inlined!(|x| 1.0 / x.sqrt())),
        UnaryOp::Reciprocal => map(x, out, inlined!(|x| 1.0 / x)),
        UnaryOp::Floor => map(x, out, inlined!(|x| x.floor())),
        UnaryOp::Ceil => map(x, out, inlined!(|x| x.ceil())),
        UnaryOp::Round => map(x, out, inlined!(|x| x.round_ties_even())),
        UnaryOp::Trunc => map(x, out, inlined!(|x| x.trunc())),
        _ => unreachable!("{op:?} has no plain form"),
    }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// See [`super::DenseKernel::binary`].
#[inline(always)]
pub(super) fn binary(op: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    match op {
        Binary::Add => zip(a, b, out, inlined!(|a, b| a + b)),
        Binary::Sub => zip(a, b, out, inlined!(|a, b| a - b)),
        Binary::ReverseSub => zip(a, b, out, inlined!(|a, b| b - a)),
        Binary::Mul => zip(a, b, out, inlined!(|a, b| a * b)),
        Binary::Div => zip(a, b, out, inlined!(|a, b| a / b)),
        Binary::ReverseDiv => zip(a, b, out, inlined!(|a, b| b / a)),
        Binary::Minimum => zip(a, b, out, inlined!(|a: f32, b: f32| if a < b || a.is_nan() { a } else { b })),
        Binary::Maximum => zip(a, b, out, inlined!(|a: f32, b: f32| if a > b || a.is_nan() { a } else { b })),
    }
}

#[inline(always)]
fn map(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f(x);
    }
}

#[inline(always)]
fn zip(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    if let &[b] = b {
        return map(a, out, inlined!(|a| f(a, b)));
    }
    for (out, a) in out.chunks_exact_mut(b.len()).zip(a.chunks_exact(b.len())) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out = f(a, b);
        }
    }
}

/// `out[i] = f(x[i])`, equal lengths; the rest of less than a vector goes through padding.
#[inline(always)]
pub(super) fn vectors<S: Simd>(s: S, x: &[f32], out: &mut [f32], f: impl Fn(S::F) -> S::F) {
    let (len, whole) = (x.len().min(out.len()), x.len().min(out.len()) / S::LANES * S::LANES);
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES <= whole, within both.
        unsafe { s.store(f(s.load(x.as_ptr().add(i))), out.as_mut_ptr().add(i)) };
    }
    if whole < len {
        let mut rest = [0.0; MAX_LANES];
        rest[..len - whole].copy_from_slice(&x[whole..len]);
        // SAFETY: the array has LANES elements.
        unsafe { s.store(f(s.load(rest.as_ptr())), rest.as_mut_ptr()) };
        out[whole..len].copy_from_slice(&rest[..len - whole]);
    }
}
