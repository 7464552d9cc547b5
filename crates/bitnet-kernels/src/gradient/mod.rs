//! Kernels of training: derivatives of norms and gates, scaled operands of products, the step of an optimizer.
//!
//! Plain loops, compiled once for each instruction set. Sums have sixteen lanes and rows are added in parts of a fixed
//! size, so that every instruction set and every number of threads gives the same bits.

mod attention;

pub use bitnet_device::backend::{AdamStep, CausalShape};

pub use attention::{causal_attention, causal_attention_backward};

use crate::dense::f32_to_bf16;
use crate::float::simd::inlined;
use crate::threads::Parts;
use crate::{Isa, ThreadPool};

/// Lanes of a sum.
const LANES: usize = 16;
/// Rows of a part.
const ROWS: usize = 64;
/// Numbers of a part without rows.
const PART: usize = 32 << 10;

/// `$body` where the instructions of `$isa` may be used; all of it must be inlined.
macro_rules! entered {
    ($isa:expr, $body:expr) => {
        crate::isa::dispatch!($isa, |s| s.entered(inlined!(|| $body)), $body)
    };
}

pub(crate) use entered;

/// Sums of `f(i)` for `i` below `n`, in lanes.
#[inline(always)]
fn sums<const N: usize>(n: usize, f: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0f32; LANES]; N];
    let whole = n / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            let terms = f(first + lane);
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    }
    for i in whole..n {
        for (sum, term) in lanes.iter_mut().zip(f(i)) {
            sum[i - whole] += term;
        }
    }
    lanes.map(|mut lanes| {
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    })
}

