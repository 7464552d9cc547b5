//! The product of a BitLinear layer with latent weights, and its derivative.

use crate::quantizers::{Granularity, Quantizer, Scheme};
use crate::{ActivationBuffer, ActivationRule, TernaryCodes};
use bitnet_core::backend::TernarySource;
use bitnet_core::{BitNetDType, BitNetTensor, Device, Result, TensorOpError, autograd};

/// Dtype of float products. Latent weights, gradients and everything between layers are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// f32.
    #[default]
    F32,
    /// Operands rounded to bf16, accumulated in f32. Ternary weights and 8-bit activations are exact in bf16; only the
    /// gradients of results are rounded.
    BF16,
}

impl Compute {
    fn dtype(self) -> BitNetDType {
        match self {
            Self::F32 => BitNetDType::F32,
            Self::BF16 => BitNetDType::BF16,
        }
    }

    /// `x` as an operand of products. Contiguous columns stay contiguous, so that rounding is fast.
    pub fn operand(self, x: &BitNetTensor) -> Result<BitNetTensor> {
        match x.rank() == 2 && x.layout().strides()[0] == 1 && x.dtype() != self.dtype() {
            true => x.transpose(0, 1)?.to_dtype(self.dtype())?.transpose(0, 1),
            false => x.to_dtype(self.dtype()),
        }
    }
}

/// `a b` in f32, not recorded: `a` `[M, K]`, `b` `[K, N]` of any dtype.
pub fn matmul(a: &BitNetTensor, b: &BitNetTensor, compute: Compute) -> Result<BitNetTensor> {
    let (a, b) = (compute.operand(a)?, compute.operand(b)?);
    let (&[rows, _], &[_, columns]) = (a.dims(), b.dims()) else {
        return Err(shape_error("matmul", "a", &a, "[M, K], and b [K, N]".into()));
    };
    let mut out = BitNetTensor::empty(&[rows, columns], BitNetDType::F32, a.device())?;
    a.device().matmul(a.as_ref(), b.as_ref(), out.as_mut()?)?;
    Ok(out)
}

fn shape_error(op: &'static str, what: &'static str, got: &BitNetTensor, needed: String) -> bitnet_core::BitNetError {
    TensorOpError::Shape { op, what, got: *got.shape(), needed }.into()
}

/// Float products `x w^T` with several matrices, concatenated: `x` `[T, K]`, `weights` `[N_i, K]`, f32; gives
/// `[T, sum N_i]`.
pub fn linear(x: &BitNetTensor, weights: &[&BitNetTensor], compute: Compute) -> Result<BitNetTensor> {
    const OP: &str = "linear";
    let &[_, inputs] = x.dims() else { return Err(shape_error(OP, "x", x, "[T, K]".into())) };
    if let Some(w) = weights.iter().find(|w| w.rank() != 2 || w.dims()[1] != inputs) {
        return Err(shape_error(OP, "the weights", w, format!("[N, {inputs}], the columns of x")));
    }
    let operands: Vec<&BitNetTensor> = [&[x], weights].concat();
    let saved: Vec<BitNetTensor> = operands.iter().map(|&x| x.clone()).collect();
    let forward = || matmul(&x.detach(), &stacked(&saved[1..])?.detach().transpose(0, 1)?, compute);
    autograd::differentiable(OP, &operands, forward, |_| {
        let saved = saved.clone();
        move |grad: &BitNetTensor| {
            let (x, weights) = (&saved[0], &saved[1..]);
            // dx [T, K] = dy w, dw [N, K] = dy^T x
            let mut gradients = vec![None; saved.len()];
            if x.requires_grad() {
                gradients[0] = Some(linear(grad, &[&stacked(weights)?.transpose(0, 1)?], compute)?);
            }
            if weights.iter().any(BitNetTensor::requires_grad) {
                let all = linear(&grad.transpose(0, 1)?, &[&x.transpose(0, 1)?], compute)?;
                let mut first = 0;
                for (gradient, w) in gradients[1..].iter_mut().zip(weights) {
                    *gradient = Some(all.narrow(0, first, w.dims()[0])?);
                    first += w.dims()[0];
                }
            }
            Ok(gradients)
        }
    })
}

/// Matrices of equal width, stacked.
fn stacked(weights: &[BitNetTensor]) -> Result<BitNetTensor> {
    match weights {
        [one] => Ok(one.clone()),
        _ => BitNetTensor::cat(&weights.iter().collect::<Vec<_>>(), 0),
    }
}

