//! An npz archive, and the same bytes as a safetensors file whose tensors are read.
#![no_main]

use bitnet_core::Device;
use bitnet_core::serialize::{npz, safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    for read in [npz::from_bytes, safetensors::from_bytes] {
        match read(file, &Device::cpu()) {
            Ok(tensors) => {
                let bytes = tensors.values().map(|t| t.shape().elements() * t.dtype().block().1);
                // Deflate makes at most 1,032 bytes of one.
                assert!(bytes.sum::<usize>() <= file.len() * 1033);
            }
            Err(e) => assert!(!e.to_string().contains('\n')),
        }
    }
});
