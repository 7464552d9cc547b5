//! Updates held against torch.optim and the formulas of the papers; tests/data/make_optimizers.py wrote the golden file.

use bitnet_core::serialize::{TensorMap, npz};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_testkit::queue_device;
use bitnet_training::TrainingError;
use bitnet_training::optim::*;
use std::path::Path;

fn golden() -> TensorMap {
    npz::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/optimizers.npz"), &Device::cpu()).unwrap()
}

const STEPS: usize = 6;

fn update(optimizer: &mut GroupedOptimizer, parameter: &mut BitNetTensor, gradient: &BitNetTensor) {
    let update = Update { name: "w".into(), parameter, gradient: gradient.clone() };
    optimizer.update(vec![update]).unwrap();
}

/// The parameter after each step of the gradients of a case.
fn steps(golden: &TensorMap, case: &str, group: Group) -> Vec<BitNetTensor> {
    let rate = group.learning_rate;
    let mut optimizer = GroupedOptimizer::new(vec![group]).unwrap();
    let mut p = golden[&format!("{case}/p0")].clone();
    let step = |t| {
        optimizer.set_learning_rate(0, rate * if t >= 4 { 2. } else { 1. });
        update(&mut optimizer, &mut p, &golden[&format!("{case}/g{t}")]);
        p.clone()
    };
    (1..=STEPS).map(step).collect()
}

/// Largest difference from the golden parameters, relative to `1 + |p|`, over all steps.
fn difference(golden: &TensorMap, case: &str, group: Group) -> f64 {
    let worst = steps(golden, case, group).into_iter().zip(1..).map(|(p, t)| {
        let expected = &golden[&format!("{case}/p{t}")];
        let relative = p.sub(expected).unwrap().abs().unwrap().div(&expected.abs().unwrap().add(1.).unwrap()).unwrap();
        relative.amax(.., false).unwrap().to_scalar().unwrap().to_f64()
    });
    worst.fold(0., f64::max)
}

#[test]
fn updates_are_those_of_pytorch_and_the_papers() {
    let golden = golden();
    let (plain, momentum) = (|m| Rule::Sgd { momentum: m, nesterov: false }, 0.9);
    let muon = |momentum, nesterov, scale| Rule::Muon { momentum, nesterov, scale };
    for (case, group, bound) in [
        ("sgd", Group::new(plain(0.), 0.1), 1e-14),
        ("sgd_decay", Group::new(plain(0.), 0.1).decayed(0.05), 1e-14),
        ("sgd_momentum", Group::new(plain(momentum), 0.1).decayed(0.05), 1e-14),
        ("sgd_nesterov", Group::new(Rule::Sgd { momentum, nesterov: true }, 0.1).decayed(0.05), 1e-14),
        ("adam", Group::new(Rule::adam(), 0.01), 1e-14),
        ("adam_decay", Group::new(Rule::Adam { betas: (0.8, 0.95), eps: 1e-6 }, 0.01).decayed(0.1), 1e-14),
        ("adamw", Group::new(Rule::adamw(), 0.01).decayed(0.1), 1e-14),
        ("adamw_betas", Group::new(Rule::AdamW { betas: (0.9, 0.95), eps: 1e-6 }, 0.01).decayed(0.5), 1e-14),
        ("adamw_f32", Group::new(Rule::adamw(), 0.01).decayed(0.1), 5e-7),
        ("adamw_8bit", Group::new(Rule::adamw(), 0.01).decayed(0.1).eight_bit(), 1e-6),
        ("lion", Group::new(Rule::lion(), 0.003).decayed(0.1), 1e-14),
        ("muon_wide_f64", Group::new(Rule::muon(), 0.02).decayed(0.1), 1e-14),
        ("muon_tall_f64", Group::new(Rule::muon(), 0.02).decayed(0.1), 1e-14),
        ("muon_plain_f64", Group::new(muon(0.9, false, MuonScale::Original), 0.02).decayed(0.1), 1e-14),
        ("muon_adamw_f64", Group::new(muon(0.95, true, MuonScale::MatchAdamW), 0.02).decayed(0.1), 1e-14),
    ] {
        let worst = difference(&golden, case, group);
        println!("{case}: {worst:.1e}");
        assert!(worst <= bound, "{case}: {worst:e} is beyond {bound:e}");
    }
}

