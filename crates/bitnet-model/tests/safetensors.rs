//! Checkpoints of one and of several safetensors files.

use std::path::{Path, PathBuf};

use bitnet_model::safetensors::{Dtype, FileError, Safetensors, SafetensorsError, SafetensorsWriter, Shards};
use bitnet_quant::formats::i2_s::{self, I2sOrder};
use bitnet_quant::formats::i2s_order::OrderHint;

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-safetensors-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A file with F32 tensors of one element.
    fn shard(&self, name: &str, tensors: &[(&str, f32)]) {
        let mut writer = SafetensorsWriter::new();
        tensors.iter().for_each(|(name, _)| writer.add(name, Dtype::F32, &[1]).unwrap());
        let value = |name: &str| tensors.iter().find(|t| t.0 == name).unwrap().1;
        writer
            .write(&self.0.join(name), |t, sink| Ok::<_, FileError>(sink.put(&value(&t.name).to_le_bytes())?))
            .unwrap();
    }

    fn index(&self, map: &[(&str, &str)]) {
        let map: std::collections::BTreeMap<_, _> = map.iter().copied().collect();
        let json = serde_json::json!({ "metadata": { "total_size": 0 }, "weight_map": map });
        std::fs::write(self.0.join("model.safetensors.index.json"), json.to_string()).unwrap();
    }

    /// The values of all tensors, by name.
    fn values(&self) -> Result<Vec<(String, f32)>, SafetensorsError> {
        let shards = Shards::find(&self.0)?;
        let files: Vec<Vec<u8>> = shards.paths(&self.0).iter().map(|p| std::fs::read(p).unwrap()).collect();
        let slices: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let tensors = shards.open(&slices)?;
        tensors.iter().map(|t| Ok((t.info.name.clone(), t.info.to_f32(slices[t.shard])?[0]))).collect()
    }

    fn error(&self) -> String {
        self.values().unwrap_err().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = Folder::new("shards");
    assert!(folder.error().contains("has no model.safetensors"), "{}", folder.error());
    folder.shard("a-1.safetensors", &[("x", 1.0), ("y", 2.0)]);
    folder.shard("a-2.safetensors", &[("z", 3.0)]);
    folder.index(&[("x", "a-1.safetensors"), ("y", "a-1.safetensors"), ("z", "a-2.safetensors")]);
    assert_eq!(folder.values().unwrap(), [("x".into(), 1.0), ("y".into(), 2.0), ("z".into(), 3.0)]);

    folder.index(&[("x", "a-1.safetensors"), ("z", "a-3.safetensors")]);
    assert!(folder.error().contains("it names a-3.safetensors, which is not there"), "{}", folder.error());
    // A tensor in another file than the index says is found.
    folder.index(&[("x", "a-1.safetensors"), ("z", "a-1.safetensors"), ("y", "a-2.safetensors")]);
    assert_eq!(folder.values().unwrap().len(), 3);
    folder.index(&[("x", "a-1.safetensors"), ("w", "a-2.safetensors")]);
    assert!(folder.error().contains("tensor w is not in a-2.safetensors"), "{}", folder.error());
    folder.shard("a-2.safetensors", &[("z", 3.0), ("x", 4.0)]);
    assert!(folder.error().contains("tensor x is in a-1.safetensors and in a-2.safetensors"), "{}", folder.error());

    // One file is taken before an index.
    folder.shard("model.safetensors", &[("only", 5.0)]);
    assert_eq!(folder.values().unwrap(), [("only".into(), 5.0)]);
}

