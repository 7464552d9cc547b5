//! The classifier of ternary layers learns what no line divides.

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_training::module::{Classifier, Module};
use bitnet_training::optim::{Ema, Group, GroupedOptimizer, Optimizer, Rule, clip_grad_norm, grad_norm, scale_grad};

#[test]
fn a_ternary_classifier_learns_quadrants() {
    let (cpu, mut generator) = (Device::cpu(), Generator::new(15));
    // Points of a plane: opposite quadrants are of one class.
    let points = BitNetTensor::randn(&[512, 2], BitNetDType::F32, &cpu, &mut generator).unwrap();
    let places = points.to_vec::<f32>().unwrap();
    let classes: Vec<i64> = places.as_chunks().0.iter().map(|[x, y]| i64::from(x * y > 0.)).collect();
    let classes = BitNetTensor::from_slice(&classes, &[512], &cpu).unwrap();
    let mut classifier = Classifier::new(&[2, 48, 48, 2], &mut generator, &cpu).unwrap();
    let names: Vec<String> = classifier.parameters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["layers.0.weight", "layers.1.weight", "head.weight"]);

    let right = |classifier: &Classifier| {
        let same = classifier.classify(&points).unwrap().eq(&classes).unwrap();
        same.count_nonzero(..).unwrap().item::<i64>().unwrap() as f64 / 512.
    };
    let before = right(&classifier);
    let mut optimizer = GroupedOptimizer::new(vec![Group::new(Rule::adamw(), 1e-2)]).unwrap();
    for _ in 0..150 {
        classifier.zero_grad();
        classifier.loss(&points, &classes).unwrap().backward().unwrap();
        for (name, parameter) in classifier.parameters() {
            let gradient = parameter.grad().unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(gradient.norm(2., .., false).unwrap().item::<f32>().unwrap() > 0., "{name}");
        }
        optimizer.step(classifier.parameters_mut()).unwrap();
    }
    let after = right(&classifier);
    println!("{before} to {after}");
    assert!(before < 0.7 && after > 0.95, "{before} to {after}");
}

/// A classifier, points and their classes.
fn small() -> (Classifier, BitNetTensor, BitNetTensor) {
    let (cpu, mut generator) = (Device::cpu(), Generator::new(5));
    let points = BitNetTensor::randn(&[64, 6], BitNetDType::F32, &cpu, &mut generator).unwrap();
    let classes = points.narrow(1, 0, 3).unwrap().argmax(Some(-1), false).unwrap();
    (Classifier::new(&[6, 24, 24, 3], &mut generator, &cpu).unwrap(), points, classes)
}

#[test]
fn gradients_are_clipped_and_averaged() {
    let (classifier, points, classes) = small();
    classifier.loss(&points, &classes).unwrap().backward().unwrap();
    let parameters = classifier.parameters();
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
    classifier.zero_grad();
    assert_eq!(number(grad_norm(&parameters)), 0.);
    (0..2).for_each(|_| classifier.loss(&points, &classes).unwrap().backward().unwrap());
    scale_grad(&parameters, 0.5).unwrap();
    assert!((number(grad_norm(&parameters)) / norm - 1.).abs() < 1e-6);
}

#[test]
fn every_rule_learns_and_a_state_dict_that_is_held_stays() {
    let muon = vec![Group::new(Rule::adamw(), 0.01).matching(&["head*"]), Group::new(Rule::muon(), 0.02)];
    for groups in [
        vec![Group::new(Rule::Sgd { momentum: 0.9, nesterov: true }, 0.1)],
        vec![Group::new(Rule::adam(), 0.01)],
        vec![Group::new(Rule::adamw(), 0.01).decayed(0.01)],
        vec![Group::new(Rule::lion(), 0.003)],
        muon,
    ] {
        let (mut classifier, points, classes) = small();
        let mut optimizer = GroupedOptimizer::new(groups.clone()).unwrap();
        let mut average = Ema::new(0.5, &classifier.parameters()).unwrap();
        let first = classifier.loss(&points, &classes).unwrap().item::<f32>().unwrap();
        let mut last = first;
        for _ in 0..80 {
            classifier.zero_grad();
            let loss = classifier.loss(&points, &classes).unwrap();
            loss.backward().unwrap();
            last = loss.item::<f32>().unwrap();
            // As by a checkpoint that is being written.
            let held = classifier.state_dict();
            let before = held["head.weight"].to_vec::<f32>().unwrap();
            optimizer.step(classifier.parameters_mut()).unwrap();
            assert_eq!(held["head.weight"].to_vec::<f32>().unwrap(), before);
            assert!(classifier.parameters().iter().all(|(_, p)| p.requires_grad() && p.is_leaf()), "{groups:?}");
            average.update(&classifier.parameters()).unwrap();
        }
        assert!(last < 0.4 * first, "{groups:?}: {first} to {last}");
        classifier.load_state_dict(average.state()).unwrap();
        assert!(classifier.loss(&points, &classes).unwrap().item::<f32>().unwrap() < 0.5 * first, "{groups:?}");
    }
}
