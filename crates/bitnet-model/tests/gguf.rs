//! GGUF compared with a file of gguf-py (`data/gguf/make.py`), and errors for malformed files.

use bitnet_core::serialize::WriteError;
use bitnet_model::checkpoint::{Checkpoint, OpenOptions};
use bitnet_model::gguf::{Array, Gguf, GgufError, GgufType, GgufWriter, Metadata, Value};

static EVERY_KIND: &[u8] = include_bytes!("data/gguf/every_kind.gguf");

/// A temporary file, removed on drop.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("bitnet-gguf-test-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn every_kind_of_value_and_tensor_is_read() {
    let g = Gguf::parse(EVERY_KIND).unwrap();
    let m = &g.metadata;
    assert_eq!((g.version, m.len(), g.tensors.len()), (3, 17, 8));
    assert_eq!(m.require::<&str>("general.architecture").unwrap(), "bitnet");
    assert!(m.require::<bool>("test.bool").unwrap());
    assert_eq!(m.require::<u32>("test.u8").unwrap(), 200);
    assert_eq!(m.require::<u32>("test.u16").unwrap(), 60000);
    assert_eq!(m.require::<u32>("test.u32").unwrap(), 4_000_000_000);
    assert_eq!(m.require::<u64>("test.u64").unwrap(), 1 << 63);
    assert!(m.require::<u32>("test.u64").is_err());
    assert_eq!(m.require::<i32>("test.i8").unwrap(), -7);
    assert_eq!(m.require::<i32>("test.i16").unwrap(), -300);
    assert_eq!(m.require::<i32>("test.i32").unwrap(), -70000);
    assert_eq!(m.value("test.i64"), Some(&Value::I64(-(1 << 40))));
    assert_eq!(m.require::<f32>("test.f32").unwrap(), 1e-5);
    assert_eq!(m.value("test.f64"), Some(&Value::F64(0.1)));
    assert_eq!(m.require::<&str>("test.string").unwrap(), "é中");
    assert_eq!(m.require::<&[String]>("test.array.string").unwrap(), ["", "Ġthe", "a\nb"]);
    assert_eq!(m.require::<&[f32]>("test.array.f32").unwrap(), [0.5, -1.5]);
    assert_eq!(m.require::<&[i32]>("test.array.i32").unwrap(), [-1, 0, 7]);
    assert_eq!(m.value("test.array.bool"), Some(&Value::Array(Array::Bool(vec![true, false]))));

    let shapes: Vec<_> = g.tensors.iter().map(|t| (t.name.as_str(), t.ty, t.shape.as_slice())).collect();
    assert_eq!(
        shapes,
        [
            ("f32", GgufType::F32, &[3, 5][..]),
            ("f16", GgufType::F16, &[3, 6]),
            ("q8_0", GgufType::Q8_0, &[3, 256]),
            ("q4_0", GgufType::Q4_0, &[3, 256]),
            ("bf16", GgufType::BF16, &[3, 256]),
            ("tq1_0", GgufType::TQ1_0, &[3, 256]),
            ("tq2_0", GgufType::TQ2_0, &[3, 256]),
            ("cube", GgufType::F32, &[3, 2, 4]),
        ]
    );
    let cube = g.tensor("cube").unwrap().data(EVERY_KIND);
    let f32s = g.tensor("f32").unwrap().data(EVERY_KIND);
    assert_eq!(cube[..16], f32s[..16], "both start with the first row of the same matrix");
    assert!(matches!(g.tensor("none"), Err(GgufError::MissingTensor(_))));
}

#[test]
fn our_writer_writes_the_bytes_of_gguf_py() {
    let g = Gguf::parse(EVERY_KIND).unwrap();
    let mut writer = GgufWriter::new(g.metadata.clone());
    for t in &g.tensors {
        writer.add(&t.name, t.ty, &t.shape).unwrap();
    }
    let file = Scratch::new("every-kind");
    let length = writer
        .write(&file.0, |t, sink| {
            let data = g.tensor(&t.name)?.data(EVERY_KIND);
            data.chunks(100).try_for_each(|piece| Ok::<_, GgufError>(sink.put(piece)?))
        })
        .unwrap();
    assert_eq!(std::fs::read(&file.0).unwrap(), EVERY_KIND);
    assert_eq!(length, EVERY_KIND.len() as u64);
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let file = Scratch::new("failed");
    std::fs::write(&file.0, "before").unwrap();
    let mut writer = GgufWriter::new(Metadata::default());
    writer.add("a", GgufType::F32, &[4]).unwrap();
    for wrong in [15, 17] {
        let err = writer.write(&file.0, |_, sink| Ok::<_, GgufError>(sink.put(&vec![0; wrong])?)).unwrap_err();
        assert!(matches!(err, GgufError::Write(WriteError::Length { expected: 16, .. })), "{err}");
    }
    assert_eq!(std::fs::read(&file.0).unwrap(), b"before");
    let name = file.0.file_name().unwrap().to_str().unwrap();
    let folder = std::fs::read_dir(file.0.parent().unwrap()).unwrap();
    let left = folder.filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().contains(name)).count();
    assert_eq!(left, 1, "no temporary file is left behind");
    let err = writer.write(&file.0.join("not-a-folder"), |_, _| Ok::<_, GgufError>(())).unwrap_err();
    assert!(err.to_string().starts_with("cannot write"), "{err}");
}

