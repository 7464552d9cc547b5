//! The directory of a run: its configuration, its curves and its checkpoints.
//!
//! ```text
//! config.toml                 what was asked for
//! started_in                  the directory that relative paths of config.toml start from
//! config.json                 of the model, as Hugging Face has it
//! tokenizer.json              of the data and the model
//! data/                       texts as token files
//! metrics.jsonl               a line for each report
//! events.out.tfevents...      the same for TensorBoard
//! curves.svg                  the same to look at
//! best/                       the checkpoint with the least validation loss
//! checkpoints/step-000800/    tensors.safetensors, state.json, and the model's config.json and tokenizer.json
//! ```
//!
//! What a checkpoint is of stands in the checkpoint: nothing that happens to the files above changes it.
//!
//! A checkpoint is written into a hidden directory, synced and renamed, so that what has a name is whole. A kill at any
//! moment leaves the ones before, and perhaps a hidden directory that the next [`RunDirectory::open`] removes. Older checkpoints
//! go only after a newer one stands.

mod lock;

use crate::config::{Config, ConfigSource};
use crate::error::{Result, TrainingError};
use bitnet_core::Device;
use bitnet_core::serialize::TensorMap;
use bitnet_core::serialize::output::AtomicFile;
use bitnet_core::serialize::safetensors::{load, save};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

const TENSORS: &str = "tensors.safetensors";
const STATE: &str = "state.json";
const STARTED_IN: &str = "started_in";
const VERSION: u32 = 1;
/// The configuration of a model, as Hugging Face has it.
pub(crate) const MODEL_CONFIG: &str = "config.json";
/// Files of a tokenizer that a run may have.
pub(crate) const TOKENIZER: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];

/// All that a run needs to go on.
#[derive(Debug, Clone, Default)]
pub struct TrainingCheckpoint {
    /// Weights and the optimizer's averages, by name.
    pub tensors: TensorMap,
    /// Everything else: positions, counters, seeds.
    pub state: serde_json::Value,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub struct Resumed {
    /// Updates made when it was written.
    pub step: u64,
    /// What it holds.
    pub checkpoint: TrainingCheckpoint,
    /// Its directory.
    pub path: PathBuf,
    /// What a user should know of newer ones that could not be used.
    pub notes: Vec<String>,
}

/// `state.json`, written last: a directory without it is not whole.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    step: u64,
    /// Length of the file of tensors.
    tensor_bytes: u64,
    state: serde_json::Value,
}

/// A run's directory, locked while this lives unless it was opened to read.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    keep: usize,
    /// Files of the model that every checkpoint gets.
    model_files: Vec<(&'static str, Vec<u8>)>,
    /// The topmost directory that [`RunDirectory::create`] made.
    made: Option<PathBuf>,
    /// Held, not read.
    _lock: Option<File>,
}

