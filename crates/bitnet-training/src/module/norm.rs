//! Norms with trained weights.

use super::{Module, trained};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Result};

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension (Zhang and Sennrich 2019).
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// `[width]`.
    pub weight: BitNetTensor,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// Weights of 1.
    pub fn new(width: usize, eps: f64, device: &Device) -> Result<Self> {
        Ok(Self { weight: trained(BitNetTensor::ones(&[width], BitNetDType::F32, device)?)?, eps })
    }

    /// `[.., width]` to the same shape.
    pub fn forward(&self, x: &BitNetTensor) -> Result<BitNetTensor> {
        x.rms_norm(&self.weight, self.eps)
    }
}

impl Module for RmsNorm {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        vec![("weight".to_owned(), &self.weight)]
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        vec![("weight".to_owned(), &mut self.weight)]
    }
}

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last dimension (Ba et al. 2016).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[width]`.
    pub weight: BitNetTensor,
    /// `[width]`.
    pub bias: Option<BitNetTensor>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// Weights of 1, and a bias of 0 if there is one.
    pub fn new(width: usize, bias: bool, eps: f64, device: &Device) -> Result<Self> {
        let weight = trained(BitNetTensor::ones(&[width], BitNetDType::F32, device)?)?;
        let bias =
            bias.then(|| BitNetTensor::zeros(&[width], BitNetDType::F32, device).and_then(trained)).transpose()?;
        Ok(Self { weight, bias, eps })
    }

    /// `[.., width]` to the same shape.
    pub fn forward(&self, x: &BitNetTensor) -> Result<BitNetTensor> {
        x.layer_norm(self.weight.dims(), Some(&self.weight), self.bias.as_ref(), self.eps)
    }
}

impl Module for LayerNorm {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        let bias = self.bias.as_ref().map(|bias| ("bias".to_owned(), bias));
        [("weight".to_owned(), &self.weight)].into_iter().chain(bias).collect()
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        let bias = self.bias.as_mut().map(|bias| ("bias".to_owned(), bias));
        [("weight".to_owned(), &mut self.weight)].into_iter().chain(bias).collect()
    }
}
