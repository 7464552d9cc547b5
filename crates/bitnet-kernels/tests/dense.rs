//! Dense operations of every instruction set of this CPU against the scalar kernel, at odd sizes.

mod common;

use bitnet_device::backend::UnaryOp;
use bitnet_kernels::ThreadPool;
use bitnet_kernels::dense::{Binary, DenseKernel, Half, Moments, UNARY, parallel};
use common::numbers;
use proptest::prelude::*;

/// Every kernel of this CPU, the scalar one first.
fn kernels() -> Vec<&'static dyn DenseKernel> {
    common::kernels().map(|kernels| kernels.dense).collect()
}

/// Units in the last place between two numbers; none between two NaN or equal ones.
fn units(a: f32, b: f32) -> u64 {
    if a == b || a.is_nan() && b.is_nan() {
        return 0;
    }
    if a.is_nan() || b.is_nan() {
        return u64::MAX;
    }
    let place = |x: f32| if x < 0.0 { -((x.to_bits() & 0x7fff_ffff) as i64) } else { x.to_bits() as i64 };
    place(a).abs_diff(place(b))
}

#[track_caller]
fn near(kernel: &dyn DenseKernel, a: &[f32], b: &[f32], bound: u64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(units(*a, *b) <= bound, "{} {i}: {a:e} {b:e}, {} units apart", kernel.isa(), units(*a, *b));
    }
}

#[test]
fn functions_are_within_four_units_in_the_last_place() {
    // Every 3001st float of both signs, and where the formulas change.
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(3001).map(f32::from_bits).collect();
    x.extend((-4000..4000).map(|i| i as f32 / 331.0));
    x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.625, 1.0, -1.0, 20.0, -13.0]);
    let mut expected = vec![0.0; x.len()];
    for op in UNARY {
        kernels()[0].unary(op, &x, &mut expected);
        for kernel in kernels() {
            let mut y = vec![0.0; x.len()];
            kernel.unary(op, &x, &mut y);
            for ((&x, &y), &z) in x.iter().zip(&y).zip(&expected) {
                // Where a factor is below the smallest normal number it has fewer digits, and so has the product.
                let product = op == UnaryOp::GeluErf && z.abs() < 1e-36 && (y - z).abs() < 1e-43;
                assert!(y.is_nan() || y.is_sign_negative() == z.is_sign_negative(), "{op:?}({x:e}) = {y:e}");
                let far = units(y, z);
                // The tail of the normal distribution is a product of five rounded factors.
                let bound = match op {
                    UnaryOp::Exp => 1,
                    UnaryOp::GeluErf => 7,
                    _ => 4,
                };
                assert!(far <= bound || product, "{} {op:?}({x:e}) = {y:e}, not {z:e}: {far} units", kernel.isa());
            }
            let mut z = x.clone();
            kernel.unary_assign(op, &mut z);
            near(kernel, &z, &y, 0);
        }
    }
}

#[test]
fn not_a_number_is_kept() {
    for kernel in kernels() {
        for len in [1, 15, 16, 130, 5000] {
            for at in [0, len / 2, len - 1] {
                let mut x = numbers(len, 3);
                x[at] = f32::NAN;
                assert!(kernel.extreme(true, &x).is_nan() && kernel.extreme(false, &x).is_nan(), "{}", kernel.isa());
                assert!(kernel.sum(&x).is_nan() && kernel.moments(&x).squares.is_nan());
                let mut out = vec![0.0; len];
                kernel.softmax(&x, len, false, &mut out);
                assert!(out.iter().all(|v| v.is_nan()));
                let mut columns = vec![f32::NEG_INFINITY; len];
                kernel.column_extremes(true, &x, len, 1, &mut columns);
                near(kernel, &columns, &x, 0);
                x[at] = f32::INFINITY;
                assert_eq!(kernel.sum(&x), f64::INFINITY);
                let moments = kernel.moments(&x);
                assert!(moments.sum == f64::INFINITY && moments.squares.is_nan(), "{} {moments:?}", kernel.isa());
                let mut sums = vec![0.0; len];
                kernel.column_sums(&x, len, 1, &mut sums);
                assert!(sums.iter().zip(&x).all(|(a, b)| *a == *b as f64), "{}", kernel.isa());
            }
        }
    }
}

