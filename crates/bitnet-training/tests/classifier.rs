//! The classifier of ternary layers learns what no line divides.

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_training::module::{Classifier, Module};
use bitnet_training::optim::{Group, GroupedOptimizer, Optimizer, Rule};

#[test]
fn a_ternary_classifier_learns_quadrants() {
    let (cpu, mut generator) = (Device::cpu(), Generator::new(5));
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
