//! Rounding with error feedback against GPTQ written in NumPy (`data/make_post_training.py`).

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_quant::QuantError;
use bitnet_quant::post_training::{InputStatistics, TernaryFit, error_feedback, output_error, round_to_nearest};
use proptest::prelude::*;
use safetensors::SafeTensors;

static GOLDEN: &[u8] = include_bytes!("data/post_training.safetensors");
const SHAPE: (usize, usize) = (24, 40);

fn bytes<const N: usize>(name: &str) -> Vec<[u8; N]> {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    file.tensor(name).unwrap().data().chunks_exact(N).map(|b| b.try_into().unwrap()).collect()
}

fn floats(name: &str) -> Vec<f32> {
    bytes(name).into_iter().map(f32::from_le_bytes).collect()
}

/// Statistics of the golden inputs, observed in batches.
fn inputs() -> InputStatistics {
    let mut inputs = InputStatistics::new(SHAPE.1).unwrap();
    for batch in floats("inputs").chunks(100 * SHAPE.1) {
        let batch = BitNetTensor::from_slice(batch, &[batch.len() / SHAPE.1, SHAPE.1], &Device::cpu()).unwrap();
        inputs.observe(&batch).unwrap();
    }
    inputs
}

#[test]
fn equal_to_gptq_in_numpy() {
    let (weights, inputs) = (floats("weights"), inputs());
    let golden: Vec<f64> = bytes("figures").into_iter().map(f64::from_le_bytes).collect();
    let plain = round_to_nearest(&weights, SHAPE.0, SHAPE.1).unwrap();
    let fit = error_feedback(&weights, SHAPE.0, SHAPE.1, &inputs).unwrap();
    let (before, after) =
        (output_error(&weights, &plain, &inputs).unwrap(), output_error(&weights, &fit, &inputs).unwrap());
    println!("output error: {before:.4} by plain rounding, {after:.4} with feedback");
    assert!((before - golden[0]).abs() < 1e-5 * golden[0]);
    let codes: Vec<i8> = bytes("codes").into_iter().map(i8::from_le_bytes).collect();
    assert_eq!(fit.codes.to_weights(), codes);
    assert!((after - golden[1]).abs() < 1e-4 * golden[1]);
    assert!((f64::from(fit.scale) - golden[2]).abs() < 1e-5 * golden[2]);
    assert!(after < 0.5 * before);
}

#[test]
fn the_error_is_that_of_the_outputs() {
    let weights = floats("weights");
    let x = BitNetTensor::from_slice(&floats("inputs"), &[320, SHAPE.1], &Device::cpu()).unwrap();
    let fit = round_to_nearest(&weights, SHAPE.0, SHAPE.1).unwrap();
    let outputs = |w: &[f32]| {
        let w = BitNetTensor::from_slice(w, &[SHAPE.0, SHAPE.1], &Device::cpu()).unwrap();
        x.matmul(&w.t().unwrap()).unwrap().to_vec::<f32>().unwrap()
    };
    let quantized: Vec<f32> = fit.codes.to_weights().iter().map(|&c| f32::from(c) * fit.scale).collect();
    let squares = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let (dense, ternary) = (outputs(&weights), outputs(&quantized));
    let lost = squares(&mut dense.iter().zip(&ternary).map(|(a, b)| a - b)) / squares(&mut dense.iter().copied());
    let got = output_error(&weights, &fit, &inputs()).unwrap();
    assert!((got - lost).abs() < 1e-4 * lost, "{got} is not {lost}");
}

#[test]
fn invalid_post_training_arguments_are_errors() {
    let weights = floats("weights");
    let none = InputStatistics::new(SHAPE.1).unwrap();
    assert!(matches!(error_feedback(&weights, SHAPE.0, SHAPE.1, &none), Err(QuantError::NoData)));
    assert!(error_feedback(&weights, SHAPE.1, SHAPE.0, &inputs()).unwrap_err().to_string().contains("40 columns"));
    assert!(error_feedback(&[f32::NAN; 40], 1, 40, &inputs()).is_err());
    assert!(InputStatistics::new(usize::MAX).is_err());
    let mut inputs = inputs();
    let tokens = inputs.tokens();
    let nan = BitNetTensor::full(&[2, 40], f64::NAN, BitNetDType::F32, &Device::cpu()).unwrap();
    assert!(matches!(inputs.observe(&nan), Err(QuantError::NotFinite { index: 0, .. })));
    assert!(inputs.observe(&nan.t().unwrap()).is_err());
    assert_eq!(inputs.tokens(), tokens);
    // Inputs that are all zero: any weights give the same outputs.
    let mut zeros = InputStatistics::new(40).unwrap();
    zeros.observe(&nan.zeros_like().unwrap()).unwrap();
    let fit = error_feedback(&weights, SHAPE.0, SHAPE.1, &zeros).unwrap();
    assert_eq!(fit, round_to_nearest(&weights, SHAPE.0, SHAPE.1).unwrap());
    assert_eq!(output_error(&weights, &fit, &zeros).unwrap(), 0.);
}

#[test]
fn ternary_weights_stay() {
    let weights: Vec<f32> = (0..960).map(|i| (i * 7 % 3) as f32 - 1.).map(|w| w * 0.25).collect();
    let fit = error_feedback(&weights, SHAPE.0, SHAPE.1, &inputs()).unwrap();
    let back: Vec<f32> = fit.codes.to_weights().iter().map(|&c| f32::from(c) * fit.scale).collect();
    assert!(back.iter().zip(&weights).all(|(a, b)| (a - b).abs() < 1e-5), "{}", fit.scale);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn never_worse_than_plain_rounding(seed: u64, rows in 1usize..40, cols in 1usize..40, rank in 1usize..40) {
        let mut random = Generator::new(seed);
        let mut randn = |dims: &[usize]| BitNetTensor::randn(dims, BitNetDType::F32, &Device::cpu(), &mut random).unwrap();
        let x = randn(&[50, rank]).matmul(&randn(&[rank, cols])).unwrap();
        let weights = randn(&[rows, cols]).to_vec::<f32>().unwrap();
        let mut inputs = InputStatistics::new(cols).unwrap();
        inputs.observe(&x).unwrap();
        let error = |fit: &TernaryFit| output_error(&weights, fit, &inputs).unwrap();
        let plain = error(&round_to_nearest(&weights, rows, cols).unwrap());
        let fit = error_feedback(&weights, rows, cols, &inputs).unwrap();
        prop_assert!(error(&fit) <= plain, "{} {}", error(&fit), plain);
    }
}
