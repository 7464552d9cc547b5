//! Values from PyTorch 2.15 with `y = torch.arange(24.).reshape(2, 3, 4) - 10`, the expression beside each.

use crate::BitNetDType::*;
use crate::{Axes, BitNetTensor, Device, Element};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

fn tensor<T: Element>(data: &[T], dims: &[usize]) -> BitNetTensor {
    BitNetTensor::from_slice(data, dims, &Device::cpu()).unwrap()
}

fn y() -> BitNetTensor {
    tensor(&std::array::from_fn::<_, 24, _>(|i| i as f32 - 10.), &[2, 3, 4])
}

fn near(got: BitNetTensor, expected: &[f32]) {
    let got = got.to_vec::<f32>().unwrap();
    let close = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 1e-6 * b.abs() || a.is_nan() && b.is_nan();
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(close), "{got:?}, expected {expected:?}");
}

#[test]
fn any_dimensions_are_reduced() {
    near(y().sum([0, 2], false).unwrap(), &[-20., 12., 44.]);
    near(y().sum([0, 1], false).unwrap(), &[0., 6., 12., 18.]);
    near(y().sum(.., false).unwrap(), &[36.]);
    // y.permute(2, 0, 1).sum(1)
    let turned = y().permute(&[2, 0, 1]).unwrap();
    near(turned.sum(1, false).unwrap(), &[-8., 0., 8., -6., 2., 10., -4., 4., 12., -2., 6., 14.]);
    near(turned.sum([0, 2], false).unwrap(), &[-54., 90.]);
    near(y().prod(1, false).unwrap(), &[-120., -45., 0., 21., 120., 231., 384., 585.]);
    near(y().amax([0, 2], false).unwrap(), &[5., 9., 13.]);
    near(y().flip(&[0, 2]).unwrap().sum([0, 2], false).unwrap(), &[-20., 12., 44.]);
    // A row repeated seven times.
    near(tensor(&[1f32, 2.], &[2]).broadcast_to(&[7, 2]).unwrap().sum(0, false).unwrap(), &[7., 14.]);
    near(tensor(&[1f32, 2.], &[2]).broadcast_to(&[7, 2]).unwrap().sum(1, false).unwrap(), &[3.; 7]);
    assert_eq!(y().sum([0, -1], true).unwrap().dims(), [1, 3, 1]);
    assert!(y().sum(3, false).is_err() && y().sum([0, -3], false).is_err());
}

#[test]
fn every_choice_of_axes_adds_up_in_every_order_of_memory() {
    let x = tensor(&std::array::from_fn::<_, 24, _>(|i| (i * i % 17) as f32), &[2, 3, 1, 4]);
    for order in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0], [1, 0, 3, 2]] {
        let x = x.permute(&order).unwrap();
        let plain = x.copy().unwrap().to_vec::<f32>().unwrap();
        for mask in 0..16usize {
            let axes: Vec<isize> = (0..4).filter(|axis| mask >> axis & 1 == 1).map(|axis| axis as isize).collect();
            let kept: Vec<usize> = (0..4).map(|axis| if mask >> axis & 1 == 1 { 1 } else { x.dims()[axis] }).collect();
            let mut expected = vec![0f32; kept.iter().product()];
            for (i, value) in plain.iter().enumerate() {
                let (mut rest, mut at, mut step) = (i, 0, 1);
                for axis in (0..4).rev() {
                    let index = rest % x.dims()[axis];
                    rest /= x.dims()[axis];
                    at += if kept[axis] == 1 { 0 } else { index * step };
                    step *= kept[axis];
                }
                expected[at] += value;
            }
            // No axes at all mean all of them.
            let expected = if mask == 0 { vec![expected.iter().sum()] } else { expected };
            near(x.sum(&axes[..], true).unwrap(), &expected);
        }
    }
}

#[test]
fn means_and_variances() {
    near(y().mean([0, 2], false).unwrap(), &[-2.5, 1.5, 5.5]);
    near(y().var([0, 2], 1., false).unwrap(), &[42.57143; 3]);
    near(y().var(1, 0., false).unwrap(), &[10.666667; 8]);
    near(y().std([0, 1], 1., false).unwrap(), &[7.483315; 4]);
    near(y().std(.., 1., true).unwrap(), &[7.071068]);
    near(y().var(.., 24., false).unwrap(), &[INF]);
    near(tensor(&[1f32], &[1]).var(0, 1., false).unwrap(), &[NAN]);
    near(BitNetTensor::scalar(3, F32, &Device::cpu()).unwrap().var(.., 0., false).unwrap(), &[0.]);
    // torch.ones(70000).half().mean(): the sum alone would overflow.
    let ones = BitNetTensor::scalar(1, F16, &Device::cpu()).unwrap().broadcast_to(&[70000]).unwrap();
    near(ones.mean(.., false).unwrap().to_dtype(F32).unwrap(), &[1.]);
    assert!(tensor(&[1i32], &[1]).mean(.., false).unwrap_err().to_string().contains("takes floats, not i32"));
}