/// In bf16 the iterations are noisy: ours are not further from the exact ones than PyTorch's.
#[test]
fn muon_in_bf16_is_as_exact_as_that_of_pytorch() {
    let golden = golden();
    for (case, rule) in [
        ("muon_wide", Rule::muon()),
        ("muon_tall", Rule::muon()),
        ("muon_plain", Rule::Muon { momentum: 0.9, nesterov: false, scale: MuonScale::Original }),
        ("muon_adamw", Rule::Muon { momentum: 0.95, nesterov: true, scale: MuonScale::MatchAdamW }),
    ] {
        // Root mean square over all steps; the inputs of both cases are the same but for f32.
        let distance = |p: &BitNetTensor, t: usize| {
            let exact = &golden[&format!("{case}_f64/p{t}")];
            let square = p.to_dtype(BitNetDType::F64).unwrap().sub(exact).unwrap().square().unwrap();
            square.mean(.., false).unwrap().item::<f64>().unwrap()
        };
        let group = Group::new(rule, 0.02).decayed(0.1);
        let ours = steps(&golden, case, group).iter().zip(1..).map(|(p, t)| distance(p, t)).sum::<f64>().sqrt();
        let theirs = (1..=STEPS).map(|t| distance(&golden[&format!("{case}/p{t}")], t)).sum::<f64>().sqrt();
        println!("{case}: {ours:.1e}, PyTorch {theirs:.1e}");
        assert!(ours <= theirs * 1.1, "{case}: {ours:e} beside {theirs:e}");
    }
}

#[test]
fn newton_schulz_changes_singular_values_only() {
    let golden = golden();
    for case in ["wide", "tall"] {
        let [x, y] = ["x", "y"].map(|part| &golden[&format!("newton_schulz_{case}/{part}")]);
        let ours = newton_schulz(x, 5, BitNetDType::F64).unwrap();
        assert!(ours.allclose(y, 1e-12, 1e-12, false).unwrap(), "{case}");
    }
}

#[test]
fn eight_bits_are_the_nearest_of_the_table() {
    let golden = golden();
    for (case, signed) in [("signed", true), ("unsigned", false)] {
        let [x, codes, scales, back] =
            ["x", "codes", "scales", "back"].map(|part| &golden[&format!("blocks_{case}/{part}")]);
        let quantized = BlockQuantized::quantize(x, signed).unwrap();
        assert!(quantized.codes().equal(codes).unwrap(), "{case}: codes");
        assert!(quantized.scales().equal(scales).unwrap(), "{case}: scales");
        assert!(quantized.dequantize(BitNetDType::F32).unwrap().equal(back).unwrap(), "{case}: values");
    }
}

/// Every rule, in full precision and 8 bits.
fn all_rules() -> Vec<Group> {
    let sgd = Rule::Sgd { momentum: 0.9, nesterov: true };
    let rules = [sgd, Rule::adam(), Rule::adamw(), Rule::lion(), Rule::muon()];
    let full = rules.map(|rule| Group::new(rule, 0.01).decayed(0.1));
    full.clone().into_iter().chain(full.map(Group::eight_bit)).collect()
}

#[test]
fn a_device_with_a_queue_updates_alike() {
    let golden = golden();
    for group in all_rules() {
        let [cpu, queue] = [Device::cpu(), queue_device()].map(|device| {
            let there = |name: &str| golden[name].to_device(&device).unwrap();
            let mut optimizer = GroupedOptimizer::new(vec![group.clone()]).unwrap();
            let mut p = there("adamw_8bit/p0");
            (1..=3).for_each(|t| update(&mut optimizer, &mut p, &there(&format!("adamw_8bit/g{t}"))));
            // Clipping reads the norm of what is left, and scales it.
            p.requires_grad_(true).unwrap();
            p.set_grad(Some(there("adamw_8bit/g4"))).unwrap();
            let norm = clip_grad_norm(&[("w".into(), &p)], 0.5).unwrap().to_scalar().unwrap().to_f64();
            let clipped = p.take_grad().unwrap();
            update(&mut optimizer, &mut p, &clipped);
            (norm, p.detach().to_cpu().unwrap())
        });
        assert!((cpu.0 - queue.0).abs() <= 1e-6 * cpu.0, "{group:?}: norms {} {}", cpu.0, queue.0);
        let apart = cpu.1.sub(&queue.1).unwrap().abs().unwrap().amax(.., false).unwrap().item::<f32>().unwrap();
        // Products of Muon are in bf16.
        let bound = if matches!(group.rule, Rule::Muon { .. }) { 3e-4 } else { 5e-7 };
        assert!(apart <= bound, "{group:?}: {apart:e}");
    }
}

