//! A step of training, and fifty, equal those of Hugging Face transformers and PyTorch (make_training.py in the golden
//! folder of bitnet-testkit).

use bitnet_core::serialize::TensorMap;
use bitnet_core::serialize::safetensors::load;
use bitnet_core::{BitNetDType, BitNetTensor, Device};
use bitnet_model::Config;
use bitnet_quant::linear::Compute;
use bitnet_testkit::queue_device;
use bitnet_training::module::Module;
use bitnet_training::optim::{Group, GroupedOptimizer, Optimizer, Rule};
use bitnet_training::{ComputeOptions, Transformer};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The tensors on a device, ids as it reads them.
fn golden(device: &Device) -> (TensorMap, Value) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../bitnet-testkit/golden");
    let mut tensors = load(folder.join("training.safetensors"), &Device::cpu()).unwrap();
    for x in tensors.values_mut() {
        if !device.has(x.dtype()) {
            *x = x.to_dtype(BitNetDType::U32).unwrap();
        }
        *x = x.to_device(device).unwrap();
    }
    let text = std::fs::read_to_string(folder.join("training.json")).unwrap();
    (tensors, serde_json::from_str(&text).unwrap())
}

fn config(name: &str, golden: &Value) -> Config {
    let mut shape = golden["shape"].clone();
    let more = match name {
        "bitnet" => json!({
            "model_type": "bitnet", "hidden_act": "relu2", "tie_word_embeddings": true, "rope_theta": 10000.0,
            "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
        }),
        _ => json!({"model_type": "llama", "hidden_act": "silu", "tie_word_embeddings": false}),
    };
    shape.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Config::from_json(&shape.to_string()).unwrap()
}

/// The tensors whose names begin so, without that.
fn part(tensors: &TensorMap, prefix: &str) -> TensorMap {
    let own = tensors.iter().filter_map(|(name, x)| Some((name.strip_prefix(prefix)?.to_owned(), x.clone())));
    own.collect()
}

struct Run {
    model: Transformer,
    optimizer: GroupedOptimizer,
    ids: BitNetTensor,
}

impl Run {
    fn new(name: &str, options: ComputeOptions, tensors: &TensorMap, golden: &Value) -> Self {
        let initial = part(tensors, &format!("{name}/initial/"));
        let model = Transformer::from_parameters(config(name, golden), options, initial.into_iter().collect()).unwrap();
        let adamw = &golden["adamw"];
        let number = |value: &Value| value.as_f64().unwrap();
        let betas = (number(&adamw["betas"][0]), number(&adamw["betas"][1]));
        let rule = Rule::AdamW { betas, eps: number(&adamw["eps"]) };
        let group = Group::new(rule, number(&adamw["lr"])).decayed(number(&adamw["weight_decay"]));
        let optimizer = GroupedOptimizer::new(vec![group]).unwrap();
        Self { model, optimizer, ids: tensors[&format!("{name}/ids")].clone() }
    }

    fn backward(&self, step: usize) -> f64 {
        let ids = self.ids.select(0, step as isize).unwrap();
        let tokens = ids.dims()[1] - 1;
        let (x, y) = (ids.narrow(1, 0, tokens).unwrap(), ids.narrow(1, 1, tokens).unwrap());
        let loss = self.model.loss(&x.contiguous().unwrap(), &y.contiguous().unwrap(), None, None).unwrap();
        loss.backward().unwrap();
        loss.item::<f32>().unwrap().into()
    }

    fn update(&mut self) {
        self.optimizer.step(self.model.parameters_mut()).unwrap();
        self.model.zero_grad();
    }
}

/// Largest difference relative to the largest magnitude expected.
fn difference(got: &BitNetTensor, expected: &BitNetTensor) -> f64 {
    let wide = |x: &BitNetTensor| x.to_cpu().unwrap().to_dtype(BitNetDType::F64).unwrap().to_vec::<f64>().unwrap();
    let (got, expected) = (wide(got), wide(expected));
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0f64, |m, x| m.max(x.abs())).max(1e-30);
    got.iter().zip(&expected).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// Loss, every gradient and every weight after an update of AdamW.
