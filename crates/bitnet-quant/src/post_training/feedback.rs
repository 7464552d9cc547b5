//! Ternary weights by plain rounding, and by rounding with error feedback.

use super::InputStatistics;
use super::cholesky::reverse_factor;
use crate::{QuantError, TernaryCodes, ternarize};
use bitnet_core::{BitNetTensor, Device};

/// What is added to the diagonal of the Hessian, of its mean: the value of GPTQ.
const DAMPING: f64 = 0.01;
/// Most times that rounding with one scale and fitting the scale to the codes take turns.
const ROUNDS: usize = 9;
/// Rows that go through the columns together, so that the factor is read once for all of them.
const TILE: usize = 16;

/// Ternary weights made of dense ones.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryFit {
    /// -1, 0, +1.
    pub codes: TernaryCodes,
    /// Factor of every weight.
    pub scale: f32,
}

/// Absmean rounding ([`ternarize::absmean`]) of weights `[rows, cols]`.
///
/// # Errors
/// When the length is not that of the shape, or a weight is not finite.
pub fn round_to_nearest(weights: &[f32], rows: usize, cols: usize) -> Result<TernaryFit, QuantError> {
    let (codes, scale) = ternarize::absmean(weights, rows, cols)?;
    Ok(TernaryFit { codes, scale })
}

/// Ternary weights that change the outputs `x W^T` on the calibration inputs as little as a greedy choice can.
///
/// With `H = X^T X / T + d I` and `H = C^T C`, `C` lower triangular, the squared error of an output is `|C e|^2` for the
/// errors `e` of its weights. Column `k` is rounded from `w_k + (sum over i < k of C_ki e_i) / C_kk`, which makes
/// component `k` as small as one code can: the step of OBQ and GPTQ, without an inverse. Columns come in the order of
/// falling `H_kk`. From the codes of plain rounding on, the best scale for the codes, `<W, Q>_H / <Q, Q>_H`, and codes for
/// that scale take turns while the error falls.
///
/// # Errors
/// As [`round_to_nearest`], and when `inputs` has other columns or has seen nothing.
pub fn error_feedback(
    weights: &[f32],
    rows: usize,
    cols: usize,
    inputs: &InputStatistics,
) -> Result<TernaryFit, QuantError> {
    let plain = round_to_nearest(weights, rows, cols)?;
    check_columns(cols, inputs)?;
    let hessian = inputs.mean()?;
    if rows == 0 || cols == 0 {
        return Ok(plain);
    }
    let mut order: Vec<usize> = (0..cols).collect();
    order.sort_by(|&a, &b| hessian[b * cols + b].total_cmp(&hessian[a * cols + a]));
    let factor = factor(&hessian, &order)?;
    let ordered: Vec<f32> = weights.chunks_exact(cols).flat_map(|row| order.iter().map(|&c| row[c])).collect();

    let outputs = Outputs::new(weights, rows, cols, inputs)?;
    let mut signs = plain.codes.to_weights();
    let mut best = (outputs.error(&plain)?, plain);
    for _ in 0..ROUNDS {
        let Some(scale) = outputs.best_scale(&signs)? else { break };
        let fit = TernaryFit { codes: TernaryCodes::from_weights(rows, cols, &signs)?, scale };
        let error = outputs.error(&fit)?;
        if error >= best.0 {
            break;
        }
        best = (error, fit);
        let codes = round_rows(&ordered, cols, &factor, scale);
        for (row, codes) in signs.chunks_exact_mut(cols).zip(codes.chunks_exact(cols)) {
            order.iter().zip(codes).for_each(|(&c, &code)| row[c] = code);
        }
    }
    Ok(best.1)
}

/// `|X (W - Q)^T|^2 / |X W^T|^2` on the calibration inputs, 0 where the outputs are: the share of the outputs that is lost.
///
/// # Errors
/// When the shapes differ, or `inputs` has seen nothing.
pub fn output_error(weights: &[f32], fit: &TernaryFit, inputs: &InputStatistics) -> Result<f64, QuantError> {
    let (rows, cols) = (fit.codes.rows(), fit.codes.cols());
    ternarize::check(weights, rows, cols)?;
    check_columns(cols, inputs)?;
    Outputs::new(weights, rows, cols, inputs)?.error(fit)
}

fn check_columns(cols: usize, inputs: &InputStatistics) -> Result<(), QuantError> {
    if inputs.columns() == cols {
        return Ok(());
    }
    let message = format!("inputs of {} columns for weights of {cols}", inputs.columns());
    Err(QuantError::Argument { op: "error feedback", message })
}

