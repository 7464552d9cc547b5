//! Runs that go on from a model: a dense one made ternary, adapters, a teacher; interrupted, resumed and exported.

use bitnet_core::Device;
use bitnet_model::config::Architecture;
use bitnet_training::config::ConfigSource;
use bitnet_training::export::{Masters, Which};
use bitnet_training::{Observer, RunDirectory, StepReport, TrainingRun};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sets a flag after some updates, as Ctrl-C would.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn step(&mut self, report: &StepReport) {
        if report.step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

fn train(config: &str, directory: &Path, stop_after: u64) {
    let stop = AtomicBool::new(false);
    let source = ConfigSource::new(config, "test.toml");
    let mut run = TrainingRun::start(&source, directory, &mut |_, _| Ok(())).unwrap();
    run.train(&mut StopAfter(stop_after, &stop), &stop).unwrap();
    if stop.load(Ordering::Relaxed) {
        drop(run);
        let mut run = TrainingRun::resume(directory, None, &mut |_, _| Ok(())).unwrap();
        run.train(&mut (), &AtomicBool::new(false)).unwrap();
    }
}

/// The tensors of the newest checkpoint.
fn newest(directory: &Path) -> Vec<u8> {
    let step = RunDirectory::open(directory, 2).unwrap().steps().unwrap().pop().unwrap();
    fs::read(directory.join(format!("checkpoints/step-{step:06}/tensors.safetensors"))).unwrap()
}

#[test]
fn runs_that_go_on_from_a_model_resume_and_export() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let words = ["the wolf ", "seven kids ", "the mill ", "and then ", "golden "];
    let text: String = (0..2000usize).map(|i| words[i * i % 7 % 5]).collect();
    fs::write(at("text.txt"), text).unwrap();
    let data = format!("[data]\ntrain = ['{}']\nvalidation_fraction = 0.1\n", at("text.txt").display());
    let rest = "[schedule]\nlearning_rate = 1e-2\n[training]\nsteps = 12\nbatch = 4\nthreads = 2\neval_every = 4\n\
        eval_batches = 2\ncheckpoint_every = 4\nlog_every = 1\n";
    let dense = format!(
        "[model]\nhidden_size = 32\nintermediate_size = 64\nlayers = 2\nheads = 2\ncontext = 16\nactivation = 'silu'\n\
         [quantization]\nenabled = false\nsub_norm = false\n[tokenizer]\nkind = 'char'\n{data}{rest}"
    );
    train(&dense, &at("dense"), 0);
    let (masters, step) = Masters::from_run(&at("dense"), Which::Latest).unwrap();
    assert_eq!((step, masters.config.architecture), (12, Architecture::Llama));
    assert!(masters.tokenizer.is_some() && masters.config.quantization.is_none());
    masters.write_hugging_face(&at("base")).unwrap();

    let base = at("base").display().to_string();
    for (name, more) in [
        ("ternary", String::new()),
        ("lora", "[lora]\nrank = 2\ntargets = ['q_proj', 'down_proj']\n".to_owned()),
        ("distill", format!("[distill]\nteacher = '{base}'\nrelations = 1.0\n")),
    ] {
        let quantization = "[quantization]\nsub_norm = true\nlambda_steps = 5\n";
        let config = format!("[model]\ninit = '{base}'\n{quantization}{data}{more}{rest}");
        let (whole, parts) = (at(&format!("{name}-whole")), at(&format!("{name}-parts")));
        train(&config, &whole, 0);
        train(&config, &parts, 6);
        assert!(newest(&whole) == newest(&parts), "{name}: the resumed run is another");

        let (exported, step) = Masters::from_run(&whole, Which::Latest).unwrap();
        assert_eq!((step, exported.config.architecture), (12, Architecture::BitNet), "{name}");
        assert!(exported.config.quantization.is_some() && exported.tokenizer.is_some(), "{name}");
        // It can be written, read and gone on from.
        exported.write_hugging_face(&at(name)).unwrap();
        let again = Masters::from_hugging_face(&at(name), &Device::cpu()).unwrap();
        assert_eq!(again.config, exported.config, "{name}");
        let before = &masters.tensors;
        for (tensor, value) in &exported.tensors {
            assert!(again.tensors[tensor].equal(value).unwrap(), "{name} {tensor}");
            let Some(old) = before.get(tensor) else { continue };
            let adapted = tensor.contains("q_proj") || tensor.contains("down_proj");
            assert_eq!(!old.equal(value).unwrap(), name != "lora" || adapted, "{name} {tensor}");
        }
    }
    // A fine-tune holds all weights: it resumes without its base. Adapters need the very base that they were trained on.
    let more_steps = |name: &str| {
        let path = at(&format!("{name}-whole/config.toml"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("steps = 12", "steps = 13")).unwrap();
    };
    let resume = |name: &str| TrainingRun::resume(&at(&format!("{name}-whole")), None, &mut |_, _| Ok(()));
    ["ternary", "lora", "distill"].into_iter().for_each(more_steps);
    fs::rename(at("base"), at("moved")).unwrap();
    let outcome = resume("ternary").unwrap().train(&mut (), &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome.step, 13);
    for name in ["lora", "distill"] {
        let error = resume(name).unwrap_err().to_string();
        assert!(error.contains("base"), "{name}: {error}");
    }
    let mut other = masters;
    let norm = &mut other.tensors["model.norm.weight"];
    *norm = norm.add(0.001).unwrap();
    other.write_hugging_face(&at("base")).unwrap();
    for (name, says) in [("lora", "the base of the adapters is not"), ("distill", "the teacher is not")] {
        let error = resume(name).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    let error = Masters::from_run(&at("lora-whole"), Which::Latest).unwrap_err().to_string();
    assert!(error.contains("not the model that the adapters of the run were trained on"), "{error}");
    fs::remove_dir_all(at("base")).unwrap();
    fs::rename(at("moved"), at("base")).unwrap();
    assert_eq!(resume("lora").unwrap().trainer().step(), 12);

    let both = format!("[model]\ninit = '{base}'\n{data}[lora]\n[distill]\nteacher = '{base}'\n{rest}");
    let both = ConfigSource::new(&both, "test.toml");
    let error = TrainingRun::start(&both, &at("both"), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("[lora] and [distill]"), "{error}");
}