#[test]
fn floats_are_widened_and_other_types_refused() {
    let folder = Folder::new("types");
    let path = folder.0.join("t.safetensors");
    let mut writer = SafetensorsWriter::new();
    writer.metadata("format", "pt");
    writer.add("f16", Dtype::F16, &[2]).unwrap();
    writer.add("bf16", Dtype::BF16, &[2]).unwrap();
    writer.add("i32", Dtype::I32, &[1, 1]).unwrap();
    assert!(writer.add("i32", Dtype::I32, &[1]).is_err());
    assert!(writer.add("half a byte", Dtype::F4, &[1]).is_err());
    assert!(writer.add("__metadata__", Dtype::I32, &[1]).is_err());
    let data = |name: &str| match name {
        "f16" => [0x00, 0x3c, 0x00, 0xc0],
        "bf16" => [0x80, 0x3f, 0x00, 0xc0],
        _ => [7, 0, 0, 0],
    };
    writer.write(&path, |t, sink| Ok::<_, FileError>(sink.put(&data(&t.name))?)).unwrap();

    let bytes = std::fs::read(&path).unwrap();
    let s = Safetensors::parse(&bytes, "t.safetensors").unwrap();
    assert_eq!(s.metadata["format"], "pt");
    assert_eq!(s.tensor("f16").unwrap().to_f32(&bytes).unwrap(), [1.0, -2.0]);
    assert_eq!(s.tensor("bf16").unwrap().to_f32(&bytes).unwrap(), [1.0, -2.0]);
    let err = s.tensor("i32").unwrap().to_f32(&bytes).unwrap_err().to_string();
    assert_eq!(err, "tensor i32 has type I32, but F32, F16 or BF16 is needed");
    assert_eq!(s.tensor("i32").unwrap().data(&bytes), [7, 0, 0, 0]);
    // The crate of the format reads it as well, so the header is what others write.
    assert_eq!(::safetensors::SafeTensors::deserialize(&bytes).unwrap().len(), 3);
    let err = Safetensors::parse(&bytes[..bytes.len() - 1], "t.safetensors").unwrap_err().to_string();
    assert!(err.starts_with("t.safetensors is not a readable safetensors file"), "{err}");
}

/// The block order of an I2_S file is inferred from the norms before its matrices.
#[test]
fn i2_s_order_of_the_shared_model_is_recognised() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models/shakespeare-hf-offline/model.safetensors");
    let Ok(file) = std::fs::read(&path) else {
        println!("skipped: there is no {}", path.display());
        return;
    };
    let s = Safetensors::parse(&file, "offline").unwrap();
    for order in [I2sOrder::X86, I2sOrder::Arm] {
        for layer in 0..6 {
            let mut hint = OrderHint::default();
            for (matrix, norm) in
                [("mlp.down_proj", "mlp.ffn_sub_norm"), ("self_attn.o_proj", "self_attn.attn_sub_norm")]
            {
                let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
                let norm = s.tensor(&name(norm)).unwrap().to_f32(&file).unwrap();
                let packed = s.tensor(&name(matrix)).unwrap();
                let (rows, cols) = (packed.shape[0] * 4, packed.shape[1]);
                let codes = bitnet_quant::formats::hf::decode(packed.data(&file), rows, cols).unwrap();
                let bytes = i2_s::encode(&codes, 1.0, order).unwrap();
                hint.add(&bytes, rows, cols, &norm).unwrap();
                let mut flat = OrderHint::default();
                flat.add(&bytes, rows, cols, &vec![1.0; cols]).unwrap();
                assert_eq!(flat.order(), None, "a norm that does not vary tells nothing");
                assert!(flat.add(&bytes, rows, cols, &norm[1..]).is_err());
            }
            assert_eq!(hint.order(), Some(order), "layer {layer}: {hint:?}");
        }
    }
}

/// The two trained checkpoints: the packed one holds the absmean of the other's master weights.
#[test]
fn masters_of_the_shared_model_quantize_to_its_packed_weights() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    let read = |form: &str| std::fs::read(shared.join(form).join("model.safetensors"));
    let (Ok(masters), Ok(packed)) = (read("shakespeare-hf-online"), read("shakespeare-hf-offline")) else {
        println!("skipped: there is no {}", shared.display());
        return;
    };
    let (m, p) = (Safetensors::parse(&masters, "online").unwrap(), Safetensors::parse(&packed, "offline").unwrap());
    let mut compared = 0;
    for t in p.tensors().filter(|t| t.dtype == Dtype::U8) {
        let master = m.tensor(&t.name).unwrap();
        let (rows, cols) = (master.shape[0], master.shape[1]);
        let ours = bitnet_quant::ternarize::absmean(&master.to_f32(&masters).unwrap(), rows, cols).unwrap();
        let theirs = bitnet_quant::formats::hf::decode(t.data(&packed), rows, cols).unwrap();
        assert_eq!(ours.0, theirs, "{}", t.name);
        let scale = p.tensor(&format!("{}_scale", t.name)).unwrap().to_f32(&packed).unwrap()[0];
        assert!((ours.1 - scale).abs() <= scale / 256.0, "bf16 keeps 8 bits: {} {scale}", ours.1);
        compared += 1;
    }
    assert_eq!(compared, 42);
}
