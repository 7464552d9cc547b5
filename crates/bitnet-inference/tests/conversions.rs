//! Conversions keep ternary values, scales and logits; what cannot be converted is refused.

use bitnet_core::Device;
use bitnet_inference::{Model, Session};
use bitnet_model::checkpoint::{Checkpoint, OpenOptions, Projection, WeightSource};
use bitnet_model::convert::{Embeddings, Target, convert};
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
        if name == "glm4" {
            let refused = convert(&before, &out, Target::HuggingFace, Embeddings::F16, &mut |_, _| ()).unwrap_err();
            assert!(refused.to_string().contains("one matrix"), "{refused}");
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
        let dense =
            !name.contains("tq") && !name.contains("i2_s") || ["block-scales", "f64"].iter().any(|n| name.contains(n));
        if dense || name.contains("arm") {
            continue;
        }
        let before = open(&path);
        for target in targets {
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

#[test]
fn rotary_kinds_that_gguf_files_are_not_written_with_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama-rope-yarn", "llama-rope-dynamic", "llama-rope-longrope"] {
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
