//! Moments in 8 bits.

use crate::{Result, TrainingError};
use BitNetDType::{F32, U8, U32};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Element};
use bitnet_kernels::threads::for_each_part;
use std::sync::{LazyLock, OnceLock};

/// Elements that share a scale.
const BLOCK: usize = 256;
/// Blocks that are worth starting a thread.
const SMALLEST_PART: usize = 2048;

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
        let codes = BitNetTensor::empty(x.dims(), U8, x.device())?;
        let scales = BitNetTensor::empty(&[x.elements().div_ceil(BLOCK)], F32, x.device())?;
        let mut out = Self { codes, scales, signed };
        out.set(x)?;
        Ok(out)
    }

    /// The nearest 8-bit form of another tensor of its shape, in place.
    pub fn set(&mut self, x: &BitNetTensor) -> Result<()> {
        let x = x.detach().to_dtype(F32)?.contiguous()?;
        if !x.device().is_host() {
            return self.set_on_device(&x);
        }
        let nearest = Nearest::of(self.signed);
        let part = blocks_of_a_part(x.elements());
        let values = elements::<f32>(&x)?.chunks(part * BLOCK);
        let codes_parts = elements_mut::<u8>(&mut self.codes)?.chunks_mut(part * BLOCK);
        let parts = values.zip(codes_parts).zip(elements_mut::<f32>(&mut self.scales)?.chunks_mut(part));
        for_each_part(*THREADS, parts, |((values, codes), scales)| {
            for ((values, codes), to) in values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales) {
                let scale = largest(values);
                let divisor = if scale == 0. { 1. } else { scale };
                let mut scaled = [0f32; BLOCK];
                scaled.iter_mut().zip(values).for_each(|(scaled, x)| *scaled = x / divisor);
                codes.iter_mut().zip(scaled).for_each(|(code, x)| *code = nearest.code(x));
                *to = scale;
            }
        });
        Ok(())
    }

    /// [`set`](Self::set) by tensor operations: the number of middles below each element, by bisection.
    fn set_on_device(&mut self, x: &BitNetTensor) -> Result<()> {
        let device = x.device();
        let rows = in_blocks(x)?;
        let scales = rows.abs()?.amax(1, true)?;
        let scaled = rows.div(&scales.masked_fill(&scales.eq(0.)?, 1.)?)?.reshape(&[rows.elements()])?;
        let between = BitNetTensor::from_slice(&Nearest::of(self.signed).between[..255], &[255], device)?;
        let mut code = BitNetTensor::zeros(scaled.dims(), U32, device)?;
        for step in (0..8).rev().map(|bit| 1u32 << bit) {
            let above = between.gather(0, &code.add(step - 1)?)?.lt(&scaled)?;
            code.add_(&above.to_dtype(U32)?.mul(step)?)?;
        }
        let code = code.narrow(0, 0, x.elements())?.reshape(x.dims())?;
        device.cast(code.as_ref(), self.codes.as_mut()?)?;
        device.copy(scales.reshape(self.scales.dims())?.as_ref(), self.scales.as_mut()?)?;
        Ok(())
    }

    /// The tensor that the codes stand for.
    pub fn dequantize(&self, dtype: BitNetDType) -> Result<BitNetTensor> {
        if !self.codes.device().is_host() {
            return self.dequantize_on_device(dtype);
        }
        let (codes, scales) = (self.codes.contiguous()?, self.scales.contiguous()?);
        let mut out = BitNetTensor::empty(codes.dims(), F32, codes.device())?;
        let table = &Nearest::of(self.signed).values;
        let part = blocks_of_a_part(codes.elements());
        let codes = elements::<u8>(&codes)?.chunks(part * BLOCK).zip(elements::<f32>(&scales)?.chunks(part));
        let parts = codes.zip(elements_mut::<f32>(&mut out)?.chunks_mut(part * BLOCK));
        for_each_part(*THREADS, parts, |((codes, scales), values)| {
            for ((codes, values), scale) in codes.chunks(BLOCK).zip(values.chunks_mut(BLOCK)).zip(scales) {
                values.iter_mut().zip(codes).for_each(|(x, &code)| *x = table[usize::from(code)] * scale);
            }
        });
        Ok(out.to_dtype(dtype)?)
    }

    fn dequantize_on_device(&self, dtype: BitNetDType) -> Result<BitNetTensor> {
        let codes = in_blocks(&self.codes.to_dtype(U32)?)?;
        let table = BitNetTensor::from_slice(&Nearest::of(self.signed).values, &[256], self.codes.device())?;
        let values = table.gather(0, &codes.reshape(&[codes.elements()])?)?.reshape(codes.dims())?;
        let values = values.mul(&self.scales.unsqueeze(1)?)?.reshape(&[codes.elements()])?;
        Ok(values.narrow(0, 0, self.codes.elements())?.reshape(self.codes.dims())?.to_dtype(dtype)?)
    }

    /// From codes `U8` and the `F32` scale of each 256 of them.
    ///
    /// # Errors
    /// Where they do not fit.
    pub fn from_parts(codes: BitNetTensor, scales: BitNetTensor, signed: bool) -> Result<Self> {
        let fits = codes.dtype() == U8 && scales.dtype() == F32 && scales.dims() == [codes.elements().div_ceil(BLOCK)];
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

/// Its elements as rows of [`BLOCK`], the last one filled up with zeros.
fn in_blocks(x: &BitNetTensor) -> Result<BitNetTensor> {
    let (count, rows) = (x.elements(), x.elements().div_ceil(BLOCK));
    let flat = x.reshape(&[count])?;
    let filled = match rows * BLOCK - count {
        0 => flat,
        more => BitNetTensor::cat(&[&flat, &BitNetTensor::zeros(&[more], x.dtype(), x.device())?], 0)?,
    };
    Ok(filled.reshape(&[rows, BLOCK])?)
}

/// Of a tensor of the CPU without gaps.
fn elements<T: Element>(x: &BitNetTensor) -> Result<&[T]> {
    let all = x.as_ref().storage.cpu("8-bit state", x.dtype())?.elements::<T>()?;
    Ok(&all[x.layout().offset()..][..x.elements()])
}

/// Of a tensor that owns its storage.
fn elements_mut<T: Element>(x: &mut BitNetTensor) -> Result<&mut [T]> {
    let (count, out) = (x.elements(), x.as_mut()?);
    Ok(&mut out.storage.cpu_mut("8-bit state", out.dtype)?.elements_mut::<T>()?[..count])
}

static THREADS: LazyLock<usize> = LazyLock::new(bitnet_core::device::available_threads);

/// Blocks that a thread takes: an equal share, but no fewer than are worth one.
fn blocks_of_a_part(elements: usize) -> usize {
    elements.div_ceil(BLOCK).div_ceil(*THREADS).max(SMALLEST_PART)
}

/// The largest magnitude, in 16 that do not wait for each other.
fn largest(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut lanes = [0f32; 16];
    chunks.iter().for_each(|x| (0..16).for_each(|i| lanes[i] = lanes[i].max(x[i].abs())));
    rest.iter().chain(&lanes).fold(0., |largest, x| largest.max(x.abs()))
}

/// The 256 values, and how to find the nearest.
struct Nearest {
    /// In order.
    values: [f32; 256],
    /// The middles between neighbours, the last infinite.
    between: [f32; 256],
    /// The code of the least number whose upper 16 bits these are.
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

    /// Of a number between -1 and 1; NaN has one as well. No two middles have the same upper 16 bits.
    fn code(&self, x: f32) -> u8 {
        let code = self.start[(x.to_bits() >> 16) as usize];
        code + u8::from(x > self.between[usize::from(code)])
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

    #[test]
    fn codes_are_the_nearest() {
        for nearest in [false, true].map(Nearest::of) {
            let ends = (0..1u32 << 16).flat_map(|upper| [upper << 16, upper << 16 | 0xffff]).map(f32::from_bits);
            for x in ends.filter(|x| x.abs() <= 1.) {
                let code = nearest.between.partition_point(|&middle| middle < x);
                assert_eq!(usize::from(nearest.code(x)), code, "{x}");
            }
        }
    }

    #[test]
    fn parts_on_threads_are_as_one() {
        let x = BitNetTensor::arange(-700_000., 700_100., 1., BitNetDType::F32, &Device::cpu()).unwrap();
        let all = BlockQuantized::quantize(&x, true).unwrap();
        let codes = all.codes().to_vec::<u8>().unwrap();
        let back = all.dequantize(BitNetDType::F32).unwrap().to_vec::<f32>().unwrap();
        for start in (0..x.elements()).step_by(BLOCK) {
            let len = BLOCK.min(x.elements() - start);
            let block = BlockQuantized::quantize(&x.narrow(0, start, len).unwrap(), true).unwrap();
            assert_eq!(block.codes().to_vec::<u8>().unwrap(), codes[start..start + len]);
            let values = block.dequantize(BitNetDType::F32).unwrap().to_vec::<f32>().unwrap();
            assert_eq!(values, back[start..start + len]);
        }
    }
}
