//! Tensors, quantization, BitLinear, sampling and generation through the facade: `cargo bench -p bitnet-benchmarks`.

use bitnet::core::backend::{SampleRow, SampleRows};
use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator, autograd};
use bitnet::inference::{Engine, EngineOptions, KvType, Request};
use bitnet::model::Config;
use bitnet::model::checkpoint::RandomWeights;
use bitnet::prelude::*;
use bitnet::quant::{ActivationBuffer, ActivationRule, BitLinearConfig, PackedFormat, QuantizedTensor};
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
        let mut buffer = ActivationBuffer::new(ActivationRule::Token, tokens, WIDTH, &device).unwrap();
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

/// The choice of tokens for 8 sequences with a vocabulary of 128,256, logits nearly equal or of a normal distribution, each with
/// penalties on 2,000 tokens of its text.
fn sampling(c: &mut Criterion) {
    const VOCAB: usize = 128_256;
    const EDITS: usize = 2_000;
    let plain = SampleRow {
        temperature: 0.7,
        top_k: 0.,
        top_p: 1.,
        min_p: 0.,
        typical_p: 1.,
        top_n_sigma: 0.,
        xtc_threshold: 2.,
        surprise: f32::INFINITY,
        upper: 1e7,
        lower: 0.,
    };
    let cases = [
        ("temperature", plain),
        ("top-p 0.95", SampleRow { top_p: 0.95, ..plain }),
        ("top-k 40, top-p 0.95", SampleRow { top_k: 40., top_p: 0.95, ..plain }),
        ("typical-p 0.9", SampleRow { typical_p: 0.9, ..plain }),
        ("greedy", SampleRow { temperature: 0., ..plain }),
    ];
    let normal = random(&[8, VOCAB], 6);
    let flat: Vec<f32> = normal.to_vec::<f32>().unwrap().iter().map(|x| x / 1e3).collect();
    let flat = BitNetTensor::from_slice(&flat, &[8, VOCAB], &Device::cpu()).unwrap();
    let mut group = c.benchmark_group("sample 8 of 128256");
    for threads in [1, 2] {
        let device = Device::cpu_with_threads(threads);
        let edited: Vec<u32> = (0..8 * EDITS as u32).map(|i| i % EDITS as u32 * 64).collect();
        let edited = BitNetTensor::from_slice(&edited, &[8, EDITS], &device).unwrap();
        let edits = BitNetTensor::from_slice(&[0f32, 1.1, 0.2, 0.].repeat(8 * EDITS), &[8, EDITS, 4], &device).unwrap();
        let mask = BitNetTensor::empty(&[8, 0], BitNetDType::U32, &device).unwrap();
        let mut tokens = BitNetTensor::empty(&[8], BitNetDType::U32, &device).unwrap();
        let mut probabilities = BitNetTensor::empty(&[8], BitNetDType::F32, &device).unwrap();
        for (name, row) in cases {
            let rows = BitNetTensor::from_slice(&row.to_array().repeat(8), &[8, SampleRow::LEN], &device).unwrap();
            for (kind, logits) in [("flat", &flat), ("normal", &normal)] {
                group.bench_function(format!("{name}, {kind}, {threads} threads"), |bench| {
                    bench.iter(|| {
                        let how = SampleRows {
                            rows: rows.as_ref(),
                            edited: edited.as_ref(),
                            edits: edits.as_ref(),
                            mask: mask.as_ref(),
                        };
                        let (tokens, probabilities) = (tokens.as_mut().unwrap(), probabilities.as_mut().unwrap());
                        device.sample(logits.as_ref(), how, tokens, probabilities).unwrap();
                    });
                });
            }
        }
    }
}

/// The first token of a text of 2,016 tokens, whose first 2,000 are known from another text or not.
fn shared_prefix(c: &mut Criterion) {
    const CONFIG: &str = r#"{"model_type": "bitnet", "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
        "num_attention_heads": 12, "num_key_value_heads": 4, "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "bitlinear", "quantization_mode": "offline"}}"#;
    let weights = RandomWeights::new(Config::from_json(CONFIG).unwrap(), 0);
    let model = Arc::new(Model::load(&weights, &Device::cpu(), |_, _| ()).unwrap());
    let options = EngineOptions { context: 2048, parallel: 1, kv_type: KvType::F32, cache_tokens: Some(8192) };
    let mut engine = Engine::new(model, options).unwrap();
    let mut group = c.benchmark_group("first token of 2016");
    group.sample_size(10);
    let mut text: Vec<u32> = (0..2016).map(|i| 3 + i * 7 % 30_000).collect();
    let mut next = 0;
    for (name, known) in [("all new", 0), ("2000 shared", 2000)] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                next += 1;
                text[known] = 3 + next;
                engine
                    .submit(Request { tokens: text.clone(), sampling: Sampling::greedy(), ..Request::default() })
                    .unwrap();
                while !engine.is_idle() {
                    engine.step().unwrap();
                }
            });
        });
    }
}

criterion_group!(benches, tensors, quantization, bit_linear, sampling, generation, shared_prefix);
criterion_main!(benches);
