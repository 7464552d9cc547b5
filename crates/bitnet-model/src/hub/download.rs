//! Downloads into the cache. What was interrupted goes on where it stopped.

use super::cache::Cache;
use super::{Progress, Reference, choice};
use crate::safetensors::Shards;
use crate::{ModelError, Result};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};
use std::path::PathBuf;

/// How often a download that breaks off is taken up again.
const RETRIES: usize = 3;

impl Reference {
    pub(super) fn download(&self, cache: &Cache, progress: Progress) -> Result<PathBuf> {
        let set = |name: &str| std::env::var(name).ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let token = set("HF_TOKEN").or_else(|| {
            let token = std::fs::read_to_string(&cache.token).unwrap_or_default().trim().to_owned();
            Some(token).filter(|token| !token.is_empty())
        });
        let builder = ApiBuilder::from_cache(hf_hub::Cache::new(cache.folder().into())).with_token(token);
        let endpoint = endpoint.trim_end_matches('/');
        let builder = builder.with_endpoint(endpoint.into()).with_progress(false);
        let failed = |file: Option<&str>, error: ApiError| self.problem(explain(&error, endpoint, file));
        let api = builder.with_user_agent("bitnet", env!("CARGO_PKG_VERSION")).build().map_err(|e| failed(None, e))?;
        let repo = Repo::with_revision(self.repository.clone(), RepoType::Model, self.revision.clone());
        let repo = api.repo(repo);
        let info = repo.info().map_err(|e| failed(None, e))?;
        let names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let choice = choice::choose(&names, &self.wanted).map_err(|problem| self.problem(problem))?;

        let mut get = |name: &str| {
            let there = cache.snapshot(&self.repository, &info.sha).map(|snapshot| snapshot.join(name));
            match there.filter(|path| path.is_file()) {
                Some(path) => Ok(path),
                None => fetch(&repo, name, &mut *progress).map_err(|e| failed(Some(name), e)),
            }
        };
        for name in &choice.files {
            let path = get(name)?;
            if choice.indexed && name == choice::INDEX {
                let json = std::fs::read(&path).map_err(|source| ModelError::Io { path, source })?;
                for shard in Shards::from_index(&json)?.paths("".as_ref()) {
                    get(&shard.to_string_lossy())?;
                }
            }
        }
        self.cached(cache)?.ok_or_else(|| self.problem("it changed while it was fetched: run the command again"))
    }
}

/// Fetches a file; what breaks off is taken up again. (hf-hub's own retries call the last one failed if it succeeds.)
fn fetch(repo: &ApiRepo, name: &str, progress: Progress) -> Result<PathBuf, ApiError> {
    let mut retries = 0;
    loop {
        let report = Report { name: String::new(), done: 0, total: 0, progress: &mut *progress };
        match repo.download_with_progress(name, report) {
            Err(ApiError::IoError(_)) if retries < RETRIES => retries += 1,
            done => return done,
        }
        std::thread::sleep(std::time::Duration::from_millis(250 << retries));
    }
}

struct Report<'a> {
    name: String,
    done: u64,
    total: u64,
    progress: Progress<'a>,
}

impl hf_hub::api::Progress for Report<'_> {
    fn init(&mut self, size: usize, name: &str) {
        (self.name, self.done, self.total) = (name.to_owned(), 0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(&self.name, self.done, self.total);
    }

    fn finish(&mut self) {}
}

/// What went wrong, and what to do.
fn explain(error: &ApiError, endpoint: &str, file: Option<&str>) -> String {
    let status = match error {
        ApiError::RequestError(inner) => match **inner {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        _ => None,
    };
    match (status, file) {
        (Some(401 | 404), None) => {
            format!("{endpoint} has no such model or revision, or it is private: then set HF_TOKEN")
        }
        (Some(403), _) => format!("{endpoint} refuses access: accept its terms there, and set HF_TOKEN"),
        (Some(416), Some(file)) => {
            format!("the part of {file} that was fetched does not fit: delete the .part files in the cache's blobs")
        }
        (_, Some(file)) => format!("{file} was not fetched to its end ({error}): run the command again to go on"),
        _ => format!("it is not in the cache, and {endpoint} cannot be reached ({error}): name a local path"),
    }
}
