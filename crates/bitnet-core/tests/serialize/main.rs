//! Tensor files: those of NumPy and PyTorch, our own, and damaged ones.
//!
//! The allocator of these tests stops the process when more than 64 MiB are in use; the files have a few kilobytes.

mod damaged;
mod golden;
mod round_trip;

use bitnet_core::{BitNetDType, BitNetTensor};
use cap::Cap;
use std::alloc::System;
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 64 << 20);

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-serialize-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file made by `make_files.py`.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The elements in row-major order.
fn bytes(tensor: &BitNetTensor) -> Vec<u8> {
    if !tensor.layout().is_contiguous() {
        return bytes(&tensor.copy().unwrap());
    }
    let size = tensor.dtype().block().1;
    let mut bytes = vec![0; tensor.shape().elements() * size];
    tensor.device().download(tensor.as_ref().storage, tensor.layout().offset() * size, &mut bytes).unwrap();
    bytes
}

/// The tensor that the script names after its dtype: 0 to 5, one less for signed types, halves for floats.
fn counting(dtype: BitNetDType) -> Vec<u8> {
    use BitNetDType::*;
    let float = |i: i32| i as f32 / 2.0;
    let each = |i: i32| match dtype {
        Bool => vec![(i % 2) as u8],
        U8 | U16 | U32 | U64 => i64::from(i).to_le_bytes()[..dtype.block().1].to_vec(),
        I8 | I16 | I32 | I64 => i64::from(i - 1).to_le_bytes()[..dtype.block().1].to_vec(),
        F16 => half::f16::from_f32(float(i)).to_le_bytes().to_vec(),
        BF16 => half::bf16::from_f32(float(i)).to_le_bytes().to_vec(),
        F32 => float(i).to_le_bytes().to_vec(),
        F64 => f64::from(float(i)).to_le_bytes().to_vec(),
        _ => panic!("{dtype} is packed"),
    };
    (0..6).flat_map(each).collect()
}

const DTYPES: [BitNetDType; 13] = {
    use BitNetDType::*;
    [Bool, U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64]
};

/// NumPy's name of it, except for bf16, which NumPy lacks.
fn name(dtype: BitNetDType) -> String {
    dtype.to_string()
}
