//! The tape itself; derivatives of operations are in `tests/gradients.rs`.

use super::{BackwardOptions, checkpoint, differentiable, gradients, is_recording, no_grad};
use crate::{BitNetTensor, Device, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn leaf(values: &[f64]) -> BitNetTensor {
    let mut x = BitNetTensor::from_slice(values, &[values.len()], &Device::cpu()).unwrap();
    x.requires_grad_(true).unwrap();
    x
}

fn values(x: Option<BitNetTensor>) -> Vec<f64> {
    x.expect("a gradient").to_vec().unwrap()
}

/// `a * b` with a derivative made here.
fn product(a: &BitNetTensor, b: &BitNetTensor) -> Result<BitNetTensor> {
    let (x, y) = (a.clone(), b.clone());
    let forward = || a.detach().mul(&b.detach());
    differentiable("product", &[a, b], forward, |_| {
        move |grad: &BitNetTensor| Ok(vec![Some(product(grad, &y)?), Some(product(grad, &x)?)])
    })
}

fn ones(n: usize) -> BitNetTensor {
    BitNetTensor::from_slice(&vec![1f64; n], &[n], &Device::cpu()).unwrap()
}

#[test]
fn a_leaf_that_is_used_twice_gets_the_sum() {
    let (x, y) = (leaf(&[2., 3.]), leaf(&[5., 7.]));
    let z = product(&product(&x, &y).unwrap(), &x).unwrap();
    assert!(z.requires_grad() && !z.is_leaf() && x.is_leaf());
    z.backward_with(Some(&ones(2)), BackwardOptions::default()).unwrap();
    assert_eq!(values(x.grad()), [20., 42.]);
    assert_eq!(values(y.grad()), [4., 9.]);
    // A second graph adds to what is there.
    product(&x, &y).unwrap().backward_with(Some(&ones(2)), BackwardOptions::default()).unwrap();
    assert_eq!(values(x.grad()), [25., 49.]);
    x.zero_grad();
    assert!(x.grad().is_none());
}

#[test]
fn the_tape_is_freed_unless_it_is_to_be_kept() {
    let x = leaf(&[2.]);
    let y = product(&x, &x).unwrap();
    let keep = BackwardOptions { retain_graph: true, ..Default::default() };
    y.backward_with(None, keep).unwrap();
    y.backward().unwrap();
    assert_eq!(values(x.grad()), [8.]);
    let err = y.backward().unwrap_err().to_string();
    assert!(err.contains("product") && err.contains("retain_graph"), "{err}");
}

#[test]
fn derivatives_of_derivatives() {
    let x = leaf(&[3.]);
    let y = product(&product(&x, &x).unwrap(), &x).unwrap();
    let first = gradients(&[&y], &[&x], true).unwrap().remove(0);
    let second = gradients(&[first.as_ref().unwrap()], &[&x], true).unwrap().remove(0);
    assert_eq!((values(first), values(second)), (vec![27.], vec![18.]));
    assert!(x.grad().is_none());
}

#[test]
fn recording_can_be_switched_off() {
    let x = leaf(&[2.]);
    let y = no_grad(|| product(&x, &x)).unwrap();
    assert!(!y.requires_grad() && is_recording());
    let err = y.backward().unwrap_err().to_string();
    assert!(err.contains("nothing was recorded"), "{err}");
    assert!(!x.detach().requires_grad());
    assert!(std::panic::catch_unwind(|| no_grad(|| panic!("on purpose"))).is_err());
    assert!(is_recording());
}

#[test]
fn hooks_see_whole_gradients_and_may_replace_them() {
    let x = leaf(&[2.]);
    let y = product(&x, &x).unwrap();
    y.retain_grad();
    y.register_hook(|grad| Ok(Some(grad.mul(10.)?))).unwrap();
    product(&y, &y).unwrap().backward().unwrap();
    // d(y^2)/dy = 8, times 10 by the hook, times 2x.
    assert_eq!(values(y.grad()), [80.]);
    assert_eq!(values(x.grad()), [320.]);
    assert!(x.detach().register_hook(|_| Ok(None)).is_err());
}

#[test]
fn checkpoints_compute_again_and_reach_leaves_inside() {
    let (x, w) = (leaf(&[2., 3.]), leaf(&[5., 7.]));
    let runs = Arc::new(AtomicUsize::new(0));
    let (inside, counted) = (w.clone(), runs.clone());
    let y = checkpoint(&[&x], move |inputs| {
        counted.fetch_add(1, Ordering::Relaxed);
        product(&product(&inputs[0], &inside)?, &inputs[0])
    })
    .unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    y.backward_with(Some(&ones(2)), BackwardOptions::default()).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert_eq!(values(x.grad()), [20., 42.]);
    assert_eq!(values(w.grad()), [4., 9.]);
}

#[test]
fn wrong_gradients_are_refused() {
    let x = leaf(&[1., 2.]);
    let wide = |_: &BitNetTensor| |_: &BitNetTensor| Ok(vec![Some(ones(3))]);
    let y = differentiable("wide", &[&x], || Ok(x.detach()), wide).unwrap();
    let err = y.backward_with(Some(&ones(2)), BackwardOptions::default()).unwrap_err().to_string();
    assert!(err.contains("wide") && err.contains("the gradient"), "{err}");
    assert!(y.backward().is_err(), "two elements need a gradient");
    assert!(x.set_grad(Some(ones(3))).is_err());
    let mut whole = BitNetTensor::from_slice(&[1i32], &[1], &Device::cpu()).unwrap();
    assert!(whole.requires_grad_(true).unwrap_err().to_string().contains("no derivative"));
}

#[test]
fn a_long_tape_does_not_exhaust_the_stack() {
    let x = leaf(&[1.]);
    let mut y = x.clone();
    for _ in 0..100_000 {
        let one = |_: &BitNetTensor| |grad: &BitNetTensor| Ok(vec![Some(grad.clone())]);
        y = differentiable("same", &[&y], || Ok(y.detach()), one).unwrap();
    }
    let other = y.clone();
    other.backward_with(None, BackwardOptions { retain_graph: true, ..Default::default() }).unwrap();
    assert_eq!(values(x.grad()), [1.]);
    drop((y, other));
}

/// First and second derivatives of the sum of `f`.
fn slopes(f: impl Fn(&BitNetTensor) -> Result<BitNetTensor>, at: &[f64]) -> [Vec<f64>; 2] {
    let x = leaf(at);
    let first = gradients(&[&f(&x).unwrap()], &[&x], true).unwrap().remove(0).unwrap();
    let second = match first.requires_grad() {
        true => gradients(&[&first], &[&x], false).unwrap().remove(0),
        false => None,
    };
    [values(Some(first)), second.map_or_else(|| vec![0.; at.len()], |second| values(Some(second)))]
}

#[test]
fn slopes_at_zero_are_numbers() {
    const INF: f64 = f64::INFINITY;
    // As PyTorch's, but for the second of norms 2 and 1.5, which are NaN there.
    assert_eq!(slopes(|x| x.pow(0), &[0., 2.]), [[0., 0.], [0., 0.]]);
    assert_eq!(slopes(|x| x.pow(1), &[0., 2.]), [[1., 1.], [0., 0.]]);
    assert_eq!(slopes(|x| x.pow(2), &[0., 2.]), [[0., 4.], [2., 2.]]);
    assert_eq!(slopes(|x| x.pow(3), &[0., 2.]), [[0., 12.], [0., 12.]]);
    assert_eq!(slopes(|x| x.pow(0.5), &[0.]), [[INF], [-INF]]);
    for powers in [[0., 0.], [1., 1.], [2., 2.], [3., 3.]] {
        let powers = BitNetTensor::from_slice(&powers, &[2], &Device::cpu()).unwrap();
        let by_number = slopes(|x| x.pow(powers.to_vec::<f64>().unwrap()[0]), &[0., 2.]);
        assert_eq!(slopes(|x| x.pow(&powers), &[0., 2.]), by_number);
    }
    for p in [1., 1.5, 2., 3., INF] {
        assert_eq!(slopes(|x| x.norm(p, .., false), &[0., 0.]), [[0., 0.], [0., 0.]], "norm {p}");
    }
    assert_eq!(slopes(|x| x.norm(3., .., false), &[0., 2.]), [[0., 1.], [0., 0.]]);
    assert_eq!(slopes(|x| x.norm(2., .., false), &[0., 2.]), [[0., 1.], [0.5, 0.]]);
    assert_eq!(slopes(|x| x.std(.., 1., false), &[1., 1.]), [[0., 0.], [0., 0.]]);
    let zero = || ones(1).zeros_like().unwrap();
    assert_eq!(slopes(|y| y.atan2(&zero()), &[0.]), [[0.], [0.]]);
    assert_eq!(slopes(|x| zero().atan2(x), &[0.]), [[-0.], [0.]]);
    assert_eq!(slopes(|y| y.atan2(&zero()), &[1.]), [[0.], [0.]]);
    // The base of a power.
    let base = BitNetTensor::from_slice(&[0., 2.], &[2], &Device::cpu()).unwrap();
    let [first, second] = slopes(|x| base.pow(x), &[2., 2.]);
    assert_eq!((first[0], second[0]), (0., 0.));
    assert!((first[1] - 2.772588722239781).abs() < 1e-15 && (second[1] - 1.9218120556728056).abs() < 1e-14);
}

#[test]
fn an_operand_of_a_backend_has_no_history_and_does_not_panic() {
    let x = leaf(&[3.]);
    let mut out = ones(1);
    x.device().unary(crate::backend::UnaryOp::Neg, x.as_ref(), out.as_mut().unwrap()).unwrap();
    assert_eq!((out.to_vec::<f64>().unwrap(), out.requires_grad()), (vec![-3.], false));
    assert_eq!(x.mul(2).unwrap().as_ref().layout.dims(), [1]);
}
