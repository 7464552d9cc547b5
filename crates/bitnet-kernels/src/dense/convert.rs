//! Conversions of 16-bit floats and bytes: plain loops, vectorized where they are inlined into `Simd::enter`.

use crate::float::half::{bf16_to_f32, f16_to_f32, f32_to_f16};
use crate::float::simd::Simd;

/// One number to bfloat16: to nearest, ties to even.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// One number to a byte: truncated, saturated, NaN gives 0.
#[inline(always)]
fn f32_to_i8(x: f32) -> i8 {
    let x = if x.is_nan() { 0.0 } else { x.clamp(-128.0, 127.0) };
    // SAFETY: a number of -128 to 127. (The checked conversion is not vectorized.)
    unsafe { x.to_int_unchecked::<i32>() as i8 }
}

#[inline(always)]
pub(super) fn to_bf16(x: &[f32], out: &mut [u16]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f32_to_bf16(x);
    }
}

#[inline(always)]
pub(super) fn to_f16<S: Simd>(s: S, x: &[f32], out: &mut [u16]) {
    let whole = x.len() / S::LANES * S::LANES;
    for (out, x) in out.chunks_exact_mut(S::LANES).zip(x.chunks_exact(S::LANES)) {
        // SAFETY: LANES elements of each.
        unsafe { s.store_f16(s.load(x.as_ptr()), out.as_mut_ptr()) };
    }
    for (out, &x) in out[whole..].iter_mut().zip(&x[whole..]) {
        *out = f32_to_f16(x);
    }
}

#[inline(always)]
pub(super) fn from_bf16(x: &[u16], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = bf16_to_f32(x);
    }
}

#[inline(always)]
pub(super) fn from_f16<S: Simd>(s: S, x: &[u16], out: &mut [f32]) {
    let whole = x.len() / S::LANES * S::LANES;
    for (out, x) in out.chunks_exact_mut(S::LANES).zip(x.chunks_exact(S::LANES)) {
        // SAFETY: LANES elements of each.
        unsafe { s.store(s.load_f16(x.as_ptr()), out.as_mut_ptr()) };
    }
    for (out, &x) in out[whole..].iter_mut().zip(&x[whole..]) {
        *out = f16_to_f32(x);
    }
}

#[inline(always)]
pub(super) fn to_i8(x: &[f32], out: &mut [i8]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f32_to_i8(x);
    }
}

#[inline(always)]
pub(super) fn widen_i8(x: &[i8], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x as f32;
    }
}