impl RunDirectory {
    /// Makes the directory of a new run, with `config` as its `config.toml`. `keep` newest checkpoints are kept. What a run
    /// without a checkpoint left there is removed.
    ///
    /// # Errors
    /// When there is a run with checkpoints, something else is in the directory, or it cannot be written.
    pub fn create(path: impl AsRef<Path>, config: &str, keep: usize) -> Result<Self> {
        let path = path.as_ref();
        let folder = path.join("checkpoints");
        let begun = path.join("config.toml").is_file();
        let made = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).last();
        let made = made.map(Path::to_owned);
        if path.exists() && !begun && !names(path)?.is_empty() {
            return Err(TrainingError::run(path, "other files are in this directory: name one that is empty or new"));
        }
        fs::create_dir_all(&folder).map_err(|e| TrainingError::io(&folder, e))?;
        let run = Self { made, ..Self::lock(path, keep)? };
        if begun {
            run.recover(&folder)?;
            if !run.steps()?.is_empty() {
                return Err(TrainingError::run(path, "there is a run already: resume it, or name another directory"));
            }
            run.clear()?;
        }
        run.write("config.toml", config.as_bytes())?;
        let started_in = std::env::current_dir().map_err(|e| TrainingError::io(path, e))?;
        run.write(STARTED_IN, started_in.to_string_lossy().as_bytes())?;
        Ok(run)
    }

    /// Removes the directory of a run that could not be started, if [`create`](Self::create) made it.
    pub fn discard(self) {
        let Some(made) = &self.made else { return };
        // What cannot be removed is only untidy, and the reason why the run did not start is what must be told.
        let _ = fs::remove_dir_all(&self.path);
        for folder in self.path.ancestors().skip(1).take_while(|folder| folder.starts_with(made)) {
            // Not where another run has been started meanwhile.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Removes what depends on a configuration that is no longer that of the run.
    fn clear(&self) -> Result<()> {
        for name in ["data", "best", MODEL_CONFIG, "metrics.jsonl", "curves.svg"].iter().chain(&TOKENIZER) {
            let path = self.path.join(name);
            let removed = match fs::symlink_metadata(&path) {
                Ok(data) if data.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(_) => Ok(()),
            };
            removed.map_err(|e| TrainingError::io(&path, e))?;
        }
        for name in names(&self.path)?.iter().filter(|name| name.starts_with("events.out.tfevents.")) {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(|e| TrainingError::io(&path, e))?;
        }
        Ok(())
    }

    /// Changes how many of the newest checkpoints are kept.
    pub fn set_keep(&mut self, keep: usize) {
        self.keep = keep.max(1);
    }

    /// Opens the directory of a run to go on, and clears away what a kill left half done.
    ///
    /// # Errors
    /// When there is no run, or another process works in it.
    pub fn open(path: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let path = path.as_ref();
        check(path)?;
        let run = Self::lock(path, keep)?;
        run.recover(&run.folder())?;
        run.recover(&run.path)?;
        let data = run.path.join("data");
        if data.is_dir() {
            run.recover(&data)?;
        }
        Ok(run)
    }

    /// Opens the directory of a run to read from it, while it may go on or where nothing can be written.
    ///
    /// # Errors
    /// When there is no run.
    pub fn open_to_read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        check(path)?;
        Ok(Self { path: path.to_owned(), keep: usize::MAX, model_files: Vec::new(), made: None, _lock: None })
    }

    fn lock(path: &Path, keep: usize) -> Result<Self> {
        let file = path.join("run.lock");
        let lock = File::create(&file).map_err(|e| TrainingError::io(&file, e))?;
        match lock::try_lock(&lock) {
            Ok(()) => {
                let (path, keep) = (path.to_owned(), keep.max(1));
                Ok(Self { path, keep, model_files: Vec::new(), made: None, _lock: Some(lock) })
            }
            Err(TryLockError::WouldBlock) => {
                Err(TrainingError::run(path, "another process trains in this directory: wait for it or end it"))
            }
            Err(TryLockError::Error(e)) => Err(TrainingError::io(&file, e)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration it began with. Relative paths start from where the run was started, wherever this program is.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self) -> Result<Config> {
        let mut config = Config::load(self.path.join("config.toml"))?;
        // Runs of earlier versions do not say.
        if let Ok(started_in) = fs::read_to_string(self.path.join(STARTED_IN)) {
            config.resolve_paths(Path::new(&started_in));
        }
        Ok(config)
    }

    /// Changes the number of updates in its `config.toml`.
    ///
    /// # Errors
    /// When the configuration is none, or cannot be written.
    pub fn set_steps(&self, steps: u64) -> Result<()> {
        let source = ConfigSource::read(&self.path.join("config.toml"))?.with_value(&["training", "steps"], steps);
        Config::from_source(&source)?;
        self.write("config.toml", source.text().as_bytes())
    }

    /// Takes in the files that tell what the model of this run is, from a directory: every checkpoint gets a copy.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn set_model_files(&mut self, folder: &Path) -> Result<()> {
        let present = [MODEL_CONFIG].into_iter().chain(TOKENIZER).map(|name| (name, folder.join(name)));
        let read = |(name, path): (&'static str, PathBuf)| match fs::read(&path) {
            Ok(bytes) => Ok((name, bytes)),
            Err(e) => Err(TrainingError::io(path, e)),
        };
        self.model_files = present.filter(|(_, path)| path.is_file()).map(read).collect::<Result<_>>()?;
        Ok(())
    }

    /// Writes a file of the run whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written: then what stood there still does.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write(&self.path.join(name), bytes)
    }

    /// Writes the checkpoint of `step` updates and removes the oldest beyond those that are kept; gives its directory.
    ///
    /// # Errors
    /// When the disk is full or cannot be written: then the checkpoints before are as they were.
    pub fn save(&self, step: u64, checkpoint: &TrainingCheckpoint) -> Result<PathBuf> {
        let path = self.place(&self.folder(), &directory_name(step), step, checkpoint)?;
        let all = self.steps()?;
        for old in all.iter().filter(|&&s| s != step).rev().skip(self.keep - 1) {
            remove(&self.folder().join(directory_name(*old)))?;
        }
        Ok(path)
    }

    /// As [`save`](Self::save), and removes the checkpoints of later steps: those of a diverged run.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_last(&self, step: u64, checkpoint: &TrainingCheckpoint) -> Result<PathBuf> {
        let path = self.save(step, checkpoint)?;
        for later in self.steps()?.into_iter().filter(|&later| later > step) {
            remove(&self.folder().join(directory_name(later)))?;
        }
        Ok(path)
    }

    /// Writes the checkpoint with the least validation loss, beside the others and in place of the one before.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_best(&self, step: u64, checkpoint: &TrainingCheckpoint) -> Result<PathBuf> {
        self.place(&self.path, "best", step, checkpoint)
    }

    /// The checkpoint with the least validation loss, if one was saved.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn best(&self, device: &Device) -> Result<Option<Resumed>> {
        let path = self.path.join("best");
        // While a newer one takes its place, the one before has another name.
        match [path.clone(), hidden(&path, "replaced"), path].into_iter().find(|path| path.exists()) {
            Some(path) => read(&path, device).map(Some),
            None => Ok(None),
        }
    }

    /// Steps of the checkpoints, oldest first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let number = |name: &str| name.strip_prefix("step-")?.parse().ok();
        let mut steps: Vec<u64> = names(&self.folder())?.iter().filter_map(|name| number(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The checkpoint of some step, tensors on `device`.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn load(&self, step: u64, device: &Device) -> Result<Resumed> {
        let path = self.folder().join(directory_name(step));
        if !path.exists() {
            let steps = self.steps()?.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            return Err(TrainingError::run(
                path,
                format!("there is no such checkpoint; there are those of steps {steps}"),
            ));
        }
        read(&path, device)
    }

    /// The newest checkpoint, `None` before the first. One that is visibly incomplete is passed over with a note.
    ///
    /// # Errors
    /// When the newest is damaged although it looks complete, or all are incomplete: the one to use is then the user's
    /// choice, by [`load`](Self::load).
    pub fn latest(&self, device: &Device) -> Result<Option<Resumed>> {
        let mut notes = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            let path = self.folder().join(directory_name(step));
            match whole(&path)? {
                Ok(_) => {
                    let resumed = read(&path, device)?;
                    return Ok(Some(Resumed { notes, ..resumed }));
                }
                Err(problem) => notes.push(format!("{} is incomplete ({problem}): passed over", path.display())),
            }
        }
        match notes.is_empty() {
            true => Ok(None),
            false => {
                let problem = format!("no checkpoint is whole: {}; remove them to begin anew", notes.join("; "));
                Err(TrainingError::run(self.folder(), problem))
            }
        }
    }

    fn folder(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Writes a checkpoint as `parent/name`.
    fn place(&self, parent: &Path, name: &str, step: u64, checkpoint: &TrainingCheckpoint) -> Result<PathBuf> {
        let path = parent.join(name);
        let partial = hidden(&path, "partial");
        let written = fill(&partial, step, checkpoint, &self.model_files).and_then(|()| put_in_place(&partial, &path));
        if written.is_err() {
            // What could not be written is not wanted; the next `open` removes it if this fails as well.
            let _ = fs::remove_dir_all(&partial);
        }
        written.map(|()| path)
    }

    /// Finishes or undoes what a kill interrupted.
    fn recover(&self, folder: &Path) -> Result<()> {
        for name in names(folder)? {
            let path = folder.join(&name);
            let Some(hidden) = name.strip_prefix('.') else { continue };
            if let Some(original) = hidden.strip_suffix(".replaced")
                && !folder.join(original).exists()
            {
                fs::rename(&path, folder.join(original)).map_err(|e| TrainingError::io(&path, e))?;
                continue;
            }
            let ours = [".partial", ".replaced", ".removed"].iter().any(|end| hidden.ends_with(end));
            let removed = match ours {
                true if path.is_dir() => fs::remove_dir_all(&path),
                true => fs::remove_file(&path),
                false => Ok(()),
            };
            removed.map_err(|e| TrainingError::io(&path, e))?;
        }
        Ok(())
    }
}

/// Refuses a directory that is no run's.
fn check(path: &Path) -> Result<()> {
    match path.join("config.toml").is_file() {
        true => Ok(()),
        false => Err(TrainingError::run(path, "there is no run here: it has no config.toml")),
    }
}

fn directory_name(step: u64) -> String {
    format!("step-{step:06}")
}

/// `.name.kind` beside `path`.
fn hidden(path: &Path, kind: &str) -> PathBuf {
    path.with_file_name(format!(".{}.{kind}", path.file_name().unwrap_or_default().to_string_lossy()))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let io = |e| TrainingError::io(folder, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    Ok(names)
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path).map_err(bitnet_core::BitNetError::from)?;
    file.put(bytes).and_then(|()| file.commit()).map_err(bitnet_core::BitNetError::from)?;
    Ok(())
}

/// Writes the files of a checkpoint, all on the disk.
fn fill(folder: &Path, step: u64, checkpoint: &TrainingCheckpoint, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let io = |e| TrainingError::io(folder, e);
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(io)?;
    }
    fs::create_dir(folder).map_err(io)?;
    let tensors = checkpoint.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let tensor_bytes = save(folder.join(TENSORS), tensors, &[("format", "pt")])?;
    files.iter().try_for_each(|(name, bytes)| write(&folder.join(name), bytes))?;
    let state = State { version: VERSION, step, tensor_bytes, state: checkpoint.state.clone() };
    let json = serde_json::to_vec_pretty(&state).map_err(|e| TrainingError::run(folder, e.to_string()))?;
    write(&folder.join(STATE), &json)?;
    sync(folder)
}

