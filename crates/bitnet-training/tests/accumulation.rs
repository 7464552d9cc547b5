//! Gradients of several batches together are those of one batch of all their rows, however many tokens each has.

use bitnet_core::serialize::TensorMap;
use bitnet_core::{Device, Generator};
use bitnet_model::config::Config as Shape;
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

fn model(seed: u64, ternary: bool) -> Transformer {
    let json = include_str!("../../bitnet-testkit/golden/bitnet-online-f32/config.json");
    let shape = Shape { quantization: ternary.then(online), ..Shape::from_json(json).unwrap() };
    let mut generator = Generator::new(seed);
    Transformer::new(shape, ComputeOptions::default(), 0.2, &mut generator, &Device::cpu()).unwrap()
}

fn objective(name: &str) -> Box<dyn Objective> {
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
fn updated(name: &str, packing: Packing, batch: usize, accumulate: usize, tokens: &Path) -> (f64, TensorMap) {
    let text = format!(
        "[model]\ninit = \"none\"\n[data]\ntrain = [\"none\"]\n\
         [optimizer]\nname = \"sgd\"\nmomentum = 0.0\nweight_decay = 0.0\n\
         [schedule]\nkind = \"constant\"\nlearning_rate = {RATE:?}\n\
         [training]\nsteps = 1\nbatch = {batch}\naccumulate = {accumulate}\nclip = 0.0\n"
    );
    let config = Config::parse(&text, "test.toml").unwrap();
    let options = LoaderOptions { context: CONTEXT, batch, packing, order: Order::Sequential, seed: 0 };
    let loader = DataLoader::new(TokenSet::open(&[tokens]).unwrap(), options, &Device::cpu()).unwrap();
    let objective = objective(name);
    let mut trainer = Trainer::new(&config, objective, loader, None).unwrap();
    let (loss, _, _) = trainer.update().unwrap();
    (loss, trainer.weights())
}

#[test]
fn one_batch_of_4_rows_and_4_of_1_give_the_same_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("documents.tokens");
    let vocab = model(1, true).config().vocab_size;
    let mut writer = TokenWriter::create(&path, vocab, Some(0), 0).unwrap();
    // Documents of 15, 3, 9, 2, 12 and more tokens: rows count very different numbers of them.
    for (i, length) in [15u32, 3, 9, 2, 12, 5, 7, 11].into_iter().enumerate() {
        writer.put(&(1..length).map(|t| 1 + (t * 7 + i as u32 * 11) % 100).chain([0]).collect::<Vec<_>>()).unwrap();
    }
    writer.finish().unwrap();
    let initial: TensorMap = model(1, true).tensors().iter().map(|(name, x)| (name.clone(), x.detach())).collect();
    for name in ["text", "adapters", "teacher"] {
        for packing in [Packing::Padded, Packing::Packed, Packing::Stream] {
            let (one, many) = (updated(name, packing, 4, 1, &path), updated(name, packing, 1, 4, &path));
            assert!((one.0 - many.0).abs() < 1e-6 * one.0, "{name} {packing:?}: losses {} {}", one.0, many.0);
            for (parameter, x) in &one.1 {
                // Adapters that are 0 at first give their partners no gradient.
                let moved = |x: &bitnet_core::BitNetTensor| match initial.get(parameter) {
                    Some(before) => x.sub(before).unwrap(),
                    None => x.clone(),
                };
                let (x, y) = (moved(x), moved(&many.1[parameter]));
                let largest = x.abs().unwrap().amax(.., false).unwrap().item::<f32>().unwrap();
                let apart = x.sub(&y).unwrap().abs().unwrap().amax(.., false).unwrap().item::<f32>().unwrap();
                assert!(apart <= 1e-6 * largest, "{name} {packing:?} {parameter}: {apart:e} of {largest:e}");
            }
        }
    }
}
