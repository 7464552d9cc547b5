//! Random tensors. The numbers are those of [`Op::Random`](crate::backend::Op::Random): the same on every device and
//! for every number of threads.

use super::views::argument;
use crate::backend::Distribution;
use crate::{BitNetDType, BitNetTensor, Device, Result, Scalar};
use BitNetDType::{F64, U32};

/// A position in the random number stream of a seed; every tensor advances it by its number of elements.
///
/// ```
/// use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
/// let draw = |seed| BitNetTensor::randn(&[3], BitNetDType::F32, &Device::cpu(), &mut Generator::new(seed));
/// assert_eq!(draw(1)?.to_vec::<f32>()?, draw(1)?.to_vec::<f32>()?);
/// assert_ne!(draw(1)?.to_vec::<f32>()?, draw(2)?.to_vec::<f32>()?);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Generator {
    seed: Option<u64>,
    offset: u64,
    /// Seed and offset as [`Op::Random`](crate::backend::Op::Random) takes them, where they were needed last. That of a seed
    /// is the start of its stream.
    state: Option<BitNetTensor>,
}

impl Generator {
    /// Version of the streams: another one where the numbers of a seed are others, so that what depends on them can be refused.
    /// 0 computed f32 in f64; 1 has words of 32 bits.
    pub const VERSION: u32 = 1;

    /// The start of the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self::at(seed, 0)
    }

    /// The stream of `seed` from number `offset` on, to continue another generator.
    pub fn at(seed: u64, offset: u64) -> Self {
        Self { seed: Some(seed), offset, state: None }
    }

    /// The stream of the seed and from the offset that `state` holds when the numbers are drawn: `U32` `[4]`, made of
    /// [`words`](Self::words). A recorded step draws other numbers when it is replayed after a write to `state`.
    ///
    /// # Errors
    /// Another shape or dtype.
    pub fn from_state(state: &BitNetTensor) -> Result<Self> {
        if state.dims() != [4] || state.dtype() != U32 {
            let message = format!("the state is {} {}: needed is u32 [4]", state.dtype(), state.shape());
            return Err(argument("random", message));
        }
        Ok(Self { seed: None, offset: 0, state: Some(state.clone()) })
    }

    /// What a state holds: seed and offset, the lower word of each first.
    pub fn words(seed: u64, offset: u64) -> [u32; 4] {
        [seed as u32, (seed >> 32) as u32, offset as u32, (offset >> 32) as u32]
    }

    /// The seed; `None` where the device has it.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Numbers taken so far, or since its state.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Leaves out the next `count` numbers.
    pub fn advance(&mut self, count: u64) {
        self.offset = self.offset.wrapping_add(count);
    }

    /// The state on `device`.
    fn on(&mut self, device: &Device) -> Result<&BitNetTensor> {
        if let Some(seed) = self.seed
            && self.state.as_ref().is_none_or(|state| state.device() != device)
        {
            self.state = Some(BitNetTensor::from_slice(&Self::words(seed, 0), &[4], device)?);
        }
        match &self.state {
            Some(state) if state.device() == device => Ok(state),
            _ => Err(argument("random", format!("the state of the generator is not on {}", device.name()))),
        }
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
        let skip = generator.offset;
        device.random(distribution, skip, generator.on(device)?.as_ref(), out.as_mut()?)?;
        generator.advance(out.elements() as u64);
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

    /// The integers `0..n` in random order, `I64`; `U32` on a device without it.
    pub fn randperm(n: usize, device: &Device, generator: &mut Generator) -> Result<Self> {
        // Sorting keys of 64 random bits: two are equal with probability n^2 / 2^65, and then keep their order. As halves, the
        // upper of which is sorted last, they need no 64-bit type.
        let halves = Self::randint(0, 1 << 32, &[2, n], U32, device, generator)?;
        let order = halves.select(0, 0)?.argsort(0, false)?;
        let upper = halves.select(0, 1)?.gather(0, &order)?;
        order.gather(0, &upper.argsort(0, false)?)
    }
}

/// An error unless the parameters are valid and `dtype` represents the values.
fn check(distribution: Distribution, dtype: BitNetDType) -> Result<()> {
    let wrong = |message: String| Err(argument("random", message));
    match distribution {
        Distribution::Uniform { low, high } if !((high - low).is_finite() && low <= high) => {
            wrong(format!("no uniform numbers from {low} to {high}: give finite ends in order"))
        }
        Distribution::Uniform { low, high } if dtype != F64 && !((high - low) as f32).is_finite() => wrong(format!(
            "no {dtype} numbers from {low} to {high}: they are computed in f32, take ends nearer together"
        )),
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
