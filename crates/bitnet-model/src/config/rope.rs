//! Rotary position embedding: base and scaling.

use crate::{ModelError, Result};
use bitnet_kernels::float::inverse_frequencies;
use serde_json::Value;
use std::f64::consts::TAU;

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
    /// A larger base for texts longer than the original context:
    /// `theta * (factor * length / original - (factor - 1))^(d / (d - 2))`, d the rotated elements of a head.
    Dynamic {
        /// How much longer than the original context texts may become.
        factor: f64,
        /// Context before scaling.
        original: usize,
    },
    /// YaRN: low frequencies divided by `factor`, high ones kept, a ramp over the pairs between.
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Context before scaling.
        original: usize,
        /// Factor of cosines and sines.
        attention_factor: f64,
        /// Pairs that turn more often than this in the original context are kept.
        beta_fast: f64,
        /// Pairs that turn less often than this are divided.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole pairs.
        truncate: bool,
    },
    /// LongRoPE: each frequency divided by its own factor, of one list up to the original context and of another beyond.
    LongRope {
        /// Divisors where texts are at most `original` long.
        short: Vec<f32>,
        /// Divisors where they are longer.
        long: Vec<f32>,
        /// Context before scaling.
        original: usize,
        /// Factor of cosines and sines, at every length.
        attention_factor: f64,
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

/// YaRN's factor of cosines and sines for a context `factor` times as long.
pub(crate) fn yarn_attention(factor: f64, weight: f64) -> f64 {
    if factor <= 1. { 1. } else { 1. + 0.1 * weight * factor.ln() }
}

/// What `config.json` says about the rotary embedding outside of its parameters.
#[derive(Clone, Copy)]
pub(super) struct Outside<'a> {
    pub theta: f64,
    pub max_positions: usize,
    /// `original_max_position_embeddings`.
    pub original: Option<usize>,
    /// `rope_parameters`, the newer spelling.
    pub parameters: Option<&'a Value>,
    /// `rope_scaling`, the older one.
    pub scaling: Option<&'a Value>,
    /// Rotated elements of a head, where `alpha` of the kind `dynamic` is a fixed factor of the base (Hunyuan).
    pub alpha_dim: Option<usize>,
}