#[test]
fn norms_of_any_power() {
    let norm = |p| y().norm(p, [0, 2], false).unwrap();
    near(norm(2.), &[18.654758, 17.776388, 23.2379]);
    near(norm(3.), &[14.108009, 13.068671, 18.435863]);
    near(norm(0.), &[8., 8., 7.]);
    near(norm(f64::INFINITY), &[10., 9., 13.]);
    near(norm(f64::NEG_INFINITY), &[2., 3., 0.]);
    near(norm(0.5), &[361.71426, 374.08496, 287.7355]);
    near(y().add(0.5).unwrap().norm(-1., [0, 2], false).unwrap(), &[0.62506074, 0.6250608, 0.17637922]);
}

#[test]
fn logarithms_of_sums_do_not_overflow() {
    near(y().logsumexp([0, 2], false).unwrap(), &[5.440196, 9.440196, 13.440196]);
    let rows = tensor(&[INF, 1., -INF, -INF, 1000., 1000., NAN, 1.], &[4, 2]);
    near(rows.logsumexp(1, false).unwrap(), &[INF, -INF, 1000.6932, NAN]);
    near(tensor(&[1i64, 2], &[2]).logsumexp(0, false).unwrap(), &[2.3132617]);
}

#[test]
fn integers_and_bools_add_up_in_i64() {
    let sum = tensor(&[127i8; 3], &[3]).sum(.., false).unwrap();
    assert_eq!((sum.dtype(), sum.to_vec::<i64>().unwrap()), (I64, vec![381]));
    assert_eq!(tensor(&[u64::MAX, 2], &[2]).sum(0, false).unwrap().to_vec::<u64>().unwrap(), [1]);
    let truth = BitNetTensor::from_bytes(&[1, 1, 0], &[3], Bool, &Device::cpu()).unwrap();
    assert_eq!(truth.sum(.., false).unwrap().to_vec::<i64>().unwrap(), [2]);
    assert_eq!(truth.prod(.., false).unwrap().to_vec::<i64>().unwrap(), [0]);
    assert_eq!(
        tensor(&[0f32, 1., NAN, 0., 0., 2.], &[2, 3]).count_nonzero(1).unwrap().to_vec::<i64>().unwrap(),
        [2, 1]
    );
    assert_eq!(tensor(&[100i8, 100, -1], &[3]).cumsum(0).unwrap().to_vec::<i64>().unwrap(), [100, 200, 199]);
    near(tensor(&[1f32, 2., 3., 4.], &[2, 2]).cumprod(0).unwrap(), &[1., 2., 3., 8.]);
}

#[test]
fn a_nan_is_the_largest_and_the_smallest() {
    let m = tensor(&[1., NAN, 3., 2., 2., 0.], &[2, 3]);
    let indices = |x: BitNetTensor| x.to_vec::<i64>().unwrap();
    let (values, at) = m.max(1, false).unwrap();
    near(values, &[NAN, 2.]);
    assert_eq!(indices(at), [1, 0]);
    let (values, at) = m.min(-1, true).unwrap();
    near(values, &[NAN, 0.]);
    assert_eq!((at.dims(), indices(at.clone())), (&[2, 1][..], vec![1, 2]));
    assert_eq!(indices(m.argmax(None, false).unwrap()), [1]);
    assert_eq!(indices(m.argmin(Some(0), true).unwrap()), [0, 0, 1]);
    // In row-major order of the view.
    assert_eq!(indices(m.t().unwrap().argmax(None, false).unwrap()), [2]);
    let one = BitNetTensor::scalar(5, F32, &Device::cpu()).unwrap();
    assert_eq!(indices(one.max(0, false).unwrap().1), [0]);
}

