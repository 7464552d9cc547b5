//! Tokens a second of a training step of the 5 M-parameter model (6 layers, width 256, 2048 tokens): forward, backward,
//! clipping and AdamW. `cargo bench -p bitnet-training --bench step -- [bf16] [muon] [8bit] [profile] [threads=2] [batch=32]
//! [tokens=256]`; the same in PyTorch: `peers.py` beside this file.

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator, Profiler};
use bitnet_model::Config;
use bitnet_quant::linear::Compute;
use bitnet_training::config::{OptimizerConfig, OptimizerName};
use bitnet_training::module::Module;
use bitnet_training::optim::{GroupedOptimizer, Optimizer, clip_grad_norm};
use bitnet_training::{ComputeOptions, Transformer};
use std::time::Instant;

const CONFIG: &str = r#"{"model_type": "bitnet", "vocab_size": 2048, "hidden_size": 256, "intermediate_size": 768,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5, "hidden_act": "relu2", "tie_word_embeddings": true, "rope_theta": 10000.0,
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}}"#;
const STEPS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let flag = |name: &str| arguments.iter().any(|a| a == name);
    let number = |name: &str, default: usize| {
        let given = arguments.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        given.unwrap_or(default)
    };
    let (threads, batch, tokens) = (number("threads", 2), number("batch", 32), number("tokens", 256));
    let device = Device::cpu_with_threads(threads);
    let compute = if flag("bf16") { Compute::BF16 } else { Compute::F32 };
    let options = ComputeOptions { compute, ..ComputeOptions::default() };
    let generator = &mut Generator::new(1);
    let mut model = Transformer::new(Config::from_json(CONFIG)?, options, 0.02, generator, &device)?;
    let name = if flag("muon") { OptimizerName::Muon } else { OptimizerName::AdamW };
    let config = OptimizerConfig { name, eight_bit: flag("8bit"), ..OptimizerConfig::default() };
    let mut optimizer = GroupedOptimizer::from_config(&config, 1e-3)?;
    let ids = BitNetTensor::randint(0, 2048, &[batch, tokens + 1], BitNetDType::I64, &device, generator)?;
    let (x, y) = (ids.narrow(1, 0, tokens)?.contiguous()?, ids.narrow(1, 1, tokens)?.contiguous()?);
    let mut optimizing = f64::INFINITY;
    let mut step = || -> Result<f32, Box<dyn std::error::Error>> {
        let loss = model.loss(&x, &y, None, None)?;
        if !flag("forward") {
            loss.backward()?;
            clip_grad_norm(&model.parameters(), 1.)?;
            let start = Instant::now();
            optimizer.step(model.parameters_mut())?;
            optimizing = optimizing.min(start.elapsed().as_secs_f64());
            model.zero_grad();
        }
        Ok(loss.item()?)
    };
    step()?;
    let (mut best, mut loss) = (f64::INFINITY, 0.);
    for _ in 0..STEPS {
        let start = Instant::now();
        loss = step()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    let speed = (batch * tokens) as f64 / best;
    println!("{compute:?} {speed:8.0} tokens/s  peak {:6.0} MB  loss {loss:.4}", peak_megabytes());
    if flag("profile") {
        let profiler = Profiler::start();
        step()?;
        println!("{}", profiler.stop());
    }
    if optimizing.is_finite() {
        println!("{name:?} {:.1} ms", 1e3 * optimizing);
    }
    Ok(())
}

/// The most memory that the process had, where the system tells.
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    line.map_or(f64::NAN, |kilobytes: f64| kilobytes / 1024.)
}
