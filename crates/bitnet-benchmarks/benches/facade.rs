//! Tensors, quantization, BitLinear, sampling and generation through the facade: `cargo bench -p bitnet-benchmarks`.

use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator, autograd};
use bitnet::prelude::*;
use bitnet::quant::{ActivationBuffer, BitLinearConfig, PackedFormat, QuantizedTensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Width of the square matrices.
const WIDTH: usize = 1024;

fn random(dims: &[usize], seed: u64) -> BitNetTensor {
    BitNetTensor::randn(dims, BitNetDType::F32, &Device::cpu(), &mut Generator::new(seed)).unwrap()
}

fn tensors(c: &mut Criterion) {
    let (a, b) = (random(&[WIDTH, WIDTH], 1), random(&[WIDTH, WIDTH], 2));
    let mut group = c.benchmark_group("tensors, f32 1024 x 1024");
    group.throughput(Throughput::Elements((WIDTH * WIDTH) as u64));
    group.bench_function("add", |bench| bench.iter(|| a.add(&b).unwrap()));
    group.throughput(Throughput::Elements((2 * WIDTH * WIDTH * WIDTH) as u64));
    group.bench_function("matmul", |bench| bench.iter(|| a.matmul(&b).unwrap()));
}

fn quantization(c: &mut Criterion) {
    let w = random(&[WIDTH, WIDTH], 3);
    let mut group = c.benchmark_group("quantize f32 1024 x 1024");
    group.throughput(Throughput::Elements((WIDTH * WIDTH) as u64));
    for format in [PackedFormat::I2S, PackedFormat::Tq1_0, PackedFormat::Tq2_0] {
        group.bench_function(format.name(), |bench| bench.iter(|| QuantizedTensor::from_tensor(&w, format).unwrap()));
    }
}

fn bit_linear(c: &mut Criterion) {
    let device = Device::cpu();
    let layer = BitLinear::new(BitLinearConfig::new(WIDTH, WIDTH), &mut Generator::new(4), &device).unwrap();
    let packed = layer.pack().unwrap();
    let mut group = c.benchmark_group("BitLinear 1024 x 1024");
    for tokens in [1, 64] {
        let x = random(&[tokens, WIDTH], 5);
        group.throughput(Throughput::Elements((2 * tokens * WIDTH * WIDTH) as u64));
        group.bench_function(format!("latent, batch of {tokens}"), |bench| {
            bench.iter(|| autograd::no_grad(|| layer.forward(&x)).unwrap());
        });
        let mut buffer = ActivationBuffer::new(tokens, WIDTH, &device).unwrap();
        let mut y = BitNetTensor::empty(&[tokens, WIDTH], BitNetDType::F32, &device).unwrap();
        group.bench_function(format!("packed, batch of {tokens}"), |bench| {
            bench.iter(|| packed.forward(x.as_ref(), &mut buffer, &device, y.as_mut().unwrap()).unwrap());
        });
    }
}

fn generation(c: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shakespeare.gguf");
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    let model = Arc::new(Model::load(checkpoint.weights(), &Device::cpu(), |_, _| {}).unwrap());
    let tokenizer = checkpoint.tokenizer().unwrap();
    let prompt = tokenizer.encode("ROMEO:", true).unwrap();
    let options = GenerateOptions { max_tokens: 32, sampling: Sampling::default(), stop: vec![] };
    let mut group = c.benchmark_group("generate");
    group.throughput(Throughput::Elements(32)).sample_size(20);
    group.bench_function("32 tokens of models/shakespeare.gguf", |bench| {
        bench.iter(|| {
            let mut session = Session::new(model.clone(), 256).unwrap();
            generate(&mut session, tokenizer, &prompt, &options, |_| ControlFlow::Continue(())).unwrap()
        });
    });
}

/// A step of 8 sequences with a vocabulary of 128,256, logits nearly equal or of a normal distribution, and penalties.
fn sampling(c: &mut Criterion) {
    const VOCAB: usize = 128_256;
    let normal = random(&[VOCAB], 6).to_vec::<f32>().unwrap();
    let flat: Vec<f32> = normal.iter().map(|x| x / 1e3).collect();
    let penalties =
        Sampling { repeat_penalty: 1.1, frequency_penalty: 0.1, presence_penalty: 0.1, ..Sampling::default() };
    let cases = [
        ("temperature", penalties.clone()),
        ("top-p 0.95", Sampling { top_p: 0.95, ..penalties.clone() }),
        ("top-k 40, top-p 0.95", Sampling { top_k: 40, top_p: 0.95, ..penalties.clone() }),
        ("typical-p 0.9", Sampling { typical_p: 0.9, ..penalties.clone() }),
        ("greedy", Sampling { temperature: 0., ..penalties }),
    ];
    let mut group = c.benchmark_group("sample 8 of 128256");
    for (name, sampling) in cases {
        for (kind, logits) in [("flat", &flat), ("normal", &normal)] {
            let mut samplers = vec![Sampler::new(sampling.clone(), VOCAB).unwrap(); 8];
            samplers.iter_mut().for_each(|sampler| sampler.observe_prompt(&(0..2000).collect::<Vec<_>>()));
            group.bench_function(format!("{name}, {kind}"), |bench| {
                bench.iter(|| samplers.iter_mut().map(|sampler| sampler.sample(logits).unwrap()).sum::<u32>());
            });
        }
    }
}

criterion_group!(benches, tensors, quantization, bit_linear, sampling, generation);
criterion_main!(benches);
