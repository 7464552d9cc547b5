//! The moving average of weights.

use crate::{Result, TrainingError};
use bitnet_core::BitNetTensor;
use bitnet_core::serialize::TensorMap;

/// An exponential moving average of parameters: often better than the last ones (Polyak and Juditsky 1992).
#[derive(Debug, Clone)]
pub struct Ema {
    decay: f64,
    average: TensorMap,
}

impl Ema {
    /// An average that begins with these parameters and keeps the share `decay` of itself at each update.
    ///
    /// # Errors
    /// Where `decay` is not at least 0 and below 1.
    pub fn new(decay: f64, parameters: &[(String, &BitNetTensor)]) -> Result<Self> {
        let average = parameters.iter().map(|(name, parameter)| Ok((name.clone(), parameter.detach().copy()?)));
        Self::from_state(decay, average.collect::<Result<_>>()?)
    }

    /// An average that goes on from [`state`](Self::state).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_state(decay: f64, average: TensorMap) -> Result<Self> {
        if !(0. ..1.).contains(&decay) {
            return Err(TrainingError::Invalid(format!("ema decay is {decay}: it must be at least 0 and below 1")));
        }
        Ok(Self { decay, average })
    }

    /// `average = decay average + (1 - decay) parameter`.
    ///
    /// # Errors
    /// Where a parameter is not one of those that it began with.
    pub fn update(&mut self, parameters: &[(String, &BitNetTensor)]) -> Result<()> {
        let share = 1. - self.decay;
        for (name, parameter) in parameters {
            let average = self.average.get_mut(name);
            let average = average.ok_or_else(|| TrainingError::NoAverage { parameter: name.clone() })?;
            let mut step = parameter.detach().sub(&*average)?;
            average.add_(&*step.mul_(share)?)?;
        }
        Ok(())
    }

    /// The averages by name: a state dict.
    pub fn state(&self) -> &TensorMap {
        &self.average
    }
}
