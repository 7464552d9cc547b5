//! Conversions keep ternary values, scales and logits; what cannot be converted is refused.

use bitnet_core::Device;
use bitnet_inference::{Model, Session};
use bitnet_model::Config;
use bitnet_model::checkpoint::{
    Checkpoint, DenseTensor, LinearSource, Norm, OpenOptions, Projection, WeightSource, Weights,
};
use bitnet_model::convert::{Embeddings, Target, convert};
use bitnet_quant::{TernaryCodes, TernaryScales};
use bitnet_testkit::golden::{self, Golden, relative_error};
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn logits(checkpoint: &Checkpoint, golden: &Golden) -> Vec<f32> {
    let model = Arc::new(Model::load(checkpoint.weights(), &Device::cpu(), |_, _| ()).unwrap());
    let mut session = Session::new(model, golden.greedy_ids.len()).unwrap();
    let mut all = Vec::new();
    session.feed_all(&golden.input_ids, |_, logits| all.extend_from_slice(logits)).unwrap();
    all
}

/// Every ternary layer of both: equal codes, equal scales.
fn assert_same_ternary(a: &Checkpoint, b: &Checkpoint, name: &str) {
    let mut compared = 0;
    for layer in 0..a.weights().config().layers {
        for projection in Projection::ALL {
            let (x, y) =
                (a.weights().linear(layer, projection).unwrap(), b.weights().linear(layer, projection).unwrap());
            match (x.weight, y.weight) {
                (WeightSource::Ternary { codes: c, scales: s }, WeightSource::Ternary { codes: d, scales: t }) => {
                    assert_eq!(c, d, "{name}: codes of layer {layer} {projection:?}");
                    assert_eq!(s, t, "{name}: scales of layer {layer} {projection:?}");
                    compared += 1;
                }
                (WeightSource::Dense(d), WeightSource::Dense(e)) => assert_eq!(d.to_f32(), e.to_f32(), "{name}"),
                _ => panic!("{name}: layer {layer} {projection:?} changed its kind"),
            }
        }
    }
    let dense = a.format().ends_with("not quantized") || name == "mlx-llama";
    assert!(compared > 0 || dense, "{name}: nothing ternary to compare");
}

#[test]
fn hugging_face_forms_survive_packing() {
    let folder = tempfile::tempdir().unwrap();
    for path in golden::checkpoints() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let out = folder.path().join(&name);
        let (before, golden) = (open(&path), Golden::read(&path));
        let unwritten = [
            ("glm4", "one matrix"),
            ("gemma3", "embedding"),
            ("qwen3-moe", "experts"),
            ("maple", "experts"),
            ("qwen35", "state"),
        ];
        if let Some((_, why)) = unwritten.into_iter().find(|(family, _)| name.starts_with(family)) {
            let refused = convert(&before, &out, Target::HuggingFace, Embeddings::F16, &mut |_, _| ()).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
            continue;
        }
        convert(&before, &out, Target::HuggingFace, Embeddings::F16, &mut |_, _| ())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let after = open(&out);
        assert_same_ternary(&before, &after, &name);
        let error = relative_error(&logits(&after, &golden), &golden.logits);
        assert!(error <= 1e-3, "{name}: logits differ by {error:e}");
    }
}

#[test]
fn gguf_files_survive_every_target() {
    let folder = tempfile::tempdir().unwrap();
    let targets = [Target::I2S, Target::Tq1_0, Target::Tq2_0, Target::HuggingFace];
    for (path, golden) in golden::gguf_files() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        // The first three have nothing ternary to compare; the last needs its own option.
        let dense = !name.contains("tq") && !name.contains("i2_s")
            || ["block-scales", "f64", "outliers"].iter().any(|n| name.contains(n));
        // Gemma 3 is not written.
        if dense || name.contains("arm") || name.starts_with("gemma3") {
            continue;
        }
        let before = open(&path);
        // A norm in each projection: a directory alone can say it.
        let own_norms = name.contains("embedding");
        for target in targets.into_iter().filter(|target| !own_norms || *target == Target::HuggingFace) {
            let out = folder.path().join(format!("{name}-{target:?}"));
            convert(&before, &out, target, Embeddings::F16, &mut |_, _| ()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let after = open(&out);
            assert_same_ternary(&before, &after, &format!("{name} to {target:?}"));
            // Rounding the embedding to another type changes the model.
            let kept = before.weights().embedding().unwrap().dtype == after.weights().embedding().unwrap().dtype;
            if kept || target == Target::HuggingFace {
                let error = relative_error(&logits(&after, &golden), &golden.logits);
                assert!(error <= 1e-3, "{name} to {target:?}: logits differ by {error:e}");
            }
        }
    }
}

