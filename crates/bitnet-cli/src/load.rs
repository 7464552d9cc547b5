//! Opens the checkpoint that the flags name, and loads its model.

use crate::args::{LoraArgs, ModelArgs, ReadArgs};
use crate::error::{CliError, Result};
use crate::output;
use crate::progress::Progress;
use bitnet::core::Device;
use bitnet::inference::Model;
use bitnet::model::checkpoint::{Adapter, Checkpoint, OpenOptions, Weights};
use bitnet::model::hub::Reference;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The path that `--model` names, or that of a model in the tree that continues texts.
pub fn path(args: &ModelArgs) -> Result<PathBuf> {
    named_or(args, in_tree(false), "no models/*.gguf here or in a folder above")
}

/// The path that `--model` names, or that of a model in the tree with a chat template.
pub fn chat_path(args: &ModelArgs) -> Result<PathBuf> {
    named_or(args, in_tree(true), "no models/*.gguf with a chat template here or in a folder above")
}

fn named_or(args: &ModelArgs, default: Option<PathBuf>, none: &str) -> Result<PathBuf> {
    let named = args.model.clone().or(default);
    named.ok_or_else(|| CliError::refused(format!("{none}: name a model with --model PATH")))
}

/// A path as it is; where there is none, the model of the hub that is named so, from its local cache or downloaded.
pub fn local(path: &Path) -> Result<PathBuf> {
    if !matches!(path.try_exists(), Ok(false)) {
        return Ok(path.into());
    }
    let reference = path.to_str().and_then(Reference::parse).ok_or_else(|| {
        let path = path.display();
        CliError::refused(format!(
            "there is no {path}: name a Hugging Face directory, a .gguf file, or owner/name of the hub"
        ))
    })?;
    let (mut file, mut progress) = (String::new(), None);
    Ok(reference.fetch(&mut |name, done, total| {
        if file != name {
            name.clone_into(&mut file);
            output::note(&format!("fetching {name} of {} ({})", path.display(), output::bytes(total)));
            progress = Some(Progress::of_bytes("fetching"));
        }
        if let Some(progress) = &mut progress {
            progress.update(done as usize, total as usize);
        }
    })?)
}

/// Opens a checkpoint, and warns of what is guessed.
pub fn open(path: &Path, args: &ReadArgs) -> Result<Checkpoint> {
    let checkpoint = open_to_inspect(path, args)?;
    checkpoint.guesses().iter().for_each(|guess| output::note(&format!("warning: {guess}")));
    Ok(checkpoint)
}

/// Opens a checkpoint whose notes are shown.
pub fn open_to_inspect(path: &Path, args: &ReadArgs) -> Result<Checkpoint> {
    let path = &local(path)?;
    let checkpoint = Checkpoint::open(path, &options(args))?;
    output::detail(&format!("model: {}, {}", path.display(), checkpoint.format()));
    checkpoint.notes().iter().for_each(|note| output::detail(&format!("model: {note}")));
    Ok(checkpoint)
}

/// The checkpoint with adapters, beside its weights or merged into them.
pub fn adapt(checkpoint: Checkpoint, args: &LoraArgs, merged: bool) -> Result<Checkpoint> {
    if args.lora.is_empty() {
        return Ok(checkpoint);
    }
    let config = checkpoint.weights().config();
    let open = |(path, scale): &(PathBuf, f32)| Ok(Adapter::open(&local(path)?, config, *scale)?);
    let adapters = args.lora.iter().map(open).collect::<Result<Vec<_>>>()?;
    Ok(checkpoint.with_adapters(adapters, merged)?)
}

/// Opens a checkpoint whose master weights, if it has any, stay dense.
pub fn open_masters(path: &Path, args: &ReadArgs) -> Result<Checkpoint> {
    Ok(Checkpoint::open(&local(path)?, &OpenOptions { keep_master_weights: true, ..options(args) })?)
}

fn options(args: &ReadArgs) -> OpenOptions {
    OpenOptions { i2s_order: args.i2s_order.map(Into::into), activations: args.activations, ..OpenOptions::default() }
}

/// Loads a model for a device.
pub fn model(weights: &dyn Weights, device: &Device) -> Result<Arc<Model>> {
    let mut progress = Progress::new("loading");
    let start = Instant::now();
    let model = Model::load(weights, device, |done, total| progress.update(done, total))?;
    let seconds = start.elapsed().as_secs_f64();
    output::detail(&format!("loaded in {seconds:.2} s, with the kernels of {}", device.kernel()));
    Ok(Arc::new(model))
}

/// A `models/*.gguf` from the current directory upwards, else from the program's.
fn in_tree(chat: bool) -> Option<PathBuf> {
    let starts = [std::env::current_dir(), std::env::current_exe()];
    starts.into_iter().flatten().find_map(|start| start.ancestors().find_map(|folder| in_folder(folder, chat)))
}

/// The first `models/*.gguf` of a folder, by name: of those with a chat template, or of those without. A command that
/// continues texts takes a chat model where there is no other.
fn in_folder(folder: &Path, chat: bool) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder.join("models")).ok()?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "gguf") && path.is_file());
    paths.sort();
    let found = paths.iter().find(|path| has_chat_template(path) == chat).cloned();
    found.or_else(|| paths.into_iter().next().filter(|_| !chat))
}

/// A file that cannot be read has none: the command that opens it says what is wrong with it.
fn has_chat_template(path: &Path) -> bool {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default());
    checkpoint.is_ok_and(|c| c.tokenizer().is_ok_and(|tokenizer| tokenizer.chat_template_source().is_some()))
}
