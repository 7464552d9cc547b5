//! Which files the entries of `data.train` and `data.validation` name.

use crate::error::{Result, TrainingError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Texts that the configurations and documents of this project name: the end of the path, where it can be had, its SHA-256.
const PUBLIC: [(&str, &str, &str); 3] = [
    (
        "tinyshakespeare/input.txt",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    (
        "wikitext-2/valid.txt",
        "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/valid.txt",
        "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ),
    (
        "wikitext-2/test.txt",
        "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/test.txt",
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
];

/// The files that an entry names, sorted: itself, or those that match its `*`, `?`, `[...]` or `**` (any folders). Relative
/// ones are relative to the directory in which the program runs.
///
/// # Errors
/// When there is no such file, no file matches, or the pattern is none.
pub fn expand(entry: &Path) -> Result<Vec<PathBuf>> {
    let pattern = entry.to_str().filter(|text| text.contains(['*', '?', '[']) && !entry.exists());
    let Some(pattern) = pattern else {
        return match std::fs::metadata(entry) {
            Ok(data) if data.is_dir() => {
                let problem = format!("this is a directory: name its files, such as {}", entry.join("*.txt").display());
                Err(TrainingError::data(entry, problem))
            }
            Ok(_) => Ok(vec![entry.to_owned()]),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(TrainingError::data(entry, missing(entry))),
            Err(e) => Err(TrainingError::io(entry, e)),
        };
    };
    let matches = glob::glob(pattern)
        .map_err(|e| TrainingError::data(entry, format!("this is no pattern: {} at character {}", e.msg, e.pos)))?;
    let mut files = Vec::new();
    for path in matches {
        let path = path.map_err(|e| TrainingError::io(entry, e.into()))?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        let folder = std::env::current_dir().unwrap_or_default();
        return Err(TrainingError::data(
            entry,
            format!("no file matches this pattern, seen from {}", folder.display()),
        ));
    }
    files.sort();
    Ok(files)
}

/// What to do about a file that is not there.
fn missing(path: &Path) -> String {
    match PUBLIC.iter().find(|(end, ..)| path.ends_with(end)) {
        Some((_, url, sum)) => {
            format!(
                "there is no such file; get it with curl -L --create-dirs -o {} {url} (SHA-256 {sum})",
                path.display()
            )
        }
        None => "there is no such file".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_its_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("b/c")).unwrap();
        for name in ["z.txt", "a.txt", "a.md", "b/m.txt", "b/c/k.txt"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            let files = expand(&root.join(pattern)).unwrap();
            files.iter().map(|p| p.strip_prefix(root).unwrap().display().to_string().replace('\\', "/")).collect()
        };
        assert_eq!(names("*.txt"), ["a.txt", "z.txt"]);
        assert_eq!(names("**/*.txt"), ["a.txt", "b/c/k.txt", "b/m.txt", "z.txt"]);
        assert_eq!(names("a.*"), ["a.md", "a.txt"]);
        assert_eq!(names("[az].txt"), ["a.txt", "z.txt"]);
        assert_eq!(names("a.md"), ["a.md"]);
        let error = |pattern: &str| expand(&root.join(pattern)).unwrap_err().to_string();
        assert!(error("*.rs").contains("no file matches"), "{}", error("*.rs"));
        assert!(error("[.txt").contains("this is no pattern"), "{}", error("[.txt"));
        assert!(error("b").contains("this is a directory"), "{}", error("b"));
        // A file whose name looks like a pattern is itself.
        std::fs::write(root.join("[az].txt"), "").unwrap();
        assert_eq!(names("[az].txt"), ["[az].txt"]);
    }

    #[test]
    fn a_missing_public_text_says_where_it_is_to_be_had() {
        let message = expand(Path::new("no/data/tinyshakespeare/input.txt")).unwrap_err().to_string();
        assert!(message.contains("https://raw.githubusercontent.com/karpathy/char-rnn/"), "{message}");
        assert!(message.contains("SHA-256 86c4e6aa"), "{message}");
        assert!(!message.contains('\n'), "{message}");
        let message = expand(Path::new("no/such.txt")).unwrap_err().to_string();
        assert_eq!(message, "no/such.txt: there is no such file");
    }
}