#[test]
fn rotated_weights_are_refused_with_the_reason() {
    let file = Scratch::new("rotated.gguf");
    let mut metadata = Metadata::default();
    metadata.insert("general.architecture", Value::String("llama".into()));
    metadata.insert("prism.hadamard.version", Value::U32(1));
    let mut writer = GgufWriter::new(metadata);
    writer.add("output_norm.weight", GgufType::F32, &[4]).unwrap();
    writer.write(&file.0, |_, sink| Ok::<_, GgufError>(sink.put(&[0; 16])?)).unwrap();
    let message = Checkpoint::open(&file.0, &OpenOptions::default()).err().unwrap().to_string();
    assert!(message.contains("rotated (keys prism.hadamard.*), which is not supported"), "{message}");
}

#[test]
fn invalid_tensors_are_refused() {
    let mut writer = GgufWriter::new(Metadata::default());
    writer.add("a", GgufType::F32, &[4]).unwrap();
    for (name, ty, shape, problem) in [
        ("a", GgufType::F32, &[4][..], "it occurs twice"),
        ("b", GgufType::TQ1_0, &[2, 128], "rows of 128 are not whole blocks of type TQ1_0"),
        ("c", GgufType::F32, &[], "its shape []"),
        ("d", GgufType::F32, &[1, 0], "its shape [1, 0]"),
        ("e", GgufType::F32, &[1, 1, 1, 1, 1], "its shape [1, 1, 1, 1, 1]"),
        ("f", GgufType::F32, &[usize::MAX, 2], "its shape"),
    ] {
        let err = writer.add(name, ty, shape).unwrap_err().to_string();
        assert!(err.contains(problem), "{err}");
    }
    assert!(writer.add(&"x".repeat(64), GgufType::F32, &[1]).is_err());
}

/// A tensor as a test puts it into a file: name, dimensions in the order of the file, type, offset.
type Raw<'a> = (&'a str, &'a [u64], u32, u64);

/// A file without `general.alignment`, with these tensors, followed by `data` bytes.
fn file(tensors: &[Raw], data: usize) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(0u64.to_le_bytes());
    for (name, dims, number, offset) in tensors {
        out.extend((name.len() as u64).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(number.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32) + data, 0);
    out
}

/// A file with one metadata entry of these bytes.
fn entry(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    out.extend(bytes);
    out
}

fn error(file: &[u8]) -> String {
    let message = Gguf::parse(file).unwrap_err().to_string();
    assert!(!message.contains('\n') && message.len() < 400, "one line: {message}");
    message
}

