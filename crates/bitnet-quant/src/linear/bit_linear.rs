//! The ternary linear layer with latent weights, for training.

use super::{Compute, PackedBitLinear, StraightThroughEstimator, bit_linear, learned_step, linear};
use crate::hadamard::hadamard;
use crate::quantizers::{self, Granularity, Scheme};
use crate::{QuantError, TernaryCodes, ternarize};
use bitnet_core::{BitNetDType, BitNetError, BitNetTensor, Device, Generator, Result, TensorOpError, autograd};

/// How the weights of a [`BitLinear`] are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightQuantizer {
    /// A function of the weights alone.
    Fixed(Scheme),
    /// Ternary with one learned step; see [`learned_step`]. It has its own gradient, independent of the estimator.
    LearnedStep,
}

/// Configuration of a [`BitLinear`].
#[derive(Debug, Clone, PartialEq)]
pub struct BitLinearConfig {
    /// Columns of the weights.
    pub inputs: usize,
    /// Rows of the weights.
    pub outputs: usize,
    /// Whether a learned vector is added to the outputs.
    pub bias: bool,
    /// Epsilon of the layer's own RMS norm of its inputs; `None` for no norm.
    pub norm_eps: Option<f64>,
    /// Whether inputs go through a [`hadamard`](crate::hadamard::hadamard) transform before quantization, which
    /// distributes outliers over a row (H-BitLinear of BitNet v2, Wang et al. 2025).
    pub hadamard: bool,
    /// How weights are quantized.
    pub weight_quantizer: WeightQuantizer,
    /// How inputs are quantized.
    pub input_quantizer: Scheme,
    /// Gradient estimator of both quantizers.
    pub estimator: StraightThroughEstimator,
    /// Dtype of float products.
    pub compute: Compute,
}

impl BitLinearConfig {
    /// BitNet b1.58: no bias, no own norm, absmean weights and 8-bit inputs, straight-through gradients, f32.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self {
            inputs,
            outputs,
            bias: false,
            norm_eps: None,
            hadamard: false,
            weight_quantizer: WeightQuantizer::Fixed(Scheme::WEIGHTS),
            input_quantizer: Scheme::INPUTS,
            estimator: StraightThroughEstimator::Standard,
            compute: Compute::F32,
        }
    }
}

/// `y = Q(norm(x)) Q(W)^T + b`. By default weights are ternary (absmean) and inputs 8 bits per token (absmax; Ma et al.
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
    quantizer: Quantizer,
    /// Share of quantization in the forward pass, 0 to 1.
    lambda: f64,
}

/// A [`WeightQuantizer`] with its learned parameter.
#[derive(Debug)]
enum Quantizer {
    Fixed(Scheme),
    /// f32 `[]`
    Step(BitNetTensor),
}