/// Gives a filled directory its name; what had it before goes when the new one stands.
fn put_in_place(partial: &Path, path: &Path) -> Result<()> {
    let io = |e| TrainingError::io(path, e);
    let replaced = hidden(path, "replaced");
    if path.exists() {
        if replaced.exists() {
            fs::remove_dir_all(&replaced).map_err(io)?;
        }
        fs::rename(path, &replaced).map_err(io)?;
    }
    fs::rename(partial, path).map_err(io)?;
    sync(path.parent().unwrap_or(path))?;
    if replaced.exists() {
        fs::remove_dir_all(&replaced).map_err(io)?;
    }
    Ok(())
}

/// Removes a checkpoint such that a kill does not leave half of it under its name.
fn remove(path: &Path) -> Result<()> {
    let io = |e| TrainingError::io(path, e);
    let removed = hidden(path, "removed");
    if removed.exists() {
        fs::remove_dir_all(&removed).map_err(io)?;
    }
    fs::rename(path, &removed).map_err(io)?;
    fs::remove_dir_all(&removed).map_err(io)
}

/// Puts the names in a directory on the disk; only Unix opens directories.
fn sync(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| TrainingError::io(folder, e))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// The state of a checkpoint whose files are as long as they should be, or what is missing.
fn whole(path: &Path) -> Result<Result<State, String>> {
    let bytes = match fs::read(path.join(STATE)) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Err(format!("{STATE} is missing"))),
        Err(e) => return Err(TrainingError::io(path.join(STATE), e)),
    };
    // The version first: what else a later one has is not for us to read.
    let version = serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|v| v["version"].as_u64());
    if let Some(version) = version.filter(|v| *v != u64::from(VERSION)) {
        let problem = format!("the checkpoint is of version {version}, but this program reads {VERSION}");
        return Err(TrainingError::run(path, problem));
    }
    let state: State = match serde_json::from_slice(&bytes) {
        Ok(state) => state,
        Err(e) => return Ok(Err(format!("{STATE} is cut short or damaged: {e}"))),
    };
    Ok(match fs::metadata(path.join(TENSORS)) {
        Ok(file) if file.len() == state.tensor_bytes => Ok(state),
        Ok(file) => Err(format!("{TENSORS} has {} bytes, but had {}", file.len(), state.tensor_bytes)),
        Err(_) => Err(format!("{TENSORS} is missing")),
    })
}

fn read(path: &Path, device: &Device) -> Result<Resumed> {
    let state = whole(path)?.map_err(|problem| {
        TrainingError::run(path, format!("the checkpoint is incomplete ({problem}): name the step of another one"))
    })?;
    let checkpoint = TrainingCheckpoint { tensors: load(path.join(TENSORS), device)?, state: state.state };
    Ok(Resumed { step: state.step, checkpoint, path: path.to_owned(), notes: Vec::new() })
}

#[cfg(test)]
mod tests;
