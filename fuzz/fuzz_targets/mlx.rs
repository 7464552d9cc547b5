//! The safetensors of a small model that MLX quantized: every matrix is read, or refused in one line.
#![no_main]

use bitnet_model::checkpoint::{Checkpoint, OpenOptions, Projection};
use libfuzzer_sys::fuzz_target;

/// Two and three bits in groups of 32.
const CONFIG: &str = r#"{"model_type": "bitnet", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 4, "quantization": {"group_size": 32, "bits": 2,
    "model.embed_tokens": {"group_size": 32, "bits": 3}}}"#;

fuzz_target!(|file: &[u8]| {
    let folder = std::env::temp_dir().join(format!("bitnet-fuzz-mlx-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("config.json"), CONFIG).expect("room");
    std::fs::write(folder.join("model.safetensors"), file).expect("room");
    let checkpoint = match Checkpoint::open(&folder, &OpenOptions::default()) {
        Ok(checkpoint) => checkpoint,
        Err(e) => return assert!(!e.to_string().contains('\n')),
    };
    let weights = checkpoint.weights();
    let _ = weights.embedding().map(|embedding| embedding.to_f32()).map_err(|e| e.to_string());
    for projection in Projection::ALL {
        let _ = weights.linear(0, projection).map_err(|e| assert!(!e.to_string().contains('\n')));
    }
});
