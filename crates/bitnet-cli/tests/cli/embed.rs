//! `bitnet embed`. That the numbers are transformers' is shown by the golden checkpoints of bitnet-inference.

use super::*;
use bitnet::model::safetensors::Safetensors;
use serde_json::Value;

const TEXTS: [&str; 2] = ["in the end", "and then the rain"];

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt()
}

#[test]
fn texts_become_vectors_of_the_last_token() {
    let path = golden("gguf/qwen3-embedding-i2_s.gguf");
    let embed = |more: &[&str]| json(&[&["embed", "--model", str(&path)], more].concat());
    let value = embed(&TEXTS);
    // The file says mean, as its converter does.
    assert_eq!((&value["pooling"], &value["normalized"]), (&Value::from("last"), &Value::from(true)));
    let vectors: Vec<Vec<f32>> =
        value["embeddings"].as_array().unwrap().iter().map(|e| floats(&e["embedding"])).collect();
    assert_eq!(vectors.iter().map(Vec::len).collect::<Vec<_>>(), [128, 128]);
    assert!(vectors.iter().all(|vector| (length(vector) - 1.).abs() < 1e-6) && vectors[0] != vectors[1]);

    let raw = embed(&["--no-normalize", "--pooling", "none", TEXTS[0]]);
    let rows: Vec<Vec<f32>> = raw["embeddings"][0]["embeddings"].as_array().unwrap().iter().map(floats).collect();
    let ids = json(&["inspect", str(&path), "--tokenize", TEXTS[0], "--json"])["ids"].clone();
    // An end token is added.
    assert_eq!(ids.as_array().unwrap().last(), Some(&Value::from(271)));
    assert_eq!(
        (rows.len(), &raw["embeddings"][0]["tokens"]),
        (ids.as_array().unwrap().len(), &Value::from(rows.len()))
    );
    let last = rows.last().unwrap();
    assert!(last.iter().zip(&vectors[0]).all(|(x, y)| (x / length(last) - y).abs() < 1e-6));
    let one = |kind| floats(&embed(&["--no-normalize", "--pooling", kind, TEXTS[0]])["embeddings"][0]["embedding"]);
    assert_eq!(one("cls"), rows[0]);
    let mean = one("mean");
    let expected = |d: usize| rows.iter().map(|row| row[d]).sum::<f32>() / rows.len() as f32;
    assert!((0..128).all(|d| (mean[d] - expected(d)).abs() < 1e-5));
}

#[test]
fn texts_of_files_and_of_standard_input_become_the_same_vectors() {
    let path = golden("gguf/gemma3-embedding-i2_s.gguf");
    let folder = folder("embed");
    let expected = json(&[&["embed", "--model", str(&path)], &TEXTS[..]].concat());
    let files: Vec<PathBuf> = TEXTS.iter().zip(["a.txt", "b.txt"]).map(|(_, name)| folder.join(name)).collect();
    files.iter().zip(TEXTS).for_each(|(file, text)| fs::write(file, text).unwrap());
    let of_files = ["embed", "--model", str(&path), "--file", str(&files[0]), "--file", str(&files[1])];
    assert_eq!(json(&of_files), expected);
    let args = ["embed", "--model", str(&path), "--lines"];
    let lines = run_with(program(&args), format!("{}\n\n{}\n", TEXTS[0], TEXTS[1]).as_bytes());
    assert_eq!(serde_json::from_str::<Value>(&success(&args, lines)).unwrap(), expected);

    let out = folder.join("vectors.safetensors");
    stdout(&[&of_files[..], &["--output", str(&out)]].concat());
    let bytes = fs::read(&out).unwrap();
    let file = Safetensors::parse(&bytes, "vectors").unwrap();
    let tensor = file.tensor("embeddings").unwrap();
    assert_eq!(tensor.shape, [2, 128]);
    let all: Vec<f32> = (0..2).flat_map(|i| floats(&expected["embeddings"][i]["embedding"])).collect();
    assert_eq!(tensor.to_f32(&bytes).unwrap(), all);
    refused(&["embed", "--model", str(&path), "x", "--output", "vectors.npy"], &[".safetensors or .json"]);
    refused(&["embed", "--model", str(&path), "x", "--file", "y"], &["--file"]);
}
