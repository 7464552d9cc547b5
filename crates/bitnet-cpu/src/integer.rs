//! Functions of integers and `Bool`: computed in i64 or u64, wrapped when stored.

use BinaryOp::*;
use bitnet_device::BitNetDType::{self, Bool};
use bitnet_device::backend::{BinaryOp, UnaryOp};

pub(super) fn has_unary(op: UnaryOp, dtype: BitNetDType) -> bool {
    use UnaryOp::*;
    match dtype {
        Bool => matches!(op, Not | Sign | Abs | Square),
        _ => matches!(op, Neg | Abs | Sign | Square | Relu | Relu2 | Floor | Ceil | Round | Trunc | Not),
    }
}

pub(super) fn has_binary(op: BinaryOp, dtype: BitNetDType) -> bool {
    match dtype {
        Bool => matches!(op, Add | Mul | Minimum | Maximum | And | Or | Xor),
        _ => !matches!(op, Div | Atan2),
    }
}

fn map<T: Copy>(x: &[T], out: &mut [T], f: impl Fn(T) -> T) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f(x);
    }
}

fn zip_map<T: Copy>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(T, T) -> T) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = f(a, b);
    }
}

pub(super) fn unary_i64(op: UnaryOp, x: &[i64], out: &mut [i64]) {
    match op {
        UnaryOp::Neg => map(x, out, i64::wrapping_neg),
        UnaryOp::Abs => map(x, out, i64::wrapping_abs),
        UnaryOp::Sign => map(x, out, i64::signum),
        UnaryOp::Square => map(x, out, |x| x.wrapping_mul(x)),
        UnaryOp::Relu => map(x, out, |x| x.max(0)),
        UnaryOp::Relu2 => map(x, out, |x| x.max(0).wrapping_mul(x.max(0))),
        UnaryOp::Not => map(x, out, |x| !x),
        _ => out.copy_from_slice(x), // floor, ceil, round, trunc
    }
}

pub(super) fn unary_u64(op: UnaryOp, x: &[u64], out: &mut [u64]) {
    match op {
        UnaryOp::Neg => map(x, out, u64::wrapping_neg),
        UnaryOp::Sign => map(x, out, |x| x.min(1)),
        UnaryOp::Square | UnaryOp::Relu2 => map(x, out, |x| x.wrapping_mul(x)),
        UnaryOp::Not => map(x, out, |x| !x),
        _ => out.copy_from_slice(x), // abs, relu, floor, ceil, round, trunc
    }
}

pub(super) fn unary_bool(op: UnaryOp, x: &[i64], out: &mut [i64]) {
    match op {
        UnaryOp::Not => map(x, out, |x| 1 - x),
        _ => out.copy_from_slice(x), // sign, abs, square
    }
}

/// `bits` is the width of the dtype; bits shifted out of it are lost.
pub(super) fn binary_i64(op: BinaryOp, bits: i64, a: &[i64], b: &[i64], out: &mut [i64]) {
    match op {
        Add => zip_map(a, b, out, i64::wrapping_add),
        Sub => zip_map(a, b, out, i64::wrapping_sub),
        Mul => zip_map(a, b, out, i64::wrapping_mul),
        FloorDiv => zip_map(a, b, out, |a, b| {
            let (quotient, rest) = (a.wrapping_div(b), a.wrapping_rem(b));
            quotient - (rest != 0 && (rest < 0) != (b < 0)) as i64
        }),
        Remainder => zip_map(a, b, out, |a, b| {
            let rest = a.wrapping_rem(b);
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }),
        Pow => zip_map(a, b, out, |base, exponent| match (base, exponent) {
            (1, _) => 1,
            (-1, e) => 1 - 2 * (e & 1),
            (_, e) if e < 0 => 0,
            (base, e) => power(base as u64, e as u64) as i64,
        }),
        Minimum => zip_map(a, b, out, i64::min),
        Maximum => zip_map(a, b, out, i64::max),
        And => zip_map(a, b, out, |a, b| a & b),
        Or => zip_map(a, b, out, |a, b| a | b),
        Xor => zip_map(a, b, out, |a, b| a ^ b),
        Shl => zip_map(a, b, out, |a, b| if (0..bits).contains(&b) { a << b } else { 0 }),
        Shr => zip_map(a, b, out, |a, b| a >> if (0..bits).contains(&b) { b } else { 63 }),
        Div | Atan2 => unreachable!("`has_binary` says no"),
    }
}

pub(super) fn binary_u64(op: BinaryOp, a: &[u64], b: &[u64], out: &mut [u64]) {
    match op {
        Add => zip_map(a, b, out, u64::wrapping_add),
        Sub => zip_map(a, b, out, u64::wrapping_sub),
        Mul => zip_map(a, b, out, u64::wrapping_mul),
        FloorDiv => zip_map(a, b, out, |a, b| a / b),
        Remainder => zip_map(a, b, out, |a, b| a % b),
        Pow => zip_map(a, b, out, power),
        Minimum => zip_map(a, b, out, u64::min),
        Maximum => zip_map(a, b, out, u64::max),
        And => zip_map(a, b, out, |a, b| a & b),
        Or => zip_map(a, b, out, |a, b| a | b),
        Xor => zip_map(a, b, out, |a, b| a ^ b),
        Shl => zip_map(a, b, out, |a, b| if b < 64 { a << b } else { 0 }),
        Shr => zip_map(a, b, out, |a, b| if b < 64 { a >> b } else { 0 }),
        Div | Atan2 => unreachable!("`has_binary` says no"),
    }
}

pub(super) fn binary_bool(op: BinaryOp, a: &[i64], b: &[i64], out: &mut [i64]) {
    match op {
        Add | Or | Maximum => zip_map(a, b, out, |a, b| a | b),
        Mul | And | Minimum => zip_map(a, b, out, |a, b| a & b),
        Xor => zip_map(a, b, out, |a, b| a ^ b),
        _ => unreachable!("`has_binary` says no"),
    }
}

/// `base^exponent`, wrapping, by squaring.
fn power(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = 1u64;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    result
}
