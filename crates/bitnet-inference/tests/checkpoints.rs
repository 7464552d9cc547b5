//! Every checkpoint format compared with transformers: hidden states, logits and greedy tokens, on every kernel path.

use bitnet_core::Device;
use bitnet_inference::{Model, Sampler, Sampling, Session};
use bitnet_kernels::Isa;
use bitnet_model::checkpoint::{Checkpoint, I2sOrder, OpenOptions, Projection, TensorSummary, WeightSource};
use bitnet_model::convert::{Embeddings, Target, convert};
use bitnet_model::gguf::{Gguf, GgufType};
use bitnet_quant::ActivationRule;
use bitnet_quant::formats::i2_s;
use bitnet_testkit::golden::{self, Golden, relative_error};
use std::path::Path;
use std::sync::Arc;

/// The tolerance of the design: it admits an activation rounded the other way.
const TOLERANCE: f32 = 1e-3;
/// Of a model that rounds no activation, for each token; else of the first token and of the better quarter.
const EXACT: f32 = 1e-5;

/// How activations are rounded before a product.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rounding {
    None,
    /// The inputs of ternary layers.
    To8Bits,
    /// Those of Q8_0, Q6_K, Q4_0 and Q4_K, on vector kernels.
    To16Bits,
}

fn rounding(checkpoint: &Checkpoint) -> Rounding {
    let coarse = |t: &TensorSummary| ["Q8_0", "Q6_K", "Q4_0", "Q4_K"].contains(&t.kind.as_str());
    let weights = checkpoint.weights();
    let ternary =
        |p| matches!(weights.linear(weights.config().layers - 1, p).unwrap().weight, WeightSource::Ternary { .. });
    match checkpoint.tensors().iter().any(coarse) {
        true => Rounding::To16Bits,
        false if weights.config().activations == ActivationRule::Float => Rounding::None,
        false if Projection::ALL.into_iter().any(ternary) || weights.config().quantization.is_some() => {
            Rounding::To8Bits
        }
        false => Rounding::None,
    }
}

fn load(path: &Path, device: &Device) -> (Arc<Model>, Rounding) {
    // What these files do not record.
    let named = |part: &str| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part));
    let options = OpenOptions {
        i2s_order: named("i2_s-arm").then_some(I2sOrder::Arm),
        activations: named("outliers").then_some(ActivationRule::Float),
        ..OpenOptions::default()
    };
    let checkpoint = Checkpoint::open(path, &options).unwrap_or_else(|e| panic!("{e}"));
    let model = Model::load(checkpoint.weights(), device, |_, _| ());
    let model = model.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (Arc::new(model), rounding(&checkpoint))
}

/// Logits of all tokens, `[T, vocab]`, in a text of up to `capacity`.
fn logits(model: &Arc<Model>, tokens: &[u32], capacity: usize) -> Vec<f32> {
    let mut session = Session::new(model.clone(), capacity).unwrap();
    let mut all = Vec::new();
    session.feed_all(tokens, |_, logits| all.extend_from_slice(logits)).unwrap();
    all
}

fn compare(path: &Path, golden: &Golden, device: &Device, label: &str) -> f32 {
    let (model, rounding) = load(path, device);
    let name = format!("{} on {label}", path.file_name().unwrap().to_string_lossy());
    let mut session = Session::new(model.clone(), golden.greedy_ids.len()).unwrap();
    let states = session.hidden_states(&golden.input_ids).unwrap();
    assert_eq!(states.len(), golden.hidden_states.len(), "{name}: layers");
    for (layer, (got, expected)) in states.iter().zip(&golden.hidden_states).enumerate() {
        let error = relative_error(got, expected);
        assert!(error <= TOLERANCE, "{name}: hidden state {layer} differs by {error:e}");
    }
    let got = logits(&model, &golden.input_ids, golden.greedy_ids.len());
    let error = relative_error(&got, &golden.logits);
    assert!(error <= TOLERANCE, "{name}: logits differ by {error:e}");
    let largest = golden.logits.iter().fold(0f32, |most, x| most.max(x.abs()));
    let vocab = model.config().vocab_size;
    let mut errors: Vec<f32> = got
        .chunks_exact(vocab)
        .zip(golden.logits.chunks_exact(vocab))
        .map(|(g, e)| g.iter().zip(e).fold(0f32, |most, (g, e)| most.max((g - e).abs())) / largest)
        .collect();
    match rounding {
        Rounding::None => assert!(errors.iter().all(|&e| e <= EXACT), "{name}: tokens differ by {errors:?}"),
        Rounding::To8Bits => {
            assert!(errors[0] <= EXACT, "{name}: the first token differs by {}", errors[0]);
            errors.sort_by(f32::total_cmp);
            let quarter = errors[errors.len() / 4];
            assert!(quarter <= EXACT, "{name}: a quarter of the tokens differ by less than {quarter:e}, no more");
        }
        Rounding::To16Bits => {}
    }

    // The prompt in one batch, then a token at a time, as text is generated.
    let mut sampler = Sampler::new(Sampling::greedy(), model.config().vocab_size).unwrap();
    let mut tokens = golden.input_ids.clone();
    session.resume(&tokens).unwrap();
    while tokens.len() < golden.greedy_ids.len() {
        let next = sampler.sample(session.logits()).unwrap();
        tokens.push(next);
        session.feed(&[next]).unwrap();
    }
    assert_eq!(tokens, golden.greedy_ids, "{name}: greedy tokens");
    error
}

