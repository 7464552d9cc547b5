//! Modules: state dicts, and gradients that reach every parameter and are used by an optimizer.

use bitnet_core::serialize::TensorMap;
use bitnet_core::{BitNetDType, BitNetTensor, CrossEntropyOptions, Device, Generator};
use bitnet_training::TrainingError;
use bitnet_training::module::*;
use bitnet_training::optim::*;

/// Embedding, LayerNorm, Linear with a bias, RmsNorm, Linear.
struct Small {
    table: Embedding,
    first: LayerNorm,
    up: Linear,
    second: RmsNorm,
    head: Linear,
}

impl Small {
    fn new(seed: u64) -> Self {
        let (cpu, mut generator) = (Device::cpu(), Generator::new(seed));
        Self {
            table: Embedding::new(6, 8, 1., &mut generator, &cpu).unwrap(),
            first: LayerNorm::new(8, true, 1e-5, &cpu).unwrap(),
            up: Linear::new(8, 16, true, &mut generator, &cpu).unwrap(),
            second: RmsNorm::new(16, 1e-6, &cpu).unwrap(),
            head: Linear::new(16, 6, false, &mut generator, &cpu).unwrap(),
        }
    }

    fn loss(&self, ids: &BitNetTensor, targets: &BitNetTensor) -> BitNetTensor {
        let x = self.first.forward(&self.table.forward(ids).unwrap()).unwrap();
        let x = self.up.forward(&x).unwrap().relu().unwrap();
        let logits = self.head.forward(&self.second.forward(&x).unwrap()).unwrap();
        logits.cross_entropy(targets, &CrossEntropyOptions::default()).unwrap()
    }
}

impl Module for Small {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        prefixed("table", &self.table)
            .chain(prefixed("first", &self.first))
            .chain(prefixed("up", &self.up))
            .chain(prefixed("second", &self.second))
            .chain(prefixed("head", &self.head))
            .collect()
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        prefixed_mut("table", &mut self.table)
            .chain(prefixed_mut("first", &mut self.first))
            .chain(prefixed_mut("up", &mut self.up))
            .chain(prefixed_mut("second", &mut self.second))
            .chain(prefixed_mut("head", &mut self.head))
            .collect()
    }
}

const NAMES: [&str; 7] =
    ["table.weight", "first.weight", "first.bias", "up.weight", "up.bias", "second.weight", "head.weight"];

fn batch() -> (BitNetTensor, BitNetTensor) {
    let ids = BitNetTensor::from_slice(&[0i64, 1, 2, 3, 4, 5], &[6], &Device::cpu()).unwrap();
    let targets = BitNetTensor::from_slice(&[3i64, 1, 4, 0, 5, 2], &[6], &Device::cpu()).unwrap();
    (ids, targets)
}

#[test]
fn a_state_dict_names_all_and_comes_back() {
    let (first, mut second) = (Small::new(1), Small::new(2));
    let state = first.state_dict();
    assert_eq!(state.keys().collect::<Vec<_>>(), NAMES);
    assert!(state.values().all(|tensor| !tensor.requires_grad()));
    assert_eq!(first.parameter_count(), 6 * 8 + 8 + 8 + 16 * 8 + 16 + 16 + 6 * 16);
    // bf16 as from a file; the parameter stays f32 and trained.
    let half = state.iter().map(|(name, x)| (name.clone(), x.to_dtype(BitNetDType::BF16).unwrap())).collect();
    second.load_state_dict(&half).unwrap();
    for ((name, parameter), (_, given)) in second.parameters().into_iter().zip(&half) {
        assert!(parameter.requires_grad() && parameter.is_leaf(), "{name}");
        assert_eq!(parameter.dtype(), BitNetDType::F32, "{name}");
        assert!(parameter.detach().to_dtype(BitNetDType::BF16).unwrap().equal(given).unwrap(), "{name}");
    }
}

#[test]
fn a_state_dict_that_does_not_fit_changes_nothing() {
    let mut model = Small::new(1);
    let before = model.state_dict();
    let mut state: TensorMap = Small::new(2).state_dict();
    state.shift_remove("up.bias");
    state.insert("extra".into(), state["head.weight"].clone());
    state["second.weight"] = state["first.bias"].clone();
    let error = model.load_state_dict(&state).unwrap_err();
    let message = "the state dict does not fit: missing up.bias; unexpected extra; \
        of another shape second.weight [8] for [16]";
    assert_eq!(error.to_string(), message);
    assert!(matches!(error, TrainingError::StateDict { .. }));
    for (name, parameter) in model.parameters() {
        assert!(parameter.detach().equal(&before[&name]).unwrap(), "{name}");
    }
}

