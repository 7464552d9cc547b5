//! Random numbers by counter. The conversion of the words is specified at
//! [`Op::Random`](bitnet_device::backend::Op::Random).

mod normal;

use super::operand::{slice, unsupported};
use bitnet_device::Element;
use bitnet_device::Result;
use bitnet_device::backend::{Distribution, TensorMut, TensorRef};
use bitnet_device::{by_dtype, narrowed};
use bitnet_kernels::ThreadPool;
use bitnet_kernels::philox::philox;
use half::{bf16, f16};
use std::f64::consts::TAU;

/// Blocks computed in parallel, to fill a vector register.
const LANES: usize = 8;
/// Numbers of a task; a multiple of those of a block.
const PER_TASK: usize = 1 << 14;

/// The four words of `LANES` blocks, word by word.
type Blocks = [[u32; LANES]; 4];

/// Number `start + i` of the stream into `out[i]`: `N` numbers of a block, four of one word or two of two, which `f` makes.
fn fill<T: Element, const N: usize>(seed: u64, start: u64, out: &mut [T], f: impl Fn(Blocks) -> [[T; LANES]; N]) {
    let third = if N == 4 { 0 } else { 1 };
    let mut rest = out;
    let mut number = start;
    while !rest.is_empty() {
        let per_block = N as u64;
        // Number u64::MAX is followed by number 0.
        let block = |lane: usize| (number / per_block).wrapping_add(lane as u64) & (u64::MAX / per_block);
        let low = std::array::from_fn(|lane| block(lane) as u32);
        let high = std::array::from_fn(|lane| (block(lane) >> 32) as u32);
        let values = f(philox([low, high, [third; LANES], [0; LANES]], [seed as u32, (seed >> 32) as u32]));
        let first = (number % per_block) as usize;
        let count = rest.len().min(N * LANES - first);
        let (now, later) = rest.split_at_mut(count);
        if count == N * LANES {
            for (lane, now) in now.chunks_exact_mut(N).enumerate() {
                now.iter_mut().zip(&values).for_each(|(now, values)| *now = values[lane]);
            }
        } else {
            let places = (first..).map(|place| values[place % N][place / N]);
            now.iter_mut().zip(places).for_each(|(now, value)| *now = value);
        }
        number = number.wrapping_add(count as u64);
        rest = later;
    }
}

/// As [`fill`], a word of 32 bits a number.
fn fill_words<T: Element>(seed: u64, start: u64, out: &mut [T], f: impl Fn(u32) -> T) {
    fill(seed, start, out, |words| words.map(|lanes| lanes.map(&f)));
}

/// As [`fill`], a word of 64 bits a number; `f` makes the two of a block.
fn fill_long_words<T: Element>(seed: u64, start: u64, out: &mut [T], f: impl Fn([u64; 2]) -> [T; 2]) {
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    fill(seed, start, out, |[w0, w1, w2, w3]| {
        let pairs: [[T; 2]; LANES] = std::array::from_fn(|i| f([join(w0[i], w1[i]), join(w2[i], w3[i])]));
        [pairs.map(|pair| pair[0]), pairs.map(|pair| pair[1])]
    });
}

fn to_f16(v: f64) -> f16 {
    f16::from_f32(narrowed(v))
}

fn to_bf16(v: f64) -> bf16 {
    bf16::from_f32(narrowed(v))
}

/// See [`Op::Random`](bitnet_device::backend::Op::Random).
pub(super) fn random(
    threads: &ThreadPool,
    distribution: Distribution,
    skip: u64,
    state: &TensorRef,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "random";
    let &[seed_low, seed_high, offset_low, offset_high] = slice::<u32>(OP, "state", state)? else {
        return Err(unsupported(OP, state.dtype));
    };
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let (seed, offset) = (join(seed_low, seed_high), join(offset_low, offset_high).wrapping_add(skip));
    let (layout, dtype) = (out.layout, out.dtype);
    if dtype.is_packed()
        || !dtype.is_float() && !matches!(distribution, Distribution::Integer { .. } | Distribution::Bernoulli { .. })
    {
        return Err(unsupported(OP, dtype));
    }
    let storage = out.storage.cpu_mut(OP, dtype)?;
    macro_rules! run {
        ($t:ty) => {{
            let to = storage.elements_mut::<<$t as Number>::Stored>()?;
            let make = |start: u64, to: &mut [_]| distribute::<$t>(distribution, seed, start, to);
            if layout.is_contiguous() {
                let to = &mut to[layout.offset()..layout.offset() + layout.shape().elements()];
                threads
                    .for_each_chunk(to, PER_TASK, &|task, to| make(offset.wrapping_add((task * PER_TASK) as u64), to));
            } else {
                let mut values = vec![bytemuck::Zeroable::zeroed(); layout.shape().elements()];
                make(offset, &mut values);
                layout.indices().zip(values).for_each(|(place, value)| to[place] = value);
            }
        }};
    }
    by_dtype!(dtype, T => run!(T), bool => run!(bool));
    Ok(())
}