fn devices() -> Vec<(String, Device)> {
    let isas = Isa::available().into_iter();
    isas.map(|isa| (isa.name().to_string(), Device::cpu_with_isa(isa, 2).unwrap())).collect()
}

#[test]
fn every_hugging_face_form_equals_transformers() {
    for path in golden::checkpoints() {
        let golden = Golden::read(&path);
        for (label, device) in devices() {
            let error = compare(&path, &golden, &device, &label);
            println!("{:40} {label:8} logits differ by {error:.1e}", path.file_name().unwrap().to_string_lossy());
        }
    }
}

#[test]
fn every_gguf_form_equals_the_decoded_weights() {
    for (path, golden) in golden::gguf_files() {
        for (label, device) in devices() {
            let error = compare(&path, &golden, &device, &label);
            println!("{:40} {label:8} logits differ by {error:.1e}", path.file_name().unwrap().to_string_lossy());
        }
    }
}

#[test]
fn the_shakespeare_checkpoints_equal_transformers() {
    for form in ["offline", "online"] {
        let Some(path) = golden::shared(&format!("models/shakespeare-hf-{form}")) else { return };
        let golden = Golden::read(&path);
        for (label, device) in devices() {
            let error = compare(&path, &golden, &device, &label);
            println!("shakespeare-hf-{form} {label:8} logits differ by {error:.1e}");
        }
    }
}

#[test]
fn the_models_in_the_tree_equal_transformers() {
    for name in ["shakespeare", "chat"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/{name}.gguf"));
        let golden = Golden::read(&golden::folder().join(format!("{name}.golden.safetensors")));
        for (label, device) in devices() {
            compare(&path, &golden, &device, &label);
        }
    }
}

/// A trained checkpoint as I2_S in both orders: its norms reveal the order.
#[test]
fn the_block_order_of_i2_s_is_told_by_the_norms_of_a_trained_model() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shakespeare.gguf");
    let folder = tempfile::tempdir().unwrap();
    let x86 = folder.path().join("x86.gguf");
    let tree = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    convert(&tree, &x86, Target::I2S, Embeddings::F16, &mut |_, _| ()).unwrap();
    // Rewrites every block of 128 weights as an ARM build would have written it.
    let mut bytes = std::fs::read(&x86).unwrap();
    let file = Gguf::parse(&bytes).unwrap();
    for tensor in file.tensors.iter().filter(|t| t.ty == GgufType::I2_S) {
        let (rows, cols) = (tensor.shape[0], tensor.shape[1]);
        let (codes, scale) = i2_s::decode(&bytes[tensor.range.clone()], rows, cols, I2sOrder::X86).unwrap();
        bytes[tensor.range.clone()].copy_from_slice(&i2_s::encode(&codes, scale, I2sOrder::Arm).unwrap());
    }
    let arm = folder.path().join("arm.gguf");
    std::fs::write(&arm, bytes).unwrap();
    let golden = Golden::read(&golden::folder().join("shakespeare.golden.safetensors"));
    for (path, order) in [(x86, "x86"), (arm, "ARM")] {
        let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
        assert!(checkpoint.notes().iter().any(|n| n.contains("block order") && n.contains(order)), "{order}");
        compare(&path, &golden, &Device::cpu(), order);
    }
}

