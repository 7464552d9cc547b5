//! Moments in 8 bits.

use crate::{Result, TrainingError};
use bitnet_core::{BitNetDType, BitNetTensor, Device};
use std::sync::OnceLock;

/// Elements that share a scale.
const BLOCK: usize = 256;

/// A tensor in 8 bits an element: the number of the nearest of 256 values between -1 and 1 (or 0 and 1), which are denser
/// near 0, times the largest magnitude of the element's block of 256 (Dettmers et al. 2022, dynamic tree quantization).
#[derive(Debug, Clone)]
pub struct BlockQuantized {
    /// `U8`, the shape of the tensor.
    codes: BitNetTensor,
    /// `F32` `[blocks]`.
    scales: BitNetTensor,
    signed: bool,
}

impl BlockQuantized {
    /// The nearest 8-bit form of a tensor of floats; unsigned where no element is negative.
    pub fn quantize(x: &BitNetTensor, signed: bool) -> Result<Self> {
        let blocks = into_blocks(&x.to_dtype(BitNetDType::F32)?)?;
        let scales = blocks.abs()?.amax(1, true)?;
        let divisor = scales.masked_fill(&scales.eq(0.)?, 1.)?;
        let between = BitNetTensor::from_slice(between(signed), &[255], x.device())?;
        let codes = BitNetTensor::searchsorted(&between, &blocks.div(&divisor)?, false)?;
        let codes = from_blocks(&codes.to_dtype(BitNetDType::U8)?, x.dims())?;
        Ok(Self { codes, scales: scales.reshape(&[scales.elements()])?, signed })
    }

    /// The tensor that the codes stand for.
    pub fn dequantize(&self, dtype: BitNetDType) -> Result<BitNetTensor> {
        let table = BitNetTensor::from_slice(table(self.signed), &[256], self.codes.device())?;
        let codes = into_blocks(&self.codes.to_dtype(BitNetDType::I64)?)?;
        let values = table.index_select(0, &codes.reshape(&[codes.elements()])?)?.reshape(codes.dims())?;
        Ok(from_blocks(&values.mul(&self.scales.unsqueeze(-1)?)?, self.codes.dims())?.to_dtype(dtype)?)
    }

    /// From codes `U8` and the `F32` scale of each 256 of them.
    ///
    /// # Errors
    /// Where they do not fit.
    pub fn from_parts(codes: BitNetTensor, scales: BitNetTensor, signed: bool) -> Result<Self> {
        let fits = codes.dtype() == BitNetDType::U8
            && scales.dtype() == BitNetDType::F32
            && scales.dims() == [codes.elements().div_ceil(BLOCK)];
        if fits {
            return Ok(Self { codes, scales, signed });
        }
        Err(TrainingError::Invalid(format!(
            "8-bit state: codes {} {} with scales {} {}: needed are u8 codes and an f32 scale for each {BLOCK}",
            codes.dtype(),
            codes.shape(),
            scales.dtype(),
            scales.shape()
        )))
    }

    /// A copy on another device; itself if it is there already.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let (codes, scales) = (self.codes.to_device(device)?, self.scales.to_device(device)?);
        Ok(Self { codes, scales, signed: self.signed })
    }

    /// Which of the 256 values each element is, `U8` of the tensor's shape.
    pub fn codes(&self) -> &BitNetTensor {
        &self.codes
    }

    /// The largest magnitude of each 256 elements, `F32`.
    pub fn scales(&self) -> &BitNetTensor {
        &self.scales
    }

    /// Whether there are negative values.
    pub fn is_signed(&self) -> bool {
        self.signed
    }
}

/// As rows of [`BLOCK`] elements, the last one filled with zeros.
fn into_blocks(x: &BitNetTensor) -> Result<BitNetTensor> {
    let flat = x.reshape(&[x.elements()])?;
    let rest = flat.elements().next_multiple_of(BLOCK) - flat.elements();
    let padded = match rest {
        0 => flat,
        _ => BitNetTensor::cat(&[&flat, &BitNetTensor::zeros(&[rest], x.dtype(), x.device())?], 0)?,
    };
    Ok(padded.reshape(&[padded.elements() / BLOCK, BLOCK])?)
}

/// The reverse of [`into_blocks`].
fn from_blocks(blocks: &BitNetTensor, dims: &[usize]) -> Result<BitNetTensor> {
    let flat = blocks.reshape(&[blocks.elements()])?;
    Ok(flat.narrow(0, 0, dims.iter().product())?.contiguous()?.reshape(dims)?)
}

/// The 256 values in order: 0, 1, and for each of seven powers of ten the middles of 2^i equal parts (2^(i + 1) without
/// negative ones) between a tenth of it and itself, i the smaller the smaller the power.
fn table(signed: bool) -> &'static [f32] {
    static TABLES: [OnceLock<Vec<f32>>; 2] = [OnceLock::new(), OnceLock::new()];
    TABLES[usize::from(signed)].get_or_init(|| {
        let mut values = vec![0., 1.];
        for i in 0..7 {
            let power = 10f64.powi(i - 6);
            let parts = 1 << if signed { i } else { i + 1 };
            for part in 0..parts {
                let middle = 0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts);
                values.push((power * middle) as f32);
                if signed {
                    values.push((-power * middle) as f32);
                }
            }
        }
        values.sort_by(f32::total_cmp);
        values
    })
}

/// The middles between neighbours of [`table`].
fn between(signed: bool) -> &'static [f32] {
    static TABLES: [OnceLock<Vec<f32>>; 2] = [OnceLock::new(), OnceLock::new()];
    TABLES[usize::from(signed)].get_or_init(|| table(signed).array_windows().map(|[a, b]| (a + b) / 2.).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_zeros_come_back() {
        let cpu = Device::cpu();
        // 300 elements: the second block is not full, and all zero.
        let mut data = vec![0f32; 300];
        for (i, x) in data[..256].iter_mut().enumerate() {
            *x = 3. * table(true)[i];
        }
        let x = BitNetTensor::from_slice(&data, &[3, 100], &cpu).unwrap();
        let quantized = BlockQuantized::quantize(&x, true).unwrap();
        assert_eq!(quantized.scales().to_vec::<f32>().unwrap(), [3., 0.]);
        let codes = quantized.codes().to_vec::<u8>().unwrap();
        assert!((0..256).all(|i| codes[i] == i as u8), "{codes:?}");
        assert_eq!(quantized.dequantize(BitNetDType::F32).unwrap().to_vec::<f32>().unwrap(), data);
    }
}
