use super::*;
use bitnet_core::BitNetTensor;
use serde_json::json;

const CONFIG: &str = include_str!("../config/example.toml");

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-run-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn create(&self, keep: usize) -> RunDirectory {
        RunDirectory::create(&self.0, CONFIG, keep).unwrap()
    }

    fn open(&self) -> RunDirectory {
        RunDirectory::open(&self.0, 2).unwrap()
    }

    fn checkpoint(&self, step: u64) -> PathBuf {
        self.0.join("checkpoints").join(directory_name(step))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn checkpoint(value: f32) -> TrainingCheckpoint {
    let weight = BitNetTensor::from_slice(&[value; 6], &[2, 3], &Device::cpu()).unwrap();
    let moment = BitNetTensor::from_slice(&[0.1f64, -1e-300], &[2], &Device::cpu()).unwrap();
    let tensors = [("weight".to_owned(), weight), ("weight.exp_avg".to_owned(), moment)].into_iter().collect();
    TrainingCheckpoint { tensors, state: json!({"loss": 0.1 + f64::from(value), "rows": u64::MAX}) }
}

fn value(resumed: &Resumed) -> f32 {
    resumed.checkpoint.tensors["weight"].to_vec::<f32>().unwrap()[0]
}

fn latest(run: &RunDirectory) -> Resumed {
    run.latest(&Device::cpu()).unwrap().unwrap()
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let folder = Folder::new("whole");
    let run = folder.create(2);
    assert!(run.latest(&Device::cpu()).unwrap().is_none());
    assert!(run.best(&Device::cpu()).unwrap().is_none());
    run.save(7, &checkpoint(0.3)).unwrap();
    let resumed = latest(&run);
    assert_eq!((resumed.step, value(&resumed), resumed.notes.len()), (7, 0.3, 0));
    assert_eq!(resumed.checkpoint.state, checkpoint(0.3).state);
    assert_eq!(resumed.checkpoint.tensors["weight.exp_avg"].to_vec::<f64>().unwrap(), [0.1, -1e-300]);
    assert_eq!(resumed.checkpoint.tensors.keys().collect::<Vec<_>>(), ["weight", "weight.exp_avg"]);
    // Paths are those of where the run was started, from wherever it is read.
    let mut expected = Config::parse(CONFIG, "config.toml").unwrap();
    expected.data.train = vec![std::env::current_dir().unwrap().join("input.txt")];
    assert_eq!(run.config().unwrap(), expected);
}

#[test]
fn the_newest_are_kept_and_the_best_beside_them() {
    let folder = Folder::new("keep");
    let run = folder.create(2);
    for step in 1..=5 {
        run.save(step * 100, &checkpoint(step as f32)).unwrap();
    }
    assert_eq!(run.steps().unwrap(), [400, 500]);
    run.save_best(300, &checkpoint(3.0)).unwrap();
    run.save_best(400, &checkpoint(4.0)).unwrap();
    let best = run.best(&Device::cpu()).unwrap().unwrap();
    assert_eq!((best.step, value(&best)), (400, 4.0));
    // A run that went back keeps what it writes, and may write a step again.
    run.save(200, &checkpoint(2.5)).unwrap();
    assert_eq!(run.steps().unwrap(), [200, 500]);
    run.save(200, &checkpoint(2.75)).unwrap();
    assert_eq!(value(&run.load(200, &Device::cpu()).unwrap()), 2.75);
    let message = run.load(300, &Device::cpu()).unwrap_err().to_string();
    assert!(message.contains("there are those of steps 200, 500"), "{message}");
    assert_eq!(names(&run.folder()).unwrap().len(), 2);
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_checkpoint() {
    let folder = Folder::new("kill");
    let run = folder.create(2);
    run.save(100, &checkpoint(1.0)).unwrap();
    run.save(200, &checkpoint(2.0)).unwrap();
    drop(run);
    let checkpoints = folder.0.join("checkpoints");
    // Between the writing and the renaming: all of it there, none of it visible.
    fill(&checkpoints.join(".step-000300.partial"), 300, &checkpoint(3.0), &[]).unwrap();
    // While replacing: the old one hidden, the new one not yet named.
    fs::rename(folder.checkpoint(100), checkpoints.join(".step-000100.replaced")).unwrap();
    fill(&checkpoints.join(".step-000100.partial"), 100, &checkpoint(1.5), &[]).unwrap();
    // While removing.
    fs::create_dir(checkpoints.join(".step-000050.removed")).unwrap();
    let run = folder.open();
    assert_eq!(run.steps().unwrap(), [100, 200]);
    assert_eq!((latest(&run).step, value(&run.load(100, &Device::cpu()).unwrap())), (200, 1.0));
    assert_eq!(names(&checkpoints).unwrap().len(), 2);
    // The old one hidden, the new one named: the new one counts.
    fs::rename(folder.checkpoint(100), checkpoints.join(".step-000100.replaced")).unwrap();
    run.save(100, &checkpoint(1.75)).unwrap();
    drop(run);
    assert_eq!(value(&folder.open().load(100, &Device::cpu()).unwrap()), 1.75);
}

/// Every prefix of either file: the one before is used, with a note, unless it was asked for by its step.
#[test]
fn an_incomplete_newest_is_passed_over_with_a_note() {
    let folder = Folder::new("incomplete");
    let run = folder.create(3);
    run.save(100, &checkpoint(1.0)).unwrap();
    run.save(200, &checkpoint(2.0)).unwrap();
    for name in [TENSORS, STATE] {
        let path = folder.checkpoint(200).join(name);
        let bytes = fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            let resumed = latest(&run);
            assert_eq!((resumed.step, value(&resumed)), (100, 1.0), "{name} of {len} bytes");
            assert!(resumed.notes[0].contains("step-000200 is incomplete"), "{:?}", resumed.notes);
            let message = run.load(200, &Device::cpu()).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("incomplete"), "{message}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(latest(&run).step, 100);
        fs::write(&path, bytes).unwrap();
        assert_eq!(latest(&run).step, 200);
    }
    for step in [100, 200] {
        fs::remove_file(folder.checkpoint(step).join(STATE)).unwrap();
    }
    let message = run.latest(&Device::cpu()).unwrap_err().to_string();
    assert!(message.contains("no checkpoint is whole"), "{message}");
}

#[test]
fn a_newest_that_looks_complete_but_is_damaged_is_an_error() {
    let folder = Folder::new("damaged");
    let run = folder.create(3);
    run.save(100, &checkpoint(1.0)).unwrap();
    run.save(200, &checkpoint(2.0)).unwrap();
    let path = folder.checkpoint(200).join(TENSORS);
    let mut bytes = fs::read(&path).unwrap();
    bytes[9] = b'x';
    fs::write(&path, bytes).unwrap();
    let message = run.latest(&Device::cpu()).unwrap_err().to_string();
    assert!(message.contains("step-000200") && message.contains("damaged"), "{message}");
    assert_eq!(value(&run.load(100, &Device::cpu()).unwrap()), 1.0);
    let state = folder.checkpoint(200).join(STATE);
    let text = fs::read_to_string(&state).unwrap().replace("\"version\": 1", "\"version\": 2");
    fs::write(&state, text).unwrap();
    assert!(run.latest(&Device::cpu()).unwrap_err().to_string().contains("version 2"));
}

#[test]
fn a_run_is_not_begun_twice_nor_by_two() {
    let folder = Folder::new("twice");
    assert!(RunDirectory::open(&folder.0, 1).unwrap_err().to_string().contains("there is no run here"));
    let run = folder.create(1);
    assert!(RunDirectory::open(&folder.0, 1).unwrap_err().to_string().contains("another process trains"));
    run.save(1, &checkpoint(1.0)).unwrap();
    drop(run);
    assert!(RunDirectory::create(&folder.0, CONFIG, 1).unwrap_err().to_string().contains("there is a run already"));
    folder.open();
    // A run that has nothing to lose is begun anew.
    fs::remove_dir_all(folder.checkpoint(1)).unwrap();
    fs::write(folder.0.join("tokenizer.json"), "of the other configuration").unwrap();
    let run = folder.create(1);
    assert!(!folder.0.join("tokenizer.json").exists());
    assert!(run.latest(&Device::cpu()).unwrap().is_none());
    drop(run);
    fs::remove_file(folder.0.join("config.toml")).unwrap();
    let message = RunDirectory::create(&folder.0, CONFIG, 1).unwrap_err().to_string();
    assert!(message.contains("other files are in this directory"), "{message}");
}

/// What cannot be written is an error that names the place, and the checkpoint before stays.
#[test]
fn a_checkpoint_that_cannot_be_written_costs_no_other() {
    let folder = Folder::new("unwritable");
    let run = folder.create(1);
    run.save(100, &checkpoint(1.0)).unwrap();
    // A file where the hidden directory would be: works for root as well, whom permissions do not stop.
    let blocked = folder.0.join("checkpoints/.step-000200.partial");
    fs::write(&blocked, "").unwrap();
    let message = run.save(200, &checkpoint(2.0)).unwrap_err().to_string();
    assert!(message.contains("step-000200"), "{message}");
    assert_eq!((latest(&run).step, run.steps().unwrap().len()), (100, 1));
    // Tensors that cannot be stored: the hidden directory goes.
    fs::remove_file(&blocked).unwrap();
    let mut bad = checkpoint(2.0);
    bad.tensors.insert("__metadata__".into(), bad.tensors["weight"].clone());
    run.save(200, &bad).unwrap_err();
    assert!(!blocked.exists());
    assert_eq!(latest(&run).step, 100);
    let message = RunDirectory::create(folder.0.join("config.toml/run"), CONFIG, 1).unwrap_err().to_string();
    assert!(message.contains("config.toml"), "{message}");
}
