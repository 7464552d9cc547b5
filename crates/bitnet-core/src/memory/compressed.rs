//! Tensors that are not in use, compressed.

use crate::{BitNetDType, BitNetTensor, Device, Result, TensorOpError};

/// A tensor that was handed over to take less memory, compressed by LZ4. It comes back equal bit for bit, on the same device
/// and from the same pool. Weights of many equal values, masks and caches that are partly empty become small; random floats
/// do not.
///
/// ```
/// use bitnet_core::{BitNetDType, BitNetTensor, Device, memory::CompressedTensor};
/// let mask = BitNetTensor::ones(&[512, 512], BitNetDType::F32, &Device::cpu())?.tril(0)?;
/// let (bytes, values) = (mask.storage_bytes(), mask.to_vec::<f32>()?);
/// let packed = CompressedTensor::new(mask)?;
/// assert!(packed.bytes() < bytes / 50);
/// assert_eq!(packed.restore()?.to_vec::<f32>()?, values);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CompressedTensor {
    data: Vec<u8>,
    len: usize,
    dims: Vec<usize>,
    dtype: BitNetDType,
    device: Device,
}

impl CompressedTensor {
    /// Compresses the elements of a tensor, in row-major order. Errors: it requires a gradient, whose history would be lost.
    pub fn new(tensor: BitNetTensor) -> Result<Self> {
        if tensor.requires_grad() {
            return Err(argument("the tensor requires a gradient: detach it first".into()));
        }
        let bytes = tensor.to_bytes()?;
        let (dims, dtype, device) = (tensor.dims().to_vec(), tensor.dtype(), tensor.device().clone());
        Ok(Self { data: lz4_flex::block::compress(&bytes), len: bytes.len(), dims, dtype, device })
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The tensor as it was. Errors: no memory for it.
    pub fn restore(&self) -> Result<BitNetTensor> {
        let bytes = lz4_flex::block::decompress(&self.data, self.len).map_err(|error| argument(error.to_string()))?;
        BitNetTensor::from_bytes(&bytes, &self.dims, self.dtype, &self.device)
    }
}

fn argument(message: String) -> crate::BitNetError {
    TensorOpError::Argument { op: "CompressedTensor", message }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HybridMemoryPool, TensorMetadata};

    #[test]
    fn a_tensor_comes_back_bit_for_bit_in_its_pool() {
        let pool = HybridMemoryPool::new().unwrap();
        for dtype in [BitNetDType::F32, BitNetDType::BF16, BitNetDType::I8, BitNetDType::Bool] {
            let metadata = TensorMetadata::new(vec![64, 33], dtype, Device::cpu());
            let mut x = BitNetTensor::new(metadata, &pool).unwrap();
            x.narrow(0, 3, 5).unwrap().fill_(1).unwrap();
            x = x.transpose(0, 1).unwrap();
            let bytes = x.to_bytes().unwrap();
            let packed = CompressedTensor::new(x).unwrap();
            assert_eq!(pool.get_metrics().total_allocated, 0, "nothing of it stays in the pool");
            assert!(packed.bytes() < bytes.len());
            let back = packed.restore().unwrap();
            assert_eq!((back.to_bytes().unwrap(), back.dims(), back.dtype()), (bytes, &[33, 64][..], dtype));
            assert!(pool.get_metrics().total_allocated > 0, "it is in its pool again");
        }
        let odd = [f32::NAN, -0.0, f32::INFINITY, f32::from_bits(0x7fa0_0001), 1e-45];
        let x = BitNetTensor::from_slice(&odd, &[5], &Device::cpu()).unwrap();
        let back = CompressedTensor::new(x).unwrap().restore().unwrap().to_vec::<f32>().unwrap();
        assert_eq!(back.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), odd.map(f32::to_bits));
        let empty = BitNetTensor::zeros(&[0, 3], BitNetDType::F32, &Device::cpu()).unwrap();
        assert_eq!(CompressedTensor::new(empty).unwrap().restore().unwrap().dims(), [0, 3]);
    }

    #[test]
    fn history_is_not_lost_silently() {
        let mut x = BitNetTensor::ones(&[2], BitNetDType::F32, &Device::cpu()).unwrap();
        x.requires_grad_(true).unwrap();
        assert!(CompressedTensor::new(x.clone()).unwrap_err().to_string().contains("detach it first"));
        assert!(CompressedTensor::new(x.detach()).is_ok());
    }
}
