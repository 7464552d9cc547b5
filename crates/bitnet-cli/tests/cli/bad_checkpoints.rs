//! Wrong paths and damaged checkpoints, through every command that opens one.

use super::*;

/// All commands that open a checkpoint refuse it in the same way.
fn every_command_refuses(path: &Path, words: &[&str]) {
    let path = str(path);
    let text = repository().join("LICENSE");
    let out = folder("refused-output").join("out.npy");
    let (text, out) = (str(&text), str(&out));
    for args in [
        &["generate", "x", "--model", path][..],
        &["chat", "--model", path],
        &["logits", "--model", path, "--tokens", "1", "--output", out],
        &["perplexity", "--model", path, "--file", text],
        &["inspect", path],
        &["inspect", path, "--json"],
        &["convert", path, out, "--to", "tq2_0"],
        &["bench", "--model", path, "-t", "1"],
    ] {
        refused(args, words);
        assert!(!Path::new(out).exists(), "{args:?} left a file");
    }
}

#[test]
fn paths_that_lead_nowhere() {
    let folder = folder("nowhere");
    every_command_refuses(&folder.join("absent.gguf"), &["absent.gguf", ".gguf file"]);
    every_command_refuses(&folder, &["config.json"]);
    fs::write(folder.join("empty.gguf"), b"").unwrap();
    every_command_refuses(&folder.join("empty.gguf"), &["empty.gguf"]);
    every_command_refuses(&repository().join("LICENSE"), &["LICENSE", "GGUF"]);
}

#[test]
fn no_model_in_the_tree() {
    // Outside the repository, but the program itself lies in its target folder: then its model is found.
    let mut command = program(&["generate", "x", "-n", "1"]);
    command.current_dir(std::env::temp_dir());
    let output = run_with(command, b"");
    if !output.status.success() {
        check_refused(&["generate"], output, &["models/*.gguf", "--model"]);
    }
}

#[test]
fn damaged_gguf() {
    let folder = folder("damaged-gguf");
    let bytes = fs::read(golden("gguf/bitnet-b1.58-i2_s.gguf")).unwrap();
    let file = folder.join("damaged.gguf");
    for len in [3, 8, 23, 24, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..len]).unwrap();
        every_command_refuses(&file, &["damaged.gguf"]);
    }
    // Numbers of tensors and of keys, each as large as can be written.
    for at in [8, 16] {
        let mut hostile = bytes.clone();
        hostile[at..at + 8].fill(0xff);
        fs::write(&file, &hostile).unwrap();
        every_command_refuses(&file, &["damaged.gguf"]);
    }
}

#[test]
fn damaged_safetensors() {
    let dir = copy_of(&golden("bitnet-offline"), "damaged-safetensors");
    let file = dir.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    for len in [0, 7, 8, 100, bytes.len() - 1] {
        fs::write(&file, &bytes[..len]).unwrap();
        every_command_refuses(&dir, &["safetensors"]);
    }
    let mut hostile = bytes.clone();
    hostile[..8].fill(0xff);
    fs::write(&file, &hostile).unwrap();
    every_command_refuses(&dir, &["safetensors"]);
    fs::remove_file(&file).unwrap();
    every_command_refuses(&dir, &["safetensors"]);
}

#[test]
fn damaged_config() {
    let dir = copy_of(&golden("bitnet-offline"), "damaged-config");
    let file = dir.join("config.json");
    let config: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for text in ["", "{", "[]", "{}", "\"text\""] {
        fs::write(&file, text).unwrap();
        every_command_refuses(&dir, &["config.json"]);
    }
    for (key, value) in [
        ("model_type", "mamba".into()),
        ("hidden_size", 0.into()),
        ("hidden_size", u64::MAX.into()),
        ("hidden_size", (-1).into()),
        ("num_hidden_layers", u32::MAX.into()),
        ("num_key_value_heads", 3.into()),
        ("hidden_act", "gelu".into()),
    ] {
        let mut changed = config.clone();
        changed[key] = value;
        fs::write(&file, changed.to_string()).unwrap();
        every_command_refuses(&dir, &["config"]);
    }
}

#[test]
fn weights_that_contradict_the_config() {
    let dir = copy_of(&golden("bitnet-offline"), "contradiction");
    let file = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["vocab_size"] = (config["vocab_size"].as_u64().unwrap() + 1).into();
    fs::write(&file, config.to_string()).unwrap();
    let out = folder("contradiction-output").join("out.npy");
    refused(&["logits", "--model", str(&dir), "--tokens", "1", "--output", str(&out)], &["embed"]);
    refused(&["bench", "--model", str(&dir), "-t", "1", "-p", "2", "-n", "1"], &["embed"]);
}

#[test]
fn tokenizers_absent_and_damaged() {
    let dir = copy_of(&golden("bitnet-offline"), "damaged-tokenizer");
    let text = repository().join("LICENSE");
    let refuse_text = |words: &[&str]| {
        refused(&["generate", "x", "--model", str(&dir)], words);
        refused(&["chat", "--model", str(&dir)], words);
        refused(&["logits", "--model", str(&dir), "--prompt", "x", "--output", "/dev/null"], words);
        refused(&["perplexity", "--model", str(&dir), "--file", str(&text)], words);
    };
    refuse_text(&["no usable tokenizer"]);
    for damaged in ["", "{}", "[1, 2", r#"{"model": {"type": "WordLevel", "vocab": {}}}"#] {
        fs::write(dir.join("tokenizer.json"), damaged).unwrap();
        refuse_text(&["tokenizer"]);
    }
}

#[test]
fn tokens_and_outputs() {
    let dir = golden("bitnet-offline");
    let out = folder("tokens").join("out.safetensors");
    let logits = |tokens: &str, out: &Path, words: &[&str]| {
        refused(&["logits", "--model", str(&dir), "--tokens", tokens, "--output", str(out)], words);
        assert!(!out.exists());
    };
    logits("1,99999999", &out, &["99999999", "vocabulary"]);
    logits("-1", &out, &["-1"]);
    logits("", &out, &["--tokens"]);
    logits(&vec!["1"; 5000].join(","), &out, &["5000 tokens", "context"]);
    logits("1", &out.join("deeper/file.npy"), &["deeper/file.npy"]);
}

#[test]
fn a_checkpoint_is_not_written_over_itself() {
    let dir = copy_of(&golden("gguf"), "itself");
    let file = dir.join("bitnet-b1.58-i2_s.gguf");
    let before = fs::read(&file).unwrap();
    refused(&["convert", str(&file), str(&file), "--to", "i2_s"], &["another path"]);
    assert_eq!(fs::read(&file).unwrap(), before);
}
