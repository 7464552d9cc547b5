//! Random tensors. The numbers are those of [`Op::Random`](crate::backend::Op::Random): the same on every device and
//! for every number of threads.

use super::views::argument;
use crate::backend::Distribution;
use crate::{BitNetDType, BitNetTensor, Device, Result, Scalar};
use BitNetDType::I64;

/// A position in the random number stream of a seed; every tensor advances it by its number of elements.
///
/// ```
/// use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
/// let draw = |seed| BitNetTensor::randn(&[3], BitNetDType::F32, &Device::cpu(), &mut Generator::new(seed));
/// assert_eq!(draw(1)?.to_vec::<f32>()?, draw(1)?.to_vec::<f32>()?);
/// assert_ne!(draw(1)?.to_vec::<f32>()?, draw(2)?.to_vec::<f32>()?);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generator {
    seed: u64,
    offset: u64,
}

impl Generator {
    /// The start of the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, offset: 0 }
    }

    /// The stream of `seed` from number `offset` on, to continue another generator.
    pub fn at(seed: u64, offset: u64) -> Self {
        Self { seed, offset }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Numbers taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Generator {
    /// Seed and offset as [`Op::Random`](crate::backend::Op::Random) takes them.
    fn state(&self, device: &Device) -> Result<BitNetTensor> {
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        BitNetTensor::from_slice(&[halves(self.seed), halves(self.offset)].concat(), &[4], device)
    }
}

impl BitNetTensor {
    /// A tensor of the next numbers of `generator`.
    pub fn random(
        distribution: Distribution,
        dims: &[usize],
        dtype: BitNetDType,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Self> {
        check(distribution, dtype)?;
        let mut out = Self::empty(dims, dtype, device)?;
        device.random(distribution, generator.state(device)?.as_ref(), out.as_mut()?)?;
        generator.offset = generator.offset.wrapping_add(out.elements() as u64);
        Ok(out)
    }

    /// Uniform in `[0, 1)`.
    pub fn rand(dims: &[usize], dtype: BitNetDType, device: &Device, generator: &mut Generator) -> Result<Self> {
        Self::random(Distribution::Uniform { low: 0., high: 1. }, dims, dtype, device, generator)
    }

    /// Normal with mean 0 and standard deviation 1.
    pub fn randn(dims: &[usize], dtype: BitNetDType, device: &Device, generator: &mut Generator) -> Result<Self> {
        Self::random(Distribution::Normal { mean: 0., std: 1. }, dims, dtype, device, generator)
    }

    /// Uniform integers in `low..high`, in any dtype that represents them exactly.
    pub fn randint(
        low: i64,
        high: i64,
        dims: &[usize],
        dtype: BitNetDType,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Self> {
        Self::random(Distribution::Integer { low, high }, dims, dtype, device, generator)
    }

    /// 1 with probability `p`, else 0.
    pub fn bernoulli(
        p: f64,
        dims: &[usize],
        dtype: BitNetDType,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Self> {
        Self::random(Distribution::Bernoulli { p }, dims, dtype, device, generator)
    }

    /// The integers `0..n` in random order, `I64`.
    pub fn randperm(n: usize, device: &Device, generator: &mut Generator) -> Result<Self> {
        // Sorting keys of 63 random bits: two are equal with probability n^2 / 2^64, and then keep their order.
        Self::randint(i64::MIN, i64::MAX, &[n], I64, device, generator)?.argsort(0, false)
    }
}

/// An error unless the parameters are valid and `dtype` represents the values.
fn check(distribution: Distribution, dtype: BitNetDType) -> Result<()> {
    let wrong = |message: String| Err(argument("random", message));
    match distribution {
        Distribution::Uniform { low, high } if !((high - low).is_finite() && low <= high) => {
            wrong(format!("no uniform numbers from {low} to {high}: give finite ends in order"))
        }
        Distribution::Normal { mean, std } if !(mean.is_finite() && (0. ..f64::INFINITY).contains(&std)) => {
            wrong(format!("no normal distribution has mean {mean} and standard deviation {std}"))
        }
        Distribution::Bernoulli { p } if !(0. ..=1.).contains(&p) => {
            wrong(format!("{p} is not a probability between 0 and 1"))
        }
        Distribution::Integer { low, high } if low >= high => wrong(format!("no integer lies in {low}..{high}")),
        Distribution::Integer { low, high } => {
            let exact = |value: i64| match Scalar::Int(value).cast(dtype) {
                Scalar::Float(float) => float as i128 == value.into(),
                Scalar::UInt(held) => i128::from(held) == value.into(),
                other => other.to_i64() == value,
            };
            // Floats represent all integers up to a power of two, but not the odd ones above it.
            let odd = |value: i64| if dtype.is_float() && value % 2 == 0 { value - value.signum() } else { value };
            if [low, odd(low), high - 1, odd(high - 1)].iter().all(|&value| exact(value)) {
                Ok(())
            } else {
                wrong(format!("{dtype} does not hold every integer in {low}..{high}: take a larger type"))
            }
        }
        _ => Ok(()),
    }
}
