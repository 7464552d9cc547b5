//! Healthy runs are not stopped as diverged; diverged ones are, and leave weights that are good.

use bitnet_core::Device;
use bitnet_training::config::ConfigSource;
use bitnet_training::export::{Masters, Which};
use bitnet_training::{End, Observer, Outcome, RunDirectory, TrainingError, TrainingRun};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// A language of which most is known from the characters before.
fn text() -> String {
    let words = ["the wolf ", "seven kids ", "the mill ", "and then ", "golden "];
    (0..3000usize).map(|i| words[i * i % 7 % 5]).collect()
}

fn train(config: &str, directory: &Path, observer: &mut dyn Observer) -> Result<Outcome, TrainingError> {
    let mut run = TrainingRun::start(&ConfigSource::new(config, "test.toml"), directory, &mut |_, _| Ok(()))?;
    run.train(observer, &AtomicBool::new(false))
}

/// The validation losses of a run.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn evaluation(&mut self, _: u64, loss: f64) {
        self.0.push(loss);
    }
}

#[test]
fn a_good_dense_model_is_fine_tuned_and_a_hundredfold_rate_is_stopped_with_good_weights() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("text.txt"), text()).unwrap();
    let data = format!("[data]\ntrain = ['{}']\nvalidation_fraction = 0.05\n", at("text.txt").display());
    let dense = format!(
        "[model]\nhidden_size = 32\nintermediate_size = 64\nlayers = 2\nheads = 2\ncontext = 32\nactivation = 'silu'\n\
         [quantization]\nenabled = false\nsub_norm = false\n[tokenizer]\nkind = 'char'\n{data}\
         [schedule]\nlearning_rate = 1e-2\nwarmup = 10\n\
         [training]\nsteps = 150\nbatch = 8\nthreads = 2\neval_batches = 4\neval_every = 50\n"
    );
    let trained = train(&dense, &at("dense"), &mut ()).unwrap();
    assert!(trained.validation.unwrap() < 0.6, "{trained:?}");
    let (masters, _) = Masters::from_run(&at("dense"), Which::Latest).unwrap();
    masters.write_hugging_face(&at("base")).unwrap();
    let base = at("base").display().to_string();

    // As `bitnet finetune` and `bitnet distill` ask for it: a quarter of the updates fades the quantizer in.
    let run = |name: &str, sections: &str, rate: f64, batch: usize, steps: u64| {
        let config = format!(
            "[model]\ninit = '{base}'\n{sections}\n{data}\n[schedule]\nlearning_rate = {rate:?}\nwarmup = {}\n\
             [training]\nsteps = {steps}\nbatch = {batch}\nthreads = 2\neval_batches = 4\neval_every = 10\n",
            steps / 20
        );
        let mut losses = Losses::default();
        (train(&config, &at(name), &mut losses), losses.0)
    };
    let teacher = format!("[quantization]\nlambda_steps = 25\n[distill]\nteacher = '{base}'\nrelations = 1.0");
    for (name, sections, batch, steps) in [
        ("ternary", "[quantization]\nlambda_steps = 25", 8, 100),
        ("adapters", "[quantization]\nlambda_steps = 25\n[lora]\nrank = 8", 8, 100),
        ("distilled", teacher.as_str(), 8, 100),
        ("noise", "[quantization]\nenabled = false", 1, 300),
    ] {
        let (outcome, losses) = run(name, sections, 1e-3, batch, steps);
        let outcome = outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((outcome.end, outcome.step), (End::Finished, steps), "{name}");
        assert!(losses.last().unwrap() <= losses.first().unwrap(), "{name}: {losses:?}");
    }

    for (name, sections) in [
        ("dense-diverged", "[quantization]\nenabled = false"),
        ("ternary-diverged", "[quantization]\nlambda_steps = 25"),
        ("adapters-diverged", "[quantization]\nenabled = false\n[lora]\nrank = 8"),
    ] {
        let (outcome, losses) = run(name, sections, 1., 8, 100);
        let error = outcome.unwrap_err();
        let TrainingError::Diverged { saved: Some(saved), .. } = error else { panic!("{name}: {error}") };
        assert!(error.to_string().contains(&format!("after {saved} updates")), "{name}: {error}");
        println!("{name}: {error}; validation {losses:?}");
        // What was saved is the newest checkpoint, can be exported, and is as good as the best.
        let run = RunDirectory::open_to_read(at(name)).unwrap();
        assert_eq!(run.steps().unwrap().last(), Some(&saved), "{name}");
        let step = run.latest(&Device::cpu()).unwrap().unwrap().step;
        assert_eq!(Masters::from_run(&at(name), Which::Latest).unwrap().1, step, "{name}");
        drop(run);
        let resumed = TrainingRun::resume(&at(name), None, &mut |_, _| Ok(())).unwrap();
        assert_eq!(resumed.trainer().step(), saved, "{name}");
        let loss = resumed.trainer().evaluate().unwrap();
        let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(loss.is_finite() && loss <= 1.01 * best, "{name}: {loss} after {saved}, best {best}");
    }
}