impl BitLinear {
    /// Weights uniform in `±1 / sqrt(inputs)` (as `torch.nn.Linear`), bias 0, norm 1; all require gradients.
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
        Self::with_weights(config, weight.clone(), bias.cloned())
    }

    /// From weights `[outputs, inputs]` and a bias `[outputs]`, of any float dtype; a learned step begins at
    /// [`quantizers::initial_step`].
    ///
    /// # Errors
    /// If their shapes are not those of the configuration.
    pub fn with_weights(config: BitLinearConfig, weight: BitNetTensor, bias: Option<BitNetTensor>) -> Result<Self> {
        let fits = |x: &BitNetTensor, what, dims: &[usize]| match x.dims() == dims {
            true => Ok(()),
            false => Err(shape_error(what, x, format!("{dims:?}, as configured"))),
        };
        fits(&weight, "the weights", &[config.outputs, config.inputs])?;
        match &bias {
            Some(bias) if config.bias => fits(bias, "the bias", &[config.outputs])?,
            None if !config.bias => {}
            _ => {
                let message = format!("bias is configured {}, but that is not what was given", config.bias);
                return Err(TensorOpError::Argument { op: OP, message }.into());
            }
        }
        let latent = |x: BitNetTensor| -> Result<BitNetTensor> {
            let mut x = x.detach().to_dtype(BitNetDType::F32)?.contiguous()?;
            x.requires_grad_(true)?;
            Ok(x)
        };
        let ones = |_| BitNetTensor::ones(&[config.inputs], BitNetDType::F32, weight.device()).and_then(latent);
        let norm = config.norm_eps.map(ones).transpose()?;
        let quantizer = match config.weight_quantizer {
            WeightQuantizer::Fixed(scheme) => Quantizer::Fixed(scheme),
            WeightQuantizer::LearnedStep => {
                Quantizer::Step(latent(quantizers::initial_step(&weight, Granularity::Tensor)?)?)
            }
        };
        Ok(Self { weight: latent(weight)?, bias: bias.map(latent).transpose()?, norm, quantizer, lambda: 1., config })
    }

    /// Its configuration.
    pub fn config(&self) -> &BitLinearConfig {
        &self.config
    }

    /// The latent weights, f32 `[outputs, inputs]`.
    pub fn weight(&self) -> &BitNetTensor {
        &self.weight
    }

    /// The bias, f32 `[outputs]`.
    pub fn bias(&self) -> Option<&BitNetTensor> {
        self.bias.as_ref()
    }

    /// The learned step of its weights, f32 `[]`.
    pub fn step(&self) -> Option<&BitNetTensor> {
        match &self.quantizer {
            Quantizer::Step(step) => Some(step),
            Quantizer::Fixed(_) => None,
        }
    }

    /// Names and tensors of the parameters.
    pub fn parameters(&self) -> Vec<(&'static str, &BitNetTensor)> {
        let tensors = [Some(&self.weight), self.bias.as_ref(), self.norm.as_ref(), self.step()];
        NAMES.into_iter().zip(tensors).filter_map(|(name, x)| Some((name, x?))).collect()
    }

    /// [`parameters`](Self::parameters), mutable.
    pub fn parameters_mut(&mut self) -> Vec<(&'static str, &mut BitNetTensor)> {
        let step = match &mut self.quantizer {
            Quantizer::Step(step) => Some(step),
            Quantizer::Fixed(_) => None,
        };
        let tensors = [Some(&mut self.weight), self.bias.as_mut(), self.norm.as_mut(), step];
        NAMES.into_iter().zip(tensors).filter_map(|(name, x)| Some((name, x?))).collect()
    }

    /// Sets the share of quantization in the forward pass: `x + lambda (Q(x) - x)` for weights and inputs, 0 none, 1
    /// full.
    ///
    /// # Errors
    /// When `lambda` is not between 0 and 1.
    pub fn set_lambda(&mut self, lambda: f64) -> Result<()> {
        if !(0. ..=1.).contains(&lambda) {
            let message = format!("lambda is {lambda}: it must be between 0 and 1");
            return Err(TensorOpError::Argument { op: "set_lambda", message }.into());
        }
        self.lambda = lambda;
        Ok(())
    }

    /// `[.., outputs]` of `x` f32 `[.., inputs]`.
    pub fn forward(&self, x: &BitNetTensor) -> Result<BitNetTensor> {
        let inputs = self.config.inputs;
        if x.shape().last() != inputs || x.rank() == 0 {
            return Err(shape_error("the input", x, format!("[.., {inputs}]")));
        }
        let is_matrix = x.rank() == 2;
        let mut rows = if is_matrix { x.clone() } else { x.reshape(&[x.elements() / inputs.max(1), inputs])? };
        if let (Some(weight), Some(eps)) = (&self.norm, self.config.norm_eps) {
            rows = rows.rms_norm(weight, eps)?;
        }
        if self.config.hadamard {
            rows = hadamard(&rows)?;
        }
        let mut out = self.product(&rows)?;
        if let Some(bias) = &self.bias {
            out = out.add(bias)?;
        }
        if is_matrix {
            return Ok(out);
        }
        out.reshape(&[&x.dims()[..x.rank() - 1], &[self.config.outputs]].concat())
    }

    /// Of rows `[T, inputs]` with the quantized weights.
    fn product(&self, rows: &BitNetTensor) -> Result<BitNetTensor> {
        let BitLinearConfig { input_quantizer: inputs, estimator, compute, .. } = self.config;
        let options = ProductOptions { inputs, estimator, lambda: self.lambda, compute, ..ProductOptions::default() };
        match &self.quantizer {
            Quantizer::Fixed(weights) => {
                product(rows, &[&self.weight], ProductOptions { weights: *weights, ..options })
            }
            Quantizer::Step(step) => {
                let quantized = learned_step(&self.weight, step)?;
                let weight = if self.lambda == 1. { quantized } else { self.weight.lerp(&quantized, self.lambda)? };
                linear(&options.interpolate(rows, inputs)?, &[&weight], compute)
            }
        }
    }

    /// The same layer with weights packed for inference; the caller applies its own norm and transform.
    ///
    /// # Errors
    /// If its weights are not ternary with one scale or its inputs not 8 bits a row, as packed layers have them, or a
    /// number is not finite.
    pub fn pack(&self) -> Result<PackedBitLinear> {
        let argument = |message: String| BitNetError::from(TensorOpError::Argument { op: "pack", message });
        let failed = |e: QuantError| argument(e.to_string());
        let BitLinearConfig { inputs, outputs, input_quantizer, .. } = self.config;
        if input_quantizer != Scheme::INPUTS {
            return Err(argument(format!("inputs are {input_quantizer:?}, but a packed layer has Int8 by Row")));
        }
        let weights = self.weight.to_vec::<f32>()?;
        let (codes, scale) = match &self.quantizer {
            Quantizer::Fixed(scheme) if scheme.is_packable() => {
                scheme.quantizer.ternarize(&weights, outputs, inputs).map_err(failed)?
            }
            Quantizer::Step(step) => {
                ternarize::check(&weights, outputs, inputs).map_err(failed)?;
                let scale = step.item::<f32>()?;
                if !(scale > 0. && scale.is_finite()) {
                    return Err(argument(format!("the learned step is {scale}: it must be positive")));
                }
                let codes = quantizers::learned_step(&self.weight, step, Granularity::Tensor)?;
                let codes = TernaryCodes::from_weights(outputs, inputs, &codes.codes().to_vec::<i8>()?);
                (codes.map_err(failed)?, scale)
            }
            Quantizer::Fixed(scheme) => {
                let message = format!("weights are {scheme:?}, but a packed layer has ternary ones with one scale");
                return Err(argument(message));
            }
        };
        let bias = self.bias.as_ref().map(BitNetTensor::to_vec::<f32>).transpose()?;
        PackedBitLinear::new(&codes, &scale.into(), bias.as_deref(), self.weight.device())
    }
}

