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
/// Of the weights; any will do, as the bounds are those of rounding.
const FIRST_SEED: u64 = 0;
/// Two orders of the sum over the tokens of an update: each addition rounds by at most half a unit (Higham, Accuracy and
/// Stability of Numerical Algorithms, section 3.5, with norms of whole tensors).
const SUMS: f64 = (4 * CONTEXT) as f64 * (f32::EPSILON / 2.) as f64;
/// Other kernels: besides, functions within 4 units in the last place, some 10 in each of 2 layers, forward and backward.
const FUNCTIONS: f64 = SUMS + (4 * 10 * 2 * 2) as f64 * (f32::EPSILON / 2.) as f64;
/// With a rounding to 8 bits that goes the other way at a boundary: an input of a product is off by one step of 127. The
/// roundings of a path add up, 4 in each of 2 layers.
const STEPS: f64 = (4 * 2) as f64 / 127.;

fn model(seed: u64, ternary: bool, device: &Device) -> Transformer {
    let json = include_str!("../../bitnet-testkit/golden/bitnet-online-f32/config.json");
    let shape = Shape { quantization: ternary.then(online), ..Shape::from_json(json).unwrap() };
    let mut generator = Generator::new(FIRST_SEED + seed);
    Transformer::new(shape, ComputeOptions::default(), 0.2, &mut generator, device).unwrap()
}

fn objective(name: &str, ternary: bool, device: &Device) -> Box<dyn Objective> {
    let (student, teacher) = (model(1, ternary, device), || model(2, false, device));
    match name {
        "text" => Box::new(student),
        "adapters" => Box::new(Lora::new(student, &LoraConfig::default(), &mut Generator::new(2)).unwrap()),
        _ => {
            let json = serde_json::json!({"teacher": "none", "relations": 1.0});
            let config: DistillConfig = serde_json::from_value(json).unwrap();
            Box::new(Distillation::new(student, teacher(), config).unwrap())
        }
    }
}

/// Loss and weights after an update of plain gradient descent whose rate makes the weights before it negligible.
fn updated(
    name: &str,
    ternary: bool,
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
    let objective = objective(name, ternary, device);
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

/// Compares losses, and the changes of each tensor relative to their norm.
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
        let norm = |x: &BitNetTensor| x.norm(2., .., false).unwrap().item::<f32>().unwrap();
        let (all, apart) = (norm(&x), norm(&x.sub(&y).unwrap()));
        assert!(f64::from(apart) <= bound * f64::from(all), "{what} {parameter}: {apart:e} of {all:e}");
    }
}

#[test]
fn one_batch_of_4_rows_and_4_of_1_give_the_same_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("documents.tokens");
    write_documents(&path);
    for name in ["text", "adapters", "teacher"] {
        for packing in [Packing::Padded, Packing::Packed, Packing::Stream] {
            let [one, many] = [(4, 1), (1, 4)].map(|rows| updated(name, true, packing, rows, &path, &Device::cpu()));
            compare(&format!("{name} {packing:?}"), one, many, SUMS);
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
        for (packing, ternary, bound) in [
            (Packing::Padded, false, FUNCTIONS),
            (Packing::Packed, false, FUNCTIONS),
            (Packing::Padded, true, STEPS),
            (Packing::Packed, true, STEPS),
        ] {
            let [cpu, queue] =
                [Device::cpu(), queue_device()].map(|d| updated(name, ternary, packing, (2, 2), &path, &d));
            compare(&format!("{name} {packing:?}, ternary {ternary}, on the queue device"), cpu, queue, bound);
        }
    }
}