/// Derivative of the RMS norm `y = x r w` with `r = 1 / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019): with `g = grad w`,
/// `dx = r (g - x r^2 mean(g x))` and `dw = sum over rows of grad x r`.
///
/// grad, x, dx `[rows, C]`; weight, dw `[C]`.
///
/// # Panics
/// When the lengths contradict each other.
pub fn rms_norm_backward(
    isa: Isa,
    pool: &ThreadPool,
    grad: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dx: &mut [f32],
    dw: &mut [f32],
) {
    let columns = weight.len();
    assert!(columns > 0 && x.len().is_multiple_of(columns) && dw.len() == columns, "rows of {columns}");
    assert!(grad.len() == x.len() && dx.len() == x.len(), "gradients of {} values", x.len());
    let part = ROWS * columns;
    let parts = x.len().div_ceil(part);
    let mut sums = vec![0f32; parts * columns];
    let (to, dw_to) = (Parts::new(dx), Parts::new(&mut sums));
    pool.run(parts, &|task| {
        let (start, len) = (task * part, part.min(x.len() - task * part));
        // SAFETY: the parts are disjoint.
        let (dx, dw) = unsafe { (to.part(start, len), dw_to.part(task * columns, columns)) };
        let (grad, x) = (&grad[start..][..len], &x[start..][..len]);
        entered!(isa, rms_norm_rows(grad, x, weight, eps, dx, dw));
    });
    dw.fill(0.);
    for part in sums.chunks_exact(columns) {
        dw.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
}

#[inline(always)]
fn rms_norm_rows(grad: &[f32], x: &[f32], weight: &[f32], eps: f32, dx: &mut [f32], dw: &mut [f32]) {
    let n = weight.len();
    let dw = &mut dw[..n];
    for ((grad, x), dx) in grad.chunks_exact(n).zip(x.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
        let (grad, x, dx) = (&grad[..n], &x[..n], &mut dx[..n]);
        let [squares, along] = sums(n, inlined!(|i| [x[i] * x[i], grad[i] * weight[i] * x[i]]));
        let r = 1. / (squares / n as f32 + eps).sqrt();
        let tilt = along / n as f32 * (r * r * r);
        for i in 0..n {
            dx[i] = grad[i] * weight[i] * r - x[i] * tilt;
            dw[i] += grad[i] * (x[i] * r);
        }
    }
}

/// Derivative of `relu(gate)^2 up` of both `[rows, 2 I]`, gate in the first half of each row and up in the second: grad
/// `[rows, I]`, out `[rows, 2 I]`; NaN stays.
///
/// # Panics
/// When the lengths contradict each other.
pub fn relu2_gated_halves_backward(
    isa: Isa,
    pool: &ThreadPool,
    grad: &[f32],
    both: &[f32],
    inner: usize,
    out: &mut [f32],
) {
    assert!(inner > 0 && grad.len().is_multiple_of(inner) && both.len() == 2 * grad.len(), "gates of {inner}");
    assert_eq!(both.len(), out.len(), "length of out");
    if out.is_empty() {
        return;
    }
    pool.for_each_chunk(out, ROWS * 2 * inner, &|task, out| {
        let both = &both[2 * task * ROWS * inner..][..out.len()];
        let grad = &grad[task * ROWS * inner..][..out.len() / 2];
        entered!(isa, {
            let rows = both.chunks_exact(2 * inner).zip(out.chunks_exact_mut(2 * inner));
            for (grad, (both, out)) in grad.chunks_exact(inner).zip(rows) {
                let ((gate, up), (d_gate, d_up)) = (both.split_at(inner), out.split_at_mut(inner));
                for i in 0..inner {
                    let positive = if gate[i] < 0. { 0. } else { gate[i] };
                    d_gate[i] = grad[i] * up[i] * (2. * positive);
                    d_up[i] = grad[i] * (positive * positive);
                }
            }
        });
    });
}

/// Where [`scale`] writes.
#[derive(Debug)]
pub enum Scaled<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// The bits of bfloat16, to nearest, ties to even.
    BF16(&'a mut [u16]),
}

/// `out[i, j] = x[i, j] * rows[i] * columns[j]`: x (f32 or i8) and out `[R, C]`; rows `[R]` or empty, columns `[C]` or
/// empty, for factors of 1.
///
/// # Panics
/// When the lengths contradict each other.
pub fn scale<X: Copy + Sync + Into<f32>>(
    isa: Isa,
    pool: &ThreadPool,
    x: &[X],
    width: usize,
    rows: &[f32],
    columns: &[f32],
    out: Scaled,
) {
    assert!(width > 0 && x.len().is_multiple_of(width), "rows of {width}");
    assert!(rows.is_empty() || rows.len() == x.len() / width, "factors of rows");
    assert!(columns.is_empty() || columns.len() == width, "factors of columns");
    match out {
        Scaled::F32(out) => scale_to(isa, pool, x, width, rows, columns, out, inlined!(|x| x)),
        Scaled::BF16(out) => scale_to(isa, pool, x, width, rows, columns, out, f32_to_bf16),
    }
}

fn scale_to<X: Copy + Sync + Into<f32>, T: Send>(
    isa: Isa,
    pool: &ThreadPool,
    x: &[X],
    width: usize,
    rows: &[f32],
    columns: &[f32],
    out: &mut [T],
    to: impl Fn(f32) -> T + Sync,
) {
    assert_eq!(x.len(), out.len(), "length of out");
    let part = (PART / width).max(1) * width;
    pool.for_each_chunk(out, part, &|task, out| {
        let x = &x[task * part..][..out.len()];
        entered!(
            isa,
            for (row, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
                let factor = rows.get(task * part / width + row).copied().unwrap_or(1.);
                if columns.is_empty() {
                    for i in 0..width {
                        out[i] = to(x[i].into() * factor);
                    }
                } else {
                    for i in 0..width {
                        out[i] = to(x[i].into() * factor * columns[i]);
                    }
                }
            }
        );
    });
}

/// Bytes as the bits of bfloat16, exact.
///
/// # Panics
/// When the lengths differ.
pub fn i8_to_bf16(isa: Isa, pool: &ThreadPool, x: &[i8], out: &mut [u16]) {
    assert_eq!(x.len(), out.len(), "length of out");
    pool.for_each_chunk(out, PART, &|task, out| {
        let x = &x[task * PART..][..out.len()];
        entered!(
            isa,
            for (out, &x) in out.iter_mut().zip(x) {
                *out = (f32::from(x).to_bits() >> 16) as u16;
            }
        );
    });
}

/// A step of Adam (Kingma and Ba 2015), all `[n]`: `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
/// `x = x shrink - rate m / (sqrt(v) / root + eps)`.
///
/// # Panics
/// When the lengths contradict each other.
pub fn adam(
    isa: Isa,
    pool: &ThreadPool,
    step: AdamStep,
    [shrink, rate, root]: [f32; 3],
    x: &mut [f32],
    grad: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let n = x.len();
    assert!(grad.len() == n && first.len() == n && second.len() == n, "moments of {n} weights");
    let (x, first, second) = (Parts::new(x), Parts::new(first), Parts::new(second));
    let (follow, keep, add) = ((1. - step.beta1) as f32, step.beta2 as f32, (1. - step.beta2) as f32);
    pool.run(n.div_ceil(PART), &|task| {
        let (start, len) = (task * PART, PART.min(n - task * PART));
        // SAFETY: the parts are disjoint.
        let (x, m, v) = unsafe { (x.part(start, len), first.part(start, len), second.part(start, len)) };
        let grad = &grad[start..][..len];
        entered!(isa, {
            for i in 0..len {
                m[i] += follow * (grad[i] - m[i]);
                v[i] = keep * v[i] + add * (grad[i] * grad[i]);
                x[i] = x[i] * shrink - rate * (m[i] / (v[i].sqrt() / root + step.eps));
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.
        };
        (0..n).map(|_| next()).collect()
    }

    /// Every instruction set of this CPU, with one thread and with three, gives the bits of the scalar one.
    fn everywhere<T: PartialEq + std::fmt::Debug>(f: impl Fn(Isa, &ThreadPool) -> T) -> T {
        let (one, three) = (ThreadPool::new(1), ThreadPool::new(3));
        let expected = f(Isa::Scalar, &one);
        for isa in Isa::available() {
            assert_eq!(f(isa, &one), expected, "{isa}");
            assert_eq!(f(isa, &three), expected, "{isa}, three threads");
        }
        expected
    }

    #[test]
    fn rms_norm_has_the_slope_of_finite_differences() {
        let (rows, columns, eps) = (70, 19, 1e-5f32);
        let (grad, x, w) = (numbers(rows * columns, 1), numbers(rows * columns, 2), numbers(columns, 3));
        let (dx, dw) = everywhere(|isa, pool| {
            let (mut dx, mut dw) = (vec![0.; x.len()], vec![0.; columns]);
            rms_norm_backward(isa, pool, &grad, &x, &w, eps, &mut dx, &mut dw);
            (dx, dw)
        });
        let value = |x: &[f64], w: &[f64]| -> f64 {
            x.chunks(columns)
                .zip(grad.chunks(columns))
                .map(|(x, g)| {
                    let r = 1. / (x.iter().map(|x| x * x).sum::<f64>() / columns as f64 + f64::from(eps)).sqrt();
                    (0..columns).map(|i| f64::from(g[i]) * x[i] * r * w[i]).sum::<f64>()
                })
                .sum()
        };
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let h = 1e-6;
        let slope = |at: usize, of_x: bool| {
            let (mut low, mut high) = ((wide(&x), wide(&w)), (wide(&x), wide(&w)));
            if of_x {
                (low.0[at] -= h, high.0[at] += h)
            } else {
                (low.1[at] -= h, high.1[at] += h)
            };
            (value(&high.0, &high.1) - value(&low.0, &low.1)) / (2. * h)
        };
        for at in (0..x.len()).step_by(37) {
            assert!((f64::from(dx[at]) - slope(at, true)).abs() < 1e-5, "dx {at}");
        }
        for at in 0..columns {
            assert!((f64::from(dw[at]) - slope(at, false)).abs() < 1e-4, "dw {at}");
        }
    }

    #[test]
    fn derivative_of_gates() {
        let (rows, inner) = (67, 21);
        let (grad, both) = (numbers(rows * inner, 1), numbers(2 * rows * inner, 2));
        let d = everywhere(|isa, pool| {
            let mut d = vec![0.; 2 * rows * inner];
            relu2_gated_halves_backward(isa, pool, &grad, &both, inner, &mut d);
            d
        });
        for row in 0..rows {
            for i in 0..inner {
                let (g, u) = (both[2 * row * inner + i].max(0.), both[(2 * row + 1) * inner + i]);
                let at = grad[row * inner + i];
                assert_eq!(d[2 * row * inner + i], at * u * (2. * g));
                assert_eq!(d[(2 * row + 1) * inner + i], at * (g * g));
            }
        }
    }

    #[test]
    fn scaling_by_rows_and_columns() {
        let (rows, columns) = (41, 1003);
        let (x, r, c) = (numbers(rows * columns, 1), numbers(rows, 2), numbers(columns, 3));
        let (both, by_row) = everywhere(|isa, pool| {
            let (mut both, mut by_row) = (vec![0u16; x.len()], vec![0f32; x.len()]);
            scale(isa, pool, &x, columns, &r, &c, Scaled::BF16(&mut both));
            scale(isa, pool, &x, columns, &r, &[], Scaled::F32(&mut by_row));
            (both, by_row)
        });
        for i in 0..x.len() {
            assert_eq!(by_row[i], x[i] * r[i / columns]);
            assert_eq!(both[i], f32_to_bf16(x[i] * r[i / columns] * c[i % columns]));
        }
        let bytes: Vec<i8> = (0..rows * columns).map(|i| i as u8 as i8).collect();
        let by_row = everywhere(|isa, pool| {
            let mut by_row = vec![0u16; bytes.len()];
            scale(isa, pool, &bytes, columns, &r, &[], Scaled::BF16(&mut by_row));
            by_row
        });
        assert!((0..bytes.len()).all(|i| by_row[i] == f32_to_bf16(f32::from(bytes[i]) * r[i / columns])));
    }

    #[test]
    fn bytes_are_bfloat16_exactly() {
        let x: Vec<i8> = (0..70_000).map(|i| i as u8 as i8).collect();
        let bits = everywhere(|isa, pool| {
            let mut out = vec![0; x.len()];
            i8_to_bf16(isa, pool, &x, &mut out);
            out
        });
        assert!(x.iter().zip(bits).all(|(&x, bits)| f32::from_bits(u32::from(bits) << 16) == f32::from(x)));
    }

    #[test]
    fn adam_takes_the_step_of_the_paper() {
        let step = AdamStep { beta1: 0.9, beta2: 0.99, eps: 1e-8 };
        let (x, grad) = (numbers(40_000, 1), numbers(40_000, 2));
        let (after, m, v) = everywhere(|isa, pool| {
            let (mut x, mut m, mut v) = (x.clone(), vec![0.; grad.len()], vec![0.; grad.len()]);
            adam(isa, pool, step, [0.999, 0.01 / 0.1, 0.1], &mut x, &grad, &mut m, &mut v);
            (x, m, v)
        });
        for i in 0..x.len() {
            // The first step moves each weight by the rate, 0.01, against the sign of its gradient.
            let expected = x[i] * 0.999 - 0.01 * grad[i].signum();
            assert!((after[i] - expected).abs() < 1e-5 || grad[i].abs() < 1e-6, "{i}");
            assert!((m[i] - 0.1 * grad[i]).abs() < 1e-7 && (v[i] - 0.01 * grad[i] * grad[i]).abs() < 1e-7);
        }
    }
}
