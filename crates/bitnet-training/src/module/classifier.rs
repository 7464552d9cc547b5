//! A classifier of ternary layers.

use super::{Module, prefixed, prefixed_mut};
use bitnet_core::neural::derivative::{cross_entropy_backward, relu_backward};
use bitnet_core::{BitNetTensor, CrossEntropyOptions, Device, Generator, Result, autograd};
use bitnet_quant::linear::{Compute, linear};
use bitnet_quant::{BitLinear, BitLinearConfig};

/// A multi-layer perceptron: ternary layers, each followed by a ReLU, and a dense head.
///
/// ```
/// use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
/// use bitnet_training::module::Classifier;
/// let device = Device::cpu();
/// let classifier = Classifier::new(&[64, 32, 10], &mut Generator::new(1), &device)?;
/// let images = BitNetTensor::ones(&[5, 64], BitNetDType::F32, &device)?;
/// assert_eq!(classifier.forward(&images)?.dims(), [5, 10]);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug)]
pub struct Classifier {
    layers: Vec<BitLinear>,
    head: super::Linear,
}

impl Classifier {
    /// Widths from the inputs to the classes, such as `[64, 128, 128, 10]`: the last two are those of the head.
    ///
    /// # Errors
    /// When memory runs out.
    ///
    /// # Panics
    /// With fewer than two widths.
    pub fn new(widths: &[usize], generator: &mut Generator, device: &Device) -> Result<Self> {
        let (&classes, hidden) = widths.split_last().expect("at least the width of inputs and the number of classes");
        let last = *hidden.last().expect("at least the width of inputs and the number of classes");
        let layers = hidden
            .array_windows()
            .map(|&[inputs, outputs]| BitLinear::new(BitLinearConfig::new(inputs, outputs), generator, device));
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            head: super::Linear::new(last, classes, false, generator, device)?,
        })
    }

    /// Logits `[N, classes]` of `x` f32 `[N, inputs]`.
    pub fn forward(&self, x: &BitNetTensor) -> Result<BitNetTensor> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = relu(&layer.forward(&x)?)?;
        }
        linear(&x, &[&self.head.weight], Compute::F32)
    }

    /// Mean cross entropy in nats with classes `I64` `[N]`.
    pub fn loss(&self, x: &BitNetTensor, classes: &BitNetTensor) -> Result<BitNetTensor> {
        let logits = self.forward(x)?;
        let saved = (logits.detach(), classes.clone());
        let forward = || logits.detach().cross_entropy(classes, &CrossEntropyOptions::default());
        autograd::differentiable("classifier_loss", &[&logits], forward, |_| {
            move |grad: &BitNetTensor| {
                let slope = cross_entropy_backward(grad, &saved.0, &saved.1, &CrossEntropyOptions::default())?;
                Ok(vec![Some(slope)])
            }
        })
    }

    /// The likeliest class of each row, `I64` `[N]`.
    pub fn classify(&self, x: &BitNetTensor) -> Result<BitNetTensor> {
        autograd::no_grad(|| self.forward(x)?.argmax(Some(-1), false))
    }

    /// The ternary layers, from the inputs on.
    pub fn layers(&self) -> &[BitLinear] {
        &self.layers
    }
}

fn relu(x: &BitNetTensor) -> Result<BitNetTensor> {
    let saved = x.detach();
    autograd::differentiable(
        "relu",
        &[x],
        || saved.relu(),
        |_| {
            let saved = saved.clone();
            move |grad: &BitNetTensor| Ok(vec![Some(relu_backward(grad, &saved)?)])
        },
    )
}

impl Module for Classifier {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        let layers = self.layers.iter().enumerate().flat_map(|(i, layer)| prefixed(&format!("layers.{i}"), layer));
        layers.chain(prefixed("head", &self.head)).collect()
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        let layers = self.layers.iter_mut().enumerate();
        let layers = layers.flat_map(|(i, layer)| prefixed_mut(&format!("layers.{i}"), layer));
        layers.chain(prefixed_mut("head", &mut self.head)).collect()
    }
}
