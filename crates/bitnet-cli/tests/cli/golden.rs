//! Logits, as transformers computes them.

use super::*;
use bitnet::model::safetensors::Safetensors;

fn read(path: &Path, ids: &str) -> (Vec<u32>, Vec<f32>, Vec<usize>) {
    let bytes = fs::read(path).unwrap();
    let file = Safetensors::parse(&bytes, str(path)).unwrap();
    let ids = file.tensor(ids).unwrap().data(&bytes).chunks_exact(4);
    let ids = ids.map(|id| u32::from_le_bytes(id.try_into().unwrap())).collect();
    let logits = file.tensor("logits").unwrap();
    (ids, logits.to_f32(&bytes).unwrap(), logits.shape.clone())
}

/// `bitnet logits` with the tokens of `expected` gives its logits, to a thousandth of the largest. The tokens are all that the
/// reference generated, the logits those of the first: angles may depend on the length of the text.
pub(super) fn check(model: &Path, expected: &Path, flags: &[&str]) {
    let name = model.file_stem().unwrap().to_str().unwrap();
    let out = folder(&format!("golden-{name}")).join("logits.safetensors");
    let (ids, golden, shape) = read(expected, "greedy_ids");
    let tokens = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut args = vec!["logits", "--model", str(model), "--tokens", &tokens, "--output", str(&out)];
    args.extend(flags);
    assert_eq!(stdout(&args), "");
    let (our_ids, ours, our_shape) = read(&out, "input_ids");
    assert_eq!(our_shape, [ids.len(), shape[1]], "{name}");
    assert_eq!(our_ids, ids, "{name}");
    let largest = golden.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = ours.iter().zip(&golden).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error <= 1e-3 * largest, "{name}: {error} of {largest}");
}

#[test]
fn hugging_face_checkpoints() {
    let mut checked = 0;
    for entry in fs::read_dir(golden("")).unwrap() {
        let dir = entry.unwrap().path();
        if dir.join("config.json").is_file() {
            check(&dir, &dir.join("golden.safetensors"), &[]);
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} checkpoints");
}

/// The other types are compared in bitnet-inference; here, that the flag reaches the reader.
#[test]
fn gguf_checkpoints_of_either_block_order() {
    for (name, order) in [("bitnet-b1.58-i2_s", "x86"), ("bitnet-b1.58-i2_s-arm", "arm")] {
        let file = golden(&format!("gguf/{name}.gguf"));
        check(&file, &golden(&format!("gguf/{name}.golden.safetensors")), &["--i2s-order", order]);
    }
}