/// A step with dropout and clipping that is recorded and replayed with new states of its random numbers and new rates.
#[test]
fn a_recorded_step_goes_on_as_eager_steps_do() {
    let device = queue_device();
    let seed = |step: u64| (0x1234_5678_9abc_def0 + step, step << 40);
    let start = BitNetTensor::randn(&[64, 96], BitNetDType::F32, &device, &mut Generator::new(1)).unwrap();
    let x = BitNetTensor::randn(&[8, 64], BitNetDType::F32, &device, &mut Generator::new(2)).unwrap();
    for group in all_rules() {
        let begin = || {
            let mut p = start.copy().unwrap();
            p.requires_grad_(true).unwrap();
            (GroupedOptimizer::new(vec![group.clone()]).unwrap(), p)
        };
        let gradient = |p: &BitNetTensor, generator: &mut Generator| {
            let hidden = x.dropout(0.3, generator).unwrap().matmul(p).unwrap();
            let loss = hidden.dropout(0.1, generator).unwrap().square().unwrap().mean(.., false).unwrap();
            loss.backward().unwrap();
            clip_grad_norm(&[("w".into(), p)], 0.5).unwrap();
            p.take_grad().unwrap()
        };
        let set_rate = |optimizer: &mut GroupedOptimizer, step: u64| optimizer.set_learning_rate(0, 0.01 / step as f64);
        let (mut eager, mut p) = begin();
        let mut expected = Vec::new();
        for step in 1..=6 {
            let (seed, offset) = seed(step);
            set_rate(&mut eager, step);
            let gradient = gradient(&p, &mut Generator::at(seed, offset));
            update(&mut eager, &mut p, &gradient);
            expected.push(p.to_bytes().unwrap());
        }
        let (mut optimizer, mut p) = begin();
        let words = |step| Generator::words(seed(step).0, seed(step).1);
        let mut state = BitNetTensor::from_slice(&words(1), &[4], &device).unwrap();
        set_rate(&mut optimizer, 1);
        let first = gradient(&p, &mut Generator::from_state(&state).unwrap());
        update(&mut optimizer, &mut p, &first);
        let mut got = vec![p.to_bytes().unwrap()];
        let mut graph = None;
        for step in 2..=6 {
            state.write_slice(&words(step)).unwrap();
            set_rate(&mut optimizer, step);
            optimizer.advance().unwrap();
            match &graph {
                None => {
                    let mut once = || {
                        let gradient = gradient(&p, &mut Generator::from_state(&state)?);
                        let update = Update { name: "w".into(), parameter: &mut p, gradient };
                        optimizer.apply(vec![update]).unwrap();
                        Ok(())
                    };
                    graph = device.record(&mut once).unwrap();
                    assert!(graph.is_some(), "this device records");
                }
                Some(graph) => graph.replay().unwrap(),
            }
            got.push(p.to_bytes().unwrap());
        }
        assert!(got == expected, "{group:?}");
        assert!(expected.windows(2).all(|pair| pair[0] != pair[1]), "{group:?}");
    }
}

#[test]
fn eight_bit_forms_are_those_of_the_cpu_on_every_device() {
    for (elements, signed) in [(256, true), (1000, true), (1000, false), (1, false)] {
        let x = BitNetTensor::randn(&[elements], BitNetDType::F32, &Device::cpu(), &mut Generator::new(5)).unwrap();
        let x = if signed { x } else { x.square().unwrap() };
        let [cpu, queue] = [Device::cpu(), queue_device()].map(|device| {
            let blocks = BlockQuantized::quantize(&x.to_device(&device).unwrap(), signed).unwrap();
            let back = blocks.dequantize(BitNetDType::F32).unwrap();
            [blocks.codes(), blocks.scales(), &back].map(|x| x.to_bytes().unwrap())
        });
        assert!(cpu == queue, "{elements} {signed}");
    }
}

