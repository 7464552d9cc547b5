//! Calibration: scales from a stream of data, batch by batch.
//!
//! ```
//! use bitnet_quant::calibration::{Clipping, Observer};
//! let mut observer = Observer::new();
//! for batch in [[0.5f32, -1.0, 0.25], [0.125, 8.0, -0.5]] {
//!     observer.observe(&batch)?;
//! }
//! assert_eq!(observer.range()?, (-1.0, 8.0));
//! // 8-bit codes up to 127 that reach the largest magnitude: 127 * step = 8.
//! assert_eq!(observer.step(Clipping::MinMax, 127)?, 8.0 / 127.0);
//! assert!(observer.step(Clipping::Percentile(80.0), 127)? < 2.0 / 127.0);
//! # Ok::<(), bitnet_quant::QuantError>(())
//! ```

mod histogram;

pub use histogram::Histogram;

use crate::QuantError;
use bitnet_core::{BitNetDType, BitNetTensor};

/// The range that a scale covers; larger magnitudes are clipped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clipping {
    /// The whole range.
    MinMax,
    /// A percentile of the magnitudes, interpolated as by `numpy.percentile`, to the precision of a bin of the
    /// histogram.
    Percentile(f64),
    /// The limit with the least squared error of rounding and clipping, among [`CANDIDATES`] equal fractions of the
    /// range.
    Mse,
}

/// Limits that [`Clipping::Mse`] tries.
pub const CANDIDATES: usize = 256;

/// The smallest magnitude for a scale, as for weights and activations.
const SMALLEST: f64 = 1e-5;

/// Statistics of a stream of values: its range and a histogram of the magnitudes. Independent of the order of values.
#[derive(Debug, Clone)]
pub struct Observer {
    low: f32,
    high: f32,
    histogram: Histogram,
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer {
    /// An observer without data.
    pub fn new() -> Self {
        Self { low: f32::INFINITY, high: f32::NEG_INFINITY, histogram: Histogram::new() }
    }

    /// Adds values.
    ///
    /// # Errors
    /// If one is not finite; then none of them is added.
    pub fn observe(&mut self, values: &[f32]) -> Result<(), QuantError> {
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(QuantError::NotFinite { index, value: values[index] });
        }
        for &value in values {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
        }
        self.histogram.add(values);
        Ok(())
    }

    /// Adds the values of a tensor of any float dtype, on any device.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub fn observe_tensor(&mut self, x: &BitNetTensor) -> Result<(), QuantError> {
        self.observe(&x.detach().to_dtype(BitNetDType::F32)?.to_vec::<f32>()?)
    }

    /// Number of values observed.
    pub fn count(&self) -> u64 {
        self.histogram.total()
    }

    /// The smallest and the largest value.
    ///
    /// # Errors
    /// If nothing was observed; the same holds for all methods below.
    pub fn range(&self) -> Result<(f32, f32), QuantError> {
        if self.count() == 0 { Err(QuantError::NoData) } else { Ok((self.low, self.high)) }
    }

    /// The magnitudes.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// The largest magnitude that codes represent.
    pub fn limit(&self, clipping: Clipping, largest_code: u8) -> Result<f32, QuantError> {
        let (low, high) = self.range()?;
        let largest = f64::from(low.abs().max(high.abs()));
        let limit = match clipping {
            Clipping::MinMax => largest,
            Clipping::Percentile(percent) if (0. ..=100.).contains(&percent) => {
                self.histogram.percentile(percent).min(largest)
            }
            Clipping::Percentile(percent) => {
                let message = format!("a percentile of {percent}: it must be between 0 and 100");
                return Err(QuantError::Argument { op: "calibration", message });
            }
            Clipping::Mse => {
                let candidates = (1..=CANDIDATES).map(|i| largest * i as f64 / CANDIDATES as f64);
                let error = |limit: f64| self.histogram.squared_error(limit / f64::from(largest_code), largest_code);
                let of = candidates.map(|limit| (limit, error(limit)));
                of.fold((largest, f64::INFINITY), |best, this| if this.1 < best.1 { this } else { best }).0
            }
        };
        Ok(limit.max(SMALLEST) as f32)
    }

    /// The step of a symmetric quantizer with codes from `-largest_code` to `largest_code` (127 of 8 bits, 7 of 4, 1 of
    /// ternary): `value = code * step`.
    pub fn step(&self, clipping: Clipping, largest_code: u8) -> Result<f32, QuantError> {
        let largest_code = largest_code.max(1);
        Ok(self.limit(clipping, largest_code)? / f32::from(largest_code))
    }

    /// Step and zero point of a quantizer with codes from 0 to `largest_code` that covers the whole range, including 0:
    /// `value = (code - zero point) * step`.
    pub fn affine(&self, largest_code: u8) -> Result<(f32, u8), QuantError> {
        let (low, high) = self.range()?;
        let (low, high, codes) = (f64::from(low.min(0.)), f64::from(high.max(0.)), f64::from(largest_code.max(1)));
        let step = ((high - low) / codes).max(SMALLEST);
        Ok((step as f32, (-low / step).round_ties_even().clamp(0., codes) as u8))
    }
}