/// A model whose linear layers are a function of those of another.
struct Mapped<F>(Box<dyn Weights>, F);

impl<F: Fn(LinearSource) -> LinearSource + Send + Sync> Weights for Mapped<F> {
    fn config(&self) -> &Config {
        self.0.config()
    }
    fn embedding(&self) -> bitnet_model::Result<DenseTensor> {
        self.0.embedding()
    }
    fn head(&self) -> bitnet_model::Result<Option<LinearSource>> {
        self.0.head()
    }
    fn norm(&self, norm: Norm) -> bitnet_model::Result<Vec<f32>> {
        self.0.norm(norm)
    }
    fn linear(&self, layer: usize, projection: Projection) -> bitnet_model::Result<LinearSource> {
        self.0.linear(layer, projection).map(&self.1)
    }
    fn release(&self, layer: usize) {
        self.0.release(layer);
    }
}

/// The same weights with the scale of group `g` of row `r` multiplied by a power of two; `binary`: zeros become +1.
fn changed(path: &Path, group: Option<usize>, binary: bool) -> Checkpoint {
    let change = move |source: LinearSource| {
        let WeightSource::Ternary { codes, scales } = source.weight else { panic!("a ternary model") };
        let (rows, cols) = (codes.rows(), codes.cols());
        let weights = codes.to_weights().into_iter().map(|w| if binary && w == 0 { 1 } else { w });
        let codes = TernaryCodes::from_weights(rows, cols, &weights.collect::<Vec<_>>()).unwrap();
        let scales = match group {
            None => scales,
            Some(group) => {
                let factor = |i: usize| (1 << ((i / (cols / group) + i) % 3)) as f32;
                let scale = half::f16::from_f32(scales.one().unwrap()).to_f32();
                let values = (0..rows * cols / group).map(|i| scale * factor(i)).collect();
                TernaryScales::groups(values, group, &codes).unwrap()
            }
        };
        LinearSource { weight: WeightSource::Ternary { codes, scales }, ..source }
    };
    open(path).map_weights(|weights| Box::new(Mapped(weights, change)))
}

const TARGETS: [Target; 9] = [
    Target::I2S,
    Target::Tq1_0,
    Target::Tq2_0,
    Target::Q2_0,
    Target::Pq2_0,
    Target::Ptq1_0,
    Target::Q1_0,
    Target::HuggingFace,
    Target::Mlx,
];

/// Every format gives back the codes and scales of the source, whatever it is written from: so do all pairs.
#[test]
fn every_format_gives_back_what_it_was_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let source = changed(&golden::folder().join("gguf/bitnet-b1.58-i2_s.gguf"), None, true);
    for (first, second) in TARGETS.into_iter().zip(TARGETS.into_iter().cycle().skip(1)) {
        let between = folder.path().join(format!("{first:?}"));
        convert(&source, &between, first, Embeddings::F16, &mut |_, _| ()).unwrap();
        let between = open(&between);
        assert_same_ternary(&source, &between, &format!("{first:?}"));
        let ids = |checkpoint: &Checkpoint| checkpoint.tokenizer().unwrap().encode("Hello the end in", true).unwrap();
        let out = folder.path().join(format!("{first:?}-{second:?}"));
        convert(&between, &out, second, Embeddings::F16, &mut |_, _| ()).unwrap();
        let after = open(&out);
        assert_same_ternary(&source, &after, &format!("{first:?} to {second:?}"));
        assert_eq!(ids(&source), ids(&after), "{first:?} to {second:?}");
    }
}