#[test]
fn of_no_elements_there_are_sums_but_no_extremes() {
    let none = tensor::<f32>(&[], &[0, 3]);
    near(none.sum(0, false).unwrap(), &[0.; 3]);
    near(none.prod(.., false).unwrap(), &[1.]);
    near(none.mean(0, false).unwrap(), &[NAN; 3]);
    near(none.var(0, 1., false).unwrap(), &[NAN; 3]);
    near(none.norm(2., 0, false).unwrap(), &[0.; 3]);
    near(none.logsumexp(0, false).unwrap(), &[-INF; 3]);
    assert_eq!(none.sum(1, false).unwrap().dims(), [0]);
    assert_eq!(none.amax(1, true).unwrap().dims(), [0, 1]);
    assert_eq!(none.max(1, false).unwrap().0.dims(), [0]);
    assert_eq!(none.cumsum(0).unwrap().dims(), [0, 3]);
    let truth = |x: BitNetTensor| x.to_dtype(U8).unwrap().to_vec::<u8>().unwrap();
    assert_eq!((truth(none.any(.., false).unwrap()), truth(none.all(.., false).unwrap())), (vec![0], vec![1]));
    for refused in [none.amax(0, false), none.argmax(None, false), none.norm(f64::INFINITY, 0, false)] {
        assert!(refused.unwrap_err().to_string().contains("at least one element"));
    }
}

#[test]
fn sum_to_shape_reverses_a_broadcast() {
    let ones = tensor(&[1f32; 24], &[2, 3, 4]);
    near(ones.sum_to_shape(&[3, 1]).unwrap(), &[8.; 3]);
    near(ones.sum_to_shape(&[]).unwrap(), &[24.]);
    assert_eq!(ones.sum_to_shape(&[2, 1, 4]).unwrap().dims(), [2, 1, 4]);
    assert!(ones.sum_to_shape(&[2, 4]).is_err() && ones.sum_to_shape(&[1, 2, 3, 4]).is_err());
    let axes: Axes = [0, 1].into();
    near(ones.sum(axes, false).unwrap(), &[6.; 4]);
}

/// Zeros of `[0, 3]` that need a gradient.
fn nothing() -> BitNetTensor {
    let mut x = BitNetTensor::zeros(&[0, 3], F32, &Device::cpu()).unwrap();
    x.requires_grad_(true).unwrap();
    x
}

#[test]
fn reductions_of_nothing_have_a_gradient_of_its_shape() {
    use crate::neural::CrossEntropyOptions;
    use crate::{Reduction, Result};
    type Function = fn(&BitNetTensor) -> Result<BitNetTensor>;
    // Values are PyTorch's.
    let cases: [(&str, Function, f32); 19] = [
        ("sum", |x| x.sum(.., false), 0.),
        ("mean", |x| x.mean(.., false), f32::NAN),
        ("prod", |x| x.prod(.., false), 1.),
        ("var", |x| x.var(.., 1., false), f32::NAN),
        ("std", |x| x.std(.., 1., false), f32::NAN),
        ("norm", |x| x.norm(2., .., false), 0.),
        ("norm 0", |x| x.norm(0., .., false), 0.),
        ("norm 1", |x| x.norm(1., .., false), 0.),
        ("norm 3", |x| x.norm(3., .., false), 0.),
        ("logsumexp", |x| x.logsumexp(.., false), f32::NEG_INFINITY),
        ("sum of columns", |x| x.sum(0, false), 0.),
        ("mean of columns", |x| x.mean(0, true), f32::NAN),
        ("prod of columns", |x| x.prod(0, true), 1.),
        ("std of columns", |x| x.std(0, 0., false), f32::NAN),
        ("mse_loss", |x| x.mse_loss(&x.zeros_like()?, Reduction::Mean), f32::NAN),
        ("mse_loss, sum", |x| x.mse_loss(&x.zeros_like()?, Reduction::Sum), 0.),
        ("kl_div", |x| x.kl_div(&x.zeros_like()?, false, Reduction::Mean), f32::NAN),
        (
            "cross_entropy",
            |x| {
                let targets = BitNetTensor::zeros(&[0], I64, x.device())?;
                x.cross_entropy(&targets, &CrossEntropyOptions::default())
            },
            f32::NAN,
        ),
        ("matmul", |x| x.t()?.matmul(x), 0.),
    ];
    for (name, f, value) in cases {
        let x = nothing();
        let y = f(&x).unwrap();
        let got = y.to_vec::<f32>().unwrap();
        assert!(got.iter().all(|y| y == &value || y.is_nan() && value.is_nan()), "{name}: {got:?}");
        assert!(y.requires_grad(), "{name} is not on the tape");
        y.sum(.., false).unwrap().backward().unwrap();
        assert_eq!(x.grad().unwrap().dims(), [0, 3], "{name}");
    }
}