#[test]
fn a_saved_state_continues_bit_for_bit() {
    let golden = golden();
    let gradient = |t: usize| &golden[&format!("adamw_8bit/g{t}")];
    for group in all_rules() {
        let mut optimizer = GroupedOptimizer::new(vec![group.clone()]).unwrap();
        let mut p = golden["adamw_8bit/p0"].clone();
        (1..=3).for_each(|t| update(&mut optimizer, &mut p, gradient(t)));
        // Through a file, as a checkpoint is.
        let state = optimizer.state().unwrap();
        let path = std::env::temp_dir().join(format!("bitnet-optimizer-{}.safetensors", std::process::id()));
        bitnet_core::serialize::safetensors::save(&path, &state.tensors, &[]).unwrap();
        let tensors = bitnet_core::serialize::safetensors::load(&path, &Device::cpu()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut resumed = GroupedOptimizer::new(vec![group.clone()]).unwrap();
        resumed.load_state(OptimizerState { step: state.step, tensors }).unwrap();
        let mut q = p.clone();
        for t in 4..=STEPS {
            update(&mut optimizer, &mut p, gradient(t));
            update(&mut resumed, &mut q, gradient(t));
        }
        assert_eq!(p.to_bytes().unwrap(), q.to_bytes().unwrap(), "{group:?}");
        assert_eq!(resumed.state().unwrap().step, STEPS as u64);
    }
}

#[test]
fn a_state_of_another_run_is_an_error() {
    let golden = golden();
    let adamw = || GroupedOptimizer::new(vec![Group::new(Rule::adamw(), 0.01)]).unwrap();
    let mut optimizer = adamw();
    let mut p = golden["adamw_f32/p0"].clone();
    update(&mut optimizer, &mut p, &golden["adamw_f32/g1"]);
    let state = optimizer.state().unwrap();
    let refused = |optimizer: &mut GroupedOptimizer, state| match optimizer.load_state(state) {
        Err(TrainingError::OptimizerState { tensor, .. }) => tensor,
        other => panic!("{other:?}"),
    };
    let mut lion = GroupedOptimizer::new(vec![Group::new(Rule::lion(), 0.01)]).unwrap();
    assert_eq!(refused(&mut lion, state.clone()), "w.exp_avg_sq");
    let mut short = state.clone();
    short.tensors.shift_remove("w.exp_avg");
    assert_eq!(refused(&mut adamw(), short), "w.exp_avg");
    // Of another shape: told at the first update.
    let mut resumed = adamw();
    resumed.load_state(state).unwrap();
    let (mut p, gradient) = (golden["sgd/p0"].clone(), golden["sgd/g1"].clone());
    let update = Update { name: "w".into(), parameter: &mut p, gradient };
    assert!(matches!(resumed.update(vec![update]), Err(TrainingError::OptimizerState { .. })));
}

#[test]
fn groups_take_parameters_by_name() {
    let cpu = Device::cpu();
    let one = || BitNetTensor::from_slice(&[1f32, 1., 1., 1.], &[2, 2], &cpu).unwrap();
    let zero = BitNetTensor::zeros(&[2, 2], BitNetDType::F32, &cpu).unwrap();
    let sgd = Rule::Sgd { momentum: 0., nesterov: false };
    let groups = vec![Group::new(sgd, 1.).matching(&["*norm*", "*.bias"]), Group::new(sgd, 0.5).decayed(0.5)];
    let mut optimizer = GroupedOptimizer::new(groups).unwrap();
    let (mut norm, mut up) = (one(), one());
    let updates = [("a.norm.weight", &mut norm), ("a.up.weight", &mut up)].map(|(name, parameter)| Update {
        name: name.into(),
        parameter,
        gradient: zero.clone(),
    });
    optimizer.update(updates.into()).unwrap();
    assert_eq!(norm.to_vec::<f32>().unwrap(), [1.; 4]);
    assert_eq!(up.to_vec::<f32>().unwrap(), [0.75; 4]);

    let mut only_norms = GroupedOptimizer::new(vec![Group::new(sgd, 1.).matching(&["*norm*"])]).unwrap();
    let update = Update { name: "up.weight".into(), parameter: &mut up, gradient: zero.clone() };
    assert!(matches!(only_norms.update(vec![update]), Err(TrainingError::NoGroup { .. })));
    let mut muon = GroupedOptimizer::new(vec![Group::new(Rule::muon(), 1.)]).unwrap();
    let mut vector = one().reshape(&[4]).unwrap();
    let update = Update { name: "bias".into(), parameter: &mut vector, gradient: zero.reshape(&[4]).unwrap() };
    assert!(matches!(muon.update(vec![update]), Err(TrainingError::NotAMatrix { .. })));
    let mut half = one().to_dtype(BitNetDType::BF16).unwrap();
    let update = Update { name: "w".into(), parameter: &mut half, gradient: zero };
    assert!(matches!(optimizer.update(vec![update]), Err(TrainingError::ParameterDType { .. })));
}
