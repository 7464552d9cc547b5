//! A safetensors file, and the same bytes as an index of shards.
#![no_main]

use bitnet_model::safetensors::{Safetensors, Shards};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    match Safetensors::parse(file, "fuzz") {
        Ok(s) => {
            for t in s.tensors() {
                assert_eq!(t.data(file).len(), t.range.len());
                let _ = t.to_f32(file);
            }
        }
        Err(e) => assert!(!e.to_string().contains('\n')),
    }
    match Shards::from_index(file) {
        Ok(shards) => {
            for path in shards.paths("folder".as_ref()) {
                assert_eq!(path.parent(), Some("folder".as_ref()));
            }
            assert!(shards.open(&[file]).is_err() || shards.paths("".as_ref()).len() == 1);
        }
        Err(e) => assert!(!e.to_string().contains('\n')),
    }
});
