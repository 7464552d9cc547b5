//! Functions of floats: every operation on chunks of f32 and f64.

use bitnet_device::backend::{BinaryOp, UnaryOp};

pub(super) fn has_unary(op: UnaryOp) -> bool {
    op != UnaryOp::Not
}

pub(super) fn has_binary(op: BinaryOp) -> bool {
    use BinaryOp::*;
    matches!(op, Add | Sub | Mul | Div | FloorDiv | Remainder | Pow | Atan2 | Minimum | Maximum)
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

/// `x * (1 + erf(x / sqrt(2))) / 2`; `erfc` keeps the digits of the left tail.
fn gelu_erf(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// `x * (1 + tanh(u)) / 2 = x * sigmoid(2 u)` with `u = sqrt(2 / pi) * (x + 0.044715 x^3)`.
fn gelu_tanh(x: f64) -> f64 {
    const SQRT_8_OVER_PI: f64 = 1.595_769_121_605_730_7;
    x * sigmoid(SQRT_8_OVER_PI * (x + 0.044715 * x * x * x))
}

fn sigmoid(x: f64) -> f64 {
    1. / (1. + (-x).exp())
}

/// `x * sigmoid(x)`; its limit for negative infinity is 0, but the formula gives NaN there, as PyTorch's does.
fn silu(x: f64) -> f64 {
    x / (1. + (-x).exp())
}

macro_rules! float {
    ($t:ident, $unary:ident, $binary:ident) => {
        pub(super) fn $unary(op: UnaryOp, x: &[$t], out: &mut [$t]) {
            use UnaryOp::*;
            match op {
                Neg => map(x, out, |x| -x),
                Abs => map(x, out, |x| x.abs()),
                Sign => map(x, out, |x| {
                    if x > 0. {
                        1.
                    } else if x < 0. {
                        -1.
                    } else {
                        0.
                    }
                }),
                Square => map(x, out, |x| x * x),
                Relu => map(x, out, |x| if x < 0. { 0. } else { x }),
                Relu2 => map(x, out, |x| if x < 0. { 0. } else { x * x }),
                Floor => map(x, out, |x| x.floor()),
                Ceil => map(x, out, |x| x.ceil()),
                Round => map(x, out, |x| x.round_ties_even()),
                Trunc => map(x, out, |x| x.trunc()),
                Not => unreachable!("`has_unary` says no"),
                Sqrt => map(x, out, |x| x.sqrt()),
                Rsqrt => map(x, out, |x| (1. / (x as f64).sqrt()) as $t),
                Reciprocal => map(x, out, |x| 1. / x),
                Exp => map(x, out, |x| x.exp()),
                Exp2 => map(x, out, |x| x.exp2()),
                Expm1 => map(x, out, |x| x.exp_m1()),
                Log => map(x, out, |x| x.ln()),
                Log2 => map(x, out, |x| x.log2()),
                Log10 => map(x, out, |x| x.log10()),
                Log1p => map(x, out, |x| x.ln_1p()),
                Sin => map(x, out, |x| x.sin()),
                Cos => map(x, out, |x| x.cos()),
                Tan => map(x, out, |x| x.tan()),
                Asin => map(x, out, |x| x.asin()),
                Acos => map(x, out, |x| x.acos()),
                Atan => map(x, out, |x| x.atan()),
                Sinh => map(x, out, |x| x.sinh()),
                Cosh => map(x, out, |x| x.cosh()),
                Tanh => map(x, out, |x| x.tanh()),
                Erf => map(x, out, |x| libm::erf(x as f64) as $t),
                Sigmoid => map(x, out, |x| sigmoid(x as f64) as $t),
                Silu => map(x, out, |x| silu(x as f64) as $t),
                GeluErf => map(x, out, |x| gelu_erf(x as f64) as $t),
                GeluTanh => map(x, out, |x| gelu_tanh(x as f64) as $t),
            }
        }

        pub(super) fn $binary(op: BinaryOp, a: &[$t], b: &[$t], out: &mut [$t]) {
            use BinaryOp::*;
            match op {
                Add => zip_map(a, b, out, |a, b| a + b),
                Sub => zip_map(a, b, out, |a, b| a - b),
                Mul => zip_map(a, b, out, |a, b| a * b),
                Div => zip_map(a, b, out, |a, b| a / b),
                FloorDiv => zip_map(a, b, out, |a, b| {
                    if b == 0. {
                        return a / b;
                    }
                    // The quotient of what divides evenly, so that rounding cannot reach the next integer.
                    let rest = a % b;
                    let quotient = (a - rest) / b - (rest != 0. && (rest < 0.) != (b < 0.)) as u8 as $t;
                    if quotient == 0. { (0. as $t).copysign(a / b) } else { quotient.round() }
                }),
                Remainder => zip_map(a, b, out, |a, b| {
                    let rest = a % b;
                    if rest != 0. && (rest < 0.) != (b < 0.) { rest + b } else { rest }
                }),
                Pow => zip_map(a, b, out, |a, b| a.powf(b)),
                Atan2 => zip_map(a, b, out, |a, b| a.atan2(b)),
                Minimum => zip_map(a, b, out, |a, b| if a.is_nan() || a < b { a } else { b }),
                Maximum => zip_map(a, b, out, |a, b| if a.is_nan() || a > b { a } else { b }),
                And | Or | Xor | Shl | Shr => unreachable!("`has_binary` says no"),
            }
        }
    };
}

float!(f32, unary_f32, binary_f32);
float!(f64, unary_f64, binary_f64);
