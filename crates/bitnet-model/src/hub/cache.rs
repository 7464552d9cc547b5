//! The cache of Hugging Face's tools: `models--owner--name/{refs/<revision>, snapshots/<commit>/<file>}`.

use crate::{ModelError, Result};
use std::env;
use std::path::{Path, PathBuf};

/// Where models are kept.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// The file of the token that `hf auth login` writes.
    #[cfg_attr(not(feature = "hub"), expect(dead_code))]
    pub(super) token: PathBuf,
}

impl Cache {
    /// `HF_HUB_CACHE`, else `hub` in `HF_HOME`, in `huggingface` of `XDG_CACHE_HOME`, or in `~/.cache/huggingface`.
    pub(super) fn from_environment() -> Result<Self> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let in_cache = |folder: PathBuf| folder.join("huggingface");
        let home = set("HF_HOME")
            .or_else(|| set("XDG_CACHE_HOME").map(in_cache))
            .or_else(|| env::home_dir().map(|home| in_cache(home.join(".cache"))));
        let Some(home) = home else {
            let problem = "there is no home directory for the cache of the hub: set HF_HOME";
            return Err(ModelError::Config(problem.into()));
        };
        let folder = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub"));
        let folder = std::path::absolute(&folder).map_err(|source| ModelError::Io { path: folder, source })?;
        Ok(Self { folder, token: set("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token")) })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a revision: a commit, or the commit that a branch or tag was when it was last fetched.
    pub(super) fn snapshot(&self, repository: &str, revision: &str) -> Option<PathBuf> {
        let folder = self.folder.join(format!("models--{}", repository.replace('/', "--")));
        let commit = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
        let commit = commit.as_deref().map_or(revision, str::trim);
        let plain = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric());
        Some(folder.join("snapshots").join(commit)).filter(|snapshot| plain && snapshot.is_dir())
    }
}

/// Paths of the files of a snapshot, relative to it.
pub(super) fn files(snapshot: &Path) -> Vec<String> {
    let (mut names, mut folders) = (Vec::new(), vec![(snapshot.to_path_buf(), String::new())]);
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let (path, name) = (entry.path(), format!("{prefix}{name}"));
            if path.is_file() {
                names.push(name);
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((path, name + "/"));
            }
        }
    }
    names
}
