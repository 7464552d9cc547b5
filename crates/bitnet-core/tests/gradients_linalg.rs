//! Gradients of decompositions, of values and of vectors, against central differences; and their derivatives.
#![cfg(feature = "linalg")]

use bitnet_core::autograd::{gradients, no_grad};
use bitnet_core::{BitNetDType::F64, BitNetTensor as Tensor, Device, MatrixNorm, Result};

/// Values without order, near none that makes two singular values equal.
fn tensor(dims: &[usize]) -> Tensor {
    let count: usize = dims.iter().product();
    let value = |i: usize| ((i * i * 31 + i * 17 + 5) % 97) as f64 / 60. - 0.7;
    Tensor::from_vec((0..count).map(value).collect(), dims, &Device::cpu()).unwrap()
}

fn symmetric(x: &Tensor) -> Result<Tensor> {
    x.add(&x.transpose(-2, -1)?)
}

fn definite(x: &Tensor) -> Result<Tensor> {
    x.matmul(&x.transpose(-2, -1)?)?.add(&Tensor::eye(x.dims()[x.rank() - 2], F64, &Device::cpu())?)
}

/// The sum of all elements of all results, each times a factor of its own.
fn weighed(parts: &[&Tensor]) -> Result<Tensor> {
    let mut sum = Tensor::zeros(&[], F64, &Device::cpu())?;
    for part in parts {
        sum = sum.add(&part.mul(&tensor(part.dims()).add(0.9)?)?.sum(.., false)?)?;
    }
    Ok(sum)
}

type F = fn(&Tensor) -> Result<Tensor>;

const FUNCTIONS: [(&str, &[usize], F); 24] = [
    ("cholesky", &[3, 3], |x| weighed(&[&definite(x)?.cholesky()?])),
    ("cholesky of a batch", &[2, 3, 3], |x| weighed(&[&definite(x)?.cholesky()?])),
    ("qr, square", &[3, 3], |x| x.qr().and_then(|(q, r)| weighed(&[&q, &r]))),
    ("qr, tall", &[2, 5, 3], |x| x.qr().and_then(|(q, r)| weighed(&[&q, &r]))),
    ("qr, wide", &[3, 5], |x| x.qr().and_then(|(q, r)| weighed(&[&q, &r]))),
    ("r alone", &[4, 3], |x| weighed(&[&x.qr()?.1])),
    ("lu", &[2, 3, 3], |x| x.lu().and_then(|(_, l, u)| weighed(&[&l, &u]))),
    ("svd, square", &[3, 3], |x| x.svd(false).and_then(|(u, s, v)| weighed(&[&u, &s, &v]))),
    ("svd, tall", &[2, 4, 3], |x| x.svd(false).and_then(|(u, s, v)| weighed(&[&u, &s, &v]))),
    ("svd, wide", &[3, 5], |x| x.svd(false).and_then(|(u, s, v)| weighed(&[&u, &s, &v]))),
    ("svdvals", &[4, 3], |x| weighed(&[&x.svdvals()?])),
    ("eigh", &[2, 3, 3], |x| symmetric(x)?.eigh().and_then(|(w, v)| weighed(&[&w, &v]))),
    ("pinv, tall", &[4, 3], |x| weighed(&[&x.pinv()?])),
    ("pinv, wide", &[2, 3, 4], |x| weighed(&[&x.pinv()?])),
    ("pinv of rank 2", &[4, 2], |x| weighed(&[&x.matmul(&tensor(&[2, 3]))?.pinv()?])),
    ("lstsq", &[4, 3], |x| weighed(&[&x.lstsq(&x.square()?)?])),
    ("inv", &[2, 3, 3], |x| weighed(&[&x.inv()?])),
    ("solve", &[3, 3], |x| weighed(&[&x.solve(&x.select(0, 0)?)?])),
    ("det", &[2, 3, 3], |x| weighed(&[&x.det()?])),
    ("det of rank 2", &[3, 2], |x| {
        x.matmul(&tensor(&[2, 3]))?.add(&Tensor::zeros(&[3, 3], F64, &Device::cpu())?)?.det()
    }),
    ("slogdet", &[3, 3], |x| Ok(x.slogdet()?.1)),
    ("nuclear norm", &[3, 4], |x| x.matrix_norm(MatrixNorm::Nuclear)),
    ("cond", &[3, 3], |x| x.cond(MatrixNorm::LargestSingular)),
    ("matrix_power", &[3, 3], |x| weighed(&[&x.matrix_power(-3)?])),
];

#[test]
fn differences_give_the_same() -> Result<()> {
    let mut faults = Vec::new();
    for (name, dims, f) in FUNCTIONS {
        let base = tensor(dims);
        let mut x = base.clone();
        x.requires_grad_(true)?;
        let first = gradients(&[&f(&x)?], &[&x], true)?.remove(0).expect("a gradient");
        for turn in 0..3 {
            let direction = tensor(dims).roll(&[turn + 1], &[])?;
            let along = first.mul(&direction)?.sum(.., false)?;
            let at = |step: f64| -> Result<f64> { no_grad(|| f(&base.add(&direction.mul(step)?)?)?.item()) };
            let expected = (at(1e-6)? - at(-1e-6)?) / 2e-6;
            let got: f64 = along.item()?;
            if (got - expected).abs() > 1e-6 * expected.abs().max(1.) {
                faults.push(format!("{name}: {got}, {expected} expected"));
            }
            // The derivative of that; singular matrices have no smooth one.
            if name.contains("of rank 2") {
                continue;
            }
            let second = gradients(&[&along], &[&x], false)?.remove(0).expect("a second derivative");
            let got: f64 = second.mul(&direction)?.sum(.., false)?.item()?;
            let slope = |step: f64| -> Result<f64> {
                let mut moved = base.add(&direction.mul(step)?)?;
                moved.requires_grad_(true)?;
                let first = gradients(&[&f(&moved)?], &[&moved], false)?.remove(0).expect("a gradient");
                first.mul(&direction)?.sum(.., false)?.item()
            };
            let expected = (slope(1e-6)? - slope(-1e-6)?) / 2e-6;
            if (got - expected).abs() > 1e-5 * expected.abs().max(1.) {
                faults.push(format!("{name}, second: {got}, {expected} expected"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn operations_without_derivative_are_errors() -> Result<()> {
    let mut x = tensor(&[3, 3]);
    x.requires_grad_(true)?;
    let mut tall = tensor(&[4, 3]);
    tall.requires_grad_(true)?;
    let errors = [x.eig().err(), x.svd(true).err(), tall.lu().err()];
    for error in errors {
        assert!(error.expect("an error").to_string().contains("not differentiable"));
    }
    assert!(!x.matrix_rank()?.requires_grad());
    no_grad(|| x.eig())?;
    // Of the zero matrix each cofactor is 0, and the determinant's gradient too.
    let mut zero = Tensor::zeros(&[3, 3], F64, &Device::cpu())?;
    zero.requires_grad_(true)?;
    zero.det()?.backward()?;
    assert_eq!(zero.grad().expect("a gradient").to_vec::<f64>()?, [0.; 9]);
    Ok(())
}
