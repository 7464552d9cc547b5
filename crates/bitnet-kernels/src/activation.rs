//! Quantization of activations by the rules of checkpoints ([`ActivationRule`], which has the formulas).
//!
//! A block that holds a NaN or an infinity gets all `q` 0 and a scale with which each product is NaN, on every instruction set:
//! so a broken model is seen and not hidden.

use crate::TernaryKernel;
use crate::float::half::{f16_to_f32, f32_to_f16};
use crate::lengths::elements;
use crate::ternary::TILE_COLS;
use crate::threads::{Parts, ThreadPool};
use ActivationRule::{Block32, Block256, Float, Token};
pub use bitnet_device::backend::ActivationRule;
use bitnet_device::backend::FLOAT_STEPS;

/// The bits of `f32::INFINITY`; a magnitude with these bits or more is not finite.
const INFINITY_BITS: u32 = 0x7f80_0000;

/// Numbers that are worth a task.
const GROUP: usize = 16 << 10;

/// Columns of a quantized row of `cols` activations: rounded up to whole tiles.
pub const fn padded(cols: usize) -> usize {
    cols.next_multiple_of(TILE_COLS)
}

/// Sums of a row of `cols` quantized activations.
pub const fn sums_of(cols: usize) -> usize {
    cols.div_ceil(ActivationRule::SUM_COLUMNS)
}

/// Quantizes the rows of `x` `[T, cols]` to `q` `[T, D, padded(cols)]` (the padding set to 0), `scales` `[T, blocks]` and
/// `sums` `[T, D, sums_of(cols)]`, with the digits `D` and blocks of the rule. One row runs on the caller alone.
///
/// # Panics
/// When the lengths contradict each other.
#[allow(clippy::too_many_arguments)] // three results
pub fn quantize_rows(
    kernel: &dyn TernaryKernel,
    pool: &ThreadPool,
    rule: ActivationRule,
    x: &[f32],
    cols: usize,
    q: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let blocks = rule.blocks(cols);
    if scales.is_empty() {
        return assert!(x.is_empty() && q.is_empty() && sums.is_empty(), "results of no activations");
    }
    let tokens = scales.len() / blocks.max(1);
    assert_eq!(Some(x.len()), elements([tokens, cols]), "activations");
    assert_eq!(Some(q.len()), elements([tokens, rule.digits(), padded(cols)]), "quantized activations");
    assert_eq!(Some(scales.len()), elements([tokens, blocks]), "scales");
    assert_eq!(Some(sums.len()), elements([tokens, rule.digits(), sums_of(cols)]), "sums");
    let (stride, units) = (rule.digits() * padded(cols), rule.digits() * sums_of(cols));
    let (q, scales, sums) = (Parts::new(q), Parts::new(scales), Parts::new(sums));
    // Short rows in groups: a task of its own costs more than such a row.
    let group = (GROUP / cols.max(1)).clamp(1, tokens.div_ceil(4 * pool.threads()).max(1));
    pool.run(tokens.div_ceil(group), &|task| {
        for t in task * group..((task + 1) * group).min(tokens) {
            let x = &x[t * cols..][..cols];
            // SAFETY: each task takes the parts of its own rows.
            let (q, scales, sums) =
                unsafe { (q.part(t * stride, stride), scales.part(t * blocks, blocks), sums.part(t * units, units)) };
            kernel.quantize(rule, x, q, scales, sums);
        }
    });
}

/// See [`TernaryKernel::quantize`]; plain loops, which the compiler turns into the vectors of whoever inlines them.
#[inline(always)]
pub(crate) fn quantize_row(rule: ActivationRule, x: &[f32], q: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    let stride = padded(x.len());
    assert_eq!(q.len(), rule.digits() * stride, "quantized row");
    assert_eq!(scales.len(), rule.blocks(x.len()), "scales of a row");
    assert_eq!(sums.len(), rule.digits() * sums_of(x.len()), "sums of a row");
    if x.is_empty() {
        // One block without values, by the rule that has blocks as long as the row.
        return scales.fill(127.0 / 1e-5);
    }
    for row in q.chunks_exact_mut(stride) {
        row[x.len()..].fill(0);
    }
    match rule {
        Token => scales[0] = token(x, &mut q[..x.len()]),
        Block32 => blocks(x, q, scales, 32, block32),
        Block256 => blocks(x, q, scales, 256, block256),
        Float => {
            let (low, rest) = q.split_at_mut(stride);
            let (middle, high) = rest.split_at_mut(stride);
            let digits = low.chunks_mut(128).zip(middle.chunks_mut(128)).zip(high.chunks_mut(128));
            for ((x, scale), ((low, middle), high)) in x.chunks(128).zip(scales).zip(digits) {
                *scale = float(x, [low, middle, high]);
            }
        }
    }
    for (q, sums) in q.chunks_exact(stride).zip(sums.chunks_exact_mut(sums_of(x.len()))) {
        for (sum, q) in sums.iter_mut().zip(q.chunks(ActivationRule::SUM_COLUMNS)) {
            *sum = q.iter().map(|&q| i32::from(q)).sum();
        }
    }
}

