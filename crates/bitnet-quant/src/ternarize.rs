//! From floating-point master weights to ternary.

use crate::{QuantError, TernaryCodes};

/// The smallest magnitude for a scale, as in the reference.
const MIN_MAGNITUDE: f32 = 1e-5;

/// Absmean quantization of BitNet b1.58: with `g = max(mean |W|, 1e-5)`, codes of
/// `clamp(round(W / g), -1, 1)` and the scale `g` to multiply by.
///
/// `weights` is `[rows, cols]` row-major, of f32, f16 or bf16. As in Hugging Face transformers
/// (`AutoBitLinear`, online), every type is widened to f32 first, `s = 1 / g` is rounded to f32,
/// weights are multiplied by `s`, halves round to even, and the result is divided by `s`: the
/// scale returned is `1 / s`, so that code times scale equals its weights to the last bit. The
/// mean is summed in f64; PyTorch sums in f32, in an unspecified order.
///
/// # Errors
/// If the length is not `rows * cols` or a weight is not finite.
pub fn absmean<T>(weights: &[T], rows: usize, cols: usize) -> Result<(TernaryCodes, f32), QuantError>
where
    T: Copy + Into<f32>,
{
    let mean = (check(weights, rows, cols)? / weights.len().max(1) as f64) as f32;
    by_magnitude(weights, rows, cols, mean)
}

/// As [`absmean`] with the median of the magnitudes instead of the mean (Nielsen and Schneider-Kamp 2024); for an even
/// number the lower middle value, as `torch.median`.
///
/// # Errors
/// As [`absmean`].
pub fn absmedian<T>(weights: &[T], rows: usize, cols: usize) -> Result<(TernaryCodes, f32), QuantError>
where
    T: Copy + Into<f32>,
{
    check(weights, rows, cols)?;
    // The bits of non-negative floats sort like the floats.
    let mut magnitudes: Vec<u32> = weights.iter().map(|&w| w.into().abs().to_bits()).collect();
    let median = match magnitudes.len().checked_sub(1) {
        Some(last) => f32::from_bits(*magnitudes.select_nth_unstable(last / 2).1),
        None => 0.,
    };
    by_magnitude(weights, rows, cols, median)
}

fn by_magnitude<T>(weights: &[T], rows: usize, cols: usize, magnitude: f32) -> Result<(TernaryCodes, f32), QuantError>
where
    T: Copy + Into<f32>,
{
    let s = 1.0 / magnitude.max(MIN_MAGNITUDE);
    // A half rounds to the even 0, and what is beyond it to 1 or is clamped to 1.
    let code = |w: f32| 1 + u8::from(w * s > 0.5) - u8::from(w * s < -0.5);
    Ok((pack(weights, rows, cols, code)?, 1.0 / s))
}

/// Codes and scale of an already ternary matrix: every value is `-s`, `0` or `s`.
///
/// `None` when it is not. A matrix of zeros has the scale 1.
///
/// # Errors
/// If the length is not `rows * cols` or a weight is not finite.
pub fn exact<T>(weights: &[T], rows: usize, cols: usize) -> Result<Option<(TernaryCodes, f32)>, QuantError>
where
    T: Copy + Into<f32>,
{
    check(weights, rows, cols)?;
    let nonzero = weights.iter().map(|&w| w.into().abs()).find(|&w| w != 0.0);
    let s = nonzero.unwrap_or(1.0);
    if weights.iter().any(|&w| w.into() != 0.0 && w.into().abs() != s) {
        return Ok(None);
    }
    let code = |w: f32| if w == 0.0 { 1 } else { u8::from(w > 0.0) * 2 };
    Ok(Some((pack(weights, rows, cols, code)?, s)))
}

/// The sum of all magnitudes, if the length is right and all weights are finite.
pub(crate) fn check<T: Copy + Into<f32>>(weights: &[T], rows: usize, cols: usize) -> Result<f64, QuantError> {
    let format = "master weights";
    let expected = rows.checked_mul(cols).ok_or(QuantError::TooLarge { rows, cols })?;
    if weights.len() != expected {
        let size = size_of::<T>();
        let (expected, actual) = (expected.saturating_mul(size), size_of_val(weights));
        return Err(QuantError::Length { format, rows, cols, expected, actual });
    }
    // A sum of finite f32 is finite in f64, and any other is not.
    let sum = sum_of_magnitudes(weights);
    if sum.is_finite() {
        return Ok(sum);
    }
    match weights.iter().position(|&w| !w.into().is_finite()) {
        None => Ok(sum),
        Some(i) => {
            let (row, col, value) = (i / cols, i % cols, weights[i].into());
            Err(QuantError::ValueOutOfRange { format, row, col, value })
        }
    }
}

/// In eight partial sums, to hide the latency of additions.
fn sum_of_magnitudes<T: Copy + Into<f32>>(weights: &[T]) -> f64 {
    let mut sums = [0f64; 8];
    for eight in weights.chunks(8) {
        for (sum, &w) in sums.iter_mut().zip(eight) {
            *sum += f64::from(w.into().abs());
        }
    }
    sums.iter().sum()
}

fn pack<T: Copy + Into<f32>>(
    weights: &[T],
    rows: usize,
    cols: usize,
    code: impl Fn(f32) -> u8,
) -> Result<TernaryCodes, QuantError> {
    let mut codes = Vec::with_capacity(rows * cols.div_ceil(4));
    if cols > 0 {
        for row in weights.chunks_exact(cols) {
            codes.extend(row.chunks(4).map(|four| {
                let each = four.iter().enumerate();
                each.fold(0, |byte, (i, &w)| byte | (code(w.into()) << (2 * i)))
            }));
        }
    }
    TernaryCodes::new(rows, cols, codes)
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn absmean_rounds_halves_to_even_and_clamps() {
        // mean |w| = 1: 0.5 rounds to 0 and 1.5 to 2, which is clamped.
        let (codes, scale) = absmean(&[0.5f32, -0.5, 1.5, -1.5, 1.0, -1.0, 0.0, 2.0], 2, 4).unwrap();
        assert_eq!(scale, 1.0);
        assert_eq!(codes.to_weights(), [0, 0, 1, -1, 1, -1, 0, 1]);
    }

    #[test]
    fn absmean_of_tiny_weights_is_clamped() {
        let (codes, scale) = absmean(&[1e-9f32; 8], 2, 4).unwrap();
        assert!((scale - 1e-5).abs() < 1e-11);
        assert_eq!(codes.count_nonzero(), 0);
    }

    #[test]
    fn exact_finds_the_scale_or_says_no() {
        let w = [0.25, 0.0, -0.25, 0.25, 0.0].map(bf16::from_f32);
        let (codes, scale) = exact(&w, 1, 5).unwrap().unwrap();
        assert_eq!((scale, codes.to_weights()), (0.25, vec![1, 0, -1, 1, 0]));
        assert!(exact(&[0.25f32, 0.5], 1, 2).unwrap().is_none());
        let (codes, scale) = exact(&[0f32, -0.0], 1, 2).unwrap().unwrap();
        assert_eq!((scale, codes.to_weights()), (1.0, vec![0, 0]));
    }

    #[test]
    fn not_finite_is_refused_with_its_place() {
        let err = absmean(&[0f32, 1.0, f32::NAN, 0.0], 2, 2).unwrap_err();
        assert!(err.to_string().contains("row 1, column 0"), "{err}");
        assert!(exact(&[f32::INFINITY], 1, 1).is_err());
        assert!(absmean(&[0f32; 3], 2, 2).is_err());
    }
}