#[test]
fn tokens_one_by_one_equal_a_batch() {
    for name in ["bitnet-offline", "llama-rope-dynamic", "llama-rope-longrope", "qwen3-moe"] {
        let path = golden::folder().join(name);
        let golden = Golden::read(&path);
        let model = load(&path, &Device::cpu()).0;
        let whole = logits(&model, &golden.input_ids, golden.input_ids.len());
        let mut session = Session::new(model.clone(), golden.input_ids.len()).unwrap();
        let vocab = model.config().vocab_size;
        for (token, expected) in golden.input_ids.iter().zip(whole.chunks_exact(vocab)) {
            let error = relative_error(session.feed(&[*token]).unwrap(), expected);
            assert!(error <= 1e-5, "{name} differs by {error:e}");
        }
    }
}

/// As one pass of transformers over so many tokens: a shorter context of the session leaves the original angles.
#[test]
fn the_context_of_a_session_decides_angles_that_depend_on_a_length() {
    for name in ["llama-rope-dynamic", "llama-rope-longrope"] {
        let path = golden::folder().join(name);
        let model = load(&path, &Device::cpu()).0;
        let tokens = &Golden::read(&path).input_ids[..12];
        let [within, same, beyond] = [12, 16, 17].map(|capacity| logits(&model, tokens, capacity));
        assert_eq!(within, same, "{name}");
        assert!(relative_error(&beyond, &within) > 1e-2, "{name}");
    }
}

/// As TriLM: ternary weights of a network whose activations were never rounded, some of them far beyond the others. Every rule runs on
/// packed weights; the answer is that of transformers by `float` alone, and 8 bits lose more the longer their blocks are.
#[test]
fn the_rule_of_activations_decides_how_near_an_answer_is() {
    let path = golden::folder().join("gguf/llama-tq2_0-outliers.gguf");
    let golden = Golden::read(&path.with_extension("golden.safetensors"));
    let opened = |activations| {
        let options = OpenOptions { activations, ..OpenOptions::default() };
        Checkpoint::open(&path, &options).unwrap()
    };
    let guess = opened(None);
    assert_eq!(guess.weights().config().activations, ActivationRule::Token);
    assert!(guess.guesses().iter().any(|guess| guess.contains("--activations")), "{:?}", guess.guesses());
    let divergence = |rule, device: &Device| {
        let checkpoint = opened(Some(rule));
        assert!(checkpoint.guesses().is_empty());
        for projection in Projection::ALL {
            let weight = checkpoint.weights().linear(0, projection).unwrap().weight;
            let WeightSource::Ternary { scales, .. } = weight else { panic!("{projection:?} is dense") };
            assert_eq!(scales.group(), Some(256), "{projection:?}");
        }
        let model = Arc::new(Model::load(checkpoint.weights(), device, |_, _| ()).unwrap());
        let vocab = model.config().vocab_size;
        let got = logits(&model, &golden.input_ids, golden.greedy_ids.len());
        let pairs = golden.logits.chunks_exact(vocab).zip(got.chunks_exact(vocab));
        (
            relative_error(&got, &golden.logits),
            pairs.map(|(p, q)| kl(p, q)).sum::<f64>() / golden.input_ids.len() as f64,
        )
    };
    for (label, device) in devices() {
        let [token, block256, block32, float] =
            [ActivationRule::Token, ActivationRule::Block256, ActivationRule::Block32, ActivationRule::Float]
                .map(|rule| divergence(rule, &device));
        println!(
            "{label}: KL by token {:.2e}, block256 {:.2e}, block32 {:.2e}, float {:.2e}",
            token.1, block256.1, block32.1, float.1
        );
        assert!(float.0 <= EXACT && float.1 <= 1e-9, "{label}: {float:?}");
        assert!(token.1 > block256.1 && block256.1 > 3. * block32.1 && block32.1 > 1e-3, "{label}");
    }
}

/// Kullback-Leibler divergence of the distributions of two rows of logits.
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let log_softmax = |x: &[f32]| {
        let most = x.iter().fold(f64::MIN, |most, &v| most.max(v.into()));
        let sum: f64 = x.iter().map(|&v| (f64::from(v) - most).exp()).sum();
        x.iter().map(|&v| f64::from(v) - most - sum.ln()).collect::<Vec<_>>()
    };
    log_softmax(p).iter().zip(log_softmax(q)).map(|(p, q)| p.exp() * (p - q)).sum()
}