/// The products of BitNet b1.58 of one input with the latent weights of several layers, concatenated: `x` f32 `[T, K]`,
/// `weights` f32 `[N_i, K]`; gives f32 `[T, sum N_i]`.
///
/// Forward: each weight matrix is quantized to ternary by `quantizer`, each row of `x` to 8 bits by its largest
/// magnitude, and the integer product is exact (Ma et al. 2024; transformers, `integrations/bitnet.py`, `AutoBitLinear`
/// online). Backward: both quantizers pass the gradient unchanged, `dx = dy Q(w)` and `dw = dy^T Q(x)`.
///
/// # Errors
/// When shapes do not fit or the quantizer is not ternary; when a weight is not finite, on a device other than the host NaN
/// instead, so that nothing waits for it.
pub fn bit_linear(
    x: &BitNetTensor,
    weights: &[&BitNetTensor],
    quantizer: Quantizer,
    compute: Compute,
) -> Result<BitNetTensor> {
    let quantized = Quantized::new(x, weights, quantizer)?;
    let operands: Vec<&BitNetTensor> = [&[x], weights].concat();
    let forward = || quantized.forward(x);
    if !autograd::is_recorded(&operands) {
        return forward().map(|(out, _)| out);
    }
    let (out, activations) = autograd::no_grad(forward)?;
    let wanted: Vec<bool> = operands.iter().map(|x| x.requires_grad()).collect();
    autograd::differentiable(
        "bit_linear",
        &operands,
        || Ok(out),
        move |_| {
            move |grad: &BitNetTensor| {
                first_derivative("bit_linear")?;
                quantized.backward(grad, &activations, &wanted, compute)
            }
        },
    )
}

/// An error if second derivatives are requested.
pub(super) fn first_derivative(op: &'static str) -> Result<()> {
    if autograd::is_recording() {
        let message = "second derivatives through rounding are not defined: no create_graph here".into();
        return Err(TensorOpError::Argument { op, message }.into());
    }
    Ok(())
}

/// Weights of layers that read one input, quantized.
struct Quantized {
    codes: Codes,
    /// Rows of each matrix.
    rows: Vec<usize>,
    inputs: usize,
}

/// Codes and scale of each matrix.
enum Codes {
    /// In host memory, to be packed for its kernels.
    Host(Vec<(TernaryCodes, f32)>),
    /// i8 `[N, K]` and f32 `[]` on a device that need not wait for the host.
    Device(Vec<(BitNetTensor, BitNetTensor)>),
}

/// An input quantized per token.
struct Activations {
    /// i8 `[T, K]`
    values: BitNetTensor,
    /// f32 `[T]`, the divisors of the values.
    scales: BitNetTensor,
}

impl Quantized {
    fn new(x: &BitNetTensor, weights: &[&BitNetTensor], quantizer: Quantizer) -> Result<Self> {
        const OP: &str = "bit_linear";
        let &[_, inputs] = x.dims() else { return Err(shape_error(OP, "x", x, "[T, K]".into())) };
        for w in weights {
            let &[_, columns] = w.dims() else { return Err(shape_error(OP, "the weights", w, "[N, K]".into())) };
            if columns != inputs {
                return Err(shape_error(OP, "the weights", w, format!("[N, {inputs}], the columns of x")));
            }
        }
        let scheme = Scheme::new(quantizer, Granularity::Tensor);
        if !scheme.is_packable() {
            let message = format!("{quantizer:?} does not make ternary weights: take AbsMean or AbsMedian");
            return Err(TensorOpError::Argument { op: OP, message }.into());
        }
        let on_host = |w: &&BitNetTensor| {
            let ternary = quantizer.ternarize(&w.to_vec::<f32>()?, w.dims()[0], inputs);
            ternary.map_err(|e| TensorOpError::Argument { op: OP, message: e.to_string() }.into())
        };
        let on_device = |w: &&BitNetTensor| {
            let quantized = quantizer.quantize(w, scheme.granularity)?;
            Ok((quantized.codes().clone(), quantized.steps()?))
        };
        let codes = match x.device().is_host() {
            true => Codes::Host(weights.iter().map(on_host).collect::<Result<_>>()?),
            false => Codes::Device(weights.iter().map(on_device).collect::<Result<_>>()?),
        };
        Ok(Self { codes, rows: weights.iter().map(|w| w.dims()[0]).collect(), inputs })
    }

    fn outputs(&self) -> usize {
        self.rows.iter().sum()
    }

