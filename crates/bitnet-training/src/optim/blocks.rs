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
    /// The nearest 8-bit form of a tensor of floats; unsigned where no element is negative. It is made by the CPU.
    pub fn quantize(x: &BitNetTensor, signed: bool) -> Result<Self> {
        let values = x.to_dtype(BitNetDType::F32)?.to_vec::<f32>()?;
        let nearest = Nearest::of(signed);
        let mut codes = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(values.len().div_ceil(BLOCK));
        for block in values.chunks(BLOCK) {
            let scale = block.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let divisor = if scale == 0. { 1. } else { scale };
            codes.extend(block.iter().map(|x| nearest.code(x / divisor)));
            scales.push(scale);
        }
        let codes = BitNetTensor::from_slice(&codes, x.dims(), x.device())?;
        let scales = BitNetTensor::from_slice(&scales, &[scales.len()], x.device())?;
        Ok(Self { codes, scales, signed })
    }

    /// The tensor that the codes stand for.
    pub fn dequantize(&self, dtype: BitNetDType) -> Result<BitNetTensor> {
        let (codes, scales) = (self.codes.to_vec::<u8>()?, self.scales.to_vec::<f32>()?);
        let values = Nearest::of(self.signed).values;
        let mut out = Vec::with_capacity(codes.len());
        for (block, scale) in codes.chunks(BLOCK).zip(scales) {
            out.extend(block.iter().map(|&code| values[usize::from(code)] * scale));
        }
        Ok(BitNetTensor::from_vec(out, self.codes.dims(), self.codes.device())?.to_dtype(dtype)?)
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

/// The 256 values, and how to find the nearest.
struct Nearest {
    /// In order.
    values: [f32; 256],
    /// The middles between neighbours, the last infinite.
    between: [f32; 256],
    /// The code of the least number whose upper 16 bits these are: few numbers between it and the next need another.
    start: Vec<u8>,
}

impl Nearest {
    fn of(signed: bool) -> &'static Self {
        static BOTH: [OnceLock<Nearest>; 2] = [OnceLock::new(), OnceLock::new()];
        BOTH[usize::from(signed)].get_or_init(|| Self::new(signed))
    }

    /// 0, 1, and for each of seven powers of ten the middles of 2^i equal parts (2^(i + 1) without negative ones) between
    /// a tenth of it and itself, i the smaller the smaller the power.
    fn new(signed: bool) -> Self {
        let mut all = vec![0., 1.];
        for i in 0..7 {
            let power = 10f64.powi(i - 6);
            let parts = 1 << if signed { i } else { i + 1 };
            for part in 0..parts {
                let middle = (power * (0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts))) as f32;
                all.push(middle);
                if signed {
                    all.push(-middle);
                }
            }
        }
        all.sort_by(f32::total_cmp);
        let values: [f32; 256] = all.try_into().expect("2 + 2 (1 + 2 + .. + 64) values");
        let middle = |i: usize| values.get(i + 1).map_or(f32::INFINITY, |next| (values[i] + next) / 2.);
        let between = std::array::from_fn(middle);
        let least = |upper: u32| f32::from_bits(if upper >> 15 == 0 { upper << 16 } else { upper << 16 | 0xffff });
        let code = |upper| between.partition_point(|&middle| middle < least(upper)).min(255) as u8;
        Self { values, between, start: (0..1 << 16).map(code).collect() }
    }

    /// Of a number between -1 and 1; NaN has one as well.
    fn code(&self, x: f32) -> u8 {
        let mut code = self.start[(x.to_bits() >> 16) as usize];
        while x > self.between[usize::from(code)] {
            code += 1;
        }
        code
    }
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
            *x = 3. * Nearest::of(true).values[i];
        }
        let x = BitNetTensor::from_slice(&data, &[3, 100], &cpu).unwrap();
        let quantized = BlockQuantized::quantize(&x, true).unwrap();
        assert_eq!(quantized.scales().to_vec::<f32>().unwrap(), [3., 0.]);
        let codes = quantized.codes().to_vec::<u8>().unwrap();
        assert!((0..256).all(|i| codes[i] == i as u8), "{codes:?}");
        assert_eq!(quantized.dequantize(BitNetDType::F32).unwrap().to_vec::<f32>().unwrap(), data);
    }
}
