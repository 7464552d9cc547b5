//! Functions of one and two elements. Floats are evaluated in f64 and rounded once when they are written.

use super::number::Number::{self, Float, Int};
use bitnet_core::BitNetDType::{self, Bool, F64};
use bitnet_core::backend::{BinaryOp, CompareOp, UnaryOp};
use std::cmp::Ordering;

/// The function for elements of `dtype`, if defined.
pub(super) fn unary(op: UnaryOp, dtype: BitNetDType) -> Option<fn(Number) -> Number> {
    if let Some(f) = any_number(op) {
        let of_bool = matches!(op, UnaryOp::Not | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Trunc);
        return (dtype != Bool || of_bool).then_some(f);
    }
    match op {
        // `Bool` is written as whether not zero, which the complement of 1 would be.
        UnaryOp::Not if dtype == Bool => Some(|x| Int(i128::from(x.is_zero()))),
        UnaryOp::Not if dtype.is_integer() => Some(|x| Int(!x.int())),
        UnaryOp::Not => None,
        _ if dtype.is_float() => float_function(op),
        _ => None,
    }
}

fn any_number(op: UnaryOp) -> Option<fn(Number) -> Number> {
    /// One expression for floats, one for integers.
    macro_rules! either {
        ($float:expr, $int:expr) => {
            |x| match x {
                Float(v) => Float(($float as fn(f64) -> f64)(v)),
                Int(v) => Int(($int as fn(i128) -> i128)(v)),
            }
        };
    }
    // Neither above zero nor NaN.
    fn relu(v: f64) -> f64 {
        if v > 0. || v.is_nan() { v } else { 0. }
    }
    Some(match op {
        UnaryOp::Neg => either!(|v| -v, |v| -v),
        UnaryOp::Abs => either!(f64::abs, i128::abs),
        UnaryOp::Sign => either!(|v| f64::from(v > 0.) - f64::from(v < 0.), i128::signum),
        UnaryOp::Square => either!(|v| v * v, |v| v.wrapping_mul(v)),
        UnaryOp::Relu => either!(relu, |v| v.max(0)),
        UnaryOp::Relu2 => either!(|v| relu(v) * relu(v), |v| v.max(0).wrapping_mul(v.max(0))),
        UnaryOp::Floor => either!(f64::floor, |v| v),
        UnaryOp::Ceil => either!(f64::ceil, |v| v),
        UnaryOp::Round => either!(f64::round_ties_even, |v| v),
        UnaryOp::Trunc => either!(f64::trunc, |v| v),
        _ => return None,
    })
}

fn float_function(op: UnaryOp) -> Option<fn(Number) -> Number> {
    macro_rules! float {
        ($f:expr) => {
            |x| Float(($f as fn(f64) -> f64)(x.float()))
        };
    }
    Some(match op {
        UnaryOp::Sqrt => float!(f64::sqrt),
        UnaryOp::Rsqrt => float!(|v| 1. / v.sqrt()),
        UnaryOp::Reciprocal => float!(f64::recip),
        UnaryOp::Exp => float!(f64::exp),
        UnaryOp::Exp2 => float!(f64::exp2),
        UnaryOp::Expm1 => float!(f64::exp_m1),
        UnaryOp::Log => float!(f64::ln),
        UnaryOp::Log2 => float!(f64::log2),
        UnaryOp::Log10 => float!(f64::log10),
        UnaryOp::Log1p => float!(f64::ln_1p),
        UnaryOp::Sin => float!(f64::sin),
        UnaryOp::Cos => float!(f64::cos),
        UnaryOp::Tan => float!(f64::tan),
        UnaryOp::Asin => float!(f64::asin),
        UnaryOp::Acos => float!(f64::acos),
        UnaryOp::Atan => float!(f64::atan),
        UnaryOp::Sinh => float!(f64::sinh),
        UnaryOp::Cosh => float!(f64::cosh),
        UnaryOp::Tanh => float!(f64::tanh),
        UnaryOp::Erf => float!(libm::erf),
        UnaryOp::Sigmoid => float!(|v| 1. / (1. + (-v).exp())),
        UnaryOp::Silu => float!(|v| v / (1. + (-v).exp())),
        // erfc does not cancel where 1 + erf does.
        UnaryOp::GeluErf => float!(|v| v * libm::erfc(-v * std::f64::consts::FRAC_1_SQRT_2) / 2.),
        UnaryOp::GeluTanh => float!(|v| {
            let inner = (2. / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v);
            v / (1. + (-2. * inner).exp())
        }),
        _ => return None,
    })
}

/// Why the result of two elements is not defined.
pub(super) struct DivisionByZero;

type Binary = fn(Number, Number, BitNetDType) -> Result<Number, DivisionByZero>;

