//! Tensors in files: [`safetensors`], and NumPy's [`npy`] and [`npz`].
//!
//! Files are written atomically (to a temporary name, synced, renamed), one tensor at a time. They are memory-mapped
//! for reading, so that only the requested tensors are loaded; a damaged file is an error that says what is wrong.
//!
//! | | elements | one tensor of many | without a copy |
//! |---|---|---|---|
//! | safetensors | all but packed types | [`SafetensorsFile::tensor`](safetensors::SafetensorsFile::tensor) | [`mapped`](safetensors::SafetensorsFile::mapped) |
//! | npy | all but bf16 and packed types | | [`npy::load_mapped`] |
//! | npz | as npy | [`NpzFile::tensor`](npz::NpzFile::tensor) | [`mapped`](npz::NpzFile::mapped), where stored |
//!
//! ```
//! use bitnet_core::serialize::{npz, safetensors};
//! use bitnet_core::{BitNetTensor, Device};
//! let device = Device::cpu();
//! let weight = BitNetTensor::from_slice(&[1f32, 2., 3., 4.], &[2, 2], &device)?;
//! let bias = BitNetTensor::from_slice(&[0.5f64, -0.5], &[2], &device)?;
//!
//! let folder = std::env::temp_dir();
//! let path = folder.join("bitnet-doc-serialize.safetensors");
//! safetensors::save(&path, [("weight", &weight), ("bias", &bias)], &[("format", "pt")])?;
//! let tensors = safetensors::load(&path, &device)?;
//! assert_eq!(tensors["weight"].to_vec::<f32>()?, [1., 2., 3., 4.]);
//! assert_eq!(tensors.keys().collect::<Vec<_>>(), ["weight", "bias"]);
//!
//! let archive = folder.join("bitnet-doc-serialize.npz");
//! npz::save(&archive, &tensors, npz::Compression::Deflated)?;
//! assert_eq!(npz::NpzFile::open(&archive)?.tensor("bias", &device)?.to_vec::<f64>()?, [0.5, -0.5]);
//! # for path in [path, archive] { std::fs::remove_file(path).unwrap(); }
//! # Ok::<(), bitnet_core::BitNetError>(())
//! ```

mod error;
pub mod npy;
pub mod npz;
pub mod output;
mod python;
pub mod safetensors;
mod zip;

pub use error::{FileError, one_line};
pub use output::WriteError;

use crate::{BitNetDType, BitNetTensor, Device, Result, TensorStorage};

/// Named tensors in the order of their file.
pub type TensorMap = indexmap::IndexMap<String, BitNetTensor>;

/// Elements of files are little-endian (those of npy files may be either): exchanges the byte order of elements.
fn swap_bytes(bytes: &mut [u8], dtype: BitNetDType) {
    bytes.chunks_exact_mut(dtype.block().1).for_each(<[u8]>::reverse);
}

/// Calls `take` with the bytes of a tensor in row-major order, as files hold them.
fn with_bytes<R>(tensor: &BitNetTensor, take: impl FnOnce(&[u8]) -> R) -> Result<R> {
    with_own_bytes(tensor, |bytes| {
        if cfg!(target_endian = "little") {
            return take(bytes);
        }
        let mut bytes = bytes.to_vec();
        swap_bytes(&mut bytes, tensor.dtype());
        take(&bytes)
    })
}

/// As [`with_bytes`], in this machine's byte order.
fn with_own_bytes<R>(tensor: &BitNetTensor, take: impl FnOnce(&[u8]) -> R) -> Result<R> {
    tensor.unpacked("save")?;
    if !tensor.layout().is_contiguous() {
        return with_own_bytes(&tensor.copy()?, take);
    }
    let size = tensor.dtype().block().1;
    let (start, len) = (tensor.layout().offset() * size, tensor.shape().elements() * size);
    if len == 0 {
        return Ok(take(&[]));
    }
    // Bytes have no history.
    let tensor = &tensor.detach();
    if let TensorStorage::Cpu(storage) = tensor.as_ref().storage {
        return Ok(take(&storage.bytes()[start..start + len]));
    }
    let mut bytes = vec![0; len];
    tensor.device().download(tensor.as_ref().storage, start, &mut bytes)?;
    Ok(take(&bytes))
}

/// A new tensor of the CPU or of `device`, whose bytes `fill` writes in host memory.
fn filled(
    dims: &[usize],
    dtype: BitNetDType,
    device: &Device,
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<BitNetTensor> {
    let host = if device.is_host() { device.clone() } else { Device::cpu() };
    let mut tensor = BitNetTensor::empty(dims, dtype, &host)?;
    let len = tensor.shape().elements() * dtype.block().1;
    fill(&mut tensor.as_mut()?.storage.cpu_mut("load", dtype)?.bytes_mut()?[..len])?;
    tensor.to_device(device)
}

/// An error message if the bytes of a tensor are invalid: a bool must be 0 or 1.
pub(crate) fn bad_element(bytes: &[u8], dtype: BitNetDType) -> Option<String> {
    let bad = |i: usize| format!("element {i} of a bool array is {}, neither 0 nor 1", bytes[i]);
    (dtype == BitNetDType::Bool).then(|| bytes.iter().position(|&b| b > 1).map(bad)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a file do not depend on the machine that writes it.
    #[test]
    fn files_are_little_endian() {
        let x = BitNetTensor::from_slice(&[1f32, -2.5], &[2], &Device::cpu()).unwrap();
        let expected = [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0];
        with_bytes(&x, |bytes| assert_eq!(bytes, expected)).unwrap();
        let mut bytes = expected;
        swap_bytes(&mut bytes, BitNetDType::F32);
        assert_eq!(bytes, [0x3f, 0x80, 0, 0, 0xc0, 0x20, 0, 0]);
        with_own_bytes(&x, |own| assert_eq!(own, if cfg!(target_endian = "big") { bytes } else { expected })).unwrap();
    }
}
