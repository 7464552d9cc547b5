//! The ternary linear layer with latent weights, as training uses it.

use super::{Compute, PackedBitLinear, StraightThroughEstimator, bit_linear, linear};
use crate::hadamard::hadamard;
use crate::ternarize;
use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator, Result, TensorOpError, autograd};

/// What a [`BitLinear`] is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct BitLinearConfig {
    /// Columns of the weights.
    pub inputs: usize,
    /// Rows of the weights.
    pub outputs: usize,
    /// Whether a learned vector is added to the outputs.
    pub bias: bool,
    /// Epsilon of an RMS norm of the inputs that belongs to the layer; `None`: no norm.
    pub norm_eps: Option<f64>,
    /// Whether inputs go through a [`hadamard`](crate::hadamard::hadamard) transform before they are quantized, which
    /// spreads outliers over a row (H-BitLinear of BitNet v2, Wang et al. 2025).
    pub hadamard: bool,
    /// The gradient through both quantizers.
    pub estimator: StraightThroughEstimator,
    /// What products are computed in.
    pub compute: Compute,
}

impl BitLinearConfig {
    /// As BitNet b1.58 has it: no bias, no norm of its own, gradients straight through, f32.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        let estimator = StraightThroughEstimator::Standard;
        Self { inputs, outputs, bias: false, norm_eps: None, hadamard: false, estimator, compute: Compute::F32 }
    }
}

/// `y = Q(norm(x)) Q(W)^T + b`: weights ternary by their mean magnitude, inputs 8 bits per token by their largest (Ma et al.
/// 2024). The gradient reaches the latent weights `W`.
///
/// ```
/// use bitnet_core::{BitNetTensor, Device, Generator};
/// use bitnet_quant::{BitLinear, BitLinearConfig};
/// let device = Device::cpu();
/// let layer = BitLinear::new(BitLinearConfig::new(8, 4), &mut Generator::new(1), &device)?;
/// let x = BitNetTensor::ones(&[3, 8], bitnet_core::BitNetDType::F32, &device)?;
/// let y = layer.forward(&x)?;
/// assert_eq!(y.dims(), [3, 4]);
/// y.sum(.., false)?.backward()?;
/// assert!(layer.weight().grad().is_some());
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug)]
pub struct BitLinear {
    config: BitLinearConfig,
    /// f32 `[outputs, inputs]`
    weight: BitNetTensor,
    /// f32 `[outputs]`
    bias: Option<BitNetTensor>,
    /// f32 `[inputs]`
    norm: Option<BitNetTensor>,
    /// Share of quantization in the forward pass, 0 to 1.
    lambda: f64,
}

impl BitLinear {
    /// Weights uniform in `±1 / sqrt(inputs)` (what `torch.nn.Linear` does), bias 0, norm 1; all need gradients.
    pub fn new(config: BitLinearConfig, generator: &mut Generator, device: &Device) -> Result<Self> {
        let bound = 1. / (config.inputs.max(1) as f64).sqrt();
        let dims = [config.outputs, config.inputs];
        let weight = BitNetTensor::rand(&dims, BitNetDType::F32, device, generator)?.mul(2. * bound)?.sub(bound)?;
        let bias = config.bias.then(|| BitNetTensor::zeros(&[config.outputs], BitNetDType::F32, device)).transpose()?;
        Self::with_weights(config, weight, bias)
    }

    /// From the weights `[outputs, inputs]` and bias of a dense layer, of any float dtype.
    pub fn from_linear(weight: &BitNetTensor, bias: Option<&BitNetTensor>) -> Result<Self> {
        let &[outputs, inputs] = weight.dims() else {
            let needed = "[outputs, inputs]".into();
            return Err(TensorOpError::Shape { op: "from_linear", what: "weight", got: *weight.shape(), needed }.into());
        };
        let config = BitLinearConfig { bias: bias.is_some(), ..BitLinearConfig::new(inputs, outputs) };
        Self::with_weights(config, weight.detach(), bias.map(BitNetTensor::detach))
    }

    fn with_weights(config: BitLinearConfig, weight: BitNetTensor, bias: Option<BitNetTensor>) -> Result<Self> {
        let latent = |x: BitNetTensor| -> Result<BitNetTensor> {
            let mut x = x.to_dtype(BitNetDType::F32)?.contiguous()?;
            x.requires_grad_(true)?;
            Ok(x)
        };
        let ones = |_| BitNetTensor::ones(&[config.inputs], BitNetDType::F32, weight.device()).and_then(latent);
        let norm = config.norm_eps.map(ones).transpose()?;
        Ok(Self { weight: latent(weight)?, bias: bias.map(latent).transpose()?, norm, lambda: 1., config })
    }

    /// What it is made of.
    pub fn config(&self) -> &BitLinearConfig {
        &self.config
    }

