//! Ternary weights by plain rounding, and by rounding with error feedback.

use super::InputStatistics;
use super::cholesky::reverse_factor;
use crate::{QuantError, TernaryCodes, ternarize};
use bitnet_core::{BitNetError, BitNetTensor, Device};
use bitnet_kernels::dense::matmul::{MatmulShape, Matrix, MatrixMut, matmul_f32};
use bitnet_kernels::{Isa, ThreadPool};

/// What is added to the diagonal of the Hessian, of its mean: the value of GPTQ.
const DAMPING: f64 = 0.01;
/// Most times that rounding with one scale and fitting the scale to the codes take turns.
const ROUNDS: usize = 9;
/// A thread takes whole tiles of so many rows, or reading the factor would cost more than the rows.
const TILE: usize = 32;
/// Columns that are rounded one by one.
const LEAF: usize = 32;

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
    let isa = Isa::selected().map_err(BitNetError::from)?;
    let factor = factor(&hessian, &order, isa)?;
    let ordered: Vec<f32> = weights.chunks_exact(cols).flat_map(|row| order.iter().map(|&c| row[c])).collect();

    let outputs = Outputs::new(weights, rows, cols, inputs)?;
    let mut signs = plain.codes.to_weights();
    let mut reached = outputs.of(&signs)?;
    let mut best = (outputs.error(&signs, plain.scale, &reached), plain);
    for round in 0..ROUNDS {
        if round > 0 {
            let codes = round_rows(&ordered, cols, &factor, best.1.scale, isa);
            for (row, codes) in signs.chunks_exact_mut(cols).zip(codes.chunks_exact(cols)) {
                order.iter().zip(codes).for_each(|(&c, &code)| row[c] = code);
            }
            reached = outputs.of(&signs)?;
        }
        let Some(scale) = outputs.best_scale(&signs, &reached) else { break };
        let error = outputs.error(&signs, scale, &reached);
        if error >= best.0 {
            break;
        }
        best = (error, TernaryFit { codes: TernaryCodes::from_weights(rows, cols, &signs)?, scale });
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
    let (outputs, codes) = (Outputs::new(weights, rows, cols, inputs)?, fit.codes.to_weights());
    Ok(outputs.error(&codes, fit.scale, &outputs.of(&codes)?))
}

fn check_columns(cols: usize, inputs: &InputStatistics) -> Result<(), QuantError> {
    if inputs.columns() == cols {
        return Ok(());
    }
    let message = format!("inputs of {} columns for weights of {cols}", inputs.columns());
    Err(QuantError::Argument { op: "error feedback", message })
}

/// What the error of each column adds to those after it, `C_ki / C_kk`: the damped Hessian's `C^T` `[K, K]` in this order of
/// columns, with columns divided by the diagonal, in f32.
fn factor(hessian: &[f64], order: &[usize], isa: Isa) -> Result<Vec<f32>, QuantError> {
    let n = order.len();
    let mean = order.iter().map(|&c| hessian[c * n + c]).sum::<f64>() / n as f64;
    let damping = if mean > 0. { DAMPING * mean } else { 1. };
    let mut h: Vec<f64> = order.iter().flat_map(|&r| order.iter().map(move |&c| hessian[r * n + c])).collect();
    (0..n).for_each(|i| h[i * n + i] += damping);
    let factor = reverse_factor(isa, &ThreadPool::new(threads()), h, n).ok_or_else(|| QuantError::Argument {
        op: "error feedback",
        message: "the inputs' statistics are not positive definite: their values differ too much in magnitude".into(),
    })?;
    let diagonal: Vec<f64> = (0..n).map(|k| factor[k * n + k]).collect();
    Ok(factor.chunks_exact(n).flat_map(|row| row.iter().zip(&diagonal).map(|(c, d)| (c / d) as f32)).collect())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Codes `[rows, K]` of weights `[rows, K]`, on all cores.
fn round_rows(weights: &[f32], cols: usize, factor: &[f32], scale: f32, isa: Isa) -> Vec<i8> {
    let mut codes = vec![0i8; weights.len()];
    let part = (weights.len() / cols).div_ceil(threads()).next_multiple_of(TILE) * cols;
    std::thread::scope(|scope| {
        for (weights, codes) in weights.chunks(part).zip(codes.chunks_mut(part)) {
            scope.spawn(move || {
                let (pool, wanted, product) = (ThreadPool::new(1), weights.to_vec(), vec![0.; weights.len() / 2]);
                Rounding { weights, cols, factor, scale, isa, pool, codes, wanted, product }.columns(0, cols);
            });
        }
    });
    codes
}

/// Rows on their way to codes.
struct Rounding<'a> {
    /// `[rows, K]`
    weights: &'a [f32],
    cols: usize,
    /// `[K, K]`
    factor: &'a [f32],
    scale: f32,
    isa: Isa,
    pool: ThreadPool,
    /// `[rows, K]`
    codes: &'a mut [i8],
    /// `[rows, K]`: what the code of a column is to come near to, and once it is rounded the error of the weight.
    wanted: Vec<f32>,
    /// Room for a product.
    product: Vec<f32>,
}

