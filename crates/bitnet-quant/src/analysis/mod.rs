//! Analysis of quantization errors: metrics, a report and a plot.

mod plot;
mod report;

pub use report::{LayerReport, QuantizationReport};

use crate::{QuantError, TernaryCodes};

/// Error of quantized values against the originals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Signal to quantization noise, `10 log10(sum x^2 / sum (x - q)^2)`, in dB; infinite without error.
    pub sqnr_db: f64,
    /// Cosine similarity; 1 without error, 0 if one of them is 0.
    pub cosine: f64,
    /// The largest `|x - q|`.
    pub max_error: f64,
    /// The mean of `(x - q)^2`.
    pub mean_squared_error: f64,
}

/// Compares `quantized` with the original values.
///
/// # Errors
/// If the lengths differ.
pub fn compare(original: &[f32], quantized: &[f32]) -> Result<Comparison, QuantError> {
    same_length(original.len(), quantized.len())?;
    let (mut signal, mut size, mut inner, mut noise, mut max_error) = (0f64, 0f64, 0f64, 0f64, 0f64);
    for (&x, &q) in original.iter().zip(quantized) {
        let (x, q) = (f64::from(x), f64::from(q));
        signal += x * x;
        size += q * q;
        inner += x * q;
        noise += (x - q) * (x - q);
        // A NaN must not be overlooked.
        let error = (x - q).abs();
        max_error = if max_error.is_nan() || error <= max_error { max_error } else { error };
    }
    Ok(Comparison {
        sqnr_db: if noise == 0. { f64::INFINITY } else { 10. * (signal / noise).log10() },
        cosine: match (noise == 0., signal * size == 0.) {
            (true, _) => 1.,
            (_, true) => 0.,
            _ => inner / (signal.sqrt() * size.sqrt()),
        },
        max_error,
        mean_squared_error: noise / original.len().max(1) as f64,
    })
}

/// The share of clipped values: further than half a step beyond the largest code.
pub fn saturation(values: &[f32], step: f32, largest_code: u8) -> f64 {
    let limit = (f32::from(largest_code) + 0.5) * step;
    share(values.iter().filter(|v| v.abs() > limit).count(), values.len())
}

/// The share of weights that are 0.
pub fn zeros(codes: &TernaryCodes) -> f64 {
    let count = codes.rows() * codes.cols();
    share(count - codes.count_nonzero(), count)
}

/// Weights that changed between two snapshots of a training run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flips {
    /// The share of weights whose code changed.
    pub changed: f64,
    /// The share that changed sign, between -1 and +1.
    pub signs: f64,
}

/// Counts the weights that flipped between two snapshots.
///
/// # Errors
/// If the shapes differ.
pub fn flips(before: &TernaryCodes, after: &TernaryCodes) -> Result<Flips, QuantError> {
    if (before.rows(), before.cols()) != (after.rows(), after.cols()) {
        let shape = |c: &TernaryCodes| format!("{} x {}", c.rows(), c.cols());
        let message = format!("snapshots of {} and {} weights", shape(before), shape(after));
        return Err(QuantError::Argument { op: "flips", message });
    }
    let (mut changed, mut signs) = (0, 0);
    for (a, b) in before.as_bytes().iter().zip(after.as_bytes()) {
        // The low bit of a code is set for 0 alone: it is clear in both where a sign changed.
        let differs = a ^ b;
        let any = (differs | (differs >> 1)) & 0b01_01_01_01;
        let zero = (a | b) & 0b01_01_01_01;
        changed += any.count_ones() as usize;
        signs += (any & !zero).count_ones() as usize;
    }
    let count = before.rows() * before.cols();
    Ok(Flips { changed: share(changed, count), signs: share(signs, count) })
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn same_length(left: usize, right: usize) -> Result<(), QuantError> {
    if left == right {
        return Ok(());
    }
    Err(QuantError::Argument { op: "compare", message: format!("{left} values and {right} for them") })
}