    /// The latent weights, f32 `[outputs, inputs]`.
    pub fn weight(&self) -> &BitNetTensor {
        &self.weight
    }

    /// What is added to the outputs, f32 `[outputs]`.
    pub fn bias(&self) -> Option<&BitNetTensor> {
        self.bias.as_ref()
    }

    /// Names and tensors of what is learned.
    pub fn parameters(&self) -> Vec<(&'static str, &BitNetTensor)> {
        let named =
            [("weight", Some(&self.weight)), ("bias", self.bias.as_ref()), ("rms_norm.weight", self.norm.as_ref())];
        named.into_iter().filter_map(|(name, x)| Some((name, x?))).collect()
    }

    /// [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<(&'static str, &mut BitNetTensor)> {
        let named =
            [("weight", Some(&mut self.weight)), ("bias", self.bias.as_mut()), ("rms_norm.weight", self.norm.as_mut())];
        named.into_iter().filter_map(|(name, x)| Some((name, x?))).collect()
    }

    /// How much of quantization the forward pass has: `x + lambda (Q(x) - x)` for weights and inputs, 0 none, 1 all.
    ///
    /// # Errors
    /// When `lambda` is not between 0 and 1.
    pub fn set_lambda(&mut self, lambda: f64) -> Result<()> {
        if !(0. ..=1.).contains(&lambda) {
            let message = format!("lambda is {lambda}: it lies between 0 and 1");
            return Err(TensorOpError::Argument { op: "set_lambda", message }.into());
        }
        self.lambda = lambda;
        Ok(())
    }

    /// `[.., outputs]` of `x` f32 `[.., inputs]`.
    pub fn forward(&self, x: &BitNetTensor) -> Result<BitNetTensor> {
        let inputs = self.config.inputs;
        if x.shape().last() != inputs || x.rank() == 0 {
            let needed = format!("[.., {inputs}]");
            return Err(TensorOpError::Shape { op: "BitLinear", what: "the input", got: *x.shape(), needed }.into());
        }
        let is_matrix = x.rank() == 2;
        let mut rows = if is_matrix { x.clone() } else { x.reshape(&[x.elements() / inputs.max(1), inputs])? };
        if let (Some(weight), Some(eps)) = (&self.norm, self.config.norm_eps) {
            rows = rows.rms_norm(weight, eps)?;
        }
        if self.config.hadamard {
            rows = hadamard(&rows)?;
        }
        let mut out = product(&rows, &[&self.weight], self.config.estimator, self.lambda, self.config.compute)?;
        if let Some(bias) = &self.bias {
            out = out.add(bias)?;
        }
        if is_matrix {
            return Ok(out);
        }
        out.reshape(&[&x.dims()[..x.rank() - 1], &[self.config.outputs]].concat())
    }

    /// The same layer with its weights packed for inference; a norm and a transform of its own stay with the caller.
    ///
    /// # Errors
    /// When a weight is not finite.
    pub fn pack(&self) -> Result<PackedBitLinear> {
        let (codes, scale) = ternarize::absmean(&self.weight.to_vec::<f32>()?, self.config.outputs, self.config.inputs)
            .map_err(|e| TensorOpError::Argument { op: "pack", message: e.to_string() })?;
        let bias = self.bias.as_ref().map(BitNetTensor::to_vec::<f32>).transpose()?;
        PackedBitLinear::new(&codes, scale, bias.as_deref(), self.weight.device())
    }
}

/// Products of one input `[T, K]` with the latent weights `[N_i, K]` of several layers, side by side `[T, sum N_i]`,
/// quantized to the share `lambda`. The exact integer product where quantization is whole and gradients pass straight
/// through; otherwise products of floats.
pub fn product(
    x: &BitNetTensor,
    weights: &[&BitNetTensor],
    estimator: StraightThroughEstimator,
    lambda: f64,
    compute: Compute,
) -> Result<BitNetTensor> {
    if lambda == 1. && estimator == StraightThroughEstimator::Standard {
        return bit_linear(x, weights, compute);
    }
    if lambda == 0. {
        return linear(x, weights, compute);
    }
    let soften = |x: &BitNetTensor, (quantized, scale): (BitNetTensor, BitNetTensor)| {
        estimator.apply(x, &quantized, &scale, lambda)
    };
    let inputs = soften(x, autograd::no_grad(|| absmax(x))?)?;
    let softened = weights.iter().map(|w| soften(w, autograd::no_grad(|| absmean(w))?));
    let softened: Vec<BitNetTensor> = softened.collect::<Result<_>>()?;
    linear(&inputs, &softened.iter().collect::<Vec<_>>(), compute)
}