#[test]
fn conversions_are_exact() {
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(9973).map(f32::from_bits).collect();
    x.extend((-3000..3000).map(|i| i as f32 / 16.0));
    x.extend((0..0x7c00u16).flat_map(|i| [i as f32 + 0.5, (i as f32 + 0.5) * 1e-7]));
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let bytes: Vec<i8> = (i8::MIN..=i8::MAX).collect();
    for kernel in kernels() {
        let mut out = vec![0i8; x.len()];
        kernel.to_i8(&x, &mut out);
        for (x, y) in x.iter().zip(&out) {
            assert_eq!(*x as i8, *y, "{} {x}", kernel.isa());
        }
        for half in [Half::F16, Half::BF16] {
            let mut narrow = vec![0; x.len()];
            kernel.narrow(half, &x, &mut narrow);
            let mut wide = vec![0.0; halves.len()];
            kernel.widen(half, &halves, &mut wide);
            let to = |x: f32| match half {
                Half::F16 => half::f16::from_f32(x).to_bits(),
                Half::BF16 => half::bf16::from_f32(x).to_bits(),
            };
            let from = |bits: u16| match half {
                Half::F16 => half::f16::from_bits(bits).to_f32(),
                Half::BF16 => half::bf16::from_bits(bits).to_f32(),
            };
            for (x, y) in x.iter().zip(&narrow) {
                assert!(to(*x) == *y || x.is_nan() && from(*y).is_nan(), "{} {half:?} {x:e}", kernel.isa());
            }
            near(kernel, &wide, &halves.iter().map(|h| from(*h)).collect::<Vec<_>>(), 0);
        }
        let mut wide = vec![0.0; bytes.len()];
        kernel.widen_i8(&bytes, &mut wide);
        assert!(wide.iter().zip(&bytes).all(|(a, b)| *a == *b as f32));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn two_operands(rows in 1..40usize, columns in 1..700usize, seed: u64) {
        let (a, b) = (numbers(rows * columns, seed), numbers(rows * columns, !seed));
        for kernel in kernels() {
            for op in Binary::ALL {
                for b in [&b[..], &b[..columns], &b[..1]] {
                    let (mut out, mut expected, mut assigned) = (a.clone(), a.clone(), a.clone());
                    kernel.binary(op, &a, b, &mut out);
                    kernels()[0].binary(op, &a, b, &mut expected);
                    kernel.binary_assign(op, &mut assigned, b);
                    near(kernel, &out, &expected, 0);
                    near(kernel, &assigned, &expected, 0);
                }
            }
        }
    }

    #[test]
    fn rows_and_columns(rows in 1..150usize, columns in 1..1200usize, seed: u64) {
        let x: Vec<f32> = numbers(rows * columns, seed).iter().map(|v| v + 2.0).collect();
        let (weight, bias) = (numbers(columns, !seed), numbers(columns, seed ^ 9));
        let scalar = kernels()[0];
        let large: f64 = x.iter().map(|v| v.abs() as f64).sum();
        for kernel in kernels() {
            prop_assert!((kernel.sum(&x) - scalar.sum(&x)).abs() <= 2e-7 * large);
            for largest in [true, false] {
                prop_assert_eq!(kernel.extreme(largest, &x), scalar.extreme(largest, &x));
                let (mut a, mut b) = (vec![1.0; columns], vec![1.0; columns]);
                kernel.column_extremes(largest, &x, columns, rows, &mut a);
                scalar.column_extremes(largest, &x, columns, rows, &mut b);
                near(kernel, &a, &b, 0);
            }
            let (a, b) = (kernel.moments(&x), scalar.moments(&x));
            prop_assert!((a.squares - b.squares).abs() <= 1e-6 * b.squares && a.count == b.count, "{:?} {:?}", a, b);

            let (mut a, mut b) = (vec![1.0; columns], vec![1.0; columns]);
            kernel.column_sums(&x, columns, rows, &mut a);
            scalar.column_sums(&x, columns, rows, &mut b);
            for i in 0..columns {
                let large: f64 = (0..rows).map(|r| x[r * columns + i].abs() as f64).sum();
                prop_assert!((a[i] - b[i]).abs() <= 2e-7 * large + 1e-9);
            }
            let ((mut a, mut p), (mut b, mut q)) =
                ((vec![3.0; columns], vec![1.0; columns]), (vec![3.0; columns], vec![1.0; columns]));
            kernel.column_moments(&x, columns, rows, 2.0, &mut a, &mut p);
            scalar.column_moments(&x, columns, rows, 2.0, &mut b, &mut q);
            for i in 0..columns {
                prop_assert!((p[i] - q[i]).abs() <= 1e-5 * q[i], "{} {} {}", i, p[i], q[i]);
            }

            let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            kernel.softmax(&x, columns, false, &mut a);
            scalar.softmax(&x, columns, false, &mut b);
            for (row, (a, b)) in x.chunks(columns).zip(a.chunks(columns).zip(b.chunks(columns))) {
                // Errors of the logarithm in 2^-24, half a unit. The rounded difference d from the largest is off by d, the function
                // by 2. The sum's terms carry the same, d of them being below ln(columns) on average, as the entropy is; its
                // additions round 7 times in a lane, 3 where accumulators meet and up to 4 where lanes do. The reciprocal,
                // the product and the scalar kernel round once each.
                let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                for (x, (&a, &b)) in row.iter().zip(a.iter().zip(b)) {
                    let d = f64::from(largest) - f64::from(*x);
                    let bound = (d + 2.0) + ((columns as f64).ln() + 2.0 + 7.0 + 3.0 + 4.0) + 3.0;
                    let error = (f64::from(a) / f64::from(b)).ln().abs() * f64::from(1 << 24);
                    prop_assert!(error <= bound, "{} {x} {a:e} {b:e}: {error} of {bound}", kernel.isa());
                }
            }
            kernel.softmax(&x, columns, true, &mut a);
            scalar.softmax(&x, columns, true, &mut b);
            for (a, b) in a.iter().zip(&b) {
                prop_assert!((a - b).abs() <= 2e-6 * b.abs().max(1.0));
            }
            for (weight, bias) in [(&weight[..], &bias[..]), (&weight[..], &[][..]), (&[][..], &bias[..]), (&[][..], &[][..])] {
                kernel.layer_norm(&x, columns, weight, bias, 1e-5, &mut a);
                scalar.layer_norm(&x, columns, weight, bias, 1e-5, &mut b);
                for (a, b) in a.iter().zip(&b) {
                    prop_assert!((a - b).abs() <= 1e-5 * b.abs().max(10.0), "{} {}", a, b);
                }
            }
            for stream in [false, true] {
                kernel.transpose(&x, columns, rows, 0, stream, &mut a);
                scalar.transpose(&x, columns, rows, 0, stream, &mut b);
                near(kernel, &a, &b, 0);
            }
        }
    }

    /// Whole tensors: as the definition, and to the last bit alike on any number of threads.
    #[test]
    fn whole_tensors(outer in 1..4usize, n in 1..3000usize, inner in 1..40usize, seed: u64) {
        let x = numbers(outer * n * inner, seed);
        let (one, three) = (ThreadPool::new(1), ThreadPool::new(3));
        let column = |i: usize| (0..n).map(move |k| (i / inner * n + k) * inner + i % inner);
        for kernel in kernels() {
            for op in [parallel::Reduction::Sum, parallel::Reduction::Max, parallel::Reduction::Min] {
                let (mut a, mut b) = (vec![0.0; outer * inner], vec![0.0; outer * inner]);
                parallel::reduce(kernel, &one, op, &x, [outer, n, inner], &mut a);
                parallel::reduce(kernel, &three, op, &x, [outer, n, inner], &mut b);
                near(kernel, &a, &b, 0);
                for i in 0..outer * inner {
                    let values = column(i).map(|at| x[at]);
                    let large: f32 = values.clone().map(f32::abs).sum();
                    let expected = match op {
                        parallel::Reduction::Sum => values.map(|v| v as f64).sum::<f64>() as f32,
                        parallel::Reduction::Max => values.fold(f32::NEG_INFINITY, f32::max),
                        parallel::Reduction::Min => values.fold(f32::INFINITY, f32::min),
                    };
                    let bound = if op == parallel::Reduction::Sum { 2e-7 * large } else { 0.0 };
                    prop_assert!((a[i] - expected).abs() <= bound);
                }
            }
            let (mut a, mut b) = (vec![], vec![]);
            parallel::moments(kernel, &one, &x, [outer, n, inner], |_, m| a.push(m));
            parallel::moments(kernel, &three, &x, [outer, n, inner], |_, m| b.push(m));
            prop_assert_eq!(&a, &b);
            for (i, got) in a.iter().enumerate() {
                let values: Vec<f32> = column(i).map(|at| x[at]).collect();
                let all: Moments = kernels()[0].moments(&values);
                prop_assert!((got.squares - all.squares).abs() <= 1e-5 * all.squares && got.count == all.count);
            }
            let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            parallel::transpose(kernel, &one, &x, inner, outer * n, &mut a);
            parallel::transpose(kernel, &three, &x, inner, outer * n, &mut b);
            near(kernel, &a, &b, 0);
            prop_assert!((0..x.len()).all(|i| a[i % inner * outer * n + i / inner] == x[i]));
            parallel::unary(kernel, &one, UnaryOp::GeluTanh, &x, &mut a);
            parallel::unary(kernel, &three, UnaryOp::GeluTanh, &x, &mut b);
            near(kernel, &a, &b, 0);
            for y in [&x[..], &x[..n * inner], &x[..inner], &x[..1]] {
                parallel::binary(kernel, &three, Binary::Sub, &x, y, &mut b);
                prop_assert!((0..x.len()).all(|i| b[i] == x[i] - y[i % y.len()]));
            }
        }
    }
}
