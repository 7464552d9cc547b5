//! Tokenizing and training, also interrupted.

use super::*;
#[cfg(unix)]
use std::time::{Duration, Instant};

/// A folder with a text and a configuration of a small model.
struct Place(PathBuf);

impl Place {
    fn new(name: &str, steps: u64) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-cli-train-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        let words = ["the wolf ", "seven kids ", "the mill ", "and then ", "golden\n"];
        let text: String = (0..2000usize).map(|i| words[i * i % 7 % 5]).collect();
        let place = Self(path);
        fs::write(place.at("text.txt"), text).unwrap();
        let config = format!(
            "[model]\nhidden_size = 32\nintermediate_size = 64\nlayers = 1\nheads = 2\ncontext = 16\n\
             [tokenizer]\nkind = \"char\"\n[data]\ntrain = ['{}']\nvalidation_fraction = 0.1\n\
             [training]\nsteps = {steps}\nbatch = 2\nthreads = 1\neval_every = 0\neval_batches = 2\n\
             checkpoint_every = 3\nlog_every = 1\n",
            place.at("text.txt")
        );
        fs::write(place.at("run.toml"), config).unwrap();
        place
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Steps of the checkpoints.
    fn checkpoints(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(self.0.join("run/checkpoints")) else { return Vec::new() };
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut steps: Vec<u64> = names.filter_map(|n| n.strip_prefix("step-")?.parse().ok()).collect();
        steps.sort_unstable();
        steps
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_tokenizer_is_made_and_used() {
    let place = Place::new("tokenize", 1);
    let (text, folder, tokens) = (place.at("text.txt"), place.at("tokenizer"), place.at("text.tokens"));
    let base = ["tokenize", &text, "--tokenizer", &folder];
    let special = ["--train", "bpe", "--vocab-size", "270", "--special", "<|end|>", "-o", &tokens];
    success(&base, run_with(program(&[&base[..], &special].concat()), b""));
    // As a later call with the tokenizer that stands.
    let again = place.at("again.tokens");
    let file = place.at("tokenizer/tokenizer.json");
    success(&base, run_with(program(&["tokenize", &text, "--tokenizer", &file, "-o", &again]), b""));
    assert_eq!(fs::read(&tokens).unwrap(), fs::read(&again).unwrap());
    refused(&["tokenize", &text, "--tokenizer", &file, "-o", &text], &["no token file"]);
    refused(&["tokenize", &text, "--tokenizer", &file], &["--output"]);
    refused(&["tokenize", &place.at("absent"), "--tokenizer", &file, "-o", &place.at("new.tokens")], &["absent"]);
    refused(&["tokenize", &text, "--train", "bpe", "--tokenizer", &folder], &["--vocab-size"]);
    let other = place.at("other");
    refused(&["tokenize", &text, "--train", "char", "--vocab-size", "300", "--tokenizer", &other], &["bpe"]);
}

#[test]
fn a_configuration_error_names_file_line_and_key() {
    let place = Place::new("config", 1);
    let (config, run) = (place.at("run.toml"), place.at("run"));
    let good = fs::read_to_string(&config).unwrap();
    for (old, new, words) in [
        ("layers = 1", "layer = 1", ["run.toml:4: layer: ", "did you mean layers?"]),
        ("heads = 2", "heads = 3", ["run.toml:5: model.heads: ", "hidden_size 32"]),
        ("batch = 2", "batch = \"two\"", ["run.toml:14: batch: ", "expected usize"]),
    ] {
        fs::write(&config, good.replacen(old, new, 1)).unwrap();
        refused(&["train", &config, "--run", &run], &words);
    }
    assert!(!place.0.join("run").exists());
    refused(&["train", &place.at("absent.toml")], &["absent.toml"]);
    refused(&["train"], &["CONFIG"]);
    refused(&["train", "--resume", &run], &["there is no run here"]);
}

#[test]
fn a_run_is_trained_and_resumed() {
    let place = Place::new("run", 400);
    let (config, run) = (place.at("run.toml"), place.at("run"));
    let outcome = json(&["train", &config, "--run", &run, "--steps", "4", "--json"]);
    assert_eq!((&outcome["end"], &outcome["step"]), (&"finished".into(), &4.into()));
    assert!(outcome["validation_loss"].as_f64().unwrap() < 3.0);
    assert_eq!(place.checkpoints(), [3, 4]);
    refused(&["train", &config, "--run", &run], &["there is a run already"]);
    let text = stdout(&["train", "--resume", &run, "--steps", "6"]);
    assert!(text.contains("finished after 6 updates") && text.contains("nats a token"), "{text}");
}

/// Waits until a run has made some checkpoints.
#[cfg(unix)]
fn wait_for(place: &Place, step: u64) {
    let start = Instant::now();
    while place.checkpoints().last().is_none_or(|last| *last < step) {
        assert!(start.elapsed() < Duration::from_secs(60), "no checkpoint of step {step} within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_sigterm_end_a_run_with_a_checkpoint() {
    for signal in ["-INT", "-TERM"] {
        let place = Place::new(&format!("signal{signal}"), 1_000_000);
        let child = program(&["train", &place.at("run.toml"), "--run", &place.at("run"), "--json"]).spawn().unwrap();
        wait_for(&place, 6);
        refused(&["train", "--resume", &place.at("run")], &["another process trains"]);
        // An export takes no lock: while the run goes on there are checkpoints to take.
        success(&["export"], run_with(program(&["export", &place.at("run"), &place.at("out"), "--to", "hf"]), b""));
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let output = child.wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("go on with bitnet train --resume"), "{signal}");
        let outcome: serde_json::Value = serde_json::from_str(&success(&["train"], output)).unwrap();
        assert_eq!(outcome["end"], "stopped");
        assert_eq!(outcome["step"].as_u64(), place.checkpoints().last().copied());
    }
}

/// At whatever moment a request to end comes, there is a checkpoint afterwards, or no directory at all.
#[cfg(unix)]
#[test]
fn a_run_that_is_ended_while_it_starts_leaves_a_checkpoint_or_nothing() {
    for milliseconds in [15, 30, 60, 120] {
        let place = Place::new(&format!("starting{milliseconds}"), 1_000_000);
        let text = fs::read_to_string(place.at("text.txt")).unwrap().repeat(20);
        fs::write(place.at("text.txt"), text).unwrap();
        let mut child = program(&["train", &place.at("run.toml"), "--run", &place.at("runs/run")]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        // Before the program has come to listen, the signal ends it; then nothing was made yet.
        let checkpoints = fs::read_dir(place.0.join("runs/run/checkpoints")).map_or(0, |entries| entries.count());
        assert_eq!(place.0.join("runs").exists(), checkpoints > 0, "after {milliseconds} ms: {status}");
    }
}

#[test]
fn a_run_that_cannot_start_leaves_no_directory() {
    let place = Place::new("absent", 4);
    fs::remove_file(place.at("text.txt")).unwrap();
    refused(&["train", &place.at("run.toml"), "--run", &place.at("runs/run")], &["text.txt"]);
    assert!(!place.0.join("runs").exists());
}

/// Killed at twelve moments, each time a little later in what it does: it goes on from a whole checkpoint, and ends with
/// the checkpoint of a run that was never killed.
#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_from_a_whole_checkpoint() {
    let (place, other) = (Place::new("killed", 60), Place::new("whole", 60));
    success(&["train"], run_with(program(&["train", &other.at("run.toml"), "--run", &other.at("run")]), b""));
    let mut before = 0;
    for moment in 0..12u64 {
        let mut child = match moment {
            0 => program(&["train", &place.at("run.toml"), "--run", &place.at("run")]),
            _ => program(&["train", "--resume", &place.at("run")]),
        }
        .spawn()
        .unwrap();
        if moment == 0 {
            wait_for(&place, 3);
        }
        std::thread::sleep(Duration::from_millis(3 * moment));
        child.kill().unwrap();
        child.wait().unwrap();
        let steps = place.checkpoints();
        assert!(!steps.is_empty() && *steps.last().unwrap() >= before, "{steps:?} after {before}");
        before = *steps.last().unwrap();
    }
    success(&["train"], run_with(program(&["train", "--resume", &place.at("run")]), b""));
    for name in ["tensors.safetensors", "state.json"] {
        let of = |place: &Place| fs::read(place.0.join("run/checkpoints/step-000060").join(name)).unwrap();
        let (killed, whole) = (of(&place), of(&other));
        let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
        assert!(killed == whole, "{name} differs: {} {}", shown(&killed), shown(&whole));
    }
}

/// The text is a hole in a file that takes hours to read.
#[cfg(unix)]
#[test]
fn a_signal_leaves_no_unfinished_file() {
    use std::os::unix::process::ExitStatusExt;
    let place = Place::new("unfinished", 1);
    let (long, tokenizer, out) = (place.at("long.txt"), place.at("tokenizer"), place.at("out"));
    stdout(&["tokenize", &place.at("text.txt"), "--train", "bytes", "--tokenizer", &tokenizer]);
    fs::File::create(&long).unwrap().set_len(1 << 40).unwrap();
    fs::create_dir(&out).unwrap();
    let written = place.at("out/x.tokens");
    let files = || fs::read_dir(&out).unwrap().count();
    for (flag, signal) in [("-INT", 2), ("-TERM", 15)] {
        let child = program(&["tokenize", &long, "--tokenizer", &tokenizer, "-o", &written]).spawn().unwrap();
        let start = Instant::now();
        while files() == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing is written");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Command::new("kill").args([flag, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        // A shell makes 130 and 143 of it.
        assert_eq!(output.status.signal(), Some(signal), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(files(), 0, "{flag}");
    }
}

#[cfg(unix)]
#[test]
fn an_export_writes_nothing_to_the_run() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("read-only", 3);
    let run = place.at("run");
    stdout(&["train", &place.at("run.toml"), "--run", &run]);
    let mut folders = vec![PathBuf::from(&run)];
    let mut next = 0;
    while let Some(folder) = folders.get(next) {
        let inside = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(inside.filter(|path| path.is_dir()).collect::<Vec<_>>());
        next += 1;
    }
    let allow = |mode| folders.iter().for_each(|f| fs::set_permissions(f, fs::Permissions::from_mode(mode)).unwrap());
    let changed = || folders.iter().map(|f| f.metadata().unwrap().modified().unwrap()).collect::<Vec<_>>();
    let before = changed();
    allow(0o555);
    for (form, out) in [("hf", "packed"), ("hf-master", "masters")] {
        stdout(&["export", &run, &place.at(out), "--to", form]);
    }
    allow(0o755);
    // Permissions do not keep root from it.
    assert_eq!(changed(), before);
}

/// `script` gives the program a terminal.
#[cfg(target_os = "linux")]
#[test]
fn quiet_training_shows_no_progress() {
    let place = Place::new("quiet", 20);
    let shown = |run: &str, flag: &str| {
        let line =
            [env!("CARGO_BIN_EXE_bitnet"), "train", &place.at("run.toml"), "--run", &place.at(run), flag].join(" ");
        let output = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().ok()?;
        Some(success(&[&line], output))
    };
    let Some(loud) = shown("loud", "") else { return eprintln!("skipped: no program `script`") };
    assert!(loud.contains("tokens/s") && loud.contains("/20"), "{loud:?}");
    let quiet = shown("quiet", "--quiet").unwrap();
    assert!(quiet.contains("finished after 20 updates") && !quiet.contains("tokens/s"), "{quiet:?}");
}

/// A limit on the size of files stops a checkpoint in its middle, as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_checkpoint_that_does_not_fit_costs_no_other() {
    let place = Place::new("full", 3);
    let run = place.at("run");
    success(&["train"], run_with(program(&["train", &place.at("run.toml"), "--run", &run]), b""));
    let own = place.at("run/config.toml");
    fs::write(&own, fs::read_to_string(&own).unwrap().replace("steps = 3", "steps = 9")).unwrap();
    let mut limited = Command::new("sh");
    // In blocks of 512 bytes, and without the signal that would end the program.
    let script = format!("trap '' XFSZ; ulimit -f 64; exec {} train --resume {run}", env!("CARGO_BIN_EXE_bitnet"));
    let output = limited.args(["-c", &script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: cannot write") && stderr.contains("tensors.safetensors"), "{stderr}");
    assert_eq!(place.checkpoints(), [3]);
    let text = stdout(&["train", "--resume", &run]);
    assert!(text.contains("finished after 9 updates"), "{text}");
}
