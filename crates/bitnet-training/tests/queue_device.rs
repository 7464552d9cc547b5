//! A whole run on a device that runs operations later, overwrites freed memory and has no 64-bit types: with all that an update
//! may have, its losses are those of the CPU.

use bitnet_core::{Device, Generator, Profiler};
use bitnet_model::config::Config as Shape;
use bitnet_quant::StraightThroughEstimator;
use bitnet_quant::quantizers::Quantizer;
use bitnet_testkit::queue_device;
use bitnet_training::config::{Order, Packing};
use bitnet_training::data::{DataLoader, Evaluation, LoaderOptions, TokenSet, TokenWriter};
use bitnet_training::{ComputeOptions, Config, Trainer, Transformer};
use std::path::Path;

const CONFIG: &str = r#"
[model]
init = "none"
[data]
train = ["none"]
[quantization]
weights = "absmedian"
lambda_steps = 4
[optimizer]
name = "adamw"
eight_bit = true
[schedule]
kind = "constant"
learning_rate = 1e-3
[training]
steps = 4
batch = 2
accumulate = 2
clip = 0.5
ema = 0.9
"#;

/// The loss and the norm of the gradients of each update, and the loss on other text at the end.
fn run(tokens: &Path, device: &Device) -> Vec<f64> {
    let config = Config::parse(CONFIG, "test.toml").unwrap();
    let shape = Shape::from_json(include_str!("../../bitnet-testkit/golden/bitnet-online-f32/config.json")).unwrap();
    let options = ComputeOptions {
        weights: Quantizer::AbsMedian,
        estimator: StraightThroughEstimator::Clipped { limit: 1. },
        dropout: 0.1,
        checkpoint: true,
        ..ComputeOptions::default()
    };
    let model = Transformer::new(shape, options, 0.2, &mut Generator::new(1), device).unwrap();
    let set = || TokenSet::open(&[tokens]).unwrap();
    let rows = LoaderOptions { context: 16, batch: 2, packing: Packing::Packed, order: Order::Shuffled, seed: 0 };
    let loader = DataLoader::new(set(), rows, device).unwrap();
    let evaluation = Evaluation::new(set(), 16, 2, Packing::Stream, 2, device).unwrap();
    let mut trainer = Trainer::new(&config, Box::new(model), loader, Some(evaluation)).unwrap();
    let mut numbers = Vec::new();
    for step in 0..config.training.steps {
        let profiler = Profiler::start();
        let (loss, norm, _) = trainer.update().unwrap();
        let profile = profiler.stop();
        // Losses and norm are read at once and nothing else, but for the losses of the first weights: without and with
        // quantization, and on other text.
        let reads = if step == 0 { 4 } else { 1 };
        if !device.is_host() {
            let of_device = profile.operations().iter().filter(|o| o.kernel == device.kernel());
            let downloads: Vec<_> =
                of_device.filter(|o| o.operation == "download").map(|o| (o.calls, o.bytes_read)).collect();
            assert!(matches!(downloads[..], [(calls, _)] if calls == reads), "{profile}");
            assert!(step == 0 || downloads[0].1 == 3 * 4, "{profile}");
        }
        numbers.extend([loss, norm]);
    }
    numbers.push(trainer.evaluate().unwrap());
    numbers
}

#[test]
fn a_run_on_a_device_with_a_queue_is_that_of_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.tokens");
    let mut writer = TokenWriter::create(&path, 128, Some(0), 0).unwrap();
    for (i, length) in [15u32, 3, 9, 20, 12, 5, 7, 30, 11, 40].into_iter().enumerate() {
        writer.put(&(1..length).map(|t| 1 + (t * 7 + i as u32 * 11) % 100).chain([0]).collect::<Vec<_>>()).unwrap();
    }
    writer.finish().unwrap();
    let [cpu, queue] = [Device::cpu(), queue_device()].map(|device| run(&path, &device));
    println!("{cpu:?}\n{queue:?}");
    for (cpu, queue) in cpu.iter().zip(&queue) {
        assert!((cpu - queue).abs() <= 1e-3 * cpu, "{cpu} {queue}");
    }
}
