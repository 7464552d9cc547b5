//! Which files of a repository a model needs.

use super::Wanted;
use crate::safetensors::Shards;
use std::path::{Component, Path};

/// Files beside the weights, where a repository has them.
const BESIDE: [&str; 7] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "hadamard.json",
];
/// The configuration of a model, and of an adapter.
const CONFIGS: [&str; 2] = ["config.json", "adapter_config.json"];
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Weights of a model in one file, and of an adapter.
const SINGLE: [&str; 2] = ["model.safetensors", "adapter_model.safetensors"];

/// The files of a model, small ones first, so that what is there with its weights is complete.
#[derive(Debug, PartialEq)]
pub(super) struct Choice {
    /// What to open: a GGUF file, or the folder (empty).
    pub(super) path: String,
    pub(super) files: Vec<String>,
    /// Whether the files of weights are listed in an index.
    pub(super) indexed: bool,
}

impl Choice {
    /// Whether the files that the index lists, if there is one, are in a folder.
    pub(super) fn shards_are_in(&self, folder: &Path) -> bool {
        !self.indexed || Shards::find(folder).is_ok()
    }
}

/// Chooses among the files of a repository.
///
/// # Errors
/// What is wrong: no such model, or several.
pub(super) fn choose(names: &[String], wanted: &Wanted) -> Result<Choice, String> {
    let has = |name: &str| names.iter().any(|n| n == name);
    let single = SINGLE.into_iter().find(|name| has(name));
    let folder = CONFIGS.into_iter().any(has) && (single.is_some() || has(INDEX));
    let models = gguf_models(names);
    let found: Vec<_> = match wanted {
        Wanted::Model if folder => {
            let indexed = single.is_none();
            let weights = single.unwrap_or(INDEX);
            let files = CONFIGS.into_iter().chain(BESIDE).filter(|name| has(name)).chain([weights]);
            return Ok(Choice { path: String::new(), files: files.map(str::to_owned).collect(), indexed });
        }
        Wanted::Model => models.iter().collect(),
        Wanted::Ending(ending) => models.iter().filter(|(first, _)| ends(first, ending)).collect(),
        Wanted::File(path) => models.iter().filter(|(first, _)| first == path).collect(),
    };
    let list = || models.iter().map(|(first, _)| first.as_str()).collect::<Vec<_>>().join(", ");
    match (&found[..], wanted) {
        ([(path, files)], _) => Ok(Choice { path: path.clone(), files: files.clone(), indexed: false }),
        ([], _) if models.is_empty() => {
            Err("it has no safetensors with a config.json and no GGUF file, or those of no language model".into())
        }
        ([], Wanted::Ending(name) | Wanted::File(name)) => Err(format!("it has no {name}, but {}", list())),
        _ => Err(format!("several of its files fit: name one after a colon, as in :Q2_0 ({})", list())),
    }
}

/// The first file of each GGUF model, with all of its files. Vision parts (`mmproj`) are none.
fn gguf_models(names: &[String]) -> Vec<(String, Vec<String>)> {
    let mut models: Vec<(String, Vec<String>)> = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".gguf") && !name.contains("mmproj") && is_inside(name)) {
        match part(name) {
            None => models.push((name.clone(), vec![name.clone()])),
            Some((prefix, 1, parts)) => {
                let files = (1..=parts).map(|number| format!("{prefix}-{number:05}-of-{parts:05}.gguf"));
                models.push((name.clone(), files.collect()));
            }
            Some(_) => {}
        }
    }
    models.sort();
    models
}

/// Prefix, number and count of a part of a split file.
fn part(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, parts) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let count = |digits: &str| digits.parse().ok().filter(|_| digits.len() == 5);
    Some((prefix, count(number)?, count(parts)?))
}

/// Whether a file is named `ending`, or its name without `.gguf` and the number of its part ends with it, whatever the case.
fn ends(name: &str, ending: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let stem = part(file).map_or(file.trim_end_matches(".gguf"), |(prefix, ..)| prefix);
    let lower = |text: &str| text.to_ascii_lowercase();
    let (stem, ending) = (lower(stem), lower(ending));
    let before = stem.strip_suffix(&ending);
    lower(file) == ending || before.is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_']))
}

/// Whether a path stays in its folder.
pub(super) fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', ':'])
        && path.split('/').all(|part| !part.is_empty())
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], wanted: Wanted) -> Result<(String, usize), String> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        choose(&names, &wanted).map(|choice| (choice.path, choice.files.len()))
    }

    #[test]
    fn a_model_is_a_folder_or_the_one_gguf() {
        let folder = ["config.json", "README.md", "tokenizer.json", "model.safetensors", "x-Q2_0.gguf", "pytorch.bin"];
        assert_eq!(chosen(&folder, Wanted::Model), Ok((String::new(), 3)));
        assert_eq!(chosen(&folder, Wanted::Ending("q2_0".into())), Ok(("x-Q2_0.gguf".into(), 1)));
        assert_eq!(chosen(&["README.md", "x.gguf", "mmproj-x.gguf"], Wanted::Model), Ok(("x.gguf".into(), 1)));
        let split = ["q/x-Q2_0-00001-of-00002.gguf", "q/x-Q2_0-00002-of-00002.gguf", "x-PQ2_0.gguf"];
        assert_eq!(chosen(&split, Wanted::Ending("Q2_0".into())), Ok((split[0].into(), 2)));
        assert_eq!(chosen(&split, Wanted::File(split[2].into())), Ok((split[2].into(), 1)));
        let several = chosen(&split, Wanted::Model).unwrap_err();
        assert!(several.contains("x-PQ2_0.gguf") && several.contains(split[0]), "{several}");
        let other = chosen(&split, Wanted::Ending("Q8_0".into())).unwrap_err();
        assert!(other.contains("no Q8_0") && other.contains("x-PQ2_0.gguf"), "{other}");
        assert!(chosen(&["README.md", "../x.gguf", "/y.gguf"], Wanted::Model).unwrap_err().contains("no GGUF"));
    }
}
