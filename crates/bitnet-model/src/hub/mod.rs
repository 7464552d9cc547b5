//! Models by their name on the Hugging Face hub: `owner/name`, from the local cache or downloaded into it.
//!
//! | reference | what it is |
//! |---|---|
//! | `owner/name` | the Hugging Face directory, else the one GGUF model of the repository |
//! | `owner/name:Q2_0` | the GGUF file whose name ends so (llama.cpp's `-hf`), or has that name |
//! | `owner/name/path/file.gguf` | that file |
//! | `owner/name@v1.0` | another branch, tag or commit than `main`; before a `:` or `/` |
//!
//! The cache is that of Hugging Face's own tools, and their variables hold: `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`,
//! `HF_ENDPOINT`, `HF_TOKEN`. What is complete in the cache is used without asking the hub.

mod cache;
mod choice;
#[cfg(feature = "hub")]
mod download;

use crate::{ModelError, Result};
use cache::Cache;
use std::path::{Path, PathBuf};

/// Receives the name of a file, the bytes that are there, and how many it has.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// A model of the hub, as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    repository: String,
    /// Branch, tag or commit.
    revision: String,
    wanted: Wanted,
}

/// Which files of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// The directory, else the only GGUF model.
    Model,
    /// The GGUF model with that name, or whose name ends with that.
    Ending(String),
    /// The GGUF file at that path.
    File(String),
}

impl Reference {
    /// Reads a reference; `None` for what can only be a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (owner, rest) = text.split_once('/')?;
        let name_len = rest.find(['/', ':', '@']).unwrap_or(rest.len());
        let (name, mut rest) = rest.split_at(name_len);
        let named = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(plain) && !part.contains("..")
        };
        if !named(owner) || !named(name) || is_weights(name) {
            return None;
        }
        let mut revision = "main";
        if let Some(after) = rest.strip_prefix('@') {
            let len = after.find([':', '/']).unwrap_or(after.len());
            (revision, rest) = after.split_at(len);
            if !named(revision) {
                return None;
            }
        }
        let wanted = match (rest.strip_prefix(':'), rest.strip_prefix('/')) {
            _ if rest.is_empty() => Wanted::Model,
            (Some(ending), _) if !ending.is_empty() => Wanted::Ending(ending.into()),
            (_, Some(path)) if path.ends_with(".gguf") && choice::is_inside(path) => Wanted::File(path.into()),
            _ => return None,
        };
        Some(Self { repository: format!("{owner}/{name}"), revision: revision.into(), wanted })
    }

    /// `owner/name`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The path of the model: in the cache if it is complete there, else downloaded.
    ///
    /// # Errors
    /// If it is not in the cache and the hub cannot be reached or has no such model, or the reference fits several models.
    pub fn fetch(&self, progress: Progress) -> Result<PathBuf> {
        let cache = Cache::from_environment()?;
        match self.cached(&cache)? {
            Some(path) => Ok(path),
            None if offline() => {
                let folder = cache.folder().display();
                Err(self.problem(format!("it is not in {folder}, and HF_HUB_OFFLINE forbids to download it")))
            }
            None => self.download(&cache, progress),
        }
    }

    /// The model in the cache, if all of it is there.
    fn cached(&self, cache: &Cache) -> Result<Option<PathBuf>> {
        let Some(snapshot) = cache.snapshot(&self.repository, &self.revision) else { return Ok(None) };
        let names = cache::files(&snapshot);
        // What fits nothing here may still fit on the hub.
        let Ok(choice) = choice::choose(&names, &self.wanted) else { return Ok(None) };
        let complete = choice.files.iter().all(|file| names.contains(file)) && choice.shards_are_in(&snapshot);
        Ok(complete.then(|| snapshot.join(choice.path)))
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self, cache: &Cache, _: Progress) -> Result<PathBuf> {
        let (repository, folder) = (&self.repository, cache.folder().display());
        let problem = format!("it is not in {folder}, and this build does not download: hf download {repository} does");
        Err(self.problem(problem))
    }

    fn problem(&self, problem: impl Into<String>) -> ModelError {
        ModelError::Hub { repository: self.repository.clone(), problem: problem.into() }
    }
}

/// Whether a name is that of a file of weights, which no repository has.
fn is_weights(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["gguf", "safetensors", "json", "bin", "pt"].contains(&extension)
}

/// `HF_HUB_OFFLINE`, as Hugging Face's tools read it.
fn offline() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, String, Wanted)> {
        Reference::parse(text).map(|r| (r.repository, r.revision, r.wanted))
    }

    #[test]
    fn references_are_told_from_paths() {
        let ending = |text: &str| Wanted::Ending(text.into());
        for (text, repository, revision, wanted) in [
            ("a/b", "a/b", "main", Wanted::Model),
            ("tiiuae/Falcon-E-1B", "tiiuae/Falcon-E-1B", "main", Wanted::Model),
            ("a/b.58-GGUF:Q2_0", "a/b.58-GGUF", "main", ending("Q2_0")),
            ("a/b@v1", "a/b", "v1", Wanted::Model),
            ("a/b@v1:x.gguf", "a/b", "v1", ending("x.gguf")),
            ("a/b/c.gguf", "a/b", "main", Wanted::File("c.gguf".into())),
            ("a/b@12ab/c/d.gguf", "a/b", "12ab", Wanted::File("c/d.gguf".into())),
        ] {
            assert_eq!(parsed(text), Some((repository.into(), revision.into(), wanted)), "{text}");
        }
        for path in [
            "a",
            "a/",
            "/a/b",
            "./a",
            "../a/b",
            "~/a",
            "models/x.gguf",
            "x/model.safetensors",
            "a/b/c",
            "a/b/../c.gguf",
            "a/b//c.gguf",
            "a/b:",
            "a/b@",
            "a/b@x/",
            "a b/c",
            "a/b@../x",
            r"C:\a/b",
            "-/b",
            "a/..",
            "",
        ] {
            assert_eq!(parsed(path), None, "{path}");
        }
    }
}