const OP: &str = "BitLinear";
const NAMES: [&str; 4] = ["weight", "bias", "rms_norm.weight", "step"];

fn shape_error(what: &'static str, got: &BitNetTensor, needed: String) -> BitNetError {
    TensorOpError::Shape { op: OP, what, got: *got.shape(), needed }.into()
}

/// Options of a [`product`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductOptions {
    /// How weights are quantized.
    pub weights: Scheme,
    /// How inputs are quantized.
    pub inputs: Scheme,
    /// The gradient through both.
    pub estimator: StraightThroughEstimator,
    /// Share of quantization, 0 to 1.
    pub lambda: f64,
    /// What products of floats are computed in.
    pub compute: Compute,
}

impl Default for ProductOptions {
    /// BitNet b1.58, fully quantized, in f32.
    fn default() -> Self {
        let (estimator, compute) = (StraightThroughEstimator::Standard, Compute::F32);
        Self { weights: Scheme::WEIGHTS, inputs: Scheme::INPUTS, estimator, lambda: 1., compute }
    }
}

impl ProductOptions {
    /// `x + lambda (Q(x) - x)`.
    fn interpolate(&self, x: &BitNetTensor, scheme: Scheme) -> Result<BitNetTensor> {
        if self.lambda == 0. {
            return Ok(x.clone());
        }
        let (quantized, steps) = autograd::no_grad(|| -> Result<_> {
            let quantized = scheme.quantizer.quantize(x, scheme.granularity)?;
            Ok((quantized.dequantize()?, quantized.steps()?))
        })?;
        self.estimator.apply(x, &quantized, &steps, self.lambda)
    }
}

/// Products of one input `[T, K]` with the latent weights `[N_i, K]` of several layers, concatenated to `[T, sum N_i]`,
/// with the share `lambda` of quantization. It is the exact integer product ([`bit_linear`]) if weights are ternary
/// with one scale, inputs 8 bits a row, `lambda` 1 and gradients straight-through; otherwise float products.
///
/// # Errors
/// When shapes do not fit each other or the granularity; in the integer product on the host when a weight is not finite
/// (elsewhere it gives NaN).
pub fn product(x: &BitNetTensor, weights: &[&BitNetTensor], options: ProductOptions) -> Result<BitNetTensor> {
    let ProductOptions { weights: scheme, inputs, estimator, lambda, compute } = options;
    let whole = lambda == 1. && estimator == StraightThroughEstimator::Standard;
    if whole && inputs == Scheme::INPUTS && scheme.is_packable() {
        return bit_linear(x, weights, scheme.quantizer, compute);
    }
    let softened = weights.iter().map(|w| options.interpolate(w, scheme)).collect::<Result<Vec<_>>>()?;
    linear(&options.interpolate(x, inputs)?, &softened.iter().collect::<Vec<_>>(), compute)
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
        // One outlier in a row of ones: in 8 bits the ones round to 0, but after the transform they survive.
        let mut values = vec![1f32; 32];
        values[7] = 1000.;
        let x = BitNetTensor::from_slice(&values, &[1, 32], &Device::cpu()).unwrap();
        let turned = hadamard(&x).unwrap();
        let rounded = |x: &BitNetTensor| crate::quantizers::Quantizer::Int8.fake_quantize(x, Granularity::Row).unwrap();
        let steps = |x: &BitNetTensor| rounded(x).sub(x).unwrap().norm(2., .., false).unwrap().item::<f32>().unwrap();
        assert!(steps(&turned) < 0.8 * steps(&x), "{} {}", steps(&turned), steps(&x));
    }

    #[test]
    fn packed_and_latent_forms_agree() {
        let (layer, x) = (layer(false, true, None), input().detach());
        let expected = layer.forward(&x).unwrap();
        let packed = layer.pack().unwrap();
        let mut buffer = crate::ActivationBuffer::new(crate::ActivationRule::Token, 10, 32, &Device::cpu()).unwrap();
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