#[inline(always)]
fn blocks(x: &[f32], q: &mut [i8], scales: &mut [f32], block: usize, one: impl Fn(&[f32], &mut [i8]) -> f32) {
    for ((x, q), scale) in x.chunks(block).zip(q.chunks_mut(block)).zip(scales) {
        *scale = one(x, &mut q[..x.len()]);
    }
}

/// The largest |x| as its bits: magnitudes are ordered as their bits are, infinity and then NaN last.
#[inline(always)]
fn largest(x: &[f32]) -> u32 {
    x.iter().fold(0, |max, v| max.max(v.to_bits() & 0x7fff_ffff))
}

/// `q = round(x * factor)`, ties to even.
#[inline(always)]
fn round(x: &[f32], factor: f32, q: &mut [i8]) {
    for (q, x) in q.iter_mut().zip(x) {
        // SAFETY: a number below 128, as |x| is at most what the factor makes 127.
        let rounded: i32 = unsafe { (x * factor).round_ties_even().to_int_unchecked() };
        *q = rounded as i8;
    }
}

#[inline(always)]
fn token(x: &[f32], q: &mut [i8]) -> f32 {
    let max = largest(x);
    if max >= INFINITY_BITS {
        q.fill(0);
        return f32::NAN;
    }
    let scale = 127.0 / f32::from_bits(max).max(1e-5);
    round(x, scale, q);
    scale
}

#[inline(always)]
fn block32(x: &[f32], q: &mut [i8]) -> f32 {
    let max = largest(x);
    if max >= INFINITY_BITS {
        q.fill(0);
        return f32::NAN;
    }
    let step = f32::from_bits(max).max(1e-30) / 127.0;
    let factor = 1.0 / step;
    for (q, x) in q.iter_mut().zip(x) {
        let exact = x * factor;
        // Ties away from zero: what the predecessor of 0.5 is added to is cut off after the point.
        let up = exact + 0.499_999_97f32.copysign(exact);
        // SAFETY: a number below 128, as above.
        let rounded: i32 = unsafe { up.to_int_unchecked() };
        *q = rounded as i8;
    }
    f16_to_f32(f32_to_f16(step))
}

#[inline(always)]
fn block256(x: &[f32], q: &mut [i8]) -> f32 {
    let max = largest(x);
    if max >= INFINITY_BITS {
        q.fill(0);
        return f32::NAN;
    }
    let first = x.iter().copied().find(|v| v.to_bits() & 0x7fff_ffff == max).unwrap_or(0.0);
    let factor = -127.0 / if first.abs() < 1e-30 { 1e-30f32.copysign(first) } else { first };
    round(x, factor, q);
    1.0 / factor
}

#[inline(always)]
fn float(x: &[f32], [low, middle, high]: [&mut [i8]; 3]) -> f32 {
    let max = largest(x);
    if max >= INFINITY_BITS {
        [low, middle, high].into_iter().for_each(|q| q.fill(0));
        return f32::NAN;
    }
    let max = f32::from_bits(max).max(1e-30);
    let factor = FLOAT_STEPS / max;
    for (((x, low), middle), high) in x.iter().zip(low).zip(middle).zip(high) {
        // SAFETY: a number below 2^23, as |x| is at most what the factor makes `FLOAT_STEPS`.
        let q: i32 = unsafe { (x * factor).round_ties_even().to_int_unchecked() };
        // Balanced: a digit above 127 is 256 less, and one more goes to the next.
        *low = q as i8;
        let q = (q - i32::from(*low)) >> 8;
        *middle = q as i8;
        *high = ((q - i32::from(*middle)) >> 8) as i8;
    }
    max / FLOAT_STEPS
}
