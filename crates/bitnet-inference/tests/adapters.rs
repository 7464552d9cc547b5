//! Adapters against PEFT (`golden/make_lora.py`).

use bitnet_core::Device;
use bitnet_inference::{Model, Session};
use bitnet_model::checkpoint::{Adapter, Checkpoint, OpenOptions};
use bitnet_model::safetensors::Safetensors;
use bitnet_testkit::golden::{self, relative_error};
use bitnet_testkit::{queue_device, reference_device};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn lora(name: &str) -> PathBuf {
    golden::folder().join("lora").join(name)
}

fn base(name: &str, masters: bool) -> Checkpoint {
    let options = OpenOptions { keep_master_weights: masters, ..OpenOptions::default() };
    Checkpoint::open(&golden::folder().join(name), &options).unwrap()
}

fn expected(name: &str, tensor: &str) -> Vec<f32> {
    let bytes = std::fs::read(lora(name).join("golden.safetensors")).unwrap();
    let file = Safetensors::parse(&bytes, "golden").unwrap();
    file.tensors().find(|info| info.name == tensor).unwrap().to_f32(&bytes).unwrap()
}

fn ids(name: &str, tensor: &str) -> Vec<u32> {
    let bytes = std::fs::read(lora(name).join("golden.safetensors")).unwrap();
    let file = Safetensors::parse(&bytes, "golden").unwrap();
    let data = file.tensors().find(|info| info.name == tensor).unwrap().data(&bytes);
    data.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect()
}

/// The logits of every position with adapters, in one pass and token by token.
fn logits(checkpoint: Checkpoint, adapters: &[(&Path, f32)], merged: bool, name: &str, device: &Device) -> Vec<f32> {
    let config = checkpoint.weights().config().clone();
    let adapters = adapters.iter().map(|(path, strength)| Adapter::open(path, &config, *strength).unwrap()).collect();
    let checkpoint = checkpoint.with_adapters(adapters, merged).unwrap();
    let model = Arc::new(Model::load(checkpoint.weights(), device, |_, _| ()).unwrap());
    let ids = ids(name, if merged { "merged_input_ids" } else { "input_ids" });
    let mut session = Session::new(model.clone(), ids.len()).unwrap();
    let (mut all, mut single) = (Vec::new(), Vec::new());
    session.feed_all(&ids, |_, logits| all.extend_from_slice(logits)).unwrap();
    let mut session = Session::new(model, ids.len()).unwrap();
    for id in ids {
        session.feed(&[id]).unwrap();
        single.extend_from_slice(session.logits());
    }
    assert!(all == single, "{name}: one by one");
    all
}

const BASES: [&str; 3] = ["qwen3", "llama-online-sharded", "bitnet-online-f32"];

#[test]
fn logits_are_those_of_peft() {
    for device in [Device::cpu(), reference_device(), queue_device()] {
        for name in BASES {
            let got = logits(base(name, false), &[(&lora(name), 1.)], false, name, &device);
            let error = relative_error(&got, &expected(name, "logits"));
            println!("{name} on {device:?}: {error:e}");
            assert!(error <= 1e-5, "{name}: {error:e}");
        }
    }
}

#[test]
fn merged_adapters_are_those_of_peft() {
    for (name, masters) in [("qwen3", false), ("bitnet-online-f32", true)] {
        let got = logits(base(name, masters), &[(&lora(name), 1.)], true, name, &Device::cpu());
        let error = relative_error(&got, &expected(name, "merged_logits"));
        assert!(error <= 1e-5, "{name}: {error:e}");
    }
    // Without the latent weights there is nothing to merge into.
    let checkpoint = base("bitnet-online-f32", false);
    let adapter = Adapter::open(&lora("bitnet-online-f32"), checkpoint.weights().config(), 1.).unwrap();
    let checkpoint = checkpoint.with_adapters(vec![adapter], true).unwrap();
    let refused = Model::load(checkpoint.weights(), &Device::cpu(), |_, _| ()).unwrap_err().to_string();
    assert!(refused.contains("cannot be merged"), "{refused}");
}

/// Two halves are a whole, and half an adapter is what PEFT makes of half the factor.
#[test]
fn several_adapters_add_up() {
    let (name, path) = ("qwen3", lora("qwen3"));
    let half = logits(base(name, false), &[(&path, 0.5)], false, name, &Device::cpu());
    let error = relative_error(&half, &expected(name, "half_logits"));
    assert!(error <= 1e-5, "{error:e}");
    let halves = logits(base(name, false), &[(&path, 0.25), (&path, 0.75)], false, name, &Device::cpu());
    let error = relative_error(&halves, &expected(name, "logits"));
    assert!(error <= 1e-5, "{error:e}");
}

/// The GGUF file of an adapter is the adapter, with rows of query and key in the order of its architecture.
#[test]
fn gguf_adapters() {
    let name = "llama-online-sharded";
    let file = lora("llama-online-sharded.gguf");
    let one = logits(base(name, false), &[(&lora(name), 1.)], false, name, &Device::cpu());
    let other = logits(base(name, false), &[(&file, 1.)], false, name, &Device::cpu());
    assert!(one == other);
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    let config = base("qwen3", false).weights().config().clone();
    let refusal = |path: &Path| Adapter::open(path, &config, 1.).unwrap_err().to_string();
    assert!(refusal(&golden::folder().join("gguf/llama-f16.gguf")).contains("is no adapter"));
    let of_other = refusal(&lora("bitnet-online-f32"));
    assert!(of_other.contains("has shape") && of_other.contains("lora_"), "{of_other}");
    assert!(refusal(&golden::folder().join("qwen3")).contains("adapter_config.json"));
}