/// Weights as ternary of their mean magnitude, and that mean: transformers' `WeightQuant`.
fn absmean(w: &BitNetTensor) -> Result<(BitNetTensor, BitNetTensor)> {
    let &[rows, columns] = w.dims() else {
        let needed = "[outputs, inputs]".into();
        return Err(TensorOpError::Shape { op: "absmean", what: "the weights", got: *w.shape(), needed }.into());
    };
    let (codes, scale) = ternarize::absmean(&w.to_vec::<f32>()?, rows, columns)
        .map_err(|e| TensorOpError::Argument { op: "absmean", message: e.to_string() })?;
    let values = BitNetTensor::from_slice(&codes.to_weights(), w.dims(), w.device())?;
    let scale = BitNetTensor::scalar(scale, BitNetDType::F32, w.device())?;
    Ok((values.to_dtype(BitNetDType::F32)?.mul(&scale)?, scale))
}

/// Rows as 8 bits of their largest magnitude, and the step of each, `[T, 1]`: transformers' `ActQuant`.
fn absmax(x: &BitNetTensor) -> Result<(BitNetTensor, BitNetTensor)> {
    let scale = x.abs()?.amax(-1, true)?.clamp(Some(1e-5.into()), None)?.reciprocal()?.mul(127.)?;
    let quantized = x.mul(&scale)?.round()?.clamp(Some((-128.).into()), Some(127.0.into()))?.div(&scale)?;
    Ok((quantized, scale.reciprocal()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(hadamard: bool, bias: bool, norm_eps: Option<f64>) -> BitLinear {
        let config = BitLinearConfig { bias, norm_eps, hadamard, ..BitLinearConfig::new(32, 16) };
        BitLinear::new(config, &mut Generator::new(3), &Device::cpu()).unwrap()
    }

    fn input() -> BitNetTensor {
        let x = BitNetTensor::randn(&[2, 5, 32], BitNetDType::F32, &Device::cpu(), &mut Generator::new(4)).unwrap();
        let mut x = x.mul(3.).unwrap();
        x.requires_grad_(true).unwrap();
        x
    }

    #[test]
    fn gradients_reach_all_that_is_learned_and_the_input() {
        for (hadamard, bias, norm) in [(false, false, None), (true, true, Some(1e-6)), (true, false, None)] {
            let (layer, x) = (layer(hadamard, bias, norm), input());
            layer.forward(&x).unwrap().square().unwrap().sum(.., false).unwrap().backward().unwrap();
            for (name, p) in layer.parameters().into_iter().chain([("input", &x)]) {
                let nonzero = p.grad().unwrap().count_nonzero(..).unwrap().item::<i64>().unwrap();
                assert!(nonzero as usize > p.elements() / 2, "{name}: {nonzero} of {}", p.elements());
            }
        }
    }

    #[test]
    fn the_transform_spreads_what_is_quantized() {
        // One outlier in a row of ones: eight bits of the row as it is leave nothing of them, of the transform they do.
        let mut values = vec![1f32; 32];
        values[7] = 1000.;
        let x = BitNetTensor::from_slice(&values, &[1, 32], &Device::cpu()).unwrap();
        let turned = hadamard(&x).unwrap();
        let steps =
            |x: &BitNetTensor| absmax(x).unwrap().0.sub(x).unwrap().norm(2., .., false).unwrap().item::<f32>().unwrap();
        assert!(steps(&turned) < 0.8 * steps(&x), "{} {}", steps(&turned), steps(&x));
    }

    #[test]
    fn packed_and_latent_forms_agree() {
        let (layer, x) = (layer(false, true, None), input().detach());
        let expected = layer.forward(&x).unwrap();
        let packed = layer.pack().unwrap();
        let mut buffer = crate::ActivationBuffer::new(10, 32, &Device::cpu()).unwrap();
        let mut out = BitNetTensor::empty(&[10, 16], BitNetDType::F32, &Device::cpu()).unwrap();
        let rows = x.reshape(&[10, 32]).unwrap();
        packed.forward(rows.as_ref(), &mut buffer, &Device::cpu(), out.as_mut().unwrap()).unwrap();
        assert_eq!(out.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
    }

    #[test]
    fn half_quantized_lies_between() {
        let (mut layer, x) = (layer(false, false, None), input().detach());
        let at = |layer: &BitLinear| layer.forward(&x).unwrap();
        let whole = at(&layer);
        layer.set_lambda(0.).unwrap();
        let none = at(&layer);
        let dense = x.reshape(&[10, 32]).unwrap().matmul(&layer.weight().detach().t().unwrap()).unwrap();
        assert!(none.reshape(&[10, 16]).unwrap().allclose(&dense, 1e-5, 1e-5, false).unwrap());
        layer.set_lambda(0.5).unwrap();
        let half = at(&layer);
        assert!(
            !half.allclose(&none, 1e-3, 1e-3, false).unwrap() && !half.allclose(&whole, 1e-3, 1e-3, false).unwrap()
        );
        assert!(layer.set_lambda(1.5).is_err());
    }
}
