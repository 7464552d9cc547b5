//! A run from its configuration to its end, interrupted and resumed.

use bitnet_core::Device;
use bitnet_training::config::ConfigSource;
use bitnet_training::export::{Masters, Which};
use bitnet_training::{End, Observer, Outcome, Result, RunDirectory, StepReport, TrainingRun};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-training-run-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        // A language of which most is known from the character before.
        let words = ["the wolf ", "seven kids ", "the mill ", "and then ", "golden "];
        let text: String = (0..2000usize).map(|i| words[i * i % 7 % 5]).collect();
        fs::write(path.join("text.txt"), text).unwrap();
        Self(path)
    }

    /// A configuration of the text here; `more` is appended to sections.
    fn config(&self, data: &str, training: &str) -> ConfigSource {
        let text = self.0.join("text.txt").display().to_string();
        let text = format!(
            "[model]\nhidden_size = 32\nintermediate_size = 64\nlayers = 2\nheads = 2\ncontext = 16\ndropout = 0.1\n\
             [quantization]\nlambda_steps = 5\n[tokenizer]\nkind = \"char\"\n\
             [data]\ntrain = ['{text}']\nvalidation_fraction = 0.1\n{data}\n\
             [schedule]\nlearning_rate = 1e-2\nwarmup = 5\n\
             [training]\nsteps = 24\nbatch = 4\nthreads = 2\neval_every = 8\ncheckpoint_every = 8\nlog_every = 1\n\
             eval_batches = 4\n{training}\n"
        );
        ConfigSource::new(&text, "test.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sets a flag after some updates, as Ctrl-C would.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn step(&mut self, report: &StepReport) {
        if report.step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

fn start(config: &ConfigSource, directory: &Path) -> Result<TrainingRun> {
    TrainingRun::start(config, directory, &mut |_, _| Ok(()))
}

fn resume(directory: &Path, step: Option<u64>) -> Result<TrainingRun> {
    TrainingRun::resume(directory, step, &mut |_, _| Ok(()))
}

fn finish(mut run: TrainingRun) -> Outcome {
    run.train(&mut (), &AtomicBool::new(false)).unwrap()
}

/// The tensors and the state of the newest checkpoint.
fn newest(directory: &Path) -> (Vec<u8>, String) {
    let step = RunDirectory::open(directory, 2).unwrap().steps().unwrap().pop().unwrap();
    let folder = directory.join(format!("checkpoints/step-{step:06}"));
    (fs::read(folder.join("tensors.safetensors")).unwrap(), fs::read_to_string(folder.join("state.json")).unwrap())
}

/// Losses by step, as the file has them.
fn losses(directory: &Path) -> Vec<(u64, f64)> {
    metric(directory, "train/loss")
}

fn metric(directory: &Path, name: &str) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(directory.join("metrics.jsonl")).unwrap();
    let values = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    values.filter_map(|v| Some((v["step"].as_u64()?, v[name].as_f64()?))).collect()
}

#[test]
fn a_run_learns_and_leaves_what_it_should() {
    let folder = Folder::new("learns");
    let directory = folder.0.join("run");
    let config =
        folder.config("", "ema = 0.9").text().replace("steps = 24", "steps = 100").replace("dropout = 0.1", "");
    let outcome = finish(start(&ConfigSource::new(&config, "test.toml"), &directory).unwrap());
    assert_eq!((outcome.end, outcome.step), (End::Finished, 100));
    let losses = losses(&directory);
    assert_eq!(losses.len(), 100);
    // From the entropy of the alphabet to below what one character tells of the next (0.77 nats).
    assert!(losses[0].1 > 2.7 && losses[99].1 < 0.6, "{losses:?}");
    let (flips, zeros) = (metric(&directory, "ternary/flips"), metric(&directory, "ternary/zeros"));
    assert!(flips.len() == 100 && flips[50].1 > 0. && flips.iter().all(|f| f.1 < 0.2), "{flips:?}");
    // Of normal weights 31 % lie below half of their mean magnitude.
    assert!((0.25..0.4).contains(&zeros[0].1), "{zeros:?}");
    for name in ["config.toml", "tokenizer.json", "data/train-0-0.1.tokens", "curves.svg", "best/state.json"] {
        assert!(directory.join(name).is_file(), "{name}");
    }
    let run = RunDirectory::open(&directory, 2).unwrap();
    assert_eq!(run.steps().unwrap(), [96, 100]);
    assert_eq!(run.best(&Device::cpu()).unwrap().unwrap().step, outcome.best.unwrap().0);
}

/// Stopped, killed, and stopped again: the last checkpoint and all losses are those of a run that never was, bit for bit.
#[test]
fn a_resumed_run_is_the_run_that_was_not_interrupted() {
    for data in ["order = 'random'", "order = 'shuffled'\npacking = 'packed'\ndocument_end = 'mill '"] {
        let folder = Folder::new("resumed");
        let (whole, parts) = (folder.0.join("whole"), folder.0.join("parts"));
        let config = folder.config(data, "ema = 0.9\naccumulate = 2");
        finish(start(&config, &whole).unwrap());

        let stop = AtomicBool::new(false);
        let mut run = start(&config, &parts).unwrap();
        let outcome = run.train(&mut StopAfter(11, &stop), &stop).unwrap();
        assert_eq!((outcome.end, outcome.step), (End::Stopped, 11));
        drop(run);
        // Killed after more updates: the checkpoint of 16 stands, what was reported after it is made again.
        let stop = AtomicBool::new(false);
        let mut run = resume(&parts, None).unwrap();
        assert_eq!(run.trainer().step(), 11);
        run.train(&mut StopAfter(19, &stop), &stop).unwrap();
        drop(run);
        fs::remove_dir_all(parts.join("checkpoints/step-000019")).unwrap();
        fs::create_dir(parts.join("checkpoints/.step-000020.partial")).unwrap();
        let run = resume(&parts, None).unwrap();
        assert_eq!(run.trainer().step(), 16);
        let outcome = finish(run);
        assert_eq!((outcome.end, outcome.step), (End::Finished, 24));

        assert!(newest(&whole) == newest(&parts), "the last checkpoints differ");
        assert_eq!(losses(&whole), losses(&parts));
        // And from a step that the user names.
        drop(resume(&parts, Some(16)).unwrap());
        let message = resume(&parts, Some(8)).unwrap_err().to_string();
        assert!(message.contains("no such checkpoint"), "{message}");
    }
}

#[test]
fn a_checkpoint_of_another_model_or_other_data_is_refused_and_stays_as_it_is() {
    let folder = Folder::new("other");
    let directory = folder.0.join("run");
    finish(start(&folder.config("", ""), &directory).unwrap());
    let message = start(&folder.config("", ""), &directory).unwrap_err().to_string();
    assert!(message.contains("there is a run already"), "{message}");
    let path = directory.join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    let shape = fs::read(directory.join("config.json")).unwrap();
    for (old, new, says) in [
        ("layers = 2", "layers = 1", "model.layers is 1, but"),
        ("hidden_size = 32", "hidden_size = 64", "model.hidden_size is 64, but"),
        ("heads = 2", "heads = 4", "model.heads is 4, but"),
        ("context = 16", "context = 8", "model.context is 8, but"),
        ("dropout = 0.1", "activation = 'silu'", "model.activation is silu, but"),
        ("dropout = 0.1", "rope_theta = 500.0", "model.rope_theta is 500, but"),
        ("dropout = 0.1", "tie_embeddings = false", "model.tie_embeddings is false, but"),
        ("dropout = 0.1", "norm_eps = 1e-6", "model.norm_eps is 0.000001, but"),
        ("[quantization]", "[quantization]\nenabled = false", "quantization.enabled is false, but"),
        ("[quantization]", "[quantization]\nsub_norm = false", "quantization.sub_norm is false, but"),
        ("kind = \"char\"", "kind = \"bytes\"", "tokenizer.kind is Some(Bytes), but"),
        ("validation_fraction = 0.1", "validation_fraction = 0.2", "go on with the data"),
        ("layers = 2", "layer = 2", "did you mean layers?"),
        ("[quantization]", "[quantization]\nweights = 'absmedian'", "was trained with absmean"),
    ] {
        assert!(text.contains(old), "{old}");
        fs::write(&path, text.replacen(old, new, 1)).unwrap();
        let message = resume(&directory, None).unwrap_err().to_string();
        assert!(message.contains(says) && !message.contains('\n'), "{new}: {message}");
        assert!(fs::read(directory.join("config.json")).unwrap() == shape, "{new}: config.json was rewritten");
    }
    // More steps are no other run.
    fs::write(&path, text.replacen("steps = 24", "steps = 26", 1)).unwrap();
    assert_eq!(finish(resume(&directory, None).unwrap()).step, 26);
    // Random numbers of another version, as all were before the version was kept.
    let state = directory.join("checkpoints/step-000026/state.json");
    let kept = fs::read_to_string(&state).unwrap();
    for (old, new) in [("\"random\": 1", "\"random\": 2"), ("\"random\": 1,", "")] {
        assert!(kept.contains(old), "{kept}");
        fs::write(&state, kept.replacen(old, new, 1)).unwrap();
        let message = resume(&directory, None).unwrap_err().to_string();
        assert!(message.contains("random numbers of version") && message.contains("begin another run"), "{message}");
    }
    fs::write(&state, kept).unwrap();
    // Another tokenizer in the place of its own.
    let tokenizer = directory.join("tokenizer.json");
    let own = fs::read_to_string(&tokenizer).unwrap();
    fs::write(&tokenizer, own.replacen("\"w\"", "\"X\"", 1)).unwrap();
    assert!(resume(&directory, None).is_err());
}

/// What stands in the directory of the run may change: a checkpoint is of the model that it was trained as.
#[test]
fn an_export_is_of_the_configuration_that_the_checkpoint_was_trained_with() {
    let folder = Folder::new("own");
    let directory = folder.0.join("run");
    finish(start(&folder.config("", ""), &directory).unwrap());
    let (before, _) = Masters::from_run(&directory, Which::Latest).unwrap();
    let shape = fs::read_to_string(directory.join("config.json")).unwrap();
    fs::write(directory.join("config.json"), shape.replace("relu2", "silu")).unwrap();
    fs::remove_file(directory.join("tokenizer.json")).unwrap();
    for which in [Which::Latest, Which::Best, Which::Step(16), Which::Average(2)] {
        let (after, _) = Masters::from_run(&directory, which).unwrap();
        assert_eq!(after.config, before.config, "{which:?}");
        assert!(after.tokenizer.is_some(), "{which:?}");
    }
}

#[test]
fn the_mean_of_the_newest_checkpoints_is_exported() {
    let folder = Folder::new("average");
    let directory = folder.0.join("run");
    let run = start(&folder.config("", ""), &directory).unwrap();
    assert!(Masters::from_run(&directory, Which::Average(1)).is_err(), "there is no checkpoint yet");
    finish(run);
    let of = |which| Masters::from_run(&directory, which).unwrap().0.tensors;
    let (first, second, mean) = (of(Which::Step(16)), of(Which::Step(24)), of(Which::Average(2)));
    for (name, x) in &mean {
        let expected = first[name].add(&second[name]).unwrap().mul(0.5).unwrap();
        assert!(x.allclose(&expected, 1e-6, 1e-7, false).unwrap(), "{name}");
    }
    let message = Masters::from_run(&directory, Which::Average(3)).unwrap_err().to_string();
    assert!(message.contains("3 checkpoints were asked for, but the run has 2"), "{message}");
}

#[test]
fn a_run_that_is_stopped_while_it_starts_has_a_checkpoint() {
    let folder = Folder::new("stopped");
    let directory = folder.0.join("run");
    let stop = AtomicBool::new(true);
    let outcome = start(&folder.config("", ""), &directory).unwrap().train(&mut (), &stop).unwrap();
    assert_eq!((outcome.end, outcome.step), (End::Stopped, 0));
    let run = resume(&directory, None).unwrap();
    assert_eq!(run.directory().steps().unwrap(), [0]);
    assert_eq!(finish(run).step, 24);
}

#[test]
fn unusable_training_data_is_named_and_no_directory_is_left() {
    let folder = Folder::new("bad");
    let directory = folder.0.join("run");
    let good = folder.config("", "");
    let absent = good.text().replace("text.txt", "absent.txt");
    let deep = folder.0.join("runs/deep/run");
    for directory in [&directory, &deep] {
        let message = start(&ConfigSource::new(&absent, "test.toml"), directory).unwrap_err().to_string();
        assert!(message.contains("absent.txt"), "{message}");
        assert!(!directory.exists() && !folder.0.join("runs").exists(), "an empty directory is left");
    }
    // Text that was cut in the middle of a character.
    let text = folder.0.join("text.txt");
    let whole = fs::read(&text).unwrap();
    fs::write(&text, [&whole[..], &[0xe2, 0x80]].concat()).unwrap();
    let message = start(&good, &directory).unwrap_err().to_string();
    assert!(message.contains("text.txt") && message.contains("not UTF-8"), "{message}");
    fs::write(&text, "too short").unwrap();
    let message = start(&good, &directory).unwrap_err().to_string();
    assert!(message.contains("make no row of 16"), "{message}");
    fs::write(&text, whole).unwrap();
    drop(start(&good, &directory).unwrap());
    // A token file that is cut short afterwards.
    let tokens = directory.join("data/train-0-0.1.tokens");
    let bytes = fs::read(&tokens).unwrap();
    fs::write(&tokens, &bytes[..bytes.len() / 2]).unwrap();
    let message = resume(&directory, None).unwrap_err().to_string();
    assert!(message.contains("train-0-0.1.tokens") && message.contains("cut short"), "{message}");
}