impl Rounding<'_> {
    /// Rounds columns `start..end`: half of them, then, with what their errors add, the other half.
    fn columns(&mut self, start: usize, end: usize) {
        if end - start <= LEAF {
            return self.few_columns(start, end);
        }
        let (cols, middle) = (self.cols, start + ((end - start) / 2).next_multiple_of(LEAF));
        self.columns(start, middle);
        let (n, k) = (end - middle, middle - start);
        let shape = MatmulShape { m: self.weights.len() / cols, n, k };
        let errors = Matrix { start, ..Matrix::row_major(&self.wanted, cols) };
        let factor = Matrix { start: start * cols + middle, ..Matrix::row_major(self.factor, cols) };
        matmul_f32(self.isa, &self.pool, shape, errors, factor, MatrixMut::row_major(&mut self.product, n));
        for (wanted, added) in self.wanted.chunks_exact_mut(cols).zip(self.product.chunks_exact(n)) {
            wanted[middle..end].iter_mut().zip(added).for_each(|(w, a)| *w += a);
        }
        self.columns(middle, end);
    }

    fn few_columns(&mut self, start: usize, end: usize) {
        let (cols, scale) = (self.cols, self.scale);
        let rows = self.weights.chunks_exact(cols).zip(self.codes.chunks_exact_mut(cols));
        for ((weights, codes), wanted) in rows.zip(self.wanted.chunks_exact_mut(cols)) {
            for k in start..end {
                let (before, after) = wanted[..end].split_at_mut(k + 1);
                // As rounding to even, and then to -1, 0, 1.
                codes[k] = i8::from(before[k] > 0.5 * scale) - i8::from(before[k] < -0.5 * scale);
                let error = weights[k] - f32::from(codes[k]) * scale;
                before[k] = error;
                after.iter_mut().zip(&self.factor[k * cols + k + 1..]).for_each(|(w, f)| *w += f * error);
            }
        }
    }
}

/// Errors of the outputs of one layer.
struct Outputs<'a> {
    /// `[rows, K]`
    weights: &'a [f32],
    /// `[K, K]`
    hessian: BitNetTensor,
    /// `W H`, `[rows, K]`
    reached: Vec<f32>,
    /// `<W, W>_H`
    size: f64,
}

impl<'a> Outputs<'a> {
    fn new(weights: &'a [f32], rows: usize, cols: usize, inputs: &InputStatistics) -> Result<Self, QuantError> {
        let hessian = inputs.mean_tensor()?;
        let reached =
            BitNetTensor::from_slice(weights, &[rows, cols], &Device::cpu())?.matmul(&hessian)?.to_vec::<f32>()?;
        let size = inner(weights.iter().zip(&reached).map(|(&w, &r)| (w.into(), r.into())));
        Ok(Self { weights, hessian, reached, size })
    }

    /// `Q H` of codes, `[rows, K]`.
    fn of(&self, codes: &[i8]) -> Result<Vec<f32>, QuantError> {
        let codes: Vec<f32> = codes.iter().map(|&c| c.into()).collect();
        let cols = self.hessian.dims()[0];
        let codes = BitNetTensor::from_vec(codes, &[self.weights.len() / cols.max(1), cols], &Device::cpu())?;
        Ok(codes.matmul(&self.hessian)?.to_vec()?)
    }

    /// `<W - s Q, W - s Q>_H` of what is lost, by `<W, W>_H`; `reached` is `Q H`.
    fn error(&self, codes: &[i8], scale: f32, reached: &[f32]) -> f64 {
        let scale = f64::from(scale);
        let lost = self.weights.iter().zip(codes).map(|(&w, &q)| f64::from(w) - scale * f64::from(q));
        let outputs = self.reached.iter().zip(reached).map(|(&w, &q)| f64::from(w) - scale * f64::from(q));
        let error = inner(lost.zip(outputs)).max(0.);
        if self.size > 0. { error / self.size } else { 0. }
    }

    /// The scale that suits the codes best; `None` where none is positive.
    fn best_scale(&self, codes: &[i8], reached: &[f32]) -> Option<f32> {
        let with = |outputs: &[f32]| inner(codes.iter().zip(outputs).map(|(&q, &r)| (q.into(), r.into())));
        let scale = (with(&self.reached) / with(reached)) as f32;
        (scale.is_finite() && scale > 0.).then_some(scale)
    }
}

fn inner(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    pairs.map(|(a, b)| a * b).sum()
}
