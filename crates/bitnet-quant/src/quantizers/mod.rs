//! Quantizers to small integers with scales, made of tensor operations, so that they run on every device.
//!
//! None records gradients; [`BitLinear`](crate::BitLinear) adds them. Formulas and rounding are those of transformers
//! (`integrations/bitnet.py`): every type is widened to f32, ties round to even, and the magnitude for a scale is at
//! least 1e-5. A NaN makes its scale NaN, and with it every value that shares the scale.
//!
//! ```
//! use bitnet_core::{BitNetTensor, Device};
//! use bitnet_quant::quantizers::{Granularity, absmean, int8};
//! let w = BitNetTensor::from_slice(&[0.5f32, -1.5, 0.0, 2.0], &[2, 2], &Device::cpu())?;
//! let ternary = absmean(&w, Granularity::Tensor)?;
//! assert_eq!(ternary.codes().to_vec::<i8>()?, [0, -1, 0, 1]);
//! assert_eq!(ternary.dequantize()?.to_vec::<f32>()?, [0.0, -1.0, 0.0, 1.0]);
//! assert_eq!(int8(&w, Granularity::Row)?.codes().to_vec::<i8>()?, [42, -127, 0, 127]);
//! # Ok::<(), bitnet_core::BitNetError>(())
//! ```

mod integer;
mod ternary;

pub use integer::{binary, int4, int8};
pub use ternary::{absmean, absmedian, initial_step, learned_step};

use crate::{QuantError, TernaryCodes, ternarize};
use bitnet_core::{BitNetDType, BitNetTensor, Result, Scalar, TensorOpError};

/// The smallest magnitude for a scale, as in the reference.
const SMALLEST: f64 = 1e-5;

/// The values that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// All of them.
    Tensor,
    /// A row along the last dimension: an output of a weight, a token of activations.
    Row,
    /// This many consecutive values along the last dimension, whose extent is a multiple.
    Group(usize),
}

/// Whether scales multiply or divide codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleKind {
    /// `value = code * scale`
    Multiplies,
    /// `value = code / scale`
    Divides,
}

/// A quantized tensor: integer codes with a scale for each group.
#[derive(Debug, Clone)]
pub struct Quantized {
    codes: BitNetTensor,
    /// `[groups, 1]`
    scales: BitNetTensor,
    kind: ScaleKind,
    granularity: Granularity,
    dtype: BitNetDType,
}

impl Quantized {
    /// The integers, `I8` in the shape of the tensor.
    pub fn codes(&self) -> &BitNetTensor {
        &self.codes
    }

    /// The scales, `F32`: `[]` for a tensor, `[..]` for rows of `[.., K]`, `[.., K / n]` for groups of `n`.
    pub fn scales(&self) -> Result<BitNetTensor> {
        let dims = self.codes.dims();
        let outer = &dims[..dims.len().saturating_sub(1)];
        match self.granularity {
            Granularity::Tensor => self.scales.reshape(&[]),
            Granularity::Row => self.scales.reshape(outer),
            Granularity::Group(size) => self.scales.reshape(&[outer, &[self.codes.shape().last() / size]].concat()),
        }
    }

    /// The divisors of the values before rounding, `F32`, in a shape that broadcasts to theirs.
    pub fn steps(&self) -> Result<BitNetTensor> {
        let scales = self.scales()?;
        let steps = match self.kind {
            ScaleKind::Multiplies => scales,
            ScaleKind::Divides => scales.reciprocal()?,
        };
        match self.granularity {
            Granularity::Tensor => Ok(steps),
            Granularity::Row => steps.unsqueeze(-1),
            Granularity::Group(size) => {
                let steps = steps.unsqueeze(-1)?;
                let dims = [&self.codes.dims()[..self.codes.rank() - 1], &[steps.dims()[self.codes.rank() - 1], size]]
                    .concat();
                steps.expand(&dims)?.reshape(self.codes.dims())
            }
        }
    }

    /// Whether the scales multiply or divide.
    pub fn kind(&self) -> ScaleKind {
        self.kind
    }

    /// The values that share a scale.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The dequantized values, in the dtype of the original tensor.
    pub fn dequantize(&self) -> Result<BitNetTensor> {
        let codes = grouped(&self.codes, self.granularity)?.to_dtype(BitNetDType::F32)?;
        let values = match self.kind {
            ScaleKind::Multiplies => codes.mul(&self.scales)?,
            ScaleKind::Divides => codes.div(&self.scales)?,
        };
        values.reshape(self.codes.dims())?.to_dtype(self.dtype)
    }
}

/// Quantizers without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantizer {
    /// [`absmean`]
    AbsMean,
    /// [`absmedian`]
    AbsMedian,
    /// [`binary`]
    Binary,
    /// [`int4`]
    Int4,
    /// [`int8`]
    Int8,
}