/// `C` of the damped Hessian in this order of columns, `[K, K]` f32, with rows divided by their diagonal.
fn factor(hessian: &[f64], order: &[usize]) -> Result<Vec<f32>, QuantError> {
    let n = order.len();
    let mean = order.iter().map(|&c| hessian[c * n + c]).sum::<f64>() / n as f64;
    let damping = if mean > 0. { DAMPING * mean } else { 1. };
    let mut h: Vec<f64> = order.iter().flat_map(|&r| order.iter().map(move |&c| hessian[r * n + c])).collect();
    (0..n).for_each(|i| h[i * n + i] += damping);
    let factor = reverse_factor(h, n).ok_or_else(|| QuantError::Argument {
        op: "error feedback",
        message: "the inputs' statistics are not positive definite: their values differ too much in magnitude".into(),
    })?;
    Ok(factor.chunks_exact(n).enumerate().flat_map(|(k, row)| row.iter().map(move |c| (c / row[k]) as f32)).collect())
}

/// Codes `[rows, K]` of weights `[rows, K]`, on all cores.
fn round_rows(weights: &[f32], cols: usize, factor: &[f32], scale: f32) -> Vec<i8> {
    let mut codes = vec![0i8; weights.len()];
    let tiles = weights.len().div_ceil(TILE * cols);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(tiles);
    let part = tiles.div_ceil(threads.max(1)) * TILE * cols;
    std::thread::scope(|scope| {
        for (weights, codes) in weights.chunks(part).zip(codes.chunks_mut(part)) {
            scope.spawn(move || {
                for (weights, codes) in weights.chunks(TILE * cols).zip(codes.chunks_mut(TILE * cols)) {
                    round_tile(weights, cols, factor, scale, codes);
                }
            });
        }
    });
    codes
}

fn round_tile(weights: &[f32], cols: usize, factor: &[f32], scale: f32, codes: &mut [i8]) {
    let mut errors = vec![0f32; weights.len()];
    for (k, factor) in factor.chunks_exact(cols).enumerate() {
        for ((weights, errors), codes) in
            weights.chunks_exact(cols).zip(errors.chunks_exact_mut(cols)).zip(codes.chunks_exact_mut(cols))
        {
            let wanted = weights[k] + dot(&factor[..k], &errors[..k]);
            let code = (wanted / scale).round_ties_even().clamp(-1., 1.);
            codes[k] = code as i8;
            errors[k] = weights[k] - code * scale;
        }
    }
}

/// In 16 sums, which do not wait for each other.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a, b) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.0.iter().zip(b.0) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a.1.iter().zip(b.1).map(|(a, b)| a * b).sum::<f32>()
}

/// Errors of the outputs of one layer.
struct Outputs {
    /// `[rows, K]`
    weights: BitNetTensor,
    /// `[K, K]`
    hessian: BitNetTensor,
    /// `W H`, `[rows, K]`
    reached: BitNetTensor,
    /// `<W, W>_H`
    size: f64,
}

impl Outputs {
    fn new(weights: &[f32], rows: usize, cols: usize, inputs: &InputStatistics) -> Result<Self, QuantError> {
        let weights = BitNetTensor::from_slice(weights, &[rows, cols], &Device::cpu())?;
        let hessian = inputs.mean_tensor()?;
        let reached = weights.matmul(&hessian)?;
        let size = inner(&reached, &weights)?;
        Ok(Self { weights, hessian, reached, size })
    }

    fn error(&self, fit: &TernaryFit) -> Result<f64, QuantError> {
        let values: Vec<f32> = fit.codes.to_weights().into_iter().map(|w| f32::from(w) * fit.scale).collect();
        let difference = self.weights.sub(&BitNetTensor::from_slice(&values, self.weights.dims(), &Device::cpu())?)?;
        let error = inner(&difference.matmul(&self.hessian)?, &difference)?.max(0.);
        Ok(if self.size > 0. { error / self.size } else { 0. })
    }

    /// The scale that suits the codes best; `None` where none is positive.
    fn best_scale(&self, codes: &[i8]) -> Result<Option<f32>, QuantError> {
        let codes: Vec<f32> = codes.iter().map(|&c| c.into()).collect();
        let codes = BitNetTensor::from_slice(&codes, self.weights.dims(), &Device::cpu())?;
        let (projection, size) = (inner(&self.reached, &codes)?, inner(&codes.matmul(&self.hessian)?, &codes)?);
        let scale = (projection / size) as f32;
        Ok((scale.is_finite() && scale > 0.).then_some(scale))
    }
}

/// The sum of all products, in f64.
fn inner(a: &BitNetTensor, b: &BitNetTensor) -> Result<f64, QuantError> {
    let (a, b) = (a.to_vec::<f32>()?, b.to_vec::<f32>()?);
    Ok(a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
}
