//! Golden data: tiny checkpoints and what transformers computes on them. See `golden/README.md`.

use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// The folder of golden data.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Folders in `golden/` that hold a Hugging Face checkpoint with its golden, by name.
pub fn checkpoints() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the golden folder is part of the repository");
    let mut found: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join("golden.safetensors").is_file() && path.join("config.json").is_file())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no golden checkpoints in {}", folder().display());
    found
}

/// GGUF files in `golden/gguf/` with the golden of each, by name.
pub fn gguf_files() -> Vec<(PathBuf, Golden)> {
    let entries = std::fs::read_dir(folder().join("gguf")).expect("the golden folder is part of the repository");
    let mut found: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .map(|path| (path.clone(), Golden::read(&path.with_extension("golden.safetensors"))))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty(), "no golden GGUF files");
    found
}

/// A file or folder of the optional reference data in `../shared`; `None`, with a printed note, if it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(path);
    if !root.exists() {
        eprintln!("skipped: {} is not there", root.display());
        return None;
    }
    Some(root)
}

/// Reference results for a sequence of tokens.
#[derive(Debug)]
pub struct Golden {
    /// The tokens.
    pub input_ids: Vec<u32>,
    /// Logits `[T, vocab]`.
    pub logits: Vec<f32>,
    /// The residual stream `[T, hidden]` after the embedding and after each layer, the last after the final norm.
    pub hidden_states: Vec<Vec<f32>>,
    /// The tokens, followed by those of greedy decoding.
    pub greedy_ids: Vec<u32>,
}

impl Golden {
    /// Reads `golden.safetensors` of a folder, or a file of that form.
    pub fn read(path: &Path) -> Self {
        let path = if path.is_dir() { path.join("golden.safetensors") } else { path.to_path_buf() };
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("golden data is well-formed");
        let data = |name: &str, dtype: Dtype| {
            let tensor = file.tensor(name).ok()?;
            assert_eq!(tensor.dtype(), dtype, "{name}");
            Some(tensor.data().to_vec())
        };
        let floats = |name: &str| {
            let bytes = data(name, Dtype::F32)?;
            Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect::<Vec<_>>())
        };
        let ids = |name: &str| {
            let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            let width = if tensor.dtype() == Dtype::I64 { 8 } else { 4 };
            tensor.data().chunks_exact(width).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        Self {
            input_ids: ids("input_ids"),
            logits: floats("logits").expect("logits"),
            hidden_states: (0..).map_while(|layer| floats(&format!("hidden_states.{layer}"))).collect(),
            greedy_ids: ids("greedy_ids"),
        }
    }
}

/// Largest difference of two arrays, relative to the largest magnitude of the second.
pub fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len(), "lengths differ");
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    // A NaN must not count as equal.
    let worst = got.iter().zip(expected).fold(0f32, |m, (g, e)| if (g - e).abs() <= m { m } else { (g - e).abs() });
    worst / largest
}
