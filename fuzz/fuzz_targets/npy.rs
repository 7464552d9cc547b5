//! An npy file.
#![no_main]

use bitnet_core::Device;
use bitnet_core::serialize::npy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    match npy::from_bytes(file, &Device::cpu()) {
        Ok(tensor) => assert!(tensor.shape().elements() * tensor.dtype().block().1 <= file.len()),
        Err(e) => assert!(!e.to_string().contains('\n')),
    }
});
