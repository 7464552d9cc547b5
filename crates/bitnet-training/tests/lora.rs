//! Adapters: they change nothing at first, learn while the base stays, and merge into weights that answer the same.

use bitnet_core::autograd::no_grad;
use bitnet_core::{BitNetTensor, Device, Generator};
use bitnet_model::config::Config;
use bitnet_training::data::Batch;
use bitnet_training::export::online;
use bitnet_training::lora::{Lora, LoraConfig};
use bitnet_training::model::{ComputeOptions, Transformer};
use bitnet_training::module::Module;
use bitnet_training::objective::Objective;
use bitnet_training::optim::{Group, GroupedOptimizer, Optimizer, Rule};

fn base() -> Transformer {
    let json = include_str!("../../bitnet-testkit/golden/bitnet-online-f32/config.json");
    let config = Config { quantization: Some(online()), ..Config::from_json(json).unwrap() };
    let mut generator = Generator::new(3);
    Transformer::new(config, ComputeOptions::default(), 0.2, &mut generator, &Device::cpu()).unwrap()
}

fn batch() -> Batch {
    let cpu = Device::cpu();
    let ids: Vec<i64> = (0..16).map(|i| (i * 7) % 50).collect();
    let targets: Vec<i64> = (1..17).map(|i| (i * 7) % 50).collect();
    let tensor = |data: &[i64]| BitNetTensor::from_slice(data, &[2, 8], &cpu).unwrap();
    Batch { inputs: tensor(&ids), targets: tensor(&targets), positions: None, segments: None, counted: 16 }
}

fn loss(objective: &dyn Objective) -> f32 {
    no_grad(|| objective.loss(&batch(), None)).unwrap().item().unwrap()
}

fn trained(lora: &mut Lora, steps: usize) {
    let mut optimizer = GroupedOptimizer::new(vec![Group::new(Rule::adamw(), 5e-3)]).unwrap();
    for _ in 0..steps {
        lora.zero_grad();
        lora.loss(&batch(), None).unwrap().backward().unwrap();
        optimizer.step(lora.parameters_mut()).unwrap();
    }
}

#[test]
fn adapters_learn_while_the_base_stays_and_merge_exactly() {
    let base = base();
    let before = base.state_dict();
    let mut lora = Lora::new(base.clone(), &LoraConfig::default(), &mut Generator::new(1)).unwrap();
    assert_eq!(lora.parameters().len(), 2 * 7 * base.config().layers);
    let first = loss(&lora);
    assert_eq!(first, loss(&base), "adapters change nothing at first");
    trained(&mut lora, 60);
    for (name, tensor) in lora.model().tensors() {
        assert!(tensor.detach().equal(&before[name]).unwrap(), "{name} of the base changed");
        assert!(tensor.grad().is_none(), "{name}");
    }
    let last = loss(&lora);
    assert!(last < 0.7 * first, "{first} to {last}");
    let merged = lora.merged().unwrap();
    assert_eq!(loss(&merged), last, "the merged weights, quantized anew, are those that were trained");
    assert!(
        !merged.tensors()["model.layers.0.mlp.up_proj.weight"]
            .detach()
            .equal(&before["model.layers.0.mlp.up_proj.weight"])
            .unwrap()
    );
}

/// In full precision the loss is smooth: the gradient against central differences.
#[test]
fn the_gradient_of_adapters_is_that_of_differences() {
    let mut lora = Lora::new(base(), &LoraConfig::default(), &mut Generator::new(1)).unwrap();
    trained(&mut lora, 3);
    lora.set_lambda(0.);
    lora.zero_grad();
    lora.loss(&batch(), None).unwrap().backward().unwrap();
    for name in ["model.layers.1.mlp.down_proj.lora_a", "model.layers.0.self_attn.q_proj.lora_b"] {
        let get = |lora: &Lora| lora.parameters().into_iter().find(|(own, _)| own == name).unwrap().1.clone();
        let gradient = get(&lora).grad().unwrap();
        // Along the gradient itself, where the difference is largest beside its rounding.
        let norm = gradient.norm(2., .., false).unwrap().item::<f32>().unwrap();
        let step = 0.02 / norm;
        let mut ends = [0f32; 2];
        for (end, sign) in ends.iter_mut().zip([1., -1.]) {
            let mut moved = lora.clone();
            let mut state = moved.state_dict();
            state[name] = state[name].add(&gradient.mul(sign * step).unwrap()).unwrap();
            moved.load_state_dict(&state).unwrap();
            *end = loss(&moved);
        }
        let slope = (ends[0] - ends[1]) / (2. * 0.02);
        assert!((slope / norm - 1.).abs() < 0.02, "{name}: {slope} beside {norm}");
    }
}

#[test]
fn adapters_are_saved_on_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapters.safetensors");
    let config = LoraConfig { rank: 2, alpha: 3., targets: vec!["self_attn.q_proj".into(), "up_proj".into()] };
    let mut lora = Lora::new(base(), &config, &mut Generator::new(1)).unwrap();
    assert_eq!(lora.parameters().len(), 2 * 2 * 2);
    trained(&mut lora, 5);
    lora.save(&path).unwrap();
    assert_eq!(loss(&Lora::load(base(), &path).unwrap()), loss(&lora));
    // Another base of the same shape would answer with other words, in silence.
    let mut other = base();
    let norm = &mut other.tensors_mut()["model.norm.weight"];
    *norm = norm.detach().add(0.001).unwrap();
    assert!(Lora::load(other, &path).unwrap_err().to_string().contains("another base model"));
    // Not a file of adapters; adapters of another model; a target that is not there.
    let other = folder.path().join("other.safetensors");
    bitnet_core::serialize::safetensors::save(&other, &lora.state_dict(), &[]).unwrap();
    assert!(Lora::load(base(), &other).unwrap_err().to_string().contains("lora_scale"));
    let json = include_str!("../../bitnet-testkit/golden/llama-bias-online/config.json");
    let config = Config { quantization: Some(online()), ..Config::from_json(json).unwrap() };
    let small = Config { hidden_size: 16, head_dim: 16 / config.heads, ..config };
    let small =
        Transformer::new(small, ComputeOptions::default(), 0.2, &mut Generator::new(3), &Device::cpu()).unwrap();
    assert!(Lora::load(small, &path).is_err());
    let wrong = LoraConfig { targets: vec!["query".into()], ..LoraConfig::default() };
    assert!(Lora::new(base(), &wrong, &mut Generator::new(1)).unwrap_err().to_string().contains("query"));
}