#[test]
fn gradients_reach_all_parameters_and_are_clipped() {
    let model = Small::new(1);
    let (ids, targets) = batch();
    model.loss(&ids, &targets).backward().unwrap();
    let parameters = model.parameters();
    for (name, parameter) in &parameters {
        let gradient = parameter.grad().unwrap_or_else(|| panic!("{name} has no gradient"));
        assert!(gradient.norm(2., .., false).unwrap().item::<f32>().unwrap() > 0., "{name}");
    }
    let number = |norm: bitnet_training::Result<BitNetTensor>| norm.unwrap().to_scalar().unwrap().to_f64();
    let norm = number(grad_norm(&parameters));
    let all: Vec<f32> = parameters.iter().flat_map(|(_, p)| p.grad().unwrap().to_vec::<f32>().unwrap()).collect();
    let expected = all.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    assert!((norm / expected - 1.).abs() < 1e-6);
    assert_eq!(number(clip_grad_norm(&parameters, 2. * norm)), norm);
    assert_eq!(number(grad_norm(&parameters)), norm, "a norm within the limit stays");
    assert_eq!(number(clip_grad_norm(&parameters, norm / 4.)), norm);
    assert!((number(grad_norm(&parameters)) / norm - 0.25).abs() < 1e-5);
    // Two passes added and halved are one.
    model.zero_grad();
    assert_eq!(number(grad_norm(&parameters)), 0.);
    (0..2).for_each(|_| model.loss(&ids, &targets).backward().unwrap());
    scale_grad(&parameters, 0.5).unwrap();
    assert!((number(grad_norm(&parameters)) / norm - 1.).abs() < 1e-6);
}

#[test]
fn a_norm_that_is_not_finite_is_told_and_changes_nothing() {
    let cpu = Device::cpu();
    let mut parameter = BitNetTensor::from_slice(&[1f32, 2.], &[2], &cpu).unwrap();
    parameter.requires_grad_(true).unwrap();
    parameter.set_grad(Some(BitNetTensor::from_slice(&[3f32, f32::NAN], &[2], &cpu).unwrap())).unwrap();
    assert!(clip_grad_norm(&[("w".into(), &parameter)], 1.).unwrap().item::<f64>().unwrap().is_nan());
    assert_eq!(parameter.grad().unwrap().to_vec::<f32>().unwrap()[0], 3.);
}

#[test]
fn every_rule_learns_and_parameters_stay_leaves() {
    let (ids, targets) = batch();
    let sgd = Rule::Sgd { momentum: 0.9, nesterov: true };
    let muon = vec![Group::new(Rule::muon(), 0.02).matching(&["up.weight"]), Group::new(Rule::adamw(), 0.02)];
    for groups in [
        vec![Group::new(sgd, 0.1)],
        vec![Group::new(Rule::adam(), 0.02)],
        vec![Group::new(Rule::adamw(), 0.02).decayed(0.01)],
        vec![Group::new(Rule::lion(), 0.005)],
        muon,
    ] {
        let mut model = Small::new(1);
        let mut optimizer = GroupedOptimizer::new(groups.clone()).unwrap();
        let mut ema = Ema::new(0.5, &model.parameters()).unwrap();
        let first = model.loss(&ids, &targets).item::<f32>().unwrap();
        let mut last = first;
        for _ in 0..60 {
            model.zero_grad();
            let loss = model.loss(&ids, &targets);
            loss.backward().unwrap();
            last = loss.item::<f32>().unwrap();
            // A state dict held meanwhile, as by a checkpoint being written, keeps its values.
            let held = model.state_dict();
            let before = held["up.weight"].to_vec::<f32>().unwrap();
            optimizer.step(model.parameters_mut()).unwrap();
            assert_eq!(held["up.weight"].to_vec::<f32>().unwrap(), before);
            assert!(model.parameters().iter().all(|(_, p)| p.requires_grad() && p.is_leaf()), "{groups:?}");
            ema.update(&model.parameters()).unwrap();
        }
        assert!(last < 0.2 * first, "{groups:?}: {first} to {last}");
        let mut averaged = Small::new(3);
        averaged.load_state_dict(ema.state()).unwrap();
        assert!(averaged.loss(&ids, &targets).item::<f32>().unwrap() < 0.2 * first);
    }
}

#[test]
fn an_average_is_that_of_its_formula() {
    let at = |x: f32| BitNetTensor::from_slice(&[x], &[1], &Device::cpu()).unwrap();
    let named = |x: &BitNetTensor| -> TensorMap { [("w".to_owned(), x.clone())].into_iter().collect() };
    let mut ema = Ema::from_state(0.75, named(&at(1.))).unwrap();
    for x in [5., 3.] {
        ema.update(&[("w".into(), &at(x))]).unwrap();
    }
    // 0.75 (0.75 * 1 + 0.25 * 5) + 0.25 * 3
    assert_eq!(ema.state()["w"].to_vec::<f32>().unwrap(), [2.25]);
    assert!(matches!(ema.update(&[("b".into(), &at(1.))]), Err(TrainingError::NoAverage { .. })));
    assert!(matches!(Ema::from_state(1., TensorMap::new()), Err(TrainingError::Invalid(_))));
}