fn distribute<T: Number>(distribution: Distribution, seed: u64, start: u64, out: &mut [T::Stored]) {
    match distribution {
        Distribution::Uniform { low, high } if T::BITS == 53 => fill_long_words(seed, start, out, |pair| {
            // Rounding must not reach the end.
            let one = |value: f64| T::real(if value < high { value } else { low });
            pair.map(|word| one(low + (high - low) * fraction(word)))
        }),
        Distribution::Uniform { low, high } => {
            let (low, high, span) = (low as f32, high as f32, (high - low) as f32);
            fill_words(seed, start, out, |word| {
                let value = low + span * ((word >> (32 - T::BITS)) as f32 / (1u32 << T::BITS) as f32);
                T::real(if T::rounded(value.into()) < high.into() { value } else { low }.into())
            });
        }
        Distribution::Normal { mean, std } if T::BITS == 53 => fill_long_words(seed, start, out, |[first, second]| {
            let radius = (-2. * (1. - fraction(first)).ln()).sqrt();
            let (sin, cos) = (TAU * fraction(second)).sin_cos();
            [T::real(mean + std * (radius * cos)), T::real(mean + std * (radius * sin))]
        }),
        Distribution::Normal { mean, std } => {
            let (mean, std) = (mean as f32, std as f32);
            fill(seed, start, out, |[a, b, c, d]| {
                let [first, second] = [normal::pairs(a, b), normal::pairs(c, d)];
                [first[0], first[1], second[0], second[1]].map(|z| z.map(|z| T::real((mean + std * z).into())))
            });
        }
        Distribution::Integer { low, high } => {
            let range = u128::from(high.wrapping_sub(low) as u64);
            let one = |word| T::integer(low.wrapping_add(((u128::from(word) * range) >> 64) as i64));
            fill_long_words(seed, start, out, |pair| pair.map(one));
        }
        Distribution::Bernoulli { p } => {
            let below = (p * (1u64 << 32) as f64).ceil() as u64;
            fill_words(seed, start, out, |word| T::integer((u64::from(word) < below).into()));
        }
    }
}

/// The upper 53 bits as a fraction of 1.
fn fraction(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// Element types of random tensors.
trait Number {
    /// Type of the stored bits.
    type Stored: Element;
    /// Bits of the mantissa with the hidden one; 1 where there are none.
    const BITS: u32;
    fn real(value: f64) -> Self::Stored;
    fn rounded(value: f64) -> f64;
    fn integer(value: i64) -> Self::Stored;
}

macro_rules! numbers {
    ($($t:ty as $stored:ty, $bits:expr, $real:expr, $rounded:expr, $integer:expr;)*) => { $(
        impl Number for $t {
            type Stored = $stored;
            const BITS: u32 = $bits;
            fn real(value: f64) -> $stored {
                $real(value)
            }
            fn rounded(value: f64) -> f64 {
                $rounded(value)
            }
            fn integer(value: i64) -> $stored {
                $integer(value)
            }
        }
    )* };
}
numbers! {
    f64 as f64, 53, |v| v, |v| v, |v| v as f64;
    f32 as f32, 24, |v| v as f32, |v| v as f32 as f64, |v| v as f32;
    f16 as f16, 11, to_f16, |v| to_f16(v).to_f64(), |v| to_f16(v as f64);
    bf16 as bf16, 8, to_bf16, |v| to_bf16(v).to_f64(), |v| to_bf16(v as f64);
    i8 as i8, 1, |v| v as i8, |v| v, |v| v as i8;
    i16 as i16, 1, |v| v as i16, |v| v, |v| v as i16;
    i32 as i32, 1, |v| v as i32, |v| v, |v| v as i32;
    i64 as i64, 1, |v| v as i64, |v| v, |v| v;
    u8 as u8, 1, |v| v as u8, |v| v, |v| v as u8;
    u16 as u16, 1, |v| v as u16, |v| v, |v| v as u16;
    u32 as u32, 1, |v| v as u32, |v| v, |v| v as u32;
    u64 as u64, 1, |v| v as u64, |v| v, |v| v as u64;
    bool as u8, 1, |v| (v != 0.) as u8, |v| v, |v| (v != 0) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_from_any_place() {
        fn check<T: Element + PartialEq + std::fmt::Debug>(fill: impl Fn(u64, &mut [T])) {
            let numbers = |start: u64, len: usize| {
                let mut out = vec![T::zeroed(); len];
                fill(start, &mut out);
                out
            };
            let all = numbers(0, 100);
            for start in [1, 2, 3, 15, 16, 33] {
                assert_eq!(numbers(start as u64, 60 - start), all[start..60]);
            }
            // The number after the last is the first.
            assert_eq!(numbers(u64::MAX - 2, 6)[3..], all[..3]);
        }
        check(|start, out: &mut [u32]| fill_words(7, start, out, |word| word));
        check(|start, out: &mut [u64]| fill_long_words(7, start, out, |pair| pair));
        let normal = Distribution::Normal { mean: 0., std: 1. };
        check(|start, out: &mut [f32]| distribute::<f32>(normal, 7, start, out));
        let first: [u32; 4] = std::array::from_fn(|i| {
            let mut out = [0];
            fill_words(0, i as u64, &mut out, |word| word);
            out[0]
        });
        assert_eq!(first, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }
}