#[test]
fn deviations_and_norms_of_what_has_no_square() {
    let rows = |scale: f32| {
        BitNetTensor::from_slice(&[1., 2., 4., 3., 4., 12.].map(|x: f32| x * scale), &[2, 3], &Device::cpu()).unwrap()
    };
    // 1.5275 and 4.9329 times the scale: PyTorch's. Norms are sqrt(21) and 13.
    for scale in [1e-38, 1e-25, 1e-12, 1., 1e12, 1e19, 1e25, 1e37] {
        let x = rows(scale);
        let close = |what: &str, got: &BitNetTensor, expected: &[f64]| {
            for (got, expected) in got.to_dtype(F64).unwrap().to_vec::<f64>().unwrap().iter().zip(expected) {
                let got = got / f64::from(scale);
                assert!((got / expected - 1.).abs() < 1e-5, "{what} at {scale:e}: {got}, not {expected}");
            }
        };
        let deviations = [1.5275252316519468, 4.932882862316247];
        close("std", &x.std(-1, 1., false).unwrap(), &deviations);
        close("std of columns", &x.t().unwrap().copy().unwrap().std(0, 1., false).unwrap(), &deviations);
        close("std of a view", &x.t().unwrap().std(0, 1., false).unwrap(), &deviations);
        close("std of all", &x.std(.., 0., false).unwrap(), &[3.590109871423003]);
        close("norm", &x.norm(2., -1, true).unwrap(), &[21f64.sqrt(), 13.]);
        close("norm of columns", &x.norm(2., 0, false).unwrap(), &[10f64.sqrt(), 20f64.sqrt(), 160f64.sqrt()]);
        close("norm of all", &x.norm(2., .., false).unwrap(), &[190f64.sqrt()]);
        close("norm of a flip", &x.flip(&[1]).unwrap().norm(2., 1, false).unwrap(), &[21f64.sqrt(), 13.]);
        close("3-norm", &x.norm(3., -1, false).unwrap(), &[73f64.cbrt(), 1819f64.cbrt()]);
        close("half norm", &x.norm(0.5, 0, false).unwrap(), &[(1. + 3f64.sqrt()).powi(2)]);
        let mut leaf = rows(scale);
        leaf.requires_grad_(true).unwrap();
        leaf.std(-1, 1., false).unwrap().sum(.., false).unwrap().backward().unwrap();
        // (x - mean) / (2 std)
        let slope = leaf.grad().unwrap().to_vec::<f32>().unwrap();
        assert!((slope[2] - 0.5455447).abs() < 1e-4 && (slope[0] + 0.436436).abs() < 1e-4, "{scale:e}: {slope:?}");
        let half = x.to_dtype(BF16).unwrap();
        let norm = half.norm(2., .., false).unwrap().to_dtype(F32).unwrap().to_vec::<f32>().unwrap()[0] / scale;
        assert!((norm / 190f32.sqrt() - 1.).abs() < 0.01, "{norm}");
    }
    let of = |data: &[f32]| BitNetTensor::from_slice(data, &[data.len()], &Device::cpu()).unwrap();
    let norm = |data: &[f32]| of(data).norm(2., .., false).unwrap().to_vec::<f32>().unwrap()[0];
    assert_eq!((norm(&[0., 0.]), norm(&[3., f32::NEG_INFINITY])), (0., f32::INFINITY));
    assert!(norm(&[1e-30, f32::NAN]).is_nan() && norm(&[f32::INFINITY, f32::NAN]).is_nan());
    assert_eq!(of(&[7e30; 5]).std(.., 1., false).unwrap().to_vec::<f32>().unwrap(), [0.]);
    assert!(of(&[1.]).std(.., 1., false).unwrap().to_vec::<f32>().unwrap()[0].is_nan());
    // f64 beyond its squares, where PyTorch gives 0 and infinity.
    for scale in [1e-300, 1e-170, 1e170, 1e300] {
        let x = BitNetTensor::from_slice(&[3. * scale, 4. * scale], &[2], &Device::cpu()).unwrap();
        let norm = x.norm(2., .., false).unwrap().to_vec::<f64>().unwrap()[0] / scale;
        assert!((norm - 5.).abs() < 1e-14, "{norm}");
    }
}
