//! The losses of distillation against PyTorch (tests/data/make_distill.py), and a student that learns from its teacher.

use bitnet_core::autograd::no_grad;
use bitnet_core::serialize::{TensorMap, npz};
use bitnet_core::{BitNetTensor, Device, Generator};
use bitnet_model::config::Config;
use bitnet_quant::linear::Compute;
use bitnet_training::data::Batch;
use bitnet_training::distill::*;
use bitnet_training::export::online;
use bitnet_training::model::{ComputeOptions, Transformer};
use bitnet_training::module::Module;
use bitnet_training::objective::Objective;
use bitnet_training::optim::{Group, GroupedOptimizer, Optimizer, Rule};
use std::path::Path;

fn golden() -> TensorMap {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/distill.npz");
    npz::load(path, &Device::cpu()).unwrap()
}

fn leaf(x: &BitNetTensor) -> BitNetTensor {
    let mut x = x.clone();
    x.requires_grad_(true).unwrap();
    x
}

fn agree(ours: &BitNetTensor, expected: &BitNetTensor, what: &str) {
    assert!(ours.detach().allclose(expected, 1e-5, 1e-6, false).unwrap(), "{what}: {ours:?} {expected:?}");
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    let golden = golden();
    let get = |case: &str, name: &str| &golden[&format!("{case}/{name}")];
    let (hidden, table) = (leaf(get("logits", "hidden")), leaf(get("logits", "table")));
    let student = Head { hidden: &hidden, table: &table };
    let teacher = Head { hidden: get("logits", "taught"), table: get("logits", "taught_table") };
    let loss = logit_loss(student, teacher, get("logits", "targets"), 3., Compute::F32).unwrap();
    agree(&loss, get("logits", "loss"), "loss of logits");
    loss.backward().unwrap();
    agree(&hidden.grad().unwrap(), get("logits", "d_hidden"), "gradient of the residual stream");
    agree(&table.grad().unwrap(), get("logits", "d_table"), "gradient of the head");

    let all = leaf(get("relations", "student"));
    let student = Projections { all: &all, query: 8, kv: 4 };
    let teacher = Projections { all: get("relations", "teacher"), query: 12, kv: 12 };
    let related = |batch: usize| {
        let targets = BitNetTensor::from_slice(&vec![1i64; 10 / batch * batch], &[batch, 10 / batch], &Device::cpu());
        Related::new(&targets.unwrap(), None).unwrap()
    };
    let loss = relation_loss(student, teacher, &related(2), 2).unwrap();
    agree(&loss, get("relations", "loss"), "loss of relations");
    loss.backward().unwrap();
    agree(&all.grad().unwrap(), get("relations", "d_student"), "gradient of queries, keys and values");
    assert!(relation_loss(student, teacher, &related(2), 3).is_err(), "three heads do not divide 8");
    assert!(relation_loss(student, teacher, &related(3), 2).is_err(), "ten tokens are not three texts");
}

fn model(seed: u64, ternary: bool) -> Transformer {
    let json = include_str!("../../bitnet-testkit/golden/bitnet-online-f32/config.json");
    let config = Config { quantization: ternary.then(online), ..Config::from_json(json).unwrap() };
    let mut generator = Generator::new(seed);
    Transformer::new(config, ComputeOptions::default(), 0.2, &mut generator, &Device::cpu()).unwrap()
}

fn batch() -> Batch {
    let cpu = Device::cpu();
    let ids: Vec<i64> = (0..32).map(|i| (i * 11 + i / 8) % 120).collect();
    let targets: Vec<i64> = (0..32).map(|i| (i * 5) % 120).collect();
    let tensor = |data: &[i64]| BitNetTensor::from_slice(data, &[4, 8], &cpu).unwrap();
    Batch { inputs: tensor(&ids), targets: tensor(&targets), positions: None, segments: None, counted: 32 }
}

fn config(text: f64, logits: f64, relations: f64) -> DistillConfig {
    let teacher = "teacher".into();
    let (block, teacher_block, relation_heads) = (None, None, None);
    DistillConfig { teacher, text, logits, temperature: 2., relations, block, teacher_block, relation_heads }
}

#[test]
fn a_teacher_that_is_the_student_has_nothing_to_say() {
    let objective = Distillation::new(model(1, false), model(1, false), config(0., 1., 1.)).unwrap();
    let loss = objective.loss(&batch(), None).unwrap();
    assert!(loss.item::<f32>().unwrap().abs() < 1e-6);
    loss.backward().unwrap();
    for (name, parameter) in objective.parameters() {
        if let Some(gradient) = parameter.grad() {
            assert!(gradient.norm(2., .., false).unwrap().item::<f32>().unwrap() < 1e-4, "{name}");
        }
    }
}

#[test]
fn a_ternary_student_comes_nearer_to_its_teacher() {
    let mut objective = Distillation::new(model(1, true), model(2, false), config(0.1, 1., 1.)).unwrap();
    let teacher = model(2, false).state_dict();
    let loss = |o: &Distillation| no_grad(|| o.loss(&batch(), None)).unwrap().item::<f32>().unwrap();
    let first = loss(&objective);
    let mut optimizer = GroupedOptimizer::new(vec![Group::new(Rule::adamw(), 5e-3)]).unwrap();
    for _ in 0..60 {
        objective.zero_grad();
        objective.loss(&batch(), None).unwrap().backward().unwrap();
        optimizer.step(objective.parameters_mut()).unwrap();
    }
    let last = loss(&objective);
    assert!(last < 0.5 * first, "{first} to {last}");
    // The relations alone reach the projections of the last block.
    objective.zero_grad();
    let only = Distillation::new(objective.model().clone(), model(2, false), config(0., 0., 1.)).unwrap();
    only.loss(&batch(), None).unwrap().backward().unwrap();
    let gradient = only.model().tensors()["model.layers.1.self_attn.k_proj.weight"].grad().unwrap();
    assert!(gradient.norm(2., .., false).unwrap().item::<f32>().unwrap() > 0.);
    assert!(teacher.iter().all(|(name, x)| x.equal(&model(2, false).tensors()[name].detach()).unwrap()));
}

#[test]
fn a_mismatched_teacher_or_setting_is_refused() {
    let refused =
        |config: DistillConfig| Distillation::new(model(1, true), model(2, false), config).unwrap_err().to_string();
    assert!(refused(DistillConfig { block: Some(2), ..config(1., 1., 1.) }).contains("block is 2"));
    assert!(refused(DistillConfig { relation_heads: Some(3), ..config(1., 1., 1.) }).contains("3 relation_heads"));
    assert!(refused(DistillConfig { temperature: 0., ..config(1., 1., 1.) }).contains("temperature"));
    assert!(refused(config(-1., 1., 1.)).contains("text is -1"));
    let small = Config { vocab_size: 7, ..model(1, true).config().clone() };
    let cpu = Device::cpu();
    let small = Transformer::new(small, ComputeOptions::default(), 0.2, &mut Generator::new(1), &cpu).unwrap();
    let error = Distillation::new(small, model(2, false), config(1., 1., 1.)).unwrap_err().to_string();
    assert!(error.contains("7 tokens"), "{error}");
}
