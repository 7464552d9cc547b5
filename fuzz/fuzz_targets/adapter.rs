//! An adapter: a GGUF file, or `adapter_config.json`, a zero byte and `adapter_model.safetensors`.
#![no_main]

use bitnet_model::Config;
use bitnet_model::checkpoint::Adapter;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 8}"#;

fn open(path: &Path) {
    let config = Config::from_json(CONFIG).expect("a configuration");
    let _ = Adapter::open(path, &config, 1.).map_err(|e| assert!(!e.to_string().contains('\n')));
}

fuzz_target!(|file: &[u8]| {
    let folder = std::env::temp_dir().join(format!("bitnet-fuzz-adapter-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    match file.iter().position(|&b| b == 0).filter(|_| !file.starts_with(b"GGUF")) {
        Some(at) => {
            std::fs::write(folder.join("adapter_config.json"), &file[..at]).expect("room");
            std::fs::write(folder.join("adapter_model.safetensors"), &file[at + 1..]).expect("room");
            open(&folder);
        }
        None => {
            let path = folder.join("adapter.gguf");
            std::fs::write(&path, file).expect("room");
            open(&path);
        }
    }
});