impl Quantizer {
    /// Codes and scales of `x`.
    ///
    /// # Errors
    /// When `x` is not floating point, or its rows are not whole groups.
    pub fn quantize(self, x: &BitNetTensor, granularity: Granularity) -> Result<Quantized> {
        match self {
            Self::AbsMean => absmean(x, granularity),
            Self::AbsMedian => absmedian(x, granularity),
            Self::Binary => binary(x, granularity),
            Self::Int4 => int4(x, granularity),
            Self::Int8 => int8(x, granularity),
        }
    }

    /// `x` after quantization and back, in its dtype.
    pub fn fake_quantize(self, x: &BitNetTensor, granularity: Granularity) -> Result<BitNetTensor> {
        self.quantize(x, granularity)?.dequantize()
    }

    /// Codes and scale of a whole matrix `[rows, cols]`, equal to those of [`quantize`](Self::quantize) in host memory.
    ///
    /// # Errors
    /// If the quantizer is not ternary, the length is not `rows * cols` or a weight is not finite.
    pub fn ternarize(
        self,
        weights: &[f32],
        rows: usize,
        cols: usize,
    ) -> std::result::Result<(TernaryCodes, f32), QuantError> {
        match self {
            Self::AbsMean => ternarize::absmean(weights, rows, cols),
            Self::AbsMedian => ternarize::absmedian(weights, rows, cols),
            Self::Binary | Self::Int4 | Self::Int8 => {
                let message = format!("{self:?} does not make ternary weights: take AbsMean or AbsMedian");
                Err(QuantError::Argument { op: "ternarize", message })
            }
        }
    }
}

/// A quantizer and the values that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Quantizer.
    pub quantizer: Quantizer,
    /// The values that share a scale.
    pub granularity: Granularity,
}

impl Scheme {
    /// Weights of BitNet b1.58: [`absmean`] with one scale.
    pub const WEIGHTS: Self = Self::new(Quantizer::AbsMean, Granularity::Tensor);
    /// Inputs of BitNet b1.58: [`int8`] with a scale a token.
    pub const INPUTS: Self = Self::new(Quantizer::Int8, Granularity::Row);

    /// A quantizer with a granularity.
    pub const fn new(quantizer: Quantizer, granularity: Granularity) -> Self {
        Self { quantizer, granularity }
    }

    /// Whether it is ternary with one scale per matrix, as packed formats need.
    pub fn is_packable(self) -> bool {
        matches!(self.quantizer, Quantizer::AbsMean | Quantizer::AbsMedian) && self.granularity == Granularity::Tensor
    }
}

/// `x` as `[groups, values of a group]`.
fn grouped(x: &BitNetTensor, granularity: Granularity) -> Result<BitNetTensor> {
    let size = match granularity {
        Granularity::Tensor => x.elements(),
        Granularity::Row => x.shape().last(),
        Granularity::Group(size) => size,
    };
    let fits = match granularity {
        Granularity::Tensor => true,
        Granularity::Row => x.rank() > 0,
        Granularity::Group(size) => x.rank() > 0 && size > 0 && x.shape().last().is_multiple_of(size),
    };
    if !fits || size == 0 {
        let needed = match granularity {
            Granularity::Group(size) if size > 0 => format!("rows of whole groups of {size}"),
            _ => "at least one value to make a scale of, in rows for a scale a row".into(),
        };
        return Err(TensorOpError::Shape { op: "quantize", what: "the tensor", got: *x.shape(), needed }.into());
    }
    x.reshape(&[x.elements() / size, size])
}

/// `x` in f32, in groups, detached.
fn prepare(x: &BitNetTensor, granularity: Granularity) -> Result<BitNetTensor> {
    if !x.dtype().is_float() {
        let (got, needed) = (x.dtype(), BitNetDType::F32);
        return Err(TensorOpError::DType { op: "quantize", what: "the tensor", got, needed }.into());
    }
    grouped(&x.detach(), granularity)?.to_dtype(BitNetDType::F32)
}

/// `round(x * s)` (or `round(x / s)`), clamped, as codes of `like`.
fn encode(
    groups: &BitNetTensor,
    scales: BitNetTensor,
    kind: ScaleKind,
    range: (i8, i8),
    like: &BitNetTensor,
    granularity: Granularity,
) -> Result<Quantized> {
    let mut codes = match kind {
        ScaleKind::Divides => groups.mul(&scales)?,
        ScaleKind::Multiplies => groups.div(&scales)?,
    };
    codes.round_()?.clamp_(limit(range.0), limit(range.1))?;
    let codes = codes.to_dtype(BitNetDType::I8)?.reshape(like.dims())?;
    Ok(Quantized { codes, scales, kind, granularity, dtype: like.dtype() })
}

fn limit(value: i8) -> Option<Scalar> {
    Some(f64::from(value).into())
}
