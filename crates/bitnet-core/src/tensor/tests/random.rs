//! Random tensors: the same for a seed, of the distribution asked for.

use crate::BitNetDType::*;
use crate::backend::Distribution;
use crate::{BitNetTensor, Device, Generator};
use half::bf16;

#[test]
fn a_seed_gives_the_same_numbers_however_they_are_drawn() {
    let draw = |threads| {
        let device = Device::cpu_with_threads(threads);
        BitNetTensor::randn(&[50_001], F32, &device, &mut Generator::new(3)).unwrap().to_vec::<f32>().unwrap()
    };
    let all = draw(1);
    assert_eq!(draw(3), all);
    let mut generator = Generator::new(3);
    for start in [0, 5] {
        let part = BitNetTensor::randn(&[5], F32, &Device::cpu(), &mut generator).unwrap();
        assert_eq!(part.to_vec::<f32>().unwrap(), all[start..start + 5]);
    }
    assert_eq!((generator.offset(), generator.seed()), (10, Some(3)));
    let again = BitNetTensor::randn(&[2], F32, &Device::cpu(), &mut Generator::at(3, 10)).unwrap();
    assert_eq!(again.to_vec::<f32>().unwrap(), all[10..12]);
}

/// Mean and variance of a large sample within five standard errors.
#[track_caller]
fn moments(values: &[f64], mean: f64, variance: f64) {
    let n = values.len() as f64;
    let m = values.iter().sum::<f64>() / n;
    let v = values.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n;
    assert!((m - mean).abs() < 5. * (variance / n).sqrt(), "mean {m}");
    assert!((v / variance - 1.).abs() < 5. * (2. / n).sqrt(), "variance {v}");
}

#[test]
fn distributions_have_their_moments_and_bounds() {
    let (cpu, dims, mut g) = (Device::cpu(), [100_000], Generator::new(1));
    let u = BitNetTensor::rand(&dims, F64, &cpu, &mut g).unwrap().to_vec::<f64>().unwrap();
    moments(&u, 0.5, 1. / 12.);
    assert!(u.iter().all(|x| (0. ..1.).contains(x)));
    let z = BitNetTensor::randn(&dims, F64, &cpu, &mut g).unwrap().to_vec::<f64>().unwrap();
    moments(&z, 0., 1.);
    // Neighbours are a cosine and a sine of one pair: they must not go together.
    let products: Vec<f64> = z.chunks(2).map(|pair| pair[0] * pair[1]).collect();
    moments(&products, 0., 1.);
    let dice = BitNetTensor::randint(-2, 4, &dims, I8, &cpu, &mut g).unwrap().to_vec::<i8>().unwrap();
    moments(&dice.iter().map(|&x| x.into()).collect::<Vec<f64>>(), 0.5, 35. / 12.);
    assert_eq!((dice.iter().min(), dice.iter().max()), (Some(&-2), Some(&3)));
    let coins = BitNetTensor::bernoulli(0.2, &dims, Bool, &cpu, &mut g).unwrap().to_bools().unwrap();
    moments(&coins.iter().map(|&x| f64::from(u8::from(x))).collect::<Vec<_>>(), 0.2, 0.16);
    assert!(BitNetTensor::bernoulli(1., &[100], Bool, &cpu, &mut g).unwrap().to_bools().unwrap().iter().all(|&x| x));
    // bf16 has 8 bits: near 1 the numbers are 1/256 apart, and none is 1. Rounding must not reach the end either.
    let b = BitNetTensor::rand(&dims, BF16, &cpu, &mut g).unwrap().to_vec::<bf16>().unwrap();
    assert!(b.iter().all(|x| (0. ..1.).contains(&x.to_f32())));
    let narrow = Distribution::Uniform { low: 256., high: 258. };
    let b = BitNetTensor::random(narrow, &[1000], BF16, &cpu, &mut g).unwrap().to_vec::<bf16>().unwrap();
    assert!(b.iter().all(|x| x.to_f32() == 256.));
}

#[test]
fn a_permutation_has_every_number_once() {
    let p = BitNetTensor::randperm(1000, &Device::cpu(), &mut Generator::new(9)).unwrap();
    let mut seen = p.to_vec::<i64>().unwrap();
    assert_ne!(seen, (0..1000).collect::<Vec<_>>());
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    assert_eq!(BitNetTensor::randperm(0, &Device::cpu(), &mut Generator::new(9)).unwrap().dims(), [0]);
}

#[test]
fn invalid_distributions_are_errors_and_do_not_advance_the_generator() {
    let (cpu, mut g) = (Device::cpu(), Generator::new(0));
    assert!(BitNetTensor::rand(&[1], I32, &cpu, &mut g).is_err());
    assert!(BitNetTensor::bernoulli(1.1, &[1], F32, &cpu, &mut g).is_err());
    assert!(BitNetTensor::bernoulli(f64::NAN, &[1], F32, &cpu, &mut g).is_err());
    assert!(BitNetTensor::randint(3, 3, &[1], I32, &cpu, &mut g).is_err());
    assert!(BitNetTensor::randint(0, 257, &[1], U8, &cpu, &mut g).is_err());
    assert!(BitNetTensor::randint(-1, 2, &[1], U64, &cpu, &mut g).is_err());
    assert!(BitNetTensor::randint(0, 1 << 12, &[1], F16, &cpu, &mut g).is_err());
    assert!(BitNetTensor::random(Distribution::Normal { mean: 0., std: -1. }, &[1], F32, &cpu, &mut g).is_err());
    assert!(BitNetTensor::random(Distribution::Uniform { low: 1., high: 0. }, &[1], F32, &cpu, &mut g).is_err());
    assert_eq!(g.offset(), 0);
    assert!(BitNetTensor::randint(0, 256, &[1], U8, &cpu, &mut g).is_ok());
    assert!(BitNetTensor::randint(0, (1 << 11) + 1, &[1], F16, &cpu, &mut g).is_ok());
    assert!(BitNetTensor::randint(i64::MIN, i64::MAX, &[1], I64, &cpu, &mut g).is_ok());
}
