//! Post-training quantization of a model: dense linear layers made ternary, one after the other.

use crate::{InferenceError, Model, Result, Session};
use bitnet_model::checkpoint::{DenseTensor, LinearSource, Norm, Projection, WeightSource, Weights};
use bitnet_model::{Config, ModelError};
use bitnet_quant::analysis::{LayerReport, QuantizationReport};
use bitnet_quant::post_training::{
    InputStatistics, MixedPrecision, TernaryFit, error_feedback, output_error, round_to_nearest,
};
use bitnet_quant::{ActivationRule, PackedFormat, QuantError};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of statistics in memory at once; the text is processed again for layers that do not fit.
const STATISTICS: usize = 2 << 30;

/// How weights are made ternary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// [`round_to_nearest`]
    RoundToNearest,
    /// [`error_feedback`]
    ErrorFeedback,
}

/// Options of [`quantize`].
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeOptions {
    /// How weights are made ternary.
    pub method: Method,
    /// Name patterns of layers that are not quantized.
    pub keep: Vec<String>,
    /// Number of the most sensitive other layers that are not quantized.
    pub keep_most_sensitive: usize,
    /// The ternary format that the report assumes.
    pub format: PackedFormat,
}

/// Calibration data: a model and a text, which give the inputs of the linear layers.
#[derive(Debug)]
pub struct CalibrationData<'a> {
    /// The model before quantization.
    pub model: Arc<Model>,
    /// The text, in windows that each start from an empty context.
    pub tokens: &'a [u32],
    /// Tokens of a window.
    pub window: usize,
}

/// The weights of a model with dense layers replaced by ternary ones.
pub struct QuantizedWeights {
    source: Box<dyn Weights>,
    config: Config,
    layers: HashMap<(usize, Projection), TernaryFit>,
}

/// The result of [`quantize`]: ternary layers for [`QuantizedWeights::new`], and the report.
#[derive(Debug)]
pub struct Quantization {
    layers: HashMap<(usize, Projection), TernaryFit>,
    /// The report on each layer.
    pub report: QuantizationReport,
}

/// Makes the dense linear layers of the blocks of `weights` ternary. Ternary layers, embeddings and head are kept.
/// `progress` receives the number of layers done and the total.
///
/// # Errors
/// If there is nothing to quantize, error feedback has no data, a layer normalises its inputs itself while there is
/// data, a pattern matches no layer, or a weight or activation is not finite.
pub fn quantize(
    weights: &dyn Weights,
    data: Option<&CalibrationData>,
    options: &QuantizeOptions,
    mut progress: impl FnMut(usize, usize),
) -> Result<Quantization> {
    let refused = |message: &str| Err(InferenceError::Quantize(message.into()));
    if weights.config().block.experts.is_some() {
        return refused("experts are not made ternary: quantize a model without them");
    }
    if weights.config().block.delta.is_some() {
        return refused("layers that keep a state are not made ternary: quantize a model without them");
    }
    if options.method == Method::ErrorFeedback && data.is_none() {
        return refused("error feedback looks at the inputs of the layers: give a text to calibrate with");
    }
    let config = weights.config();
    let total = config.layers * Projection::ALL.len();
    let (mut places, mut fits, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for layers in groups(config, data.is_some()) {
        let statistics = data.map(|data| statistics(data, layers.clone())).transpose()?.unwrap_or_default();
        for layer in layers {
            for projection in Projection::ALL {
                let source = weights.linear(layer, projection)?;
                if source.inner_norm.is_some() && data.is_some() {
                    return refused("its linear layers normalise their inputs themselves: quantize it without a text");
                }
                let inputs = statistics.get(&(layer, input_of(projection)));
                let (fit, report) = quantize_layer(&projection.module(layer), &source, inputs, options, config)?;
                places.push((layer, projection));
                fits.push(fit);
                reports.push(report);
                progress(places.len(), total);
            }
            weights.release(layer);
        }
    }
    if fits.iter().all(Option::is_none) {
        return refused("it has no dense linear layers: it is ternary already");
    }
    let report = keep(weights, &places, &mut fits, reports, options)?;
    let layers = places.into_iter().zip(fits).filter_map(|(place, fit)| Some((place, fit?))).collect();
    Ok(Quantization { layers, report })
}

/// Blocks whose statistics are collected together.
fn groups(config: &Config, with_statistics: bool) -> impl Iterator<Item = Range<usize>> {
    let squares = [config.hidden_size, config.query_size(), config.hidden_size, config.intermediate_size];
    let bytes: usize = squares.iter().map(|k| k.saturating_mul(*k).saturating_mul(8)).fold(0, usize::saturating_add);
    let size = if with_statistics { (STATISTICS / bytes.max(1)).max(1) } else { config.layers.max(1) };
    let layers = config.layers;
    (0..layers).step_by(size).map(move |first| first..(first + size).min(layers))
}

/// The projection that represents all that read the same input.
fn input_of(projection: Projection) -> Projection {
    match projection {
        Projection::Key | Projection::Value => Projection::Query,
        Projection::Up => Projection::Gate,
        other => other,
    }
}

type Statistics = HashMap<(usize, Projection), InputStatistics>;

fn statistics(data: &CalibrationData, layers: Range<usize>) -> Result<Statistics> {
    let mut statistics = Statistics::new();
    let mut session = Session::new(data.model.clone(), data.window)?;
    for window in data.tokens.chunks(data.window) {
        session.truncate(0);
        session.linear_inputs(window, layers.clone(), |layer, projection, x| {
            let seen = match statistics.entry((layer, projection)) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(InputStatistics::new(x.shape().last())?)
                }
            };
            Ok(seen.observe(x)?)
        })?;
    }
    Ok(statistics)
}

