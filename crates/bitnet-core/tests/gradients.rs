//! Derivatives at special values: ties, zeros, limits, shared storage; second derivatives; memory. The gradient of
//! every operation is compared with differences in bitnet-testkit (`tests/tensors/gradients.rs`), of decompositions in
//! `gradients_linalg.rs`.

use bitnet_core::BitNetDType::{F32, F64};
use bitnet_core::autograd::{BackwardOptions, checkpoint, gradients, no_grad};
use bitnet_core::backend::GateActivation;
use bitnet_core::{BitNetTensor as Tensor, Device, Generator, Result, idx};
use bitnet_testkit::{queue_device, reference_device};

fn leaf(values: &[f64], dims: &[usize]) -> Tensor {
    let mut x = Tensor::from_slice(values, dims, &Device::cpu()).unwrap();
    x.requires_grad_(true).unwrap();
    x
}

/// The gradient of the sum of `f(x)`, each element times its number.
fn gradient(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Vec<f64> {
    let y = f(x).unwrap();
    let factors = Tensor::arange(1, y.elements() + 1, 1, F64, &Device::cpu()).unwrap().reshape(y.dims()).unwrap();
    let sum = y.mul(&factors).unwrap().sum(.., false).unwrap();
    gradients(&[&sum], &[x], false).unwrap().remove(0).expect("a gradient").to_vec().unwrap()
}

/// Some values from 0.3 on, no two equal.
fn values(count: usize) -> Vec<f64> {
    (0..count).map(|i| 0.3 + ((i * 7 + 3) % 11) as f64 * 0.17 + i as f64 * 0.011).collect()
}

#[test]
fn limits_ties_and_zeros_are_those_of_pytorch() {
    // torch: x.clamp(0, 1) passes the gradient at both limits.
    let x = leaf(&[-1., 0., 0.5, 1., 2.], &[5]);
    assert_eq!(gradient(&x, |x| x.clamp(Some(0.into()), Some(1.into()))), [0., 2., 3., 4., 0.]);
    assert_eq!(gradient(&x, |x| x.clamp(Some(0.into()), None)), [0., 2., 3., 4., 5.]);
    assert_eq!(gradient(&x, |x| x.mul(1)?.clamp_(None, Some(1.into())).cloned()), [1., 2., 3., 4., 0.]);
    let ties = leaf(&[3., 1., 3.], &[3]);
    assert_eq!(gradient(&ties, |x| x.amax(.., false)), [0.5, 0., 0.5]);
    assert_eq!(gradient(&ties, |x| Ok(x.max(0, false)?.0)), [1., 0., 0.]);
    assert_eq!(gradient(&ties, |x| x.maximum(3)), [0.5, 0., 1.5]);
    let zeros = leaf(&[0., 0.], &[2]);
    for p in [0., 0.5, 1., 1.5, 2., 3.] {
        assert_eq!(gradient(&zeros, |x| x.norm(p, .., false)), [0., 0.], "norm {p}");
    }
    assert_eq!(gradient(&zeros, |x| x.std(.., 1., false)), [0., 0.]);
    assert_eq!(gradient(&zeros, Tensor::abs), [0., 0.]);
    assert_eq!(gradient(&leaf(&[2., 0., 5.], &[3]), |x| x.prod(.., false)), [0., 10., 0.]);
    assert_eq!(gradient(&leaf(&[0., 3., 0.], &[3]), |x| x.prod(.., false)), [0., 0., 0.]);
    assert_eq!(gradient(&leaf(&[2., 0., 5.], &[3]), |x| x.cumprod(0)), [1., 34., 0.]);
    assert_eq!(gradient(&zeros, |x| x.pow(2)), [0., 0.]);
    assert_eq!(gradient(&zeros, |x| x.pow(0)), [0., 0.]);
    assert_eq!(gradient(&leaf(&[0.4, 1.5], &[2]), Tensor::round), [0., 0.]);
    let inf = leaf(&[f64::NEG_INFINITY; 2], &[2]);
    assert_eq!(gradient(&inf, |x| x.logsumexp(.., false)), [0., 0.]);
}

/// Those that no golden case of the testkit calls.
#[test]
fn other_operations_against_differences() -> Result<()> {
    let ids = |values: &[i64], dims: &[usize]| Tensor::from_slice(values, dims, &Device::cpu());
    let of = |x: &Tensor, change: &dyn Fn(&mut Tensor) -> Result<()>| -> Result<Tensor> {
        let mut y = x.mul(1)?;
        change(&mut y)?;
        Ok(y)
    };
    type F = Box<dyn Fn(&Tensor) -> Result<Tensor>>;
    let functions: Vec<(&str, F)> = vec![
        ("tile", Box::new(|x| x.tile(&[2, 1]))),
        ("meshgrid", Box::new(|x| Tensor::meshgrid(&[&x.select(0, 0)?, &x.select(0, 1)?])?.remove(1).exp())),
        ("reshape_as", Box::new(|x| x.reshape_as(&x.t()?)?.mul(&x.t()?))),
        ("sum_to_shape", Box::new(|x| x.sum_to_shape(&[1, 3])?.exp())),
        ("addcdiv", Box::new(|x| x.addcdiv(&x.square()?, &x.exp()?, 0.3))),
        ("gated relu2", Box::new(|x| x.sub(1)?.gated(GateActivation::Relu2, &x.cos()?))),
        ("gated gelu", Box::new(|x| x.sub(1)?.gated(GateActivation::GeluTanh, &x.cos()?))),
        ("gated silu", Box::new(|x| x.gated(GateActivation::Silu, &x.select(0, 0)?))),
        ("dropout", Box::new(|x| x.dropout(0.4, &mut Generator::new(3))?.exp())),
        ("to_dtype", Box::new(|x| x.square()?.to_dtype(F64)?.contiguous())),
        ("lerp of weights", Box::new(|x| x.lerp(&x.square()?, &x.sin()?))),
        ("where_", Box::new(|x| Tensor::where_(&x.gt(1)?, x, &x.square()?.select(0, 0)?))),
        (
            "index_put_accumulate_",
            Box::new(move |x| {
                of(x, &|y| {
                    y.index_put_accumulate_(&idx![&ids(&[0, 2, 0], &[3])?, 1..], &x.exp()?.narrow(1, 0, 2)?).map(drop)
                })
            }),
        ),
        (
            "index_copy_",
            Box::new(move |x| of(x, &|y| y.index_copy_(1, &ids(&[2, 0], &[2])?, &x.exp()?.narrow(1, 0, 2)?).map(drop))),
        ),
        (
            "put_along_axis_",
            Box::new(move |x| {
                of(x, &|y| {
                    y.put_along_axis_(0, &ids(&[1, 1, 2, 0, 0, 2], &[2, 3])?, &x.exp()?.narrow(0, 0, 2)?).map(drop)
                })
            }),
        ),
        (
            "scatter_ twice at a place",
            Box::new(move |x| of(x, &|y| y.scatter_(1, &ids(&[1, 1, 0], &[1, 3])?, &x.exp()?).map(drop))),
        ),
    ];
    for (name, f) in functions {
        let base = values(9);
        let got = gradient(&leaf(&base, &[3, 3]), &f);
        for at in 0..9 {
            let value = |step: f64| -> Result<f64> {
                let mut moved = base.clone();
                moved[at] += step;
                let y = f(&Tensor::from_slice(&moved, &[3, 3], &Device::cpu())?)?;
                let factors = Tensor::arange(1, y.elements() + 1, 1, F64, &Device::cpu())?.reshape(y.dims())?;
                y.mul(&factors)?.sum(.., false)?.item()
            };
            let expected = (value(1e-5)? - value(-1e-5)?) / 2e-5;
            assert!(
                (got[at] - expected).abs() < 1e-6 * expected.abs().max(1.),
                "{name}: {}, {expected} expected",
                got[at]
            );
        }
    }
    Ok(())
}

#[test]
fn second_derivatives() -> Result<()> {
    type F = fn(&Tensor) -> Result<Tensor>;
    let functions: [(&str, F); 24] = [
        ("exp", |x| x.exp()),
        ("tanh", |x| x.tanh()),
        ("sqrt", |x| x.sqrt()),
        ("sigmoid", |x| x.sigmoid()),
        ("silu", |x| x.silu()),
        ("mul", |x| x.mul(&x.sin()?)),
        ("div", |x| x.cos()?.div(x)),
        ("pow", |x| x.pow(3)),
        ("softmax", |x| x.softmax(-1)?.square()),
        ("log_softmax", |x| x.log_softmax(0)?.square()),
        ("logsumexp", |x| x.logsumexp(.., false)),
        ("norm", |x| x.norm(2., -1, false)),
        ("norm of 3", |x| x.norm(3., 0, false)),
        ("std", |x| x.std(.., 1., false)),
        ("prod", |x| x.prod(-1, false)),
        ("cumprod", |x| x.cumprod(1)),
        ("matmul", |x| x.matmul(x)?.matmul(&x.t()?)),
        ("matmul of vectors", |x| x.select(0, 1)?.matmul(x)?.square()),
        ("batches", |x| x.unsqueeze(0)?.expand(&[2, 3, 3])?.matmul(x)?.square()),
        ("views", |x| x.narrow(1, 0, 2)?.transpose(0, 1)?.flip(&[0])?.reshape(&[6])?.exp()),
        ("windows", |x| x.unfold(1, 2, 1)?.exp()),
        ("index", |x| x.index(&idx![.., -1])?.exp()),
        ("rms_norm", |x| x.rms_norm(&x.select(0, 0)?, 1e-3)),
        ("layer_norm", |x| x.layer_norm(&[3], Some(&x.select(0, 0)?), None, 1e-3)),
    ];
    for (name, f) in functions {
        let base = values(9);
        let x = leaf(&base, &[3, 3]);
        // d/dx of the first derivative in one direction, against the difference of first derivatives.
        let direction = Tensor::from_vec(values(9), &[3, 3], &Device::cpu())?.sub(0.9)?;
        let first = |x: &Tensor, create| -> Result<Tensor> {
            let sum = f(x)?.sum(.., false)?;
            Ok(gradients(&[&sum], &[x], create)?.remove(0).expect("a first derivative"))
        };
        let along = first(&x, true)?.mul(&direction)?.sum(.., false)?;
        let second = gradients(&[&along], &[&x], false)?.remove(0).expect("a second derivative");
        let at = |step: f64| -> Result<Tensor> {
            let mut moved = x.detach().add(&direction.mul(step)?)?;
            moved.requires_grad_(true)?;
            Ok(first(&moved, false)?.detach())
        };
        let expected = at(1e-5)?.sub(&at(-1e-5)?)?.div(2e-5)?;
        assert!(
            second.allclose(&expected, 1e-6, 1e-7, false)?,
            "{name}: {:?}, {:?}",
            second.to_vec::<f64>()?,
            expected.to_vec::<f64>()?
        );
    }
    Ok(())
}

#[test]
fn leaves_are_changed_in_place_without_recording_only() -> Result<()> {
    type Change = fn(&mut Tensor) -> Result<()>;
    let changes: [(&str, Change); 9] = [
        ("add_", |w| w.add_(1).map(drop)),
        ("exp_", |w| w.exp_().map(drop)),
        ("fill_", |w| w.fill_(3).map(drop)),
        ("clamp_", |w| w.clamp_(Some(0.into()), None).map(drop)),
        ("lerp_", |w| w.lerp_(&w.detach(), 0.5).map(drop)),
        ("masked_fill_", |w| w.masked_fill_(&w.gt(0)?, 1).map(drop)),
        ("index_fill_", |w| w.index_fill_(0, &Tensor::from_slice(&[0i64], &[1], &Device::cpu())?, 1).map(drop)),
        ("slice_assign", |w| w.slice_assign(&idx![0], 1).map(drop)),
        ("scatter_", |w| w.scatter_(0, &Tensor::from_slice(&[0i64], &[1], &Device::cpu())?, 1).map(drop)),
    ];
    for (name, change) in changes {
        for shared in [false, true] {
            let mut w = leaf(&[1., 2.], &[2]);
            let other = shared.then(|| w.detach());
            let error = change(&mut w).expect_err(name).to_string();
            assert!(error.contains("no_grad"), "{name}: {error}");
            no_grad(|| change(&mut w))?;
            assert!(w.requires_grad() && w.is_leaf(), "{name}, shared: {shared}");
            assert!(other.is_none_or(|other| other.to_vec::<f64>().unwrap() == [1., 2.]), "{name}");
            w.square()?.sum(.., false)?.backward()?;
            assert!(w.grad().is_some(), "{name}");
        }
        // In-place operations on non-leaves are recorded.
        let x = leaf(&[1., 2.], &[2]);
        let mut y = x.mul(2)?;
        change(&mut y).unwrap_or_else(|e| panic!("{name}: {e}"));
        if y.requires_grad() {
            y.sum(.., false)?.backward()?;
        }
        assert!(y.requires_grad() || name == "fill_", "{name}");
    }
    let mut w = leaf(&[1.], &[]);
    no_grad(|| w.scatter_(0, &Tensor::scalar(0, bitnet_core::BitNetDType::I64, &Device::cpu())?, 4).map(drop))?;
    assert!(w.is_leaf() && w.requires_grad());
    Ok(())
}

#[test]
fn operators_of_owned_leaves_are_recorded() {
    let w = leaf(&[1., 2.], &[2]);
    assert_eq!(gradient(&w, |w| Ok(-w.clone())), [-1., -2.]);
    assert_eq!(gradient(&w, |w| Ok(w.clone() * 2.0 + w)), [3., 6.]);
    assert_eq!(gradient(&w, |w| Ok(1.0 - w.clone())), [-1., -2.]);
    let mut y = w.mul(1).unwrap();
    y += &w;
    y *= &w;
    assert_eq!(
        gradient(&w, |w| {
            let mut y = w.mul(1)?;
            y += w;
            y *= w;
            Ok(y)
        }),
        [4., 16.]
    );
}

#[test]
fn forms_that_write_to_a_tensor_are_refused() {
    let w = leaf(&[1., 2.], &[2]);
    let mut out = w.detach().copy().unwrap();
    for error in [w.exp_into(&mut out), w.add_into(1, &mut out), w.detach().mul_into(&w, &mut out)] {
        assert!(error.unwrap_err().to_string().contains("new tensor"));
    }
    let mut square = Tensor::zeros(&[], F64, &Device::cpu()).unwrap();
    assert!(w.matmul_into(&w, &mut square).is_err());
    no_grad(|| w.exp_into(&mut out)).unwrap();
    assert!(w.unique().unwrap_err().to_string().contains("not differentiable"));
}

#[test]
fn constant_results_have_no_history() -> Result<()> {
    let x = leaf(&values(6), &[2, 3]);
    for y in [x.gt(1)?, x.isnan()?, x.argmax(Some(1), false)?, x.argsort(0, false)?, x.any(.., false)?] {
        assert!(!y.requires_grad());
    }
    assert!(!x.count_nonzero(..)?.requires_grad() && !x.nonzero()?.requires_grad());
    assert!(!x.to_dtype(bitnet_core::BitNetDType::I32)?.requires_grad() && x.allclose(&x, 0., 0., false)?);
    Ok(())
}

#[test]
fn gradients_run_on_the_reference_devices() -> Result<()> {
    let run = |device: &Device, dtype| -> Result<Vec<Vec<f64>>> {
        let leaf =
            |n, dims: &[usize]| Tensor::from_vec(values(n), dims, &Device::cpu())?.to_dtype(dtype)?.to_device(device);
        let (mut x, mut w) = (leaf(12, &[1, 4, 3])?, leaf(9, &[3, 3])?);
        x.requires_grad_(true)?;
        w.requires_grad_(true)?;
        let h = x.matmul(&w.t()?)?.silu()?.rms_norm(&w.select(0, 0)?, 1e-5)?;
        let h =
            h.unsqueeze(0)?.scaled_dot_product_attention(&h.unsqueeze(0)?, &h.unsqueeze(0)?, &Default::default())?;
        let h = h
            .flip(&[-1])?
            .cumsum(-1)?
            .softmax(-1)?
            .index_select(-2, &Tensor::from_slice(&[2u32, 0, 2], &[3], device)?)?;
        h.var(.., 1., false)?.add(&h.amax(.., false)?)?.backward()?;
        [x, w].iter().map(|t| t.grad().expect("a gradient").to_cpu()?.to_dtype(F64)?.to_vec()).collect()
    };
    for (device, dtype, bound) in [(reference_device(), F64, 1e-12), (queue_device(), F32, 1e-6)] {
        let (cpu, other) = (run(&Device::cpu(), dtype)?, run(&device, dtype)?);
        for (a, b) in cpu.iter().flatten().zip(other.iter().flatten()) {
            assert!((a - b).abs() < bound, "{a}, {b}");
        }
    }
    // To another device and back.
    let (device, x) = (reference_device(), leaf(&[1., 2.], &[2]));
    assert_eq!(gradient(&x, |x| x.to_device(&device)?.exp()?.to_cpu()), [1f64.exp(), 2. * 2f64.exp()]);
    Ok(())
}

#[test]
fn checkpoints_and_kept_graphs_give_the_same() -> Result<()> {
    let block = |x: &Tensor| x.matmul(x)?.tanh()?.add(x);
    let plain = gradient(&leaf(&values(9), &[3, 3]), block);
    assert_eq!(gradient_by_backward(|x| checkpoint(&[x], move |x| block(&x[0])))?, plain);
    let x = leaf(&values(9), &[3, 3]);
    let y = block(&x)?.sum(.., false)?;
    y.backward_with(None, BackwardOptions { retain_graph: true, ..Default::default() })?;
    let once = x.take_grad().expect("a gradient").to_vec::<f64>()?;
    y.backward()?;
    assert_eq!(x.take_grad().expect("a gradient").to_vec::<f64>()?, once);
    Ok(())
}

fn gradient_by_backward(f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<f64>> {
    let x = leaf(&values(9), &[3, 3]);
    let factors = Tensor::arange(1, 10, 1, F64, &Device::cpu())?.reshape(&[3, 3])?;
    f(&x)?.mul(&factors)?.sum(.., false)?.backward()?;
    x.grad().expect("a gradient").to_vec()
}

#[test]
fn memory_returns_after_backward() -> Result<()> {
    let pool = bitnet_core::HybridMemoryPool::new().unwrap();
    let device = Device::cpu_with_pool(&pool, 1);
    let mut x = Tensor::from_vec(values(64 * 64), &[64, 64], &device)?;
    x.requires_grad_(true)?;
    let live = pool.get_metrics().total_allocated;
    let y = x.matmul(&x)?.tanh()?.softmax(-1)?.matmul(&x)?.sum(.., false)?;
    let recorded = pool.get_metrics().total_allocated;
    assert!(recorded >= live + 2 * x.storage_bytes(), "{recorded} after {live}");
    y.backward()?;
    // The gradient, and the result, which is still held.
    let left = pool.get_metrics().total_allocated;
    assert!(left <= live + x.storage_bytes() + 8192, "{left} after {live}");
    x.zero_grad();
    drop(y);
    assert!(pool.get_metrics().total_allocated <= live);
    Ok(())
}
