//! Damaged and hostile GGUF and safetensors files: an error or a success, never a panic, and never an
//! allocation that the size of the file does not justify.
//!
//! The allocator of this test stops the process when more than 64 MiB are in use; the files have a
//! few kilobytes.

use std::alloc::System;

use bitnet_model::gguf::{Array, Gguf, GgufType, GgufWriter, Metadata};
use bitnet_model::safetensors::{Dtype, FileError, Safetensors, SafetensorsWriter, Shards};
use cap::Cap;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 64 << 20);

/// The bytes that `write` writes to a path.
fn written(name: &str, write: impl FnOnce(&std::path::Path)) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("bitnet-hostile-{}-{name}", std::process::id()));
    write(&path);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

/// A small file with every construct: nested arrays, strings, tensors of types that collide.
fn gguf_sample(name: &str) -> Vec<u8> {
    let mut m = Metadata::default();
    m.insert("general.architecture", "bitnet".into());
    m.insert("general.alignment", 32u32.into());
    m.insert("tokens", Array::String(vec!["a".into(), "".into(), "ccc".into()]).into());
    m.insert("scores", Array::F32(vec![1.0, 2.0]).into());
    m.insert("nested", Array::Array(vec![Array::U8(vec![1, 2]), Array::Array(vec![Array::Bool(vec![true])])]).into());
    m.insert("eps", 1e-5f32.into());
    let mut writer = GgufWriter::new(m);
    for (name, ty, shape) in [
        ("a", GgufType::F32, &[3, 2][..]),
        ("b", GgufType::I2_S, &[2, 128]),
        ("c", GgufType::Q2_0_G64, &[1, 64]),
        ("d", GgufType::TQ1_0, &[1, 256]),
        ("e", GgufType::Q2_0_G64, &[1, 128]),
    ] {
        writer.add(name, ty, shape).unwrap();
    }
    written(name, |path| {
        let put = |t: &bitnet_model::gguf::TensorInfo, sink: &mut bitnet_core::serialize::output::TensorSink| {
            sink.put(&vec![1; t.range.len()]).map_err(bitnet_model::gguf::GgufError::from)
        };
        writer.write(path, put).unwrap();
    })
}

fn safetensors_sample(name: &str) -> Vec<u8> {
    let mut writer = SafetensorsWriter::new();
    writer.metadata("format", "pt");
    writer.add("a", Dtype::F32, &[3, 2]).unwrap();
    writer.add("b.weight", Dtype::U8, &[5, 3]).unwrap();
    writer.add("b.weight_scale", Dtype::BF16, &[1]).unwrap();
    written(name, |path| {
        writer.write(path, |t, sink| Ok::<_, FileError>(sink.put(&vec![1; t.range.len()])?)).unwrap();
    })
}

/// Parses, and reads everything that the parser returned. Whether it was accepted.
fn gguf(bytes: &[u8]) -> bool {
    match Gguf::parse(bytes) {
        Err(e) => {
            let message = e.to_string();
            assert!(!message.contains('\n') && message.len() < 1000, "{message}");
            false
        }
        Ok(g) => {
            for t in &g.tensors {
                assert_eq!(t.data(bytes).len(), t.range.len());
                assert!(t.count() > 0 && t.cols() > 0);
                assert_eq!(g.find(&t.name), Some(t));
                let _ = g.tensor(&t.name).map_err(|e| e.to_string());
            }
            true
        }
    }
}

fn safetensors(bytes: &[u8]) -> bool {
    match Safetensors::parse(bytes, "test") {
        Err(e) => {
            let message = e.to_string();
            assert!(!message.contains('\n') && message.len() < 1000, "{message}");
            false
        }
        Ok(s) => {
            for t in s.tensors() {
                assert_eq!(t.data(bytes).len(), t.range.len());
                let _ = t.to_f32(bytes).map_err(|e| e.to_string());
            }
            true
        }
    }
}

fn attack(sample: &[u8], parse: fn(&[u8]) -> bool, smallest: usize, rounds: usize) {
    assert!(parse(sample));
    for n in 0..sample.len() {
        // Only padding after the last tensor may be missing.
        assert_eq!(parse(&sample[..n]), n >= smallest, "cut to {n} of {}", sample.len());
    }
    // Every field is overwritten with numbers that an unchecked reader would trust.
    let huge = [u64::MAX, i64::MAX as u64, 1 << 63, 1 << 48, 1 << 40, 1 << 32, u64::from(u32::MAX), 1 << 31, 1 << 24];
    for at in 0..sample.len() {
        for value in huge {
            for width in [4, 8] {
                let mut bytes = sample.to_vec();
                let end = (at + width).min(sample.len());
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
                parse(&bytes);
            }
        }
    }
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..rounds {
        let mut bytes = sample.to_vec();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        parse(&bytes);
    }
}

#[test]
fn damaged_gguf() {
    let sample = gguf_sample("sample.gguf");
    let end = Gguf::parse(&sample).unwrap().tensors.iter().map(|t| t.range.end).max().unwrap();
    attack(&sample, gguf, end, 200_000);
}

#[test]
fn damaged_safetensors() {
    let sample = safetensors_sample("sample.safetensors");
    attack(&sample, safetensors, sample.len(), 200_000);
}

#[test]
fn hostile_safetensors_headers() {
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    assert!(safetensors(&file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4)));
    for header in [
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}} "#,
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#,
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,5]}}"#,
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"U8","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"X9","shape":[4],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}"#,
        "[]",
        "",
        "{",
    ] {
        let bytes = file(header, 4);
        // A duplicate key is last-wins in JSON: accepted only when the rest is consistent.
        let duplicate = header.ends_with(' ');
        assert_eq!(safetensors(&bytes), duplicate, "{header}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(!safetensors(&file(&deep, 0)));
    let mut long = file("{}", 0);
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(!safetensors(&long));
}

#[test]
fn hostile_shard_names() {
    for name in
        ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "", "a\\b.safetensors", "c:x.safetensors"]
    {
        let json = serde_json::json!({ "weight_map": { "t": name } }).to_string();
        let err = Shards::from_index(json.as_bytes()).unwrap_err().to_string();
        assert!(err.contains("is not the name of a safetensors file"), "{err}");
    }
    for json in ["", "{}", "[]", r#"{"weight_map":{}}"#, r#"{"weight_map":{"a":1}}"#, "{\"weight_map\": \u{1}"] {
        let err = Shards::from_index(json.as_bytes()).unwrap_err().to_string();
        assert!(err.starts_with("model.safetensors.index.json: ") && !err.contains('\n'), "{err}");
    }
}
