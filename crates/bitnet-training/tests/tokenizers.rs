//! Tokenizers that are made here, as Hugging Face's tokenizers and transformers make and read them
//! (data/tokenizers/make.py).

use bitnet_model::tokenizer::Tokenizer;
use bitnet_training::config::TokenizerKind;
use bitnet_training::tokenize::{NewTokenizer, make};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn tokenizers_are_what_transformers_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers");
    let sample = folder.join("sample.txt");
    let golden: Value = match fs::read(folder.join("golden.json")) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => Value::Null,
    };
    for (kind, name) in [(TokenizerKind::Char, "char"), (TokenizerKind::Bytes, "bytes"), (TokenizerKind::Bpe, "bpe")] {
        let new = NewTokenizer { kind, vocab_size: 320, special: vec!["<|end|>".into()], document_end: None };
        let made = make(&[&sample], &new, &mut |_, _| Ok(())).unwrap();
        let own = folder.join(name);
        if std::env::var_os("BITNET_WRITE_GOLDEN").is_some() {
            fs::create_dir_all(&own).unwrap();
            made.save(&own).unwrap();
            continue;
        }
        assert_eq!(made.json, fs::read_to_string(own.join("tokenizer.json")).unwrap(), "{name}");
        assert_eq!(made.config, fs::read_to_string(own.join("tokenizer_config.json")).unwrap(), "{name}");
        let tokenizer = Tokenizer::from_file(&own).unwrap();
        let expected = &golden[name];
        assert_eq!(expected["size"], tokenizer.vocab_size(), "{name}");
        assert_eq!(expected["eos"], tokenizer.special().eos.unwrap(), "{name}");
        for (probe, ids) in golden["probes"].as_array().unwrap().iter().zip(expected["ids"].as_array().unwrap()) {
            let own = tokenizer.encode(probe.as_str().unwrap(), false).unwrap();
            assert_eq!(Value::from(own), *ids, "{name}");
        }
        if kind == TokenizerKind::Bpe {
            let model: Value = serde_json::from_str(&made.json).unwrap();
            assert_eq!(model["model"]["merges"], golden["merges"]);
        }
    }
}

const REFUSED: &str = "a_tokenizer_is_trained_where_the_system_refuses_threads";

#[test]
fn a_tokenizer_is_trained_where_the_system_refuses_threads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers");
    if std::env::var_os("BITNET_TEST_REFUSED").is_some() {
        let special = vec!["<|end|>".into()];
        let new = NewTokenizer { kind: TokenizerKind::Bpe, vocab_size: 320, special, document_end: None };
        let made = make(&[folder.join("sample.txt")], &new, &mut |_, _| Ok(())).unwrap();
        assert_eq!(made.json, fs::read_to_string(folder.join("bpe/tokenizer.json")).unwrap());
        return;
    }
    // No system gives a thread a stack of an exabyte. The test's own thread would need one, so it runs on the main one.
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", REFUSED, "--test-threads", "1", "--nocapture"])
        .envs([("BITNET_TEST_REFUSED", "1"), ("RUST_MIN_STACK", "1152921504606846976")])
        .output()
        .unwrap();
    let (said, noted) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && said.contains("1 passed"), "{said}{noted}");
    #[cfg(feature = "parallel")]
    assert!(noted.contains("note: the system refuses more threads"), "{noted}");
}
