//! Neural network functions and their derivatives compared with torch.autograd (the golden file and its script are in
//! bitnet-testkit) and with central differences.

use bitnet_core::BitNetDType::{self, BF16, F16, F32, F64};
use bitnet_core::neural::derivative::*;
use bitnet_core::serialize::npz;
use bitnet_core::{AttentionOptions, BitNetTensor as Tensor, CrossEntropyOptions, Device, Gelu, Reduction, Result};
use std::path::Path;

/// One function: its result, and the gradients of its first operands.
struct Case {
    name: String,
    inputs: Vec<Tensor>,
    grad: Tensor,
    out: Tensor,
    gradients: Vec<Tensor>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bitnet-testkit/golden/derivatives.npz");
    let arrays = npz::load(path, &Device::cpu()).unwrap();
    let names = arrays.keys().filter_map(|name| name.strip_suffix("/grad"));
    let listed = |name: &str, kind: &str| -> Vec<Tensor> {
        (0..).map_while(|i| arrays.get(&format!("{name}/{kind}{i}")).cloned()).collect()
    };
    let case = |name: &str| Case {
        name: name.into(),
        inputs: listed(name, "in"),
        grad: arrays[&format!("{name}/grad")].clone(),
        out: arrays[&format!("{name}/out")].clone(),
        gradients: listed(name, "d"),
    };
    let all: Vec<_> = names.map(case).collect();
    assert_eq!(all.len(), 59, "the golden file is whole");
    all
}

fn reduction(name: &str) -> Reduction {
    match name {
        n if n.contains("none") => Reduction::None,
        n if n.contains("mean") => Reduction::Mean,
        _ => Reduction::Sum,
    }
}

fn cross_entropy<'a>(name: &str, x: &'a [Tensor]) -> CrossEntropyOptions<'a> {
    CrossEntropyOptions {
        weight: x.get(2),
        label_smoothing: if name.contains("_1") { 0.1 } else { 0. },
        reduction: reduction(name),
        ..Default::default()
    }
}

fn attention<'a>(name: &str, x: &'a [Tensor]) -> AttentionOptions<'a> {
    AttentionOptions {
        causal: matches!(name, "attention_causal" | "attention_grouped"),
        mask: x.get(3),
        scale: (name == "attention_causal").then_some(0.3),
    }
}

fn forward(name: &str, x: &[Tensor]) -> Result<Tensor> {
    let axis = || name.rsplit('_').next().and_then(|n| n.parse().ok()).expect("a dimension");
    match name {
        "relu" => x[0].relu(),
        "relu2" => x[0].relu2(),
        "gelu_erf" => x[0].gelu(Gelu::Erf),
        "gelu_tanh" => x[0].gelu(Gelu::Tanh),
        "silu" => x[0].silu(),
        "sigmoid" => x[0].sigmoid(),
        "tanh" => x[0].tanh(),
        "softplus" => x[0].softplus(2., 6.),
        "elu" => x[0].elu(0.7),
        "leaky_relu" => x[0].leaky_relu(0.1),
        "layer_norm" => x[0].layer_norm(&[3, 4], Some(&x[1]), Some(&x[2]), 1e-3),
        "layer_norm_plain" => x[0].layer_norm(&[6], None, None, 1e-5),
        "rms_norm" => x[0].rms_norm(&x[1], 1e-3),
        "embedding" => x[0].embedding(&x[1]),
        "rope" => x[0].rope(&x[1], &x[2]),
        n if n.starts_with("softmax") => x[0].softmax(axis()),
        n if n.starts_with("log_softmax") => x[0].log_softmax(axis()),
        n if n.starts_with("cross_entropy") => x[0].cross_entropy(&x[1], &cross_entropy(n, x)),
        n if n.starts_with("mse_loss") => x[0].mse_loss(&x[1], reduction(n)),
        n if n.starts_with("kl_div") => x[0].kl_div(&x[1], n.contains("log"), reduction(n)),
        n if n.starts_with("attention") => x[0].scaled_dot_product_attention(&x[1], &x[2], &attention(n, x)),
        n => panic!("no function {n}"),
    }
}