/// The function for two elements of `dtype`, if defined.
pub(super) fn binary(op: BinaryOp, dtype: BitNetDType) -> Option<Binary> {
    use BinaryOp::*;
    let bits = matches!(op, And | Or | Xor);
    let has = match op {
        _ if bits => !dtype.is_float(),
        Shl | Shr => dtype.is_integer(),
        Div | Atan2 => dtype.is_float(),
        Sub | FloorDiv | Remainder | Pow => dtype != Bool,
        _ => true,
    };
    if !has || dtype.is_packed() {
        return None;
    }
    Some(match op {
        Add => |a, b, _| either(a, b, |a, b| a + b, i128::wrapping_add),
        Sub => |a, b, _| either(a, b, |a, b| a - b, i128::wrapping_sub),
        Mul => |a, b, _| either(a, b, |a, b| a * b, i128::wrapping_mul),
        Div => |a, b, _| Ok(Float(a.float() / b.float())),
        Pow => |a, b, _| either(a, b, f64::powf, int_pow),
        Atan2 => |a, b, _| Ok(Float(a.float().atan2(b.float()))),
        Minimum => |a, b, _| Ok(if a.is_nan() || a.compare(b) == Some(Ordering::Less) { a } else { b }),
        Maximum => |a, b, _| Ok(if a.is_nan() || a.compare(b) == Some(Ordering::Greater) { a } else { b }),
        FloorDiv => |a, b, t| match (a, b) {
            (Int(_), Int(0)) => Err(DivisionByZero),
            (Int(a), Int(b)) => Ok(Int(a.div_euclid(b) - i128::from(b < 0 && a.rem_euclid(b) != 0))),
            _ if t == F64 => Ok(Float(floor_div(a.float(), b.float()))),
            _ => Ok(Float(floor_div(a.float() as f32, b.float() as f32).into())),
        },
        Remainder => |a, b, _| match (a, b) {
            (Int(_), Int(0)) => Err(DivisionByZero),
            (Int(a), Int(b)) => Ok(Int((a % b + b) % b)),
            _ => Ok(Float(remainder(a.float(), b.float()))),
        },
        And => |a, b, _| Ok(Int(a.int() & b.int())),
        Or => |a, b, _| Ok(Int(a.int() | b.int())),
        Xor => |a, b, _| Ok(Int(a.int() ^ b.int())),
        Shl => |a, b, t| Ok(Int(if inside(b, t) { a.int() << b.int() } else { 0 })),
        Shr => |a, b, t| Ok(Int(if inside(b, t) { a.int() >> b.int() } else { -i128::from(a.int() < 0) })),
    })
}

/// Sums and products of two f32 are rounded once: f64 has more than twice their bits.
fn either(
    a: Number,
    b: Number,
    float: fn(f64, f64) -> f64,
    int: fn(i128, i128) -> i128,
) -> Result<Number, DivisionByZero> {
    Ok(match (a, b) {
        (Int(a), Int(b)) => Int(int(a, b)),
        _ => Float(float(a.float(), b.float())),
    })
}

/// Whether a shift is by less than the width of the dtype.
fn inside(by: Number, dtype: BitNetDType) -> bool {
    (0..8 * dtype.block().1 as i128).contains(&by.int())
}

/// Wraps; a negative power is 0 but of 1 and -1.
fn int_pow(base: i128, power: i128) -> i128 {
    if power < 0 {
        return match base {
            1 => 1,
            -1 => 1 - 2 * (power & 1),
            _ => 0,
        };
    }
    let (mut result, mut factor, mut left) = (1i128, base, power);
    while left > 0 {
        if left & 1 == 1 {
            result = result.wrapping_mul(factor);
        }
        factor = factor.wrapping_mul(factor);
        left >>= 1;
    }
    result
}

/// The float quotient towards negative infinity, by way of the exact remainder, in the precision PyTorch computes it
/// in.
trait FloorDivide: Copy {
    fn floor_divide(self, by: Self) -> Self;
}

macro_rules! floor_divide {
    ($t:ty) => {
        impl FloorDivide for $t {
            fn floor_divide(self, by: Self) -> Self {
                if by == 0. {
                    return self / by;
                }
                let rest = self % by;
                let mut quotient = (self - rest) / by;
                if rest != 0. && (by < 0.) != (rest < 0.) {
                    quotient -= 1.;
                }
                if quotient == 0. {
                    return (0 as $t).copysign(self / by);
                }
                // The quotient is a whole number up to rounding.
                if quotient - quotient.floor() > 0.5 { quotient.floor() + 1. } else { quotient.floor() }
            }
        }
    };
}
floor_divide!(f32);
floor_divide!(f64);

fn floor_div<T: FloorDivide>(a: T, b: T) -> T {
    a.floor_divide(b)
}

/// With the sign of the divisor.
fn remainder(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0. && (rest < 0.) != (b < 0.) { rest + b } else { rest }
}

/// Whether the comparison holds.
pub(super) fn compare(op: CompareOp, a: Number, b: Number) -> bool {
    let order = a.compare(b);
    match op {
        CompareOp::Eq => order == Some(Ordering::Equal),
        CompareOp::Ne => order != Some(Ordering::Equal),
        CompareOp::Lt => order == Some(Ordering::Less),
        CompareOp::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        CompareOp::Gt => order == Some(Ordering::Greater),
        CompareOp::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}