impl RopeConfig {
    /// From `rope_parameters` (newer) or `rope_theta` with `rope_scaling` (older).
    ///
    /// As in transformers, `rope_scaling` wins over `rope_parameters`, a `rope_theta` inside over the one outside, and an
    /// `original_max_position_embeddings` outside over the one inside.
    pub(super) fn from_json(outside: Outside) -> Result<Self> {
        let Outside { theta, max_positions, original, parameters, scaling, alpha_dim } = outside;
        let Some(object) = scaling.filter(|v| !v.is_null()).or(parameters.filter(|v| !v.is_null())) else {
            return Ok(Self { theta, scaling: RopeScaling::None });
        };
        let error = |problem: String| ModelError::Config(format!("rope parameters: {problem}"));
        if let Some(layers) = ["full_attention", "sliding_attention"].into_iter().find(|key| object.get(key).is_some())
        {
            return Err(error(format!("{layers} has its own; this build rotates all layers alike")));
        }
        let given = |key: &str| object.get(key).filter(|v| !v.is_null());
        let number = |key: &str| {
            let value = given(key).map(|v| v.as_f64().ok_or_else(|| error(format!("{key} is {v}, not a number"))));
            value.transpose()
        };
        let need = |key: &str| number(key)?.ok_or_else(|| error(format!("{key} is missing")));
        let list = |key: &str| {
            let values = given(key).and_then(Value::as_array).ok_or_else(|| error(format!("{key} is not a list")))?;
            let one = |v: &Value| Some(v.as_f64()? as f32);
            values
                .iter()
                .map(|v| one(v).ok_or_else(|| error(format!("{key} has {v}, not a number"))))
                .collect::<Result<Vec<f32>>>()
        };
        let original = match (original, number("original_max_position_embeddings")?) {
            (Some(outside), _) => outside as f64,
            (None, inside) => inside.unwrap_or(max_positions as f64),
        };
        let times_longer = max_positions as f64 / original;
        let kind = given("rope_type").or(given("type")).map_or(Some("default"), Value::as_str);
        let mut theta = number("rope_theta")?.unwrap_or(theta);
        let scaling = match kind.unwrap_or("not a text") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: need("factor")? },
            "dynamic" if number("alpha")?.is_some_and(|alpha| alpha != 0.) => {
                let dim = alpha_dim.ok_or_else(|| error("alpha is computed for hunyuan_v1_dense only".into()))? as f64;
                theta *= need("alpha")?.powf(dim / (dim - 2.));
                RopeScaling::None
            }
            "dynamic" => RopeScaling::Dynamic { factor: need("factor")?, original: max_positions },
            "yarn" => {
                let factor = number("factor")?.unwrap_or(times_longer);
                // transformers takes 0 as absent for these four.
                let nonzero = |key: &str| Ok::<_, ModelError>(number(key)?.filter(|&x| x != 0.));
                let default = match (nonzero("mscale")?, nonzero("mscale_all_dim")?) {
                    (Some(scale), Some(all)) => yarn_attention(factor, scale) / yarn_attention(factor, all),
                    _ => yarn_attention(factor, 1.),
                };
                RopeScaling::Yarn {
                    factor,
                    original: original as usize,
                    attention_factor: number("attention_factor")?.unwrap_or(default),
                    beta_fast: nonzero("beta_fast")?.unwrap_or(32.),
                    beta_slow: nonzero("beta_slow")?.unwrap_or(1.),
                    truncate: given("truncate").and_then(Value::as_bool).unwrap_or(true),
                }
            }
            "longrope" | "su" => {
                let factor = number("factor")?.unwrap_or(times_longer);
                let default = if factor <= 1. { 1. } else { (1. + factor.ln() / original.ln()).sqrt() };
                RopeScaling::LongRope {
                    short: list("short_factor")?,
                    long: list("long_factor")?,
                    original: original as usize,
                    attention_factor: number("attention_factor")?.unwrap_or(default),
                }
            }
            "llama3" => RopeScaling::Llama3 {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original,
            },
            other => {
                let known = "this build computes default, linear, dynamic, yarn, longrope and llama3";
                return Err(ModelError::Config(format!("rope_type is {other:?}; {known}")));
            }
        };
        Ok(Self { theta, scaling })
    }

    /// As [`from_json`](Self::from_json), but `rope_scaling` adds to `rope_parameters` (Gemma 3).
    pub(super) fn merged(outside: Outside) -> Result<Self> {
        let mut all = serde_json::Map::new();
        for object in [outside.parameters, outside.scaling].into_iter().flatten().filter_map(Value::as_object) {
            all.extend(object.clone());
        }
        let all = Value::Object(all);
        Self::from_json(Outside { parameters: Some(&all), scaling: None, ..outside })
    }

    /// An error if a number is out of range for heads of which `pairs` pairs are rotated.
    pub(super) fn validate(&self, pairs: usize) -> Result<()> {
        let positive = |name: &str, value: f64| {
            if value.is_finite() && value > 0. {
                return Ok(());
            }
            Err(ModelError::Config(format!("rope {name} is {value}; it must be a positive number")))
        };
        let every = |name: &str, factors: &[f32]| {
            if factors.len() != pairs {
                let problem = format!("rope {name} has {} numbers; {pairs} pairs are rotated", factors.len());
                return Err(ModelError::Config(problem));
            }
            factors.iter().try_for_each(|&f| positive(name, f as f64))
        };
        positive("theta", self.theta)?;
        match &self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::PerPair(factors) => every("factor", factors),
            &RopeScaling::Linear { factor } => positive("factor", factor),
            &RopeScaling::Dynamic { factor, original } => {
                positive("factor - 1, of dynamic scaling, or its context,", (factor - 1.).min(original as f64))?;
                positive("pairs - 1, of dynamic scaling,", pairs as f64 - 1.)
            }
            &RopeScaling::Yarn { factor, original, attention_factor, beta_fast, beta_slow, truncate: _ } => {
                positive("factor", factor)?;
                positive("original_max_position_embeddings", original as f64)?;
                positive("attention_factor", attention_factor)?;
                positive("beta_slow", beta_slow)?;
                positive("beta_fast - beta_slow", beta_fast - beta_slow)?;
                // The ramp divides by the logarithm of theta.
                positive("theta - 1", self.theta - 1.)
            }
            RopeScaling::LongRope { short, long, original, attention_factor } => {
                every("short_factor", short)?;
                every("long_factor", long)?;
                positive("original_max_position_embeddings", *original as f64)?;
                positive("attention_factor", *attention_factor)
            }
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("original_max_position_embeddings", original)?;
                positive("high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor)
            }
        }
    }

    /// Whether angles depend on how long a text may become.
    pub fn depends_on_context(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
    }

    /// Factor of cosines and sines.
    pub fn attention_factor(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                attention_factor as f32
            }
            _ => 1.,
        }
    }

    /// Angle per position of each pair of `dim` elements: `theta^(-2i/dim)`, scaled; in f32 as transformers computes it in one
    /// pass over a text of `context` tokens.
    pub fn inverse_frequencies(&self, dim: usize, context: usize) -> Vec<f32> {
        let theta = match self.scaling {
            RopeScaling::Dynamic { factor, original } if context > original => {
                let longer = factor * context as f64 / original as f64 - (factor - 1.);
                self.theta * longer.powf(dim as f64 / (dim as f64 - 2.))
            }
            _ => self.theta,
        };
        let scale = |(i, f): (usize, f32)| match &self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => f,
            RopeScaling::PerPair(factors) => f / factors[i],
            RopeScaling::LongRope { short, long, original, .. } => {
                f / if context > *original { long } else { short }[i]
            }
            &RopeScaling::Linear { factor } => f / factor as f32,
            &RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
                // The pair, not a whole one, that turns so often in the original context.
                let pair = |turns: f64| dim as f64 * (original as f64 / (turns * TAU)).ln() / (2. * theta.ln());
                let (first, last) = (pair(beta_fast), pair(beta_slow));
                let (first, last) = if truncate { (first.floor(), last.ceil()) } else { (first, last) };
                let (first, last) = (first.max(0.), last.min(dim as f64 - 1.));
                let width = if first == last { 0.001 } else { last - first };
                let scaled = ((i as f64 - first) / width).clamp(0., 1.);
                (f as f64 * (1. - scaled) + f as f64 / factor * scaled) as f32
            }
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let wavelength = TAU / f as f64;
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
        inverse_frequencies(theta as f32, dim).into_iter().enumerate().map(scale).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A model made for 256 positions.
    fn rope(parameters: Value) -> RopeConfig {
        let parameters = Some(&parameters);
        let outside =
            Outside { theta: 10_000., max_positions: 256, original: None, parameters, scaling: None, alpha_dim: None };
        RopeConfig::from_json(outside).unwrap()
    }

    fn assert_close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() <= 2e-5 * e), "{got:?} {expected:?}");
    }

    /// Values of transformers 5.24, `ROPE_INIT_FUNCTIONS`.
    #[test]
    fn frequencies_are_those_of_transformers() {
        let yarn = rope(json!({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 512}));
        let expected = [1., 0.256935, 0.0625, 0.013835, 0.0025, 0.000790569, 0.00025, 0.0000790569];
        assert_close(&yarn.inverse_frequencies(16, 9), &expected);
        assert_close(&[yarn.attention_factor()], &[1.138629]);
        let llama3 = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
            "original_max_position_embeddings": 64});
        assert_close(&rope(llama3).inverse_frequencies(16, 9)[..5], &[1., 0.24438, 0.013042, 0.0039528, 0.00125]);
        let longrope = rope(json!({"type": "longrope", "original_max_position_embeddings": 64,
            "short_factor": [1, 1], "long_factor": [1, 4]}));
        assert_close(&[longrope.attention_factor()], &[1.154701]);
        assert_eq!(longrope.inverse_frequencies(4, 64), [1., 0.01]);
        assert_eq!(longrope.inverse_frequencies(4, 65), [1., 0.0025]);
        let dynamic = rope(json!({"rope_type": "dynamic", "factor": 2}));
        assert_eq!(dynamic.inverse_frequencies(4, 256), [1., 0.01]);
        // 10000 * (2 * 2 - 1)^2
        assert_close(&dynamic.inverse_frequencies(4, 512), &[1., 1. / 300.]);
    }

    #[test]
    fn the_attention_factor_of_yarn_is_given_or_follows_from_its_scales() {
        let attention = |more: Value| {
            let mut parameters = json!({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64});
            parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rope(parameters).attention_factor()
        };
        let scaled = |weight: f32| 1. + 0.1 * weight * 4f32.ln();
        assert_close(&[attention(json!({"attention_factor": 0.5, "mscale": 2}))], &[0.5]);
        assert_close(&[attention(json!({"mscale": 2, "mscale_all_dim": 0.5}))], &[scaled(2.) / scaled(0.5)]);
        assert_close(&[attention(json!({"mscale": 2, "mscale_all_dim": 0}))], &[scaled(1.)]);
        assert_close(&[attention(json!({"factor": null}))], &[scaled(1.)]);
    }

    #[test]
    fn an_original_context_outside_of_the_parameters_wins() {
        let parameters = json!({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64});
        let outside = Outside {
            theta: 1e4,
            max_positions: 256,
            original: Some(32),
            parameters: None,
            scaling: Some(&parameters),
            alpha_dim: None,
        };
        let RopeScaling::Yarn { original, .. } = RopeConfig::from_json(outside).unwrap().scaling else { panic!() };
        assert_eq!(original, 32);
    }
}