fn one_step(name: &str, options: ComputeOptions, bound: f64, device: &Device) {
    let (tensors, golden) = golden(device);
    let mut run = Run::new(name, options, &tensors, &golden);
    let loss = run.backward(0);
    let expected = golden["losses"][name][0].as_f64().unwrap();
    assert!((loss - expected).abs() <= bound * expected, "{name}: loss {loss}, {expected} expected");
    let gradients = part(&tensors, &format!("{name}/grad/"));
    assert_eq!(gradients.len(), run.model.parameters().len());
    let mut worst = (0., String::new());
    for (parameter, x) in run.model.parameters() {
        let gradient = x.grad().unwrap_or_else(|| panic!("{name}: {parameter} has no gradient"));
        let error = difference(&gradient, &gradients[&parameter]);
        assert!(error <= bound, "{name}: the gradient of {parameter} differs by {error:e}");
        if error > worst.0 {
            worst = (error, parameter);
        }
    }
    println!("{name}: loss {loss} ({expected}), gradients differ by at most {:e} ({})", worst.0, worst.1);
    // The first step of Adam is the sign of a gradient, which nothing says where the gradient is rounding: from equal
    // gradients the update is equal, from our own where they are not tiny.
    let own: TensorMap = run.model.parameters().into_iter().map(|(name, x)| (name, x.grad().unwrap())).collect();
    run.update();
    for (parameter, expected) in part(&tensors, &format!("{name}/after/")) {
        let gradient = own[&parameter].abs().unwrap();
        let largest = gradient.amax(.., false).unwrap().to_scalar().unwrap().to_f64();
        let told = gradient.gt(1e-3 * largest).unwrap();
        let kept = |x: &BitNetTensor| BitNetTensor::where_(&told, x, &x.zeros_like().unwrap()).unwrap();
        let error = difference(&kept(&run.model.tensors()[&parameter]), &kept(&expected));
        assert!(error <= bound, "{name}: {parameter} after the update differs by {error:e}");
    }
    let mut same = Run::new(name, options, &tensors, &golden);
    for (parameter, x) in same.model.parameters() {
        x.set_grad(Some(gradients[&parameter].clone())).unwrap();
    }
    same.update();
    for (parameter, expected) in part(&tensors, &format!("{name}/after/")) {
        let error = difference(&same.model.tensors()[&parameter], &expected);
        assert!(error <= 1e-6, "{name}: {parameter} after an update from equal gradients differs by {error:e}");
    }
}

#[test]
fn one_step_of_bitnet_equals_transformers() {
    one_step("bitnet", ComputeOptions::default(), 1e-4, &Device::cpu());
}

#[test]
fn one_step_of_a_dense_model_equals_transformers() {
    one_step("llama", ComputeOptions::default(), 1e-4, &Device::cpu());
}

/// A device that runs operations later and has no 64-bit types needs none.
#[test]
fn steps_on_a_device_with_a_queue_equal_transformers() {
    let device = queue_device();
    for checkpoint in [false, true] {
        one_step("bitnet", ComputeOptions { checkpoint, ..ComputeOptions::default() }, 1e-4, &device);
    }
    one_step("llama", ComputeOptions::default(), 1e-4, &device);
    let (tensors, golden) = golden(&device);
    for name in ["bitnet", "llama"] {
        let mut run = Run::new(name, ComputeOptions::default(), &tensors, &golden);
        for step in 0..4 {
            let (loss, expected) = (run.backward(step), golden["losses"][name][step].as_f64().unwrap());
            run.update();
            assert!((loss - expected).abs() < 1e-3 * expected, "{name}: {loss} at step {step}, {expected} expected");
        }
    }
}

#[test]
fn blocks_that_are_computed_again_give_the_same_gradients() {
    one_step("bitnet", ComputeOptions { checkpoint: true, ..ComputeOptions::default() }, 1e-4, &Device::cpu());
}

