//! The report on a quantized model, for people and programs.

use super::{Comparison, compare, plot, saturation, zeros};
use crate::post_training::TernaryFit;
use crate::{PackedFormat, QuantError, QuantizedTensor};
use bitnet_core::Device;
use serde_json::{Value, json};
use std::fmt;

/// The report on one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// Name of the layer.
    pub name: String,
    /// Name of the format.
    pub format: String,
    /// Outputs and inputs.
    pub shape: (usize, usize),
    /// Bits per weight.
    pub bits_per_weight: f64,
    /// Comparison of the weights before and after; `None` if kept.
    pub weights: Option<Comparison>,
    /// The share of weights that are 0.
    pub zeros: f64,
    /// The share of clipped weights, if known.
    pub saturation: Option<f64>,
    /// Relative output error on calibration data,
    /// [`output_error`](crate::post_training::output_error); `None` without any.
    pub output_error: Option<f64>,
}

impl LayerReport {
    /// For a layer that keeps its weights `[rows, cols]` in a type of this name and width.
    pub fn kept(name: &str, format: &str, shape: (usize, usize), bits_per_weight: f64) -> Self {
        Self {
            name: name.into(),
            format: format.into(),
            shape,
            bits_per_weight,
            weights: None,
            zeros: 0.,
            saturation: None,
            output_error: None,
        }
    }

    /// For a layer made ternary, as stored in `format`.
    ///
    /// # Errors
    /// If the weights are not those of the fit, or the format does not hold it.
    pub fn ternary(name: &str, weights: &[f32], fit: &TernaryFit, format: PackedFormat) -> Result<Self, QuantError> {
        let packed = QuantizedTensor::from_codes(&fit.codes, fit.scale, format)?;
        let report = Self::packed(name, weights, &packed)?;
        Ok(Self { zeros: zeros(&fit.codes), saturation: Some(saturation(weights, fit.scale, 1)), ..report })
    }

    /// For a layer with weights in any packed format; the clipped share is not known.
    ///
    /// # Errors
    /// If it is not a matrix of these weights.
    pub fn packed(name: &str, weights: &[f32], packed: &QuantizedTensor) -> Result<Self, QuantError> {
        let &[rows, cols] = packed.dims() else {
            let message = format!("{name} has {} dimensions, not 2", packed.dims().len());
            return Err(QuantError::Argument { op: "report", message });
        };
        let values = packed.dequantize(&Device::cpu())?.to_vec::<f32>()?;
        Ok(Self {
            weights: Some(compare(weights, &values)?),
            zeros: super::share(values.iter().filter(|v| **v == 0.).count(), values.len()),
            ..Self::kept(name, packed.format().name(), (rows, cols), packed.bits_per_weight())
        })
    }

    /// Sensitivity of the layer: its relative output error, or without calibration data that of its weights.
    pub fn sensitivity(&self) -> f64 {
        let of_weights = || self.weights.map_or(0., |w| 10f64.powf(-w.sqnr_db / 10.));
        self.output_error.unwrap_or_else(of_weights)
    }
}

/// The report on the layers of a model.
///
/// `Display` gives a table, [`to_json`](Self::to_json) figures for programs, [`to_svg`](Self::to_svg) a plot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuantizationReport {
    /// The layers, in the order of the model.
    pub layers: Vec<LayerReport>,
}

impl QuantizationReport {
    /// Mean bits per weight of all layers.
    pub fn bits_per_weight(&self) -> f64 {
        let weights = |l: &LayerReport| (l.shape.0 * l.shape.1) as f64;
        let total: f64 = self.layers.iter().map(weights).sum();
        self.layers.iter().map(|l| l.bits_per_weight * weights(l)).sum::<f64>() / total.max(1.)
    }

    /// The quantized layers, most sensitive first.
    pub fn most_sensitive(&self) -> Vec<&LayerReport> {
        let mut layers: Vec<_> = self.layers.iter().filter(|l| l.weights.is_some()).collect();
        layers.sort_by(|a, b| b.sensitivity().total_cmp(&a.sensitivity()));
        layers
    }

    /// All metrics as JSON; infinite ones are null.
    pub fn to_json(&self) -> Value {
        let layer = |l: &LayerReport| {
            json!({
                "name": l.name,
                "format": l.format,
                "rows": l.shape.0,
                "columns": l.shape.1,
                "bits_per_weight": l.bits_per_weight,
                "sqnr_db": l.weights.map(|w| w.sqnr_db),
                "cosine": l.weights.map(|w| w.cosine),
                "max_error": l.weights.map(|w| w.max_error),
                "mean_squared_error": l.weights.map(|w| w.mean_squared_error),
                "zeros": l.weights.map(|_| l.zeros),
                "saturation": l.saturation,
                "output_error": l.output_error,
            })
        };
        json!({
            "bits_per_weight": self.bits_per_weight(),
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }

    /// Two bars for each layer: the SQNR of its weights and its relative output error.
    pub fn to_svg(&self) -> String {
        plot::svg(&self.layers)
    }
}

const HEAD: [&str; 10] =
    ["layer", "format", "shape", "bits", "SQNR dB", "cosine", "max error", "zeros", "clipped", "outputs lost"];

impl fmt::Display for QuantizationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1} %", 100. * share);
        let row = |l: &LayerReport| -> [String; 10] {
            let of = |figure: &dyn Fn(&Comparison) -> String| l.weights.as_ref().map_or("-".into(), figure);
            [
                l.name.clone(),
                l.format.clone(),
                format!("{} x {}", l.shape.0, l.shape.1),
                format!("{:.2}", l.bits_per_weight),
                of(&|w| format!("{:.2}", w.sqnr_db)),
                of(&|w| format!("{:.4}", w.cosine)),
                of(&|w| format!("{:.3e}", w.max_error)),
                of(&|_| percent(l.zeros)),
                l.saturation.map_or("-".into(), percent),
                l.output_error.map_or("-".into(), percent),
            ]
        };
        let mut rows = vec![HEAD.map(String::from)];
        rows.extend(self.layers.iter().map(row));
        let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 10] = std::array::from_fn(width);
        for row in &rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                let text = if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
                line += &text;
                line += "  ";
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "{} layers, {:.2} bits a weight", self.layers.len(), self.bits_per_weight())
    }
}
