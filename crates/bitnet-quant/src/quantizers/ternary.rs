//! Ternary weights: -1, 0 and +1 times a scale.

use super::{Granularity, Quantized, SMALLEST, ScaleKind, encode, prepare};
use bitnet_core::{BitNetDType, BitNetTensor, Result, TensorOpError};

/// Absmean of BitNet b1.58 (Ma et al. 2024; transformers' `WeightQuant`): `s = 1 / max(mean |w|, 1e-5)`, codes
/// `clamp(round(w * s), -1, 1)`, values `code / s`.
///
/// In host memory the mean is summed in f64, so that codes and scale of a whole tensor equal those of
/// [`ternarize::absmean`](crate::ternarize::absmean) to the last bit; elsewhere in f32.
///
/// # Errors
/// When `x` is not floating point, or its rows are not whole groups.
pub fn absmean(x: &BitNetTensor, granularity: Granularity) -> Result<Quantized> {
    let groups = prepare(x, granularity)?;
    let mut mean = groups.abs()?;
    if x.device().is_host() {
        mean = mean.to_dtype(BitNetDType::F64)?;
    }
    mean = mean.mean(-1, true)?.to_dtype(BitNetDType::F32)?;
    by_magnitude(&groups, mean, x, granularity)
}

/// Absmedian (Nielsen and Schneider-Kamp 2024): as [`absmean`] with the median of the magnitudes instead of the mean;
/// for an even number the lower middle value, as `torch.median`.
///
/// # Errors
/// As [`absmean`].
pub fn absmedian(x: &BitNetTensor, granularity: Granularity) -> Result<Quantized> {
    let groups = prepare(x, granularity)?;
    let size = groups.dims()[1];
    let (sorted, _) = groups.abs()?.sort(-1, false)?;
    // NaN sorts last: added times 0, it reaches the scale wherever the median is.
    let poison = sorted.narrow(-1, size - 1, 1)?.mul(0.)?;
    let median = sorted.narrow(-1, (size - 1) / 2, 1)?;
    let median = BitNetTensor::where_(&poison.isnan()?, &poison, &median)?;
    by_magnitude(&groups, median, x, granularity)
}

fn by_magnitude(
    groups: &BitNetTensor,
    magnitude: BitNetTensor,
    x: &BitNetTensor,
    granularity: Granularity,
) -> Result<Quantized> {
    let scales = magnitude.clamp(Some(SMALLEST.into()), None)?.reciprocal()?;
    encode(groups, scales, ScaleKind::Divides, (-1, 1), x, granularity)
}

/// Ternary with a learned step (LSQ, Esser et al. 2020): codes `clamp(round(w / step), -1, 1)`, values
/// `code * step`. `step` is f32 with a value for each group, in the shape of [`Quantized::scales`], and positive.
///
/// # Errors
/// As [`absmean`], and when there are not as many steps as groups.
pub fn learned_step(x: &BitNetTensor, step: &BitNetTensor, granularity: Granularity) -> Result<Quantized> {
    let groups = prepare(x, granularity)?;
    let count = groups.dims()[0];
    if step.elements() != count || step.dtype() != BitNetDType::F32 {
        let needed = format!("{count} steps of f32");
        return Err(TensorOpError::Shape { op: "learned_step", what: "step", got: *step.shape(), needed }.into());
    }
    let steps = step.detach().reshape(&[count, 1])?;
    encode(&groups, steps, ScaleKind::Multiplies, (-1, 1), x, granularity)
}

/// Initial value of a learned step: `2 mean |w| / sqrt(1)` (Esser et al. 2020, section 2.1), in the shape of
/// [`Quantized::scales`].
///
/// # Errors
/// As [`absmean`].
pub fn initial_step(x: &BitNetTensor, granularity: Granularity) -> Result<BitNetTensor> {
    let groups = prepare(x, granularity)?;
    let steps = groups.abs()?.mean(-1, true)?.mul(2.)?.clamp(Some(SMALLEST.into()), None)?;
    encode(&groups, steps, ScaleKind::Multiplies, (-1, 1), x, granularity)?.scales()
}
