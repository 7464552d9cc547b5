//! Post-training quantization of the golden checkpoints, from layer inputs to the logits of the result.

use bitnet_core::{BitNetTensor, Device};
use bitnet_inference::{CalibrationData, Method, Model, QuantizeOptions, QuantizedWeights, Session, quantize};
use bitnet_model::checkpoint::{Checkpoint, Norm, OpenOptions, Projection, WeightSource, Weights};
use bitnet_quant::{ActivationRule, PackedFormat};
use bitnet_testkit::golden;
use std::sync::Arc;

fn open(name: &str, keep_master_weights: bool) -> Checkpoint {
    let options = OpenOptions { keep_master_weights, ..OpenOptions::default() };
    Checkpoint::open(&golden::folder().join(name), &options).unwrap()
}

fn model(weights: &dyn Weights) -> Arc<Model> {
    Arc::new(Model::load(weights, &Device::cpu(), |_, _| ()).unwrap())
}

fn options(method: Method) -> QuantizeOptions {
    QuantizeOptions { method, keep: vec![], keep_most_sensitive: 0, format: PackedFormat::HuggingFace }
}

fn logits(weights: &dyn Weights) -> Vec<f32> {
    Session::new(model(weights), 16).unwrap().feed(&[1, 2, 3, 4, 5]).unwrap().to_vec()
}

const ONLINE: &str = "bitnet-online-f32";
const TOKENS: [u32; 40] = {
    let mut tokens = [0; 40];
    let mut i = 0;
    while i < 40 {
        tokens[i] = (i as u32 * 17 + 3) % 60;
        i += 1;
    }
    tokens
};

#[test]
fn plain_rounding_of_master_weights_is_what_training_did() {
    let (masters, online) = (open(ONLINE, true), open(ONLINE, false));
    let result = quantize(masters.weights(), None, &options(Method::RoundToNearest), |_, _| ()).unwrap();
    assert!(result.report.layers.iter().all(|l| l.weights.is_some() && l.output_error.is_none()));
    let quantized =
        masters.map_weights(|source| Box::new(QuantizedWeights::new(source, result, ActivationRule::Token)));
    assert_eq!(logits(quantized.weights()), logits(online.weights()));
}

#[test]
fn error_feedback_loses_less_of_every_layers_outputs() {
    let (masters, online) = (open(ONLINE, true), open(ONLINE, false));
    let data = CalibrationData { model: model(online.weights()), tokens: &TOKENS, window: 16 };
    let report = |method| quantize(masters.weights(), Some(&data), &options(method), |_, _| ()).unwrap().report;
    let (plain, feedback) = (report(Method::RoundToNearest), report(Method::ErrorFeedback));
    for (plain, feedback) in plain.layers.iter().zip(&feedback.layers) {
        let (before, after) = (plain.output_error.unwrap(), feedback.output_error.unwrap());
        println!("{}: {:.1} % of the outputs lost, {:.1} % with feedback", plain.name, 100. * before, 100. * after);
        assert!(after < 0.9 * before, "{}", plain.name);
    }
    assert_eq!(plain.layers.len(), masters.weights().config().layers * 7);
}

#[test]
fn kept_layers_stay_dense() {
    let masters = open(ONLINE, true);
    let mut options = options(Method::RoundToNearest);
    options.keep = vec!["*.0.self_attn.*".into()];
    options.keep_most_sensitive = 3;
    let mut steps = vec![];
    let result = quantize(masters.weights(), None, &options, |done, total| steps.push((done, total))).unwrap();
    let count = result.report.layers.len();
    assert_eq!(steps, (1..=count).map(|done| (done, count)).collect::<Vec<_>>());
    let kept: Vec<_> = result.report.layers.iter().filter(|l| l.weights.is_none()).map(|l| l.name.clone()).collect();
    assert_eq!(kept.len(), 4 + 3);
    assert_eq!(kept.iter().filter(|name| name.contains(".0.self_attn.")).count(), 4);
    let quantized =
        masters.map_weights(|source| Box::new(QuantizedWeights::new(source, result, ActivationRule::Token)));
    let weights = quantized.weights();
    for layer in 0..weights.config().layers {
        for projection in Projection::ALL {
            let dense = matches!(weights.linear(layer, projection).unwrap().weight, WeightSource::Dense(_));
            assert_eq!(dense, kept.contains(&projection.module(layer)), "{layer} {projection:?}");
        }
    }
    assert!(logits(weights).iter().all(|l| l.is_finite()));
    options.keep = vec!["*.nothing".into()];
    let error = quantize(weights, None, &options, |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("*.nothing"), "{error}");
}

#[test]
fn linear_inputs_are_what_the_layers_read() {
    let online = open(ONLINE, false);
    let model = model(online.weights());
    let config = model.config().clone();
    let states = Session::new(model.clone(), 40).unwrap().hidden_states(&TOKENS).unwrap();
    let mut seen = vec![];
    let mut session = Session::new(model, 40).unwrap();
    session
        .linear_inputs(&TOKENS, 0..1, |layer, projection, x| {
            seen.push((layer, projection, x.dims().to_vec()));
            if projection == Projection::Query {
                let hidden = BitNetTensor::from_slice(&states[0], &[40, config.hidden_size], &Device::cpu())?;
                let norm = online.weights().norm(Norm::Attention(0))?;
                let norm = BitNetTensor::from_slice(&norm, &[norm.len()], &Device::cpu())?;
                assert!(x.allclose(&hidden.rms_norm(&norm, config.norm_eps.into())?, 1e-5, 1e-6, false)?);
            }
            Ok(())
        })
        .unwrap();
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let expected = [
        (0, Projection::Query, vec![40, hidden]),
        (0, Projection::Output, vec![40, config.query_size()]),
        (0, Projection::Gate, vec![40, hidden]),
        (0, Projection::Down, vec![40, inner]),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn quantize_errors_say_why() {
    let refused = |name: &str, data: Option<&CalibrationData>, method| {
        quantize(open(name, true).weights(), data, &options(method), |_, _| ()).unwrap_err().to_string()
    };
    assert!(refused(ONLINE, None, Method::ErrorFeedback).contains("give a text"));
    assert!(refused("bitnet-offline", None, Method::RoundToNearest).contains("ternary already"));
    let inner = open("llama-inner-norm-online", false);
    let data = CalibrationData { model: model(inner.weights()), tokens: &TOKENS, window: 16 };
    assert!(refused("llama-inner-norm-online", Some(&data), Method::RoundToNearest).contains("normalise their inputs"));
    // Without a text such a model is like any other.
    assert!(
        quantize(open("llama-inner-norm-online", true).weights(), None, &options(Method::RoundToNearest), |_, _| ())
            .is_ok()
    );
}