#[test]
fn wrong_files_are_named_for_what_they_are() {
    for (bytes, expected) in [
        (&b""[..], "not a GGUF file"),
        (b"PK\x03\x04zip", "not a GGUF file: it starts with \"PK\\x03\\x04\""),
        (b"GGUF\0\0\0\x03", "big-endian"),
        (b"GGUF\x01\0\0\0", "version 1 is not supported"),
        (b"GGUF\x03\0\0", "the file ends at byte 7 inside the header"),
        (b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "cut short or damaged"),
    ] {
        let message = error(bytes);
        assert!(message.contains(expected), "{message}");
    }
    let f32s = |offset| ("t", &[8u64][..], 0, offset);
    for (bytes, expected) in [
        (file(&[("t", &[8, 0], 0, 0)], 64), "tensor \"t\": a dimension of size 0"),
        (file(&[("t", &[], 0, 0)], 64), "0 dimensions"),
        (file(&[("t", &[1, 1, 1, 1, 1], 0, 0)], 64), "5 dimensions"),
        (file(&[("t", &[1 << 40, 1 << 40], 0, 0)], 64), "more weights than memory"),
        (file(&[f32s(4)], 64), "starts at 4, which is not a multiple of 32"),
        (file(&[f32s(64)], 64), "the file ends at byte 128 inside the data of tensor \"t\""),
        (file(&[f32s(u64::MAX - 31)], 64), "the data of tensor \"t\""),
        (file(&[f32s(0), ("u", &[8], 0, 0)], 64), "overlap"),
        (file(&[("u", &[16], 0, 0), ("v", &[8], 0, 32)], 64), "overlap the next tensor"),
        (file(&[f32s(0), f32s(32)], 64), "tensor \"t\": it occurs twice"),
        (file(&[("t", &[100], 14, 0)], 256), "rows of 100 are not whole blocks of 256 of type Q6_K"),
    ] {
        let message = error(&bytes);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn wrong_metadata_is_named_by_its_key() {
    let key = |k: &str, rest: &[u8]| [&(k.len() as u64).to_le_bytes(), k.as_bytes(), rest].concat();
    let mut twice = entry(&[key("k", &[4, 0, 0, 0, 1, 0, 0, 0]), key("k", &[4, 0, 0, 0, 1, 0, 0, 0])].concat());
    twice[16] = 2;
    // An array of arrays of ... five deep.
    let nested: Vec<u8> = [9u32; 6].iter().flat_map(|n| [&n.to_le_bytes()[..], &1u64.to_le_bytes()].concat()).collect();
    let nested = [&nested[..4], &nested].concat();
    for (bytes, expected) in [
        (twice, "metadata key \"k\": it occurs twice"),
        (entry(&key("k", &[13, 0, 0, 0, 0])), "metadata key \"k\": unknown kind of value 13"),
        (entry(&key("k", &[7, 0, 0, 0, 2])), "metadata key \"k\": a boolean of value 2"),
        (
            entry(&key("k", &[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff])),
            "metadata key \"k\": a string that is not UTF-8",
        ),
        (
            entry(&key("k\n", &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])),
            "inside metadata key \"k\\n\", which takes 72057594037927936",
        ),
        (entry(&key("k", &nested)), "nested deeper"),
        (
            entry(&key("general.alignment", &[4, 0, 0, 0, 3, 0, 0, 0])),
            "general.alignment: 3 is not a reasonable power of two",
        ),
        (entry(&key("general.alignment", &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), "should be an integer"),
    ] {
        let message = error(&bytes);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn colliding_numbers_are_told_apart_by_size() {
    let n = 256 * 256usize;
    let dims: &[u64] = &[256, 256];
    let two = |number, size: usize| {
        let next = size.next_multiple_of(32);
        file(&[("t", dims, number, 0), ("u", &[8], 0, next as u64)], next + 32)
    };
    for (number, size, expected) in [
        (36, n / 4 + 32, "I2_S"),
        (42, n / 64 * 18, "Q2_0"),
        (42, n / 128 * 34, "Q2_0 (groups of 128)"),
        (42, n * 5 / 24, "TL2"),
        (39, n / 32 * 17, "MXFP4"),
        (39, n * 5 / 24, "TL2"),
        (38, n / 4 + 32, "TL1"),
        (40, n / 64 * 36, "NVFP4"),
        (13, n / 256 * 176, "Q5_K"),
        (20, n / 32 * 18, "IQ4_NL"),
        (41, n / 128 * 18, "Q1_0"),
        (142, n / 128 * 34, "PQ2_0"),
        (142, n / 128 * 35, "unknown"),
        (143, n / 128 * 28, "PTQ1_0"),
        (143, n / 128 * 34, "unknown"),
        (42, n / 256 * 42, "STQ1_0"),
        (43, n / 256 * 42, "STQ1_0"),
        (43, n / 2, "unknown"),
        (28, n * 8, "F64"),
        (134, n / 64 * 13 + 256 * 2, "IQ1_BN"),
        (134, n / 64 * 13, "unknown"),
        (135, n / 64 * 16 + 256 * 4, "IQ2_BN"),
        (335, n / 64 * 16 + 256 * 4, "IQ2_BN_R4"),
        (4, n / 2, "unknown"),
        (4_000_000_000, n, "unknown"),
    ] {
        let bytes = two(number, size);
        let g = Gguf::parse(&bytes).unwrap();
        let t = g.find("t").unwrap();
        assert_eq!((t.ty.name(), t.ty.number()), (expected, number));
        match g.tensor("t") {
            Ok(t) => assert_eq!((t.ty.advice(), t.range.len()), (None, size)),
            Err(e) => {
                let message = e.to_string();
                let start = format!("tensor \"t\" has type {expected} (number {number}), which is not supported: ");
                assert!(message.starts_with(&start), "{message}");
                assert_eq!(message.contains("convert the Hugging Face checkpoint again"), expected.starts_with("TL"));
                assert_eq!(message.contains("it is newer than this program"), expected == "unknown");
                assert!(!message.contains("damaged"));
            }
        }
    }
    // Cut short, the file is not mistaken for TL2.
    let bytes = file(&[("t", dims, 42, 0), ("u", dims, 42, (n / 64 * 18) as u64)], n / 64 * 18 + 100);
    assert!(error(&bytes).contains("inside the data of tensor \"u\""));
}
