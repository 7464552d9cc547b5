//! Parts of models: parameters with names, and state dicts.

mod classifier;
mod dropout;
pub mod init;
mod linear;
mod norm;

pub use classifier::Classifier;
pub use dropout::Dropout;
pub use linear::{Embedding, Linear};
pub use norm::{LayerNorm, RmsNorm};

use crate::model::Transformer;
use crate::{Result, TrainingError};
use bitnet_core::BitNetTensor;
use bitnet_core::serialize::TensorMap;
use bitnet_quant::BitLinear;

/// A part of a model: its parameters by name, in a fixed order.
///
/// ```
/// use bitnet_core::{BitNetTensor, Device, Generator, Result};
/// use bitnet_training::module::{Linear, Module, RmsNorm, prefixed, prefixed_mut};
///
/// struct Block {
///     norm: RmsNorm,
///     up: Linear,
/// }
///
/// impl Module for Block {
///     fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
///         prefixed("norm", &self.norm).chain(prefixed("up", &self.up)).collect()
///     }
///
///     fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
///         prefixed_mut("norm", &mut self.norm).chain(prefixed_mut("up", &mut self.up)).collect()
///     }
/// }
///
/// let device = Device::cpu();
/// let block = Block {
///     norm: RmsNorm::new(4, 1e-6, &device)?,
///     up: Linear::new(4, 8, false, &mut Generator::new(1), &device)?,
/// };
/// assert_eq!(block.state_dict().keys().collect::<Vec<_>>(), ["norm.weight", "up.weight"]);
/// assert_eq!(block.parameter_count(), 4 + 4 * 8);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
pub trait Module {
    /// Names with dots as in a state dict, in a fixed order.
    fn parameters(&self) -> Vec<(String, &BitNetTensor)>;

    /// The same parameters in the same order, to change.
    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)>;

    /// Parameters by name, detached; they share their storage until one side writes.
    fn state_dict(&self) -> TensorMap {
        self.parameters().into_iter().map(|(name, parameter)| (name, parameter.detach())).collect()
    }

    /// Takes the values of a state dict, cast to the dtype and copied to the device of each parameter.
    ///
    /// # Errors
    /// Where a parameter is missing in it, or there with another shape, or it holds one that the module has not: all of
    /// them are named, and nothing is changed.
    fn load_state_dict(&mut self, state: &TensorMap) -> Result<()> {
        let parameters = self.parameters_mut();
        let missing = parameters.iter().map(|(name, _)| name).filter(|name| !state.contains_key(*name)).cloned();
        let known = |name: &&String| !parameters.iter().any(|(own, _)| own == *name);
        let unexpected = state.keys().filter(known).cloned();
        let shapes = parameters.iter().filter_map(|(name, parameter)| {
            let given = state.get(name).filter(|given| given.dims() != parameter.dims())?;
            Some(format!("{name} {} for {}", given.shape(), parameter.shape()))
        });
        let (missing, unexpected, shapes): (Vec<_>, Vec<_>, Vec<_>) =
            (missing.collect(), unexpected.collect(), shapes.collect());
        if !(missing.is_empty() && unexpected.is_empty() && shapes.is_empty()) {
            return Err(TrainingError::StateDict { missing, unexpected, shapes });
        }
        for (name, parameter) in parameters {
            let value = state[&name].detach().to_dtype(parameter.dtype())?.to_device(parameter.device())?;
            let trained = parameter.requires_grad();
            *parameter = value;
            parameter.requires_grad_(trained)?;
        }
        Ok(())
    }

    /// Forgets all gradients.
    fn zero_grad(&self) {
        self.parameters().iter().for_each(|(_, parameter)| parameter.zero_grad());
    }

    /// Number of elements of all parameters.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, parameter)| parameter.elements()).sum()
    }
}

/// The parameters of a part under the name that it has in the whole.
pub fn prefixed<'a, M: Module>(
    name: &str,
    part: &'a M,
) -> impl Iterator<Item = (String, &'a BitNetTensor)> + use<'a, M> {
    let name = name.to_owned();
    Module::parameters(part).into_iter().map(move |(inner, parameter)| (format!("{name}.{inner}"), parameter))
}

/// As [`prefixed`], to change.
pub fn prefixed_mut<'a, M: Module>(
    name: &str,
    part: &'a mut M,
) -> impl Iterator<Item = (String, &'a mut BitNetTensor)> + use<'a, M> {
    let name = name.to_owned();
    Module::parameters_mut(part).into_iter().map(move |(inner, parameter)| (format!("{name}.{inner}"), parameter))
}

/// A new leaf that is trained.
fn trained(mut tensor: BitNetTensor) -> bitnet_core::Result<BitNetTensor> {
    tensor.requires_grad_(true)?;
    Ok(tensor)
}

impl Module for Transformer {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        self.tensors().iter().map(|(name, tensor)| (name.clone(), tensor)).collect()
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        self.tensors_mut().iter_mut().map(|(name, tensor)| (name.clone(), tensor)).collect()
    }
}

impl Module for BitLinear {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        self.parameters().into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        self.parameters_mut().into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
    }
}