/// The report on a layer that is kept.
fn kept(name: &str, source: &LinearSource, format: PackedFormat) -> Result<LayerReport> {
    Ok(match &source.weight {
        WeightSource::Dense(dense) => {
            let bits = 8. * dense.bytes().len() as f64 / (dense.rows * dense.cols) as f64;
            LayerReport::kept(name, &dense.dtype.to_string(), (dense.rows, dense.cols), bits)
        }
        WeightSource::Ternary { codes, scales } => {
            // The values of scales change no size.
            let packed = bitnet_quant::QuantizedTensor::from_codes(codes, scales.values()[0], format)?;
            LayerReport::kept(name, format.name(), (codes.rows(), codes.cols()), packed.bits_per_weight())
        }
    })
}

/// The ternary formats that hold every linear layer of a model.
fn fitting(config: &Config) -> String {
    let formats = [("TQ1_0", 256), ("TQ2_0", 256), ("I2_S", 128), ("HF packed", 1)];
    let fits = |block: usize| Projection::ALL.into_iter().all(|p| p.shape(config).1.is_multiple_of(block));
    formats.into_iter().filter(|(_, block)| fits(*block)).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

fn quantize_layer(
    name: &str,
    source: &LinearSource,
    inputs: Option<&InputStatistics>,
    options: &QuantizeOptions,
    config: &Config,
) -> Result<(Option<TernaryFit>, LayerReport)> {
    let WeightSource::Dense(dense) = &source.weight else {
        return Ok((None, kept(name, source, options.format)?));
    };
    let named = |error: QuantError| {
        let error = match error {
            QuantError::RowNotBlocks { format, block, cols, .. } => {
                QuantError::RowNotBlocks { format, block, cols, fitting: fitting(config) }
            }
            other => other,
        };
        InferenceError::from(ModelError::tensor(name, error.to_string()))
    };
    let (values, rows, cols) = (dense.to_f32(), dense.rows, dense.cols);
    let fit = match (options.method, inputs) {
        (Method::ErrorFeedback, Some(inputs)) => error_feedback(&values, rows, cols, inputs),
        _ => round_to_nearest(&values, rows, cols),
    };
    let fit = fit.map_err(named)?;
    let mut report = LayerReport::ternary(name, &values, &fit, options.format).map_err(named)?;
    report.output_error = inputs.map(|inputs| output_error(&values, &fit, inputs)).transpose().map_err(named)?;
    Ok((Some(fit), report))
}

/// Restores the layers that the options keep.
fn keep(
    weights: &dyn Weights,
    places: &[(usize, Projection)],
    fits: &mut [Option<TernaryFit>],
    mut reports: Vec<LayerReport>,
    options: &QuantizeOptions,
) -> Result<QuantizationReport> {
    let policy = MixedPrecision {
        default: Some(options.format),
        rules: options.keep.iter().map(|pattern| (pattern.clone(), None)).collect(),
        keep_most_sensitive: options.keep_most_sensitive,
    };
    let sensitivities: Vec<_> = reports.iter().map(|report| (report.name.as_str(), report.sensitivity())).collect();
    let formats = policy.assign(&sensitivities)?;
    for (index, _) in formats.iter().enumerate().filter(|(_, format)| format.is_none()) {
        let (layer, projection) = places[index];
        if fits[index].take().is_some() {
            reports[index] = kept(&projection.module(layer), &weights.linear(layer, projection)?, options.format)?;
        }
    }
    Ok(QuantizationReport { layers: reports })
}

impl QuantizedWeights {
    /// `source`, the weights that were quantized, with its ternary layers.
    /// `activations` says how the inputs of its ternary layers are to be rounded.
    pub fn new(source: Box<dyn Weights>, quantization: Quantization, activations: ActivationRule) -> Self {
        let config = Config { activations, ..source.config().clone() };
        Self { source, config, layers: quantization.layers }
    }
}

impl Weights for QuantizedWeights {
    fn config(&self) -> &Config {
        &self.config
    }

    fn embedding(&self) -> bitnet_model::Result<DenseTensor> {
        self.source.embedding()
    }

    fn head(&self) -> bitnet_model::Result<Option<LinearSource>> {
        self.source.head()
    }

    fn norm(&self, norm: Norm) -> bitnet_model::Result<Vec<f32>> {
        self.source.norm(norm)
    }

    fn linear(&self, layer: usize, projection: Projection) -> bitnet_model::Result<LinearSource> {
        let source = self.source.linear(layer, projection)?;
        Ok(match self.layers.get(&(layer, projection)) {
            Some(fit) => {
                let weight = WeightSource::Ternary { codes: fit.codes.clone(), scales: fit.scale.into() };
                LinearSource { weight, ..source }
            }
            None => source,
        })
    }

    fn release(&self, layer: usize) {
        self.source.release(layer);
    }
}
