//! Rotary position embedding: base and scaling.

use crate::{ModelError, Result};
use bitnet_kernels::float::inverse_frequencies;
use serde_json::Value;

/// Base and scaling of the rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Scaling for positions beyond the original context.
    pub scaling: RopeScaling,
}

/// Scaling for positions beyond the original context (transformers, `modeling_rope_utils.py`).
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are scaled.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_freq_factor: f64,
        /// Context before scaling.
        original: f64,
    },
    /// Each frequency divided by its own factor, as GGUF stores the scaling of Llama 3.1.
    PerPair(Vec<f32>),
}

impl RopeConfig {
    /// From `rope_parameters` (newer) or `rope_theta` with `rope_scaling` (older).
    ///
    /// As in transformers, `rope_scaling` wins over `rope_parameters`, and a `rope_theta` inside over the one outside.
    pub(super) fn from_json(
        theta: f64,
        max_positions: usize,
        parameters: Option<&Value>,
        scaling: Option<&Value>,
    ) -> Result<Self> {
        let object = scaling.filter(|v| !v.is_null()).or(parameters.filter(|v| !v.is_null()));
        let config = match object {
            None => Self { theta, scaling: RopeScaling::None },
            Some(object) => {
                let number = |key: &str| object.get(key).and_then(Value::as_f64);
                let need = |key: &str| {
                    number(key)
                        .ok_or_else(|| ModelError::Config(format!("rope parameters: {key} is missing or not a number")))
                };
                let kind = object.get("rope_type").or(object.get("type")).and_then(Value::as_str).unwrap_or("default");
                let scaling = match kind {
                    "default" => RopeScaling::None,
                    "linear" => RopeScaling::Linear { factor: need("factor")? },
                    "llama3" => RopeScaling::Llama3 {
                        factor: need("factor")?,
                        low_freq_factor: need("low_freq_factor")?,
                        high_freq_factor: need("high_freq_factor")?,
                        original: number("original_max_position_embeddings").unwrap_or(max_positions as f64),
                    },
                    other => {
                        let known = "this build computes \"default\", \"linear\" and \"llama3\"";
                        return Err(ModelError::Config(format!("rope_type is {other:?}; {known}")));
                    }
                };
                Self { theta: number("rope_theta").unwrap_or(theta), scaling }
            }
        };
        config.validate()?;
        Ok(config)
    }

    /// An error if a number is out of range.
    pub fn validate(&self) -> Result<()> {
        let positive = |name: &str, value: f64| {
            if value.is_finite() && value > 0. {
                return Ok(());
            }
            Err(ModelError::Config(format!("rope {name} is {value}; it must be a positive number")))
        };
        positive("theta", self.theta)?;
        match &self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::PerPair(factors) => factors.iter().try_for_each(|&f| positive("factor", f as f64)),
            &RopeScaling::Linear { factor } => positive("factor", factor),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("original_max_position_embeddings", original)?;
                positive("high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor)
            }
        }
    }

    /// Angle per position of each pair of `head_dim` elements: `theta^(-2i/D)`, scaled; in f32 as transformers computes it.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let scale = |(i, f): (usize, f32)| match &self.scaling {
            RopeScaling::None => f,
            RopeScaling::PerPair(factors) => f / factors.get(i).copied().unwrap_or(1.),
            &RopeScaling::Linear { factor } => f / factor as f32,
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let wavelength = std::f64::consts::TAU / f as f64;
                if wavelength < original / high_freq_factor {
                    f
                } else if wavelength > original / low_freq_factor {
                    f / factor as f32
                } else {
                    let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    ((1. - smooth) * f as f64 / factor + smooth * f as f64) as f32
                }
            }
        };
        inverse_frequencies(self.theta as f32, head_dim).into_iter().enumerate().map(scale).collect()
    }
}
