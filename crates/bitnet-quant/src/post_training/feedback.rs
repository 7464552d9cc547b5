//! Ternary weights by plain rounding, and by rounding with error feedback.

use super::InputStatistics;
use super::cholesky::reverse_factor;
use crate::{QuantError, TernaryCodes, ternarize};
use bitnet_core::{BitNetError, BitNetTensor, Device};
use bitnet_kernels::Isa;
use bitnet_kernels::dense::matmul::{MatmulShape, Matrix, MatrixMut, matmul_f32};
use bitnet_kernels::threads::{ThreadPool, available_threads, for_each_part};

/// Damping: this fraction of the mean diagonal is added to the diagonal of the Hessian, as in GPTQ.
const DAMPING: f64 = 0.01;
/// Maximum number of alternations between rounding with a scale and fitting the scale to the codes.
const ROUNDS: usize = 9;
/// Rows of a task: fewer would make reading the factor cost more than the rows.
const TILE: usize = 32;
/// Columns rounded one by one.
const LEAF: usize = 32;

/// A ternary approximation of dense weights.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryFit {
    /// -1, 0, +1.
    pub codes: TernaryCodes,
    /// Scale of every weight.
    pub scale: f32,
}

/// Absmean rounding ([`ternarize::absmean`]) of weights `[rows, cols]`.
///
/// # Errors
/// If the length is not that of the shape, or a weight is not finite.
pub fn round_to_nearest(weights: &[f32], rows: usize, cols: usize) -> Result<TernaryFit, QuantError> {
    let (codes, scale) = ternarize::absmean(weights, rows, cols)?;
    Ok(TernaryFit { codes, scale })
}

/// Ternary weights chosen greedily to change the outputs `x W^T` on the calibration inputs least.
///
/// With `H = X^T X / T + d I` and `H = C^T C`, `C` lower triangular, the squared error of an output is `|C e|^2` for
/// the errors `e` of its weights. Column `k` is rounded from `w_k + (sum over i < k of C_ki e_i) / C_kk`, which makes
/// component `k` as small as one code can: the step of OBQ and GPTQ, without an inverse. Columns are processed in order
/// of decreasing `H_kk`. Starting from plain rounding, the best scale for the codes, `<W, Q>_H / <Q, Q>_H`, and new
/// codes for that scale alternate while the error decreases.
///
/// # Errors
/// As [`round_to_nearest`], and if `inputs` has other columns or no data.
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
    let first = outputs.of(&signs)?;
    let (mut projection, mut squares) = (inner(&signs, &outputs.reached), inner(&signs, &first));
    let (mut lost, mut scale) = (outputs.squared_error(&signs, plain.scale, &first), plain.scale);
    let (plain_lost, mut best) = (lost, (lost, plain.clone()));
    for round in 0..ROUNDS {
        if round > 0 {
            let (codes, left) = round_rows(&ordered, &factor, scale, isa);
            for (row, codes) in signs.chunks_exact_mut(cols).zip(codes.chunks_exact(cols)) {
                order.iter().zip(codes).for_each(|(&c, &code)| row[c] = code);
            }
            // By <E, E>_H = <W, W>_H - 2 s <W, Q>_H + s^2 <Q, Q>_H.
            let s = f64::from(scale);
            (lost, projection) = (left, inner(&signs, &outputs.reached));
            squares = (lost - outputs.size + 2. * s * projection) / (s * s);
        }
        let fitted = (projection / squares) as f32;
        lost -= (f64::from(fitted) - f64::from(scale)).powi(2) * squares;
        if !(fitted.is_finite() && fitted > 0. && lost < best.0) {
            break;
        }
        scale = fitted;
        best = (lost, TernaryFit { codes: TernaryCodes::from_weights(rows, cols, &signs)?, scale });
    }
    // The sums above are subject to rounding errors, which may dominate: compare exactly.
    let codes = best.1.codes.to_weights();
    Ok(if outputs.squared_error(&codes, best.1.scale, &outputs.of(&codes)?) < plain_lost { best.1 } else { plain })
}

