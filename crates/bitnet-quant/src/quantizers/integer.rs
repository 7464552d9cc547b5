//! Binary weights, and integers of 4 and 8 bits for weights and activations.

use super::{Granularity, Quantized, SMALLEST, ScaleKind, encode, prepare};
use bitnet_core::{BitNetDType, BitNetTensor, Result};

/// Binary weights (Rastegari et al. 2016): codes -1 below zero and +1 elsewhere, values `code * mean |w|`.
///
/// # Errors
/// When `x` is not floating point, or its rows are not whole groups.
pub fn binary(x: &BitNetTensor, granularity: Granularity) -> Result<Quantized> {
    let groups = prepare(x, granularity)?;
    let scales = groups.abs()?.mean(-1, true)?;
    let codes = groups.ge(0.)?.to_dtype(BitNetDType::I8)?.mul(2)?.sub(1)?.reshape(x.dims())?;
    Ok(Quantized { codes, scales, kind: ScaleKind::Multiplies, granularity, dtype: x.dtype() })
}

/// 8 bits by the largest magnitude (absmax) (transformers' `ActQuant`): `s = 127 / max(max |x|, 1e-5)`, codes
/// `clamp(round(x * s), -128, 127)`, values `code / s`. A scale per row is a scale per token of activations.
///
/// `127 / m` is computed as `127 * (1 / m)`, as PyTorch divides a number by a tensor.
///
/// # Errors
/// As [`binary`].
pub fn int8(x: &BitNetTensor, granularity: Granularity) -> Result<Quantized> {
    absmax(x, (-128, 127), granularity)
}

/// 4 bits by the largest magnitude, as [`int8`] with codes from -8 to 7 (transformers' `activation_quant` of 4 bits).
///
/// # Errors
/// As [`binary`].
pub fn int4(x: &BitNetTensor, granularity: Granularity) -> Result<Quantized> {
    absmax(x, (-8, 7), granularity)
}

fn absmax(x: &BitNetTensor, range: (i8, i8), granularity: Granularity) -> Result<Quantized> {
    let groups = prepare(x, granularity)?;
    let largest = groups.abs()?.amax(-1, true)?.clamp(Some(SMALLEST.into()), None)?;
    let scales = largest.reciprocal()?.mul(f64::from(range.1))?;
    encode(&groups, scales, ScaleKind::Divides, range, x, granularity)
}
