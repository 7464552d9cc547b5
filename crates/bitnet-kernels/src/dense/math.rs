//! Functions of a vector, within 3 units in the last place. Polynomials are minimax fits, their errors relative.

use crate::float::simd::Simd;

/// A polynomial, the coefficient of the highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, coefficients: [f32; N]) -> S::F {
    let mut p = s.splat(coefficients[0]);
    for &k in &coefficients[1..] {
        p = s.fma(p, x, s.splat(k));
    }
    p
}

#[inline(always)]
fn negative<S: Simd>(s: S, x: S::F) -> S::F {
    s.sub(s.splat(0.0), x)
}

/// `tanh(x)`: below 0.625 `x + x^3 P(x^2)` (error 2e-10), else `1 - 2 / (e^2|x| + 1)`.
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let (one, two, square, size) = (s.splat(1.0), s.splat(2.0), s.mul(x, x), s.abs(x));
    let p = polynomial(
        s,
        square,
        [0.002_144_209_8, -0.008_179_168, 0.021_701_606, -0.053_946_97, 0.133_332_07, -1.0 / 3.0],
    );
    let near = s.fma(s.mul(p, square), size, size);
    let far = s.sub(one, s.div(two, s.add(s.exp(s.add(size, size)), one)));
    s.with_sign(s.select_lt(size, s.splat(0.625), near, far), x)
}

/// `e^-z` in two factors, the first a normal number wherever the product with some numbers is one (z up to 119).
#[inline(always)]
fn exp_minus<S: Simd>(s: S, z: S::F) -> [S::F; 2] {
    let far = s.splat(64.0);
    // Exact where it is not zero.
    let rest = s.sub(s.select_lt(far, z, s.splat(32.0), s.splat(0.0)), z);
    [s.exp(rest), s.select_lt(far, z, s.splat(1.266_416_6e-14), s.splat(1.0))]
}

/// `1 / (1 + e^-x)`, from `e^-|x|` so that small results keep their digits.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    scaled_sigmoid(s, x, s.splat(1.0), exp_minus(s, s.abs(x)))
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    scaled_sigmoid(s, x, x, exp_minus(s, s.abs(x)))
}

/// `factor * sigmoid(y)` where y has the sign of `x` and `a b = e^-|y|`.
#[inline(always)]
fn scaled_sigmoid<S: Simd>(s: S, x: S::F, factor: S::F, [a, b]: [S::F; 2]) -> S::F {
    let top = s.select_lt(x, s.splat(0.0), s.mul(s.mul(factor, a), b), factor);
    s.div(top, s.fma(a, b, s.splat(1.0)))
}

/// `erfc(t) e^(t^2)` for t of 0 to 10: `u Q(u)` with `u = 1 / (1 + 0.35 t)` (error 8e-9).
#[inline(always)]
fn scaled_erfc<S: Simd>(s: S, t: S::F) -> S::F {
    let one = s.splat(1.0);
    let u = s.div(one, s.fma(t, s.splat(0.35), one));
    let q = polynomial(
        s,
        u,
        [
            0.039_082_05,
            -0.162_732_18,
            0.190_686_57,
            -0.040_433_24,
            0.098_006_97,
            0.139_897_23,
            0.153_408_17,
            0.187_402_28,
            0.197_201_85,
            0.197_480_32,
        ],
    );
    s.mul(u, q)
}

/// `e^(-k t^2)`, with the rounding error of the square made good; `k` is 1 or 1/2.
#[inline(always)]
fn bell<S: Simd>(s: S, t: S::F, k: f32) -> S::F {
    let square = s.mul(t, t);
    let minus = negative(s, square);
    let error = s.fma(t, t, minus);
    let e = s.exp(s.mul(minus, s.splat(k)));
    s.fma(s.mul(e, s.splat(-k)), error, e)
}

/// The error function: below 1 `x P(x^2)` (error 1e-9), else `1 - erfc(|x|)`.
#[inline(always)]
pub(super) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let square = s.mul(x, x);
    let p = polynomial(
        s,
        square,
        [
            7.889_118_6e-5,
            -0.000_802_084_1,
            0.005_189_535,
            -0.026_854_444,
            0.112_836,
            -0.376_126_26,
            std::f32::consts::FRAC_2_SQRT_PI,
        ],
    );
    let size = s.abs(x);
    let t = s.min(s.splat(10.0), size);
    let far = s.sub(s.splat(1.0), s.mul(bell(s, t, 1.0), scaled_erfc(s, t)));
    s.select_lt(size, s.splat(1.0), s.mul(x, p), s.with_sign(far, x))
}

/// `x Phi(x)`: below 1 `x (1/2 + x P(x^2))`, the polynomial of [`erf`], else from `Phi(-|x|) = erfc(|x| / sqrt(2)) / 2`.
#[inline(always)]
pub(super) fn gelu_erf<S: Simd>(s: S, x: S::F) -> S::F {
    let size = s.min(s.splat(20.0), s.abs(x));
    let tail = scaled_erfc(s, s.mul(size, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let tail = s.mul(s.mul(bell(s, size, 0.5), tail), s.splat(0.5));
    let far = s.select_lt(x, s.splat(0.0), tail, s.sub(s.splat(1.0), tail));
    let p = polynomial(
        s,
        s.mul(size, size),
        [4.3581635e-7, -8.861861e-6, 1.146736e-4, -1.18681e-3, 9.973388e-3, -6.649036e-2, 3.9894226e-1],
    );
    s.mul(x, s.select_lt(size, s.splat(1.0), s.fma(p, x, s.splat(0.5)), far))
}

/// `x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))`, the argument with twice the digits as its error grows with it.
#[inline(always)]
pub(super) fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    const A: f64 = 1.595_769_121_605_730_7; // 2 sqrt(2 / pi)
    const B: f64 = A * 0.044_715;
    let (a, b) = (s.splat(A as f32), s.splat(B as f32));
    let size = s.min(s.splat(20.0), s.abs(x));
    // square + rest = x^2; cubic + cubic_rest = B x^2; w + w_rest = A + B x^2, exactly but for the last digits.
    let square = s.mul(size, size);
    let rest = s.fma(size, size, negative(s, square));
    let cubic = s.mul(b, square);
    let cubic_rest = s.fma(b, square, negative(s, cubic));
    let w = s.add(a, cubic);
    let back = s.sub(w, cubic);
    let w_rest = s.add(s.sub(a, back), s.sub(cubic, s.sub(w, back)));
    let w_rest = s.add(
        w_rest,
        s.add(
            cubic_rest,
            s.fma(b, rest, s.fma(s.splat((B - B as f32 as f64) as f32), square, s.splat((A - A as f32 as f64) as f32))),
        ),
    );
    let z = s.mul(size, w);
    let z_rest = s.fma(size, w_rest, s.fma(size, w, negative(s, z)));
    let [e, scale] = exp_minus(s, z);
    scaled_sigmoid(s, x, x, [s.fma(negative(s, e), z_rest, e), scale])
}