/// Relative squared output error `|X (W - Q)^T|^2 / |X W^T|^2` on the calibration inputs; 0 if all outputs are 0.
///
/// # Errors
/// If the shapes differ, or `inputs` has no data.
pub fn output_error(weights: &[f32], fit: &TernaryFit, inputs: &InputStatistics) -> Result<f64, QuantError> {
    let (rows, cols) = (fit.codes.rows(), fit.codes.cols());
    ternarize::check(weights, rows, cols)?;
    check_columns(cols, inputs)?;
    let (outputs, codes) = (Outputs::new(weights, rows, cols, inputs)?, fit.codes.to_weights());
    let lost = outputs.squared_error(&codes, fit.scale, &outputs.of(&codes)?);
    Ok(if outputs.size > 0. { lost / outputs.size } else { 0. })
}

fn check_columns(cols: usize, inputs: &InputStatistics) -> Result<(), QuantError> {
    if inputs.columns() == cols {
        return Ok(());
    }
    let message = format!("inputs of {} columns for weights of {cols}", inputs.columns());
    Err(QuantError::Argument { op: "error feedback", message })
}

/// The factor `C` of the damped Hessian, columns in rounding order.
struct Factor {
    /// Weight of the error of column `i` in column `k`, `C_ki / C_kk`: `[K, K]`, upper triangular.
    added: Vec<f32>,
    /// `C_kk^2`, `[K]`.
    diagonal: Vec<f64>,
    damping: f64,
}

fn factor(hessian: &[f64], order: &[usize], isa: Isa) -> Result<Factor, QuantError> {
    let n = order.len();
    let mean = order.iter().map(|&c| hessian[c * n + c]).sum::<f64>() / n as f64;
    let damping = if mean > 0. { DAMPING * mean } else { 1. };
    let mut h: Vec<f64> = order.iter().flat_map(|&r| order.iter().map(move |&c| hessian[r * n + c])).collect();
    (0..n).for_each(|i| h[i * n + i] += damping);
    let factor =
        reverse_factor(isa, &ThreadPool::new(available_threads()), h, n).ok_or_else(|| QuantError::Argument {
            op: "error feedback",
            message: "the inputs' statistics are not positive definite: their values differ too much in magnitude"
                .into(),
        })?;
    let diagonal: Vec<f64> = (0..n).map(|k| factor[k * n + k]).collect();
    let added = factor.chunks_exact(n).flat_map(|row| row.iter().zip(&diagonal).map(|(c, d)| (c / d) as f32)).collect();
    Ok(Factor { added, diagonal: diagonal.iter().map(|d| d * d).collect(), damping })
}

/// Codes `[rows, K]` of weights `[rows, K]`, and `<E, E>_H` of their errors; on all cores.
fn round_rows(weights: &[f32], factor: &Factor, scale: f32, isa: Isa) -> (Vec<i8>, f64) {
    let cols = factor.diagonal.len();
    let (mut codes, mut lost) = (vec![0i8; weights.len()], vec![0f64; weights.len() / cols]);
    let part = lost.len().div_ceil(available_threads()).next_multiple_of(TILE);
    let parts = weights.chunks(part * cols).zip(codes.chunks_mut(part * cols)).zip(lost.chunks_mut(part));
    for_each_part(available_threads(), parts, |((weights, codes), lost)| {
        let (pool, wanted, product) = (ThreadPool::new(1), weights.to_vec(), vec![0.; weights.len()]);
        Rounding { weights, cols, factor, scale, isa, pool, codes, lost, wanted, product }.columns(0, cols);
    });
    (codes, lost.iter().sum())
}