/// Scales of groups are kept by a type whose blocks divide them; else the reason is said.
#[test]
fn what_a_format_cannot_hold_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = golden::folder().join("gguf/llama-tq2_0.gguf");
    let refusal = |source: &Checkpoint, target: Target| {
        let out = folder.path().join("refused");
        let refused = convert(source, &out, target, Embeddings::F16, &mut |_, _| ()).unwrap_err().to_string();
        assert!(!out.join("model.safetensors").exists() && !out.is_file(), "{target:?}");
        refused
    };
    for (group, held) in [
        (64, &[Target::Q2_0, Target::Mlx][..]),
        (128, &[Target::Q2_0, Target::Mlx, Target::Pq2_0, Target::Ptq1_0]),
        (256, &[Target::Q2_0, Target::Mlx, Target::Pq2_0, Target::Ptq1_0, Target::Tq1_0, Target::Tq2_0]),
    ] {
        let source = changed(&path, Some(group), false);
        for target in TARGETS {
            if held.contains(&target) {
                let out = folder.path().join(format!("{group}-{target:?}"));
                convert(&source, &out, target, Embeddings::F16, &mut |_, _| ()).unwrap();
                assert_same_values(&source, &open(&out), &format!("{group} to {target:?}"));
                continue;
            }
            let message = refusal(&source, target);
            let reason = if target == Target::Q1_0 && group > 64 { "-1 and +1 only" } else { "has one" };
            assert!(
                message.contains(reason) && message.contains("attn") | message.contains("self_attn"),
                "{target:?}: {message}"
            );
        }
    }
    // A scale that f16 would round is stored apart, but not one for each row.
    let third = |source: LinearSource| {
        let WeightSource::Ternary { codes, .. } = source.weight else { panic!("a ternary model") };
        let values = (0..codes.rows()).map(|row| 1. / (row + 3) as f32).collect();
        let scales = TernaryScales::groups(values, codes.cols(), &codes).unwrap();
        LinearSource { weight: WeightSource::Ternary { codes, scales }, ..source }
    };
    let source = open(&path).map_weights(|weights| Box::new(Mapped(weights, third)));
    assert!(refusal(&source, Target::Q2_0).contains("f16 would round"));
    let out = folder.path().join("thirds");
    convert(&source, &out, Target::Mlx, Embeddings::F16, &mut |_, _| ()).unwrap();
    assert_same_values(&source, &open(&out), "thirds in f32");
    let zeros = changed(&path, None, false);
    assert!(refusal(&zeros, Target::Q1_0).contains("-1 and +1 only"));
}

/// The values of every layer of both, whether packed or dense.
fn assert_same_values(a: &Checkpoint, b: &Checkpoint, name: &str) {
    let values = |checkpoint: &Checkpoint, layer, projection| match checkpoint
        .weights()
        .linear(layer, projection)
        .unwrap()
        .weight
    {
        WeightSource::Dense(dense) => dense.to_f32(),
        WeightSource::Ternary { codes, scales } => {
            let cols = codes.cols();
            let value = |(i, w): (usize, i8)| f32::from(w) * scales.at(i / cols, i % cols, cols);
            codes.to_weights().into_iter().enumerate().map(value).collect()
        }
    };
    for layer in 0..a.weights().config().layers {
        for projection in Projection::ALL {
            assert_eq!(values(a, layer, projection), values(b, layer, projection), "{name}: {layer} {projection:?}");
        }
    }
}

/// Other architectures and rotary kinds are written as they are read.
#[test]
fn families_survive_gguf() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "qwen2-q8_0",
        "qwen2-rope-yarn",
        "qwen3-q2_0-g128",
        "hunyuan-f16",
        "minicpm-longrope",
        "minicpm-no-keys",
        "llama-rope-longrope",
    ] {
        let path = golden::folder().join("gguf").join(format!("{name}.gguf"));
        let (before, golden) = (open(&path), Golden::read(&path.with_extension("golden.safetensors")));
        let out = folder.path().join(name);
        convert(&before, &out, Target::Pq2_0, Embeddings::F32, &mut |_, _| ())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let after = open(&out);
        assert_same_values(&before, &after, name);
        let error = relative_error(&logits(&after, &golden), &logits(&before, &golden));
        // Embeddings and heads of 8 bits are multiplied with 16-bit activations, those of f32 are not.
        assert!(error <= 1e-4, "{name}: {error:e}");
    }
}

#[test]
fn rotary_kinds_that_gguf_files_are_not_written_with_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama-rope-dynamic", "gemma3"] {
        let (checkpoint, out) = (open(&golden::folder().join(name)), folder.path().join("model.gguf"));
        let refused = convert(&checkpoint, &out, Target::Tq2_0, Embeddings::F16, &mut |_, _| ()).unwrap_err();
        assert!(refused.to_string().contains("--to hf"), "{refused}");
        assert!(!out.exists(), "{name}");
    }
}

#[test]
fn rows_that_are_not_whole_blocks_are_refused_with_what_fits() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    let checkpoint = open(&golden::folder().join("bitnet-offline"));
    for (target, embeddings, fits) in [
        (Target::Tq2_0, Embeddings::F16, "--to hf"),
        (Target::I2S, Embeddings::F16, "--to hf"),
        (Target::I2S, Embeddings::Q6K, "--embeddings"),
    ] {
        let message = convert(&checkpoint, &out, target, embeddings, &mut |_, _| ()).unwrap_err().to_string();
        assert!(message.contains(fits), "{message}");
        assert!(!out.exists(), "a refused conversion leaves nothing behind");
    }
}
