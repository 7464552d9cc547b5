//! Linear layers and embeddings.

use super::{Module, init, trained};
use bitnet_core::{BitNetTensor, Device, Generator, Result};

/// `x W^T + b` (`torch.nn.Linear`).
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: BitNetTensor,
    /// `[outputs]`.
    pub bias: Option<BitNetTensor>,
}

impl Linear {
    /// Weights and bias uniform within `1 / sqrt(inputs)`, as PyTorch begins.
    pub fn new(inputs: usize, outputs: usize, bias: bool, generator: &mut Generator, device: &Device) -> Result<Self> {
        let bound = 1. / (inputs.max(1) as f64).sqrt();
        let weight = trained(init::uniform(&[outputs, inputs], bound, generator, device)?)?;
        let bias = bias.then(|| init::uniform(&[outputs], bound, generator, device).and_then(trained)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &BitNetTensor) -> Result<BitNetTensor> {
        let product = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => product.add(bias),
            None => Ok(product),
        }
    }
}

impl Module for Linear {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        let bias = self.bias.as_ref().map(|bias| ("bias".to_owned(), bias));
        [("weight".to_owned(), &self.weight)].into_iter().chain(bias).collect()
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        let bias = self.bias.as_mut().map(|bias| ("bias".to_owned(), bias));
        [("weight".to_owned(), &mut self.weight)].into_iter().chain(bias).collect()
    }
}

/// A table of vectors (`torch.nn.Embedding`).
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[rows, width]`.
    pub weight: BitNetTensor,
}

impl Embedding {
    /// Normal numbers of standard deviation `std`.
    pub fn new(rows: usize, width: usize, std: f64, generator: &mut Generator, device: &Device) -> Result<Self> {
        Ok(Self { weight: trained(init::normal(&[rows, width], std, generator, device)?)? })
    }

    /// Ids `[..]` to vectors `[.., width]`.
    pub fn forward(&self, ids: &BitNetTensor) -> Result<BitNetTensor> {
        self.weight.embedding(ids)
    }
}

impl Module for Embedding {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        vec![("weight".to_owned(), &self.weight)]
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        vec![("weight".to_owned(), &mut self.weight)]
    }
}