/// Rows being rounded.
struct Rounding<'a> {
    /// `[rows, K]`
    weights: &'a [f32],
    cols: usize,
    factor: &'a Factor,
    scale: f32,
    isa: Isa,
    pool: ThreadPool,
    /// `[rows, K]`
    codes: &'a mut [i8],
    /// `[rows]`: `<e, e>_H`, which is `|C e|^2` minus the damping.
    lost: &'a mut [f64],
    /// `[rows, K]`: the target of each column, and once it is rounded its error.
    wanted: Vec<f32>,
    /// Scratch for a product.
    product: Vec<f32>,
}

impl Rounding<'_> {
    /// Rounds columns `start..end` recursively: the first half, then the second with the errors of the first.
    fn columns(&mut self, start: usize, end: usize) {
        if end - start <= LEAF {
            return self.few_columns(start, end);
        }
        let (cols, middle) = (self.cols, start + ((end - start) / 2).next_multiple_of(LEAF));
        self.columns(start, middle);
        let (n, k) = (end - middle, middle - start);
        let shape = MatmulShape { m: self.weights.len() / cols, n, k };
        let errors = Matrix { start, ..Matrix::row_major(&self.wanted, cols) };
        let factor = Matrix { start: start * cols + middle, ..Matrix::row_major(&self.factor.added, cols) };
        matmul_f32(self.isa, &self.pool, shape, errors, factor, MatrixMut::row_major(&mut self.product, n));
        for (wanted, added) in self.wanted.chunks_exact_mut(cols).zip(self.product.chunks_exact(n)) {
            wanted[middle..end].iter_mut().zip(added).for_each(|(w, a)| *w += a);
        }
        self.columns(middle, end);
    }

    fn few_columns(&mut self, start: usize, end: usize) {
        let (cols, scale, Factor { added, diagonal, damping }) = (self.cols, self.scale, self.factor);
        let rows = self.weights.chunks_exact(cols).zip(self.codes.chunks_exact_mut(cols));
        let state = self.wanted.chunks_exact_mut(cols).zip(self.lost.iter_mut());
        for ((weights, codes), (wanted, lost)) in rows.zip(state) {
            for k in start..end {
                let (before, after) = wanted[..end].split_at_mut(k + 1);
                let wanted = before[k];
                // Equals rounding half to even, clamped to -1, 0, 1.
                codes[k] = i8::from(wanted > 0.5 * scale) - i8::from(wanted < -0.5 * scale);
                let rounded = f32::from(codes[k]) * scale;
                let error = weights[k] - rounded;
                before[k] = error;
                *lost += diagonal[k] * f64::from(wanted - rounded).powi(2) - damping * f64::from(error).powi(2);
                after.iter_mut().zip(&added[k * cols + k + 1..]).for_each(|(w, a)| *w += a * error);
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
        let size = inner(weights, &reached);
        Ok(Self { weights, hessian, reached, size })
    }

    /// `Q H` of codes, `[rows, K]`.
    fn of(&self, codes: &[i8]) -> Result<Vec<f32>, QuantError> {
        let codes: Vec<f32> = codes.iter().map(|&c| c.into()).collect();
        let cols = self.hessian.dims()[0];
        let codes = BitNetTensor::from_vec(codes, &[self.weights.len() / cols.max(1), cols], &Device::cpu())?;
        Ok(codes.matmul(&self.hessian)?.to_vec()?)
    }

    /// `<W - s Q, W - s Q>_H`; `reached` is `Q H`.
    fn squared_error(&self, codes: &[i8], scale: f32, reached: &[f32]) -> f64 {
        let scale = f64::from(scale);
        let errors = self.weights.iter().zip(codes).map(|(&w, &q)| f64::from(w) - scale * f64::from(q));
        let outputs = self.reached.iter().zip(reached).map(|(&w, &q)| f64::from(w) - scale * f64::from(q));
        errors.zip(outputs).map(|(e, o)| e * o).sum::<f64>().max(0.)
    }
}

/// The sum of all products, in f64.
fn inner<T: Copy + Into<f64>>(a: &[T], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| a.into() * f64::from(b)).sum()
}