#[test]
fn fifty_steps_stay_within_one_percent() {
    let (tensors, golden) = golden(&Device::cpu());
    for name in ["bitnet", "llama"] {
        let mut run = Run::new(name, ComputeOptions::default(), &tensors, &golden);
        let expected: Vec<f64> = serde_json::from_value(golden["losses"][name].clone()).unwrap();
        let mut worst = 0f64;
        for (step, expected) in expected.iter().enumerate() {
            let loss = run.backward(step);
            run.update();
            worst = worst.max((loss - expected).abs() / expected);
        }
        println!("{name}: 50 losses within {worst:e} of transformers'");
        assert!(worst < 0.01, "{name}: {worst}");
    }
}

#[test]
fn bf16_products_train_alike() {
    let (tensors, golden) = golden(&Device::cpu());
    for name in ["bitnet", "llama"] {
        let options = ComputeOptions { compute: Compute::BF16, ..ComputeOptions::default() };
        let mut run = Run::new(name, options, &tensors, &golden);
        let expected: Vec<f64> = serde_json::from_value(golden["losses"][name].clone()).unwrap();
        let last = (0..expected.len()).map(|step| {
            let loss = run.backward(step);
            run.update();
            loss
        });
        let last = last.last().unwrap();
        let of_f32 = expected[expected.len() - 1];
        println!("{name}: loss {last} with products of bf16, {of_f32} in f32");
        assert!((last - of_f32).abs() < 0.02 * of_f32, "{name}: {last} {of_f32}");
    }
}

#[test]
fn gradients_reach_latent_weights() {
    let (tensors, golden) = golden(&Device::cpu());
    let run = Run::new("bitnet", ComputeOptions::default(), &tensors, &golden);
    run.backward(0);
    for (name, x) in run.model.parameters().iter().filter(|(name, _)| name.ends_with("_proj.weight")) {
        let gradient = x.grad().unwrap_or_else(|| panic!("{name} has no gradient"));
        let nonzero = gradient.count_nonzero(..).unwrap().to_scalar().unwrap().to_f64();
        assert!(nonzero > 0.9 * gradient.elements() as f64, "{name}: {nonzero} of {}", gradient.elements());
    }
}

/// The host takes no part in a step: recorded once, it gives loss and gradients of whatever ids are written afterwards.
#[test]
fn a_recorded_step_follows_the_ids() {
    let device = queue_device();
    let (tensors, golden) = golden(&device);
    // Each with the share of quantization.
    for (name, lambda) in [("llama", 1.), ("bitnet", 0.5), ("bitnet", 1.)] {
        let mut run = Run::new(name, ComputeOptions::default(), &tensors, &golden);
        run.model.set_lambda(lambda);
        let batch = |step| {
            let ids = run.ids.select(0, step).unwrap();
            let tokens = ids.dims()[1] - 1;
            [0, 1].map(|start| ids.narrow(1, start, tokens).unwrap().copy().unwrap())
        };
        // The loss, and the gradients, which the parameters do not keep.
        let step = |[x, y]: &[BitNetTensor; 2]| {
            let loss = run.model.loss(x, y, None, None).unwrap();
            loss.backward().unwrap();
            let gradients = run.model.parameters().into_iter().map(|(_, x)| x.take_grad().unwrap());
            [loss.detach()].into_iter().chain(gradients).collect::<Vec<_>>()
        };
        let read = |all: &[BitNetTensor]| all.iter().map(|x| x.to_bytes().unwrap()).collect::<Vec<_>>();
        let mut ids = batch(0);
        let mut recorded = Vec::new();
        let mut once = || {
            recorded = step(&ids);
            Ok(())
        };
        let graph = device.record(&mut once).unwrap().expect("this device records");
        let first = read(&recorded);
        assert!(first == read(&step(&batch(0))), "{name} {lambda}");
        for (x, new) in ids.iter_mut().zip(batch(1)) {
            device.write(x.as_mut().unwrap().storage, 0, &new.to_bytes().unwrap()).unwrap();
        }
        graph.replay().unwrap();
        let second = read(&recorded);
        assert!(second == read(&step(&batch(1))), "{name} {lambda}");
        assert!(first.iter().zip(&second).all(|(first, second)| first != second), "{name} {lambda}");
    }
}
