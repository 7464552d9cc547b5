//! Float operations of every instruction set of this CPU against f64 and the scalar kernel, at odd sizes.

mod common;

use bitnet_device::backend::{GateActivation, UnaryOp};
use bitnet_kernels::FloatKernel;
use bitnet_kernels::dense::{DenseKernel, Half};
use bitnet_kernels::float::{half, inverse_frequencies, rope_tables};
use common::numbers;
use proptest::prelude::*;

/// Every kernel of this CPU, the scalar one first.
fn kernels() -> Vec<&'static dyn FloatKernel> {
    common::kernels().map(|kernels| kernels.float).collect()
}

fn dense() -> impl Iterator<Item = &'static dyn DenseKernel> {
    common::kernels().map(|kernels| kernels.dense)
}

/// `|a - b| <= bound * max(|b|, scale)`.
#[track_caller]
fn close(kernel: &dyn FloatKernel, a: &[f32], b: &[f32], bound: f32, scale: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let near = (a - b).abs() <= bound * b.abs().max(scale);
        assert!(near || a == b || a.is_nan() && b.is_nan(), "{} {i}: {a} {b}", kernel.isa());
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    for kernel in dense() {
        // Every 997th float, both signs.
        let x: Vec<f32> = (0..=0xff80_0000u32).step_by(997).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        let mut y = x.clone();
        kernel.unary_assign(UnaryOp::Exp, &mut y);
        for (x, y) in x.iter().zip(&y) {
            let exact = (*x as f64).exp();
            let unit = (exact as f32).abs().next_up() as f64 - (exact as f32).abs() as f64;
            let overflow = exact > f32::MAX as f64 && *y == f32::INFINITY;
            assert!(overflow || (*y as f64 - exact).abs() <= 2.0 * unit, "{} exp({x}) {y} {exact}", kernel.isa());
        }
        let mut special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
        kernel.unary_assign(UnaryOp::Exp, &mut special);
        assert!(special[0].is_nan());
        assert_eq!(special[1..], [f32::INFINITY, 0.0, 1.0, 1.0]);
    }
}

#[test]
fn to_f16_rounds_as_the_standard_says() {
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(99_991).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
    // Ties and their neighbours.
    for bits in (0..0x7c00u16).step_by(7) {
        let tie = (half::f16_to_f32(bits) + half::f16_to_f32(bits + 1)) / 2.0;
        x.extend([tie, tie.next_up(), -tie.next_down()]);
    }
    for kernel in dense() {
        let mut y = vec![0; x.len()];
        kernel.narrow(Half::F16, &x, &mut y);
        for (x, y) in x.iter().zip(&y) {
            assert_eq!(half::f32_to_f16(*x), *y, "{} {x}", kernel.isa());
        }
    }
}

#[test]
fn gates_that_are_not_a_number_stay() {
    for kernel in kernels() {
        for act in GateActivation::ALL {
            // A whole vector of any set, and a rest.
            let mut gate = [f32::NAN; 19];
            kernel.gated(act, &mut gate, &[1.0; 19]);
            assert!(gate.iter().all(|g| g.is_nan()), "{} {act:?}", kernel.isa());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// All sums have at most a few hundred terms a lane, so 1e-6 leaves room for their rounding.
    #[test]
    fn elementwise_operations_equal_scalar(rows in 1..4usize, columns in 1..300usize, seed: u64) {
        let scalar = kernels()[0];
        let (x, weight) = (numbers(rows * columns, seed), numbers(columns, !seed));
        let y = numbers(rows * columns, seed ^ 7);
        for kernel in kernels() {
            let (mut a, mut b) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            kernel.rms_norm(&x, &weight, 1e-5, &mut a);
            scalar.rms_norm(&x, &weight, 1e-5, &mut b);
            close(kernel, &a, &b, 1e-6, 0.0);

            for act in GateActivation::ALL {
                (a, b) = (x.clone(), x.clone());
                kernel.gated(act, &mut a, &y);
                scalar.gated(act, &mut b, &y);
                close(kernel, &a, &b, 1e-6, 0.0);
            }
        }
    }

    #[test]
    fn rope_equals_scalar(tokens in 0..4usize, heads in 1..4usize, pairs in 1..70usize, seed: u64) {
        let (cos, sin) = rope_tables(&inverse_frequencies(10_000.0, 2 * pairs), 20);
        let (cos, sin) = (&cos[3 * pairs..][..tokens * pairs], &sin[3 * pairs..][..tokens * pairs]);
        let x = numbers(tokens * heads * 2 * pairs, seed);
        for kernel in kernels() {
            let (mut a, mut b) = (x.clone(), x.clone());
            kernel.rope(&mut a, heads, pairs, cos, sin);
            kernels()[0].rope(&mut b, heads, pairs, cos, sin);
            close(kernel, &a, &b, 1e-6, 10.0); // of numbers up to 30, with cancellation
        }
    }
}
