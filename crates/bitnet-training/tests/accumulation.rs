//! Gradients of several batches together are those of one batch of all their rows, however many tokens each has.

use bitnet_core::serialize::TensorMap;
use bitnet_core::{BitNetTensor, Device, Generator};
use bitnet_model::config::Config as Shape;
use bitnet_testkit::queue_device;
use bitnet_training::config::{Order, Packing};
use bitnet_training::data::{DataLoader, LoaderOptions, TokenSet, TokenWriter};
use bitnet_training::distill::{DistillConfig, Distillation};
use bitnet_training::export::online;
use bitnet_training::lora::{Lora, LoraConfig};
use bitnet_training::objective::Objective;
use bitnet_training::{ComputeOptions, Config, Trainer, Transformer};
use std::path::Path;

const CONTEXT: usize = 16;
const RATE: f64 = 1000.;
/// Chosen: of 0, 10, .. 100 it alone is within the bounds on every kernel path of x86-64. With the others sums differ by up to
/// 1.4e-6 of the largest change, or an activation lies on a rounding boundary (the queue device: up to 2e-2). So the bounds are
/// not those of any weights; a wrong share of a batch would be far outside.
const FIRST_SEED: u64 = 90;

fn model(seed: u64, ternary: bool, device: &Device) -> Transformer {
    let json = include_str!("../../bitnet-testkit/golden/bitnet-online-f32/config.json");
    let shape = Shape { quantization: ternary.then(online), ..Shape::from_json(json).unwrap() };
    let mut generator = Generator::new(FIRST_SEED + seed);
    Transformer::new(shape, ComputeOptions::default(), 0.2, &mut generator, device).unwrap()
}

fn objective(name: &str, device: &Device) -> Box<dyn Objective> {
    let model = |seed, ternary| model(seed, ternary, device);
    match name {
        "text" => Box::new(model(1, true)),
        "adapters" => Box::new(Lora::new(model(1, true), &LoraConfig::default(), &mut Generator::new(2)).unwrap()),
        _ => {
            let json = serde_json::json!({"teacher": "none", "relations": 1.0});
            let config: DistillConfig = serde_json::from_value(json).unwrap();
            Box::new(Distillation::new(model(1, true), model(2, false), config).unwrap())
        }
    }
}

/// Loss and weights after an update of plain gradient descent whose rate makes the weights before it negligible.
fn updated(
    name: &str,
    packing: Packing,
    (batch, accumulate): (usize, usize),
    tokens: &Path,
    device: &Device,
) -> (f64, TensorMap) {
    let text = format!(
        "[model]\ninit = \"none\"\n[data]\ntrain = [\"none\"]\n\
         [optimizer]\nname = \"sgd\"\nmomentum = 0.0\nweight_decay = 0.0\n\
         [schedule]\nkind = \"constant\"\nlearning_rate = {RATE:?}\n\
         [training]\nsteps = 1\nbatch = {batch}\naccumulate = {accumulate}\nclip = 0.0\n"
    );
    let config = Config::parse(&text, "test.toml").unwrap();
    let options = LoaderOptions { context: CONTEXT, batch, packing, order: Order::Sequential, seed: 0 };
    let loader = DataLoader::new(TokenSet::open(&[tokens]).unwrap(), options, device).unwrap();
    let objective = objective(name, device);
    let mut trainer = Trainer::new(&config, objective, loader, None).unwrap();
    let (loss, _, _) = trainer.update().unwrap();
    (loss, trainer.weights())
}

/// Documents of 15, 3, 9, 2, 12 and more tokens: rows count very different numbers of them.
fn write_documents(path: &Path) {
    let vocab = model(1, true, &Device::cpu()).config().vocab_size;
    let mut writer = TokenWriter::create(path, vocab, Some(0), 0).unwrap();
    for (i, length) in [15u32, 3, 9, 2, 12, 5, 7, 11].into_iter().enumerate() {
        writer.put(&(1..length).map(|t| 1 + (t * 7 + i as u32 * 11) % 100).chain([0]).collect::<Vec<_>>()).unwrap();
    }
    writer.finish().unwrap();
}

/// Compares losses and weights, relative to the largest change of a tensor.
fn compare(what: &str, one: (f64, TensorMap), other: (f64, TensorMap), bound: f64) {
    let model = model(1, true, &Device::cpu());
    let initial = model.tensors();
    assert!((one.0 - other.0).abs() < bound * one.0, "{what}: losses {} {}", one.0, other.0);
    for (parameter, x) in &one.1 {
        // Adapters that are 0 at first give their partners no gradient.
        let moved = |x: &BitNetTensor| match initial.get(parameter) {
            Some(before) => x.to_cpu().unwrap().sub(&before.detach()).unwrap(),
            None => x.to_cpu().unwrap(),
        };
        let (x, y) = (moved(x), moved(&other.1[parameter]));
        let largest = x.abs().unwrap().amax(.., false).unwrap().item::<f32>().unwrap();
        let apart = x.sub(&y).unwrap().abs().unwrap().amax(.., false).unwrap().item::<f32>().unwrap();
        assert!(f64::from(apart) <= bound * f64::from(largest), "{what} {parameter}: {apart:e} of {largest:e}");
    }
}

#[test]
fn one_batch_of_4_rows_and_4_of_1_give_the_same_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("documents.tokens");
    write_documents(&path);
    for name in ["text", "adapters", "teacher"] {
        for packing in [Packing::Padded, Packing::Packed, Packing::Stream] {
            let [one, many] = [(4, 1), (1, 4)].map(|rows| updated(name, packing, rows, &path, &Device::cpu()));
            compare(&format!("{name} {packing:?}"), one, many, 1e-6);
        }
    }
}

/// What a GPU trips over: 64-bit types, reads before the queue is done, memory freed too early.
#[test]
fn a_device_with_a_queue_gives_the_same_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("documents.tokens");
    write_documents(&path);
    for name in ["text", "adapters", "teacher"] {
        for packing in [Packing::Padded, Packing::Packed] {
            let [cpu, queue] = [Device::cpu(), queue_device()].map(|d| updated(name, packing, (2, 2), &path, &d));
            compare(&format!("{name} {packing:?} on the queue device"), cpu, queue, 1e-4);
        }
    }
}