fn backward(name: &str, g: &Tensor, x: &[Tensor], y: &Tensor) -> Result<Vec<Tensor>> {
    let axis = || name.rsplit('_').next().and_then(|n| n.parse().ok()).expect("a dimension");
    Ok(match name {
        "relu" => vec![relu_backward(g, &x[0])?],
        "relu2" => vec![relu2_backward(g, &x[0])?],
        "gelu_erf" => vec![gelu_backward(g, &x[0], Gelu::Erf)?],
        "gelu_tanh" => vec![gelu_backward(g, &x[0], Gelu::Tanh)?],
        "silu" => vec![silu_backward(g, &x[0])?],
        "sigmoid" => vec![sigmoid_backward(g, y)?],
        "tanh" => vec![tanh_backward(g, y)?],
        "softplus" => vec![softplus_backward(g, &x[0], 2., 6.)?],
        "elu" => vec![elu_backward(g, &x[0], 0.7)?],
        "leaky_relu" => vec![leaky_relu_backward(g, &x[0], 0.1)?],
        "layer_norm" => {
            let d = layer_norm_backward(g, &x[0], &[3, 4], Some(&x[1]), 1e-3)?;
            vec![d.x, d.weight, d.bias.expect("a gradient of the bias")]
        }
        "layer_norm_plain" => vec![layer_norm_backward(g, &x[0], &[6], None, 1e-5)?.x],
        "rms_norm" => {
            let d = rms_norm_backward(g, &x[0], &x[1], 1e-3)?;
            vec![d.x, d.weight]
        }
        "embedding" => vec![embedding_backward(g, &x[1], x[0].dims()[0])?],
        "rope" => vec![rope_backward(g, &x[1], &x[2])?],
        n if n.starts_with("softmax") => vec![softmax_backward(g, y, axis())?],
        n if n.starts_with("log_softmax") => vec![log_softmax_backward(g, y, axis())?],
        n if n.starts_with("cross_entropy") => vec![cross_entropy_backward(g, &x[0], &x[1], &cross_entropy(n, x))?],
        n if n.starts_with("mse_loss") => {
            let (dx, dy) = mse_loss_backward(g, &x[0], &x[1], reduction(n))?;
            vec![dx, dy]
        }
        n if n.starts_with("kl_div") => {
            let (dx, dy) = kl_div_backward(g, &x[0], &x[1], n.contains("log"), reduction(n))?;
            vec![dx, dy]
        }
        n if n.starts_with("attention") => {
            let d = scaled_dot_product_attention_backward(g, &x[0], &x[1], &x[2], &attention(n, x))?;
            [d.q, d.k, d.v].into_iter().chain(d.mask).collect()
        }
        n => panic!("no derivative of {n}"),
    })
}

/// Largest `|got - expected|`, as a share of the largest expected element or 1.
fn distance(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let host = |t: &Tensor| t.to_dtype(F64).unwrap().to_vec::<f64>().unwrap();
    let (got, expected) = (host(got), host(expected));
    let size = expected.iter().fold(1f64, |m, x| m.max(x.abs()));
    let off = |(g, e): (&f64, &f64)| if (g - e).is_nan() { f64::INFINITY } else { (g - e).abs() / size };
    got.iter().zip(&expected).map(off).fold(0., f64::max)
}

#[test]
fn torch_gives_the_same() {
    let mut off = Vec::new();
    for case in cases() {
        for (dtype, tolerance) in [(F64, 1e-13), (F32, 5e-6)] {
            let (distances, _) = distances(&case, dtype);
            if distances.iter().any(|&distance| distance > tolerance) {
                off.push(format!("{} in {dtype}: {distances:?}", case.name));
            }
        }
    }
    assert!(off.is_empty(), "distances of the result, then of the gradients:\n{}", off.join("\n"));
}

/// Errors of the result and of every gradient, computed in `dtype`, against PyTorch in f64.
fn distances(case: &Case, dtype: BitNetDType) -> (Vec<f64>, Vec<Tensor>) {
    let cast = |t: &Tensor| if t.dtype().is_float() { t.to_dtype(dtype).unwrap() } else { t.clone() };
    let inputs: Vec<_> = case.inputs.iter().map(cast).collect();
    let out = forward(&case.name, &inputs).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let gradients =
        backward(&case.name, &cast(&case.grad), &inputs, &out).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(gradients.len(), case.gradients.len(), "{}", case.name);
    let mut all = vec![distance(&out, &case.out)];
    all.extend(gradients.iter().zip(&case.gradients).map(|(got, expected)| distance(got, expected)));
    (all, [vec![out], gradients].concat())
}

#[test]
fn narrow_floats_are_rounded_once() {
    for case in cases() {
        for (dtype, eps) in [(F16, 2f64.powi(-11)), (BF16, 2f64.powi(-8))] {
            let (distances, results) = distances(&case, dtype);
            assert!(results.iter().all(|t| t.dtype() == dtype), "{}", case.name);
            // The operands are rounded too: a few roundings, however long the formula.
            let worst = distances.iter().copied().fold(0., f64::max);
            assert!(worst < 32. * eps, "{} in {dtype}: {distances:?}", case.name);
        }
    }
}

#[test]
fn central_differences_give_the_same() -> Result<()> {
    const STEP: f64 = 1e-6;
    for case in cases() {
        let gradients = backward(&case.name, &case.grad, &case.inputs, &case.out)?;
        for (place, gradient) in gradients.iter().enumerate() {
            let base = case.inputs[place].to_vec::<f64>()?;
            let analytic = gradient.to_vec::<f64>()?;
            for at in 0..base.len() {
                if case.inputs[place].rank() == 1 && base[at] == 0. {
                    // Where functions such as relu have no derivative.
                    continue;
                }
                let value = |x: f64| -> Result<f64> {
                    let mut data = base.clone();
                    data[at] = x;
                    let mut inputs = case.inputs.clone();
                    inputs[place] = Tensor::from_slice(&data, case.inputs[place].dims(), &Device::cpu())?;
                    forward(&case.name, &inputs)?.mul(&case.grad)?.sum(.., false)?.item()
                };
                let slope = (value(base[at] + STEP)? - value(base[at] - STEP)?) / (2. * STEP);
                let off = (slope - analytic[at]).abs() / analytic[at].abs().max(1.);
                assert!(
                    off < 2e-7 || off < 1e-8 * base[at].abs(),
                    "{} d{place}[{at}]: {slope}, {}",
                    case.name,
                    analytic[at]
                );
            }
        }
    }
    Ok(())
}