    fn forward(&self, x: &BitNetTensor) -> Result<(BitNetTensor, Activations)> {
        let (device, tokens) = (x.device(), x.dims()[0]);
        let x = x.contiguous()?;
        let mut buffer = ActivationBuffer::new(ActivationRule::Token, tokens, self.inputs, device)?;
        buffer.quantize(x.as_ref())?;
        let Codes::Host(codes) = &self.codes else {
            let (values, scales) = buffer.into_tensors()?;
            let sums = values.matmul(&self.ternary(device)?.t()?)?.to_dtype(BitNetDType::F32)?;
            let out = sums.mul(&self.factors(device)?)?.div(&scales.unsqueeze(1)?)?;
            return Ok((out, Activations { values, scales }));
        };
        let group = device.ternary_row_group();
        let sources: Vec<TernarySource> = codes
            .iter()
            .map(|(codes, scale)| TernarySource {
                codes: codes.as_bytes(),
                rows: codes.rows(),
                columns: self.inputs,
                scales: std::slice::from_ref(scale),
                group: None,
            })
            .collect();
        let stacked = sources.iter().rev().skip(1).all(|part| part.rows.is_multiple_of(group));
        let out = if stacked {
            let mut out = BitNetTensor::empty(&[tokens, self.outputs()], BitNetDType::F32, device)?;
            device.ternary_matmul(buffer.get()?, &device.pack_ternary(&sources)?, out.as_mut()?)?;
            out
        } else {
            let one = |source: &TernarySource| {
                let mut out = BitNetTensor::empty(&[tokens, source.rows], BitNetDType::F32, device)?;
                device.ternary_matmul(
                    buffer.get()?,
                    &device.pack_ternary(std::slice::from_ref(source))?,
                    out.as_mut()?,
                )?;
                Result::Ok(out)
            };
            let parts: Vec<BitNetTensor> = sources.iter().map(one).collect::<Result<_>>()?;
            BitNetTensor::cat(&parts.iter().collect::<Vec<_>>(), 1)?
        };
        let (values, scales) = buffer.into_tensors()?;
        Ok((out, Activations { values, scales }))
    }

    /// Gradients of x and of each matrix, where `wanted`.
    fn backward(
        &self,
        grad: &BitNetTensor,
        x: &Activations,
        wanted: &[bool],
        compute: Compute,
    ) -> Result<Vec<Option<BitNetTensor>>> {
        let mut gradients = vec![None; wanted.len()];
        // One rounding of dy, multiplied by the scale g of each column's matrix, serves both products.
        let scaled_grad = scaled(grad, None, Some(&self.factors(grad.device())?), compute)?;
        if wanted[0] {
            // dx = (dy g) T
            gradients[0] = Some(matmul(&scaled_grad, &self.ternary(grad.device())?, compute)?);
        }
        if wanted[1..].contains(&true) {
            // dw = (dy g)^T (q / s) / g
            let x = scaled(&x.values, Some(&x.scales.reciprocal()?), None, compute)?;
            let all = matmul(&scaled_grad.transpose(0, 1)?, &x, compute)?;
            let mut first = 0;
            for (part, &rows) in self.rows.iter().enumerate() {
                if wanted[1 + part] {
                    let sum = all.narrow(0, first, rows)?;
                    gradients[1 + part] = Some(match &self.codes {
                        Codes::Host(codes) => sum.mul(1. / codes[part].1)?,
                        Codes::Device(codes) => sum.div(&codes[part].1)?,
                    });
                }
                first += rows;
            }
        }
        Ok(gradients)
    }

    /// The codes as numbers, i8 `[sum N_i, K]`.
    fn ternary(&self, device: &Device) -> Result<BitNetTensor> {
        match &self.codes {
            Codes::Host(codes) => {
                let ternary: Vec<i8> = codes.iter().flat_map(|(codes, _)| codes.to_weights()).collect();
                BitNetTensor::from_slice(&ternary, &[self.outputs(), self.inputs], device)
            }
            Codes::Device(codes) => BitNetTensor::cat(&codes.iter().map(|(codes, _)| codes).collect::<Vec<_>>(), 0),
        }
    }

    /// The scale of each column of the result, that of its matrix.
    fn factors(&self, device: &Device) -> Result<BitNetTensor> {
        match &self.codes {
            Codes::Host(codes) => {
                let factors = codes.iter().flat_map(|(codes, scale)| std::iter::repeat_n(*scale, codes.rows()));
                BitNetTensor::from_vec(factors.collect(), &[self.outputs()], device)
            }
            Codes::Device(codes) => {
                let factors = codes.iter().zip(&self.rows).map(|((_, scale), &rows)| scale.expand(&[rows]));
                let factors = factors.collect::<Result<Vec<_>>>()?;
                BitNetTensor::cat(&factors.iter().collect::<Vec<_>>(), 0)
            }
        }
    }
}

/// `x` times a factor for each row and each column, in the dtype of products.
fn scaled(
    x: &BitNetTensor,
    rows: Option<&BitNetTensor>,
    columns: Option<&BitNetTensor>,
    compute: Compute,
) -> Result<BitNetTensor> {
    let mut out = BitNetTensor::empty(x.dims(), compute.dtype(), x.device())?;
    let x = x.contiguous()?;
    x.device().scale(x.as_ref(), rows.map(BitNetTensor::as_ref), columns.map(BitNetTensor::as_ref), out.as_mut()?)?;
    Ok(out)
}
