//! Error of a tensor against a reference.

use crate::{BitNetDType, BitNetTensor, Result, TensorOpError};
use std::fmt;

/// Error of a tensor against its reference. Differences are taken over elements that are finite in both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionLoss {
    /// Elements.
    pub elements: usize,
    /// Largest `|candidate - reference|`.
    pub max_absolute: f64,
    /// Largest `|candidate - reference| / |reference|` where the reference is not zero.
    pub max_relative: f64,
    /// Mean of `|candidate - reference|`.
    pub mean_absolute: f64,
    /// `10 log10(sum(reference^2) / sum((candidate - reference)^2))` in decibels; infinite where both are equal.
    pub sqnr_db: f64,
    /// Cosine of the angle between the two; 1 where both are zero.
    pub cosine: f64,
    /// Elements finite in the reference but not in the candidate; for an integer candidate those out of its range.
    pub overflows: usize,
    /// Elements that are zero in the candidate only.
    pub underflows: usize,
    /// NaN in only one of the two.
    pub nan_mismatches: usize,
}

/// Error of `candidate` against `reference`, of equal shape and any unpacked dtypes; computed in f64 on the host.
///
/// ```
/// use bitnet_core::{BitNetDType::F16, BitNetTensor, Device, mixed_precision::analyse_precision};
/// let x = BitNetTensor::from_slice(&[1f32, 1e-9, 1e6, 0.1], &[4], &Device::cpu())?;
/// let loss = analyse_precision(&x, &x.to_dtype(F16)?)?;
/// assert_eq!((loss.overflows, loss.underflows), (1, 1));
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
pub fn analyse_precision(reference: &BitNetTensor, candidate: &BitNetTensor) -> Result<PrecisionLoss> {
    const OP: &str = "analyse_precision";
    if reference.shape() != candidate.shape() {
        let (got, needed) = (*candidate.shape(), format!("{}, that of the reference", reference.shape()));
        return Err(TensorOpError::Shape { op: OP, what: "the candidate", got, needed }.into());
    }
    let host = |x: &BitNetTensor| x.to_dtype(BitNetDType::F64)?.to_vec::<f64>();
    let limits = match candidate.dtype().is_integer() {
        true => candidate.dtype().min_value().zip(candidate.dtype().max_value()),
        false => None,
    };
    let limits = limits.map(|(low, high)| (low.to_f64(), high.to_f64()));
    let (reference, candidate) = (host(reference)?, host(candidate)?);

    // Squares of numbers near 1 neither overflow nor vanish: powers of two, so that nothing else changes.
    let largest = |x: &[f64]| x.iter().map(|x| x.abs()).filter(|x| x.is_normal()).reduce(f64::max);
    let scale = |x: &[f64]| largest(x).map_or(1., |largest| largest.log2().floor().exp2());
    let (of_reference, of_candidate) = (scale(&reference), scale(&candidate));
    let of_both = of_reference.max(of_candidate);
    let (mut max_absolute, mut max_relative, mut sum) = (0f64, 0f64, 0f64);
    let (mut signal, mut noise, mut product, mut energy) = (0f64, 0f64, 0f64, [0f64; 2]);
    let (mut overflows, mut underflows, mut nan_mismatches, mut compared) = (0, 0, 0, 0usize);
    for (&r, &c) in reference.iter().zip(&candidate) {
        let beyond = limits.is_some_and(|(low, high)| r < low || r > high);
        overflows += usize::from(r.is_finite() && (c.is_infinite() || beyond));
        underflows += usize::from(r != 0. && !r.is_nan() && c == 0.);
        nan_mismatches += usize::from(r.is_nan() != c.is_nan());
        if !(r.is_finite() && c.is_finite()) {
            continue;
        }
        let difference = (c - r).abs();
        compared += 1;
        max_absolute = max_absolute.max(difference);
        if r != 0. {
            max_relative = max_relative.max(difference / r.abs());
        }
        sum += difference;
        // [reference, candidate], each by its own scale.
        let unit = [r / of_reference, c / of_candidate];
        product += unit[0] * unit[1];
        energy = [energy[0] + unit[0] * unit[0], energy[1] + unit[1] * unit[1]];
        signal += (r / of_both).powi(2);
        noise += (difference / of_both).powi(2);
    }
    let length = energy[0].sqrt() * energy[1].sqrt();
    let cosine = match (energy[0] == 0., energy[1] == 0.) {
        (true, true) => 1.,
        (true, false) | (false, true) => 0.,
        _ => product / length,
    };
    let sqnr_db = if noise == 0. { f64::INFINITY } else { 10. * (signal / noise).log10() };
    let mean_absolute = sum / compared.max(1) as f64;
    let elements = reference.len();
    Ok(PrecisionLoss {
        elements,
        max_absolute,
        max_relative,
        mean_absolute,
        sqnr_db,
        cosine,
        overflows,
        underflows,
        nan_mismatches,
    })
}

impl fmt::Display for PrecisionLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} elements: max abs {:.3e}, max rel {:.3e}, mean abs {:.3e}, SQNR {:.1} dB, cosine {:.6}, {} overflows, \
             {} underflows, {} NaN mismatches",
            self.elements,
            self.max_absolute,
            self.max_relative,
            self.mean_absolute,
            self.sqnr_db,
            self.cosine,
            self.overflows,
            self.underflows,
            self.nan_mismatches
        )
    }
}
