//! The tokenizer of the shared Shakespeare checkpoint against what transformers made of its prompt.

use std::path::Path;

use bitnet_model::tokenizer::{StreamDecoder, StreamStart, Tokenizer};
use serde_json::Value;

/// The integers of one tensor of a safetensors file.
fn ids(file: &[u8], name: &str) -> Vec<u32> {
    let header_len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + header_len]).unwrap();
    let entry = &header[name];
    let width = match entry["dtype"].as_str().unwrap() {
        "I64" => 8,
        "I32" => 4,
        other => panic!("{name} is {other}"),
    };
    let at = |i: usize| 8 + header_len + entry["data_offsets"][i].as_u64().unwrap() as usize;
    (file[at(0)..at(1)].chunks(width)).map(|b| u32::from_le_bytes(b[..4].try_into().unwrap())).collect()
}

#[test]
fn prompt_and_greedy_text_equal_the_golden() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    let folder = root.join("shakespeare-hf-offline");
    if !folder.exists() {
        eprintln!("skipped: no shared reference checkpoint at {}", folder.display());
        return;
    }
    let tokenizer = Tokenizer::from_file(&folder).unwrap();
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let tensors = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let prompt = golden["prompt"].as_str().unwrap();
    assert_eq!(tokenizer.encode(prompt, true).unwrap(), ids(&tensors, "input_ids"));

    let greedy = ids(&tensors, "greedy_ids");
    let text = golden["greedy_text"].as_str().unwrap();
    assert_eq!(tokenizer.decode(&greedy).unwrap(), text);
    let mut stream = StreamDecoder::new(StreamStart::Text);
    let mut streamed = String::new();
    for &id in &greedy {
        streamed.push_str(stream.push(&tokenizer, id).unwrap());
    }
    streamed.push_str(stream.finish());
    assert_eq!(streamed, text);

    assert_eq!(tokenizer.vocab_size(), 2048);
    assert_eq!(tokenizer.special().bos, Some(0));
    assert_eq!(tokenizer.special().eos, Some(1));
    assert_eq!(tokenizer.special().stop, [1]);
}
