//! Matrices in the bytes of a packed format.

mod bits;
mod product;

pub use product::PackedProduct;

use crate::formats::{Q2_0_G64, Q2_0_G128, ScaledFormat, TQ1_0, TQ2_0, f16_exact, hf, i2_s, i2_s::I2sOrder, q8_0};
use crate::quantizers::{self, Granularity};
use crate::{QuantError, TernaryCodes, ternarize};
use bitnet_core::{BitNetDType, BitNetTensor, Device, TensorShape};
use std::sync::Arc;

/// Packed formats. A group is a number of consecutive values in a row that share a scale; rows are whole groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackedFormat {
    /// Ternary, GGUF type 36 in the order of x86 builds; the scale follows the codes.
    I2S,
    /// Ternary, GGUF type 34, f16 scales in the blocks.
    Tq1_0,
    /// Ternary, GGUF type 35, f16 scales in the blocks.
    Tq2_0,
    /// Ternary or +2, GGUF type 42, groups of 64.
    Q2_0G64,
    /// Ternary or +2, GGUF type 42, groups of 128.
    Q2_0G128,
    /// Ternary, `uint8 [ceil(rows / 4), columns]` of transformers, one scale.
    HuggingFace,
    /// A bit a weight, set for +1 and clear for -1, the first column in the lowest bit, rows of whole bytes.
    Binary {
        /// Weights that share a scale.
        group: usize,
    },
    /// Four bits a weight, `code + 8` with the code in -8..=7, the first column in the low half, rows of whole bytes.
    /// The scale divides.
    Int4 {
        /// Weights that share a scale.
        group: usize,
    },
    /// Four bits a weight, 0..=15, with a zero point for each group: `(q - zero point) * scale`; packed as
    /// [`Self::Int4`].
    UInt4 {
        /// Weights that share a scale and a zero point.
        group: usize,
    },
    /// 8 bits a weight, GGUF type 8, an f16 scale for 32.
    Q8_0,
}

use PackedFormat::*;

impl PackedFormat {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            I2S => "I2_S",
            Tq1_0 => "TQ1_0",
            Tq2_0 => "TQ2_0",
            Q2_0G64 | Q2_0G128 => "Q2_0",
            HuggingFace => "HF packed",
            Binary { .. } => "binary",
            Int4 { .. } => "int4",
            UInt4 { .. } => "uint4",
            Q8_0 => "Q8_0",
        }
    }

    fn scaled(self) -> Option<&'static ScaledFormat> {
        match self {
            Tq1_0 => Some(&TQ1_0),
            Tq2_0 => Some(&TQ2_0),
            Q2_0G64 => Some(&Q2_0_G64),
            Q2_0G128 => Some(&Q2_0_G128),
            _ => None,
        }
    }

    /// Scales and zero points stored separately from the bytes of a matrix.
    fn separate_parts(self, rows: usize, cols: usize) -> Result<(usize, usize), QuantError> {
        let groups = |group: usize| {
            if group == 0 || !cols.is_multiple_of(group) {
                return Err(QuantError::Groups { format: self.name(), group, cols });
            }
            rows.checked_mul(cols / group).ok_or(QuantError::TooLarge { rows, cols })
        };
        Ok(match self {
            HuggingFace => (1, 0),
            Binary { group } | Int4 { group } => (groups(group)?, 0),
            UInt4 { group } => (groups(group)?, groups(group)?),
            _ => (0, 0),
        })
    }
}

/// A tensor `[.., K]` in a packed format, in host memory, with a separate factor: scaling and negating it change only
/// the factor, and clones share the bytes.
///
/// ```
/// use bitnet_core::{BitNetTensor, Device};
/// use bitnet_quant::{PackedFormat, QuantizedTensor};
/// let w = BitNetTensor::from_slice(&[0.5f32, -1.5, 0.0, 2.0], &[2, 2], &Device::cpu())?;
/// let packed = QuantizedTensor::from_tensor(&w, PackedFormat::HuggingFace)?;
/// assert_eq!((-&packed * 2.0).dequantize(&Device::cpu())?.to_vec::<f32>()?, [0.0, 2.0, 0.0, -2.0]);
/// # Ok::<(), bitnet_quant::QuantError>(())
/// ```
#[derive(Debug, Clone)]
pub struct QuantizedTensor {
    format: PackedFormat,
    shape: TensorShape,
    bytes: Arc<[u8]>,
    scales: Arc<[f32]>,
    zero_points: Arc<[u8]>,
    factor: f32,
}

impl QuantizedTensor {
    /// `x` `[.., K]` of any float dtype, quantized: ternary by [absmean](ternarize::absmean), binary and int4 as in
    /// [`quantizers`], uint4 between the smallest and the largest value of a group, Q8_0 as gguf-py.
    ///
    /// # Errors
    /// If a value is not finite, rows are not whole blocks or groups of the format, or `x` is not floating point.
    pub fn from_tensor(x: &BitNetTensor, format: PackedFormat) -> Result<Self, QuantError> {
        let host = x.detach().to_dtype(BitNetDType::F32)?.to_cpu()?;
        let values = host.to_vec::<f32>()?;
        let shape = *host.shape();
        let (rows, cols) = matrix(&shape);
        format.separate_parts(rows, cols)?;
        let (codes, granularity) = match format {
            Binary { group } | Int4 { group } | UInt4 { group } => {
                ternarize::check(&values, rows, cols)?;
                (None, Granularity::Group(group))
            }
            Q8_0 => return Self::from_parts(format, q8_0::encode(&values, rows, cols)?, shape.dims(), vec![], vec![]),
            _ => (Some(ternarize::absmean(&values, rows, cols)?), Granularity::Tensor),
        };
        if let Some((codes, scale)) = codes {
            return Self::of_codes(&codes, scale, format, shape);
        }
        let (bytes, scales, zero_points) = match (format, granularity) {
            (UInt4 { .. }, Granularity::Group(group)) => bits::affine(&values, cols, group),
            (Binary { .. }, _) => {
                let q = quantizers::binary(&host, granularity)?;
                (bits::pack(&q.codes().to_vec::<i8>()?, cols, 1, |c| u8::from(c > 0)), q.scales()?.to_vec()?, vec![])
            }
            _ => {
                let q = quantizers::int4(&host, granularity)?;
                (bits::pack(&q.codes().to_vec::<i8>()?, cols, 4, |c| (c + 8) as u8), q.scales()?.to_vec()?, vec![])
            }
        };
        Self::from_parts(format, bytes, shape.dims(), scales, zero_points)
    }

    /// Ternary codes times `scale` in a ternary format. A scale that the format would round is kept as the factor.
    ///
    /// # Errors
    /// When rows are not whole blocks of the format, or it is not ternary.
    pub fn from_codes(codes: &TernaryCodes, scale: f32, format: PackedFormat) -> Result<Self, QuantError> {
        Self::of_codes(codes, scale, format, TensorShape::new(&[codes.rows(), codes.cols()])?)
    }

    fn of_codes(
        codes: &TernaryCodes,
        scale: f32,
        format: PackedFormat,
        shape: TensorShape,
    ) -> Result<Self, QuantError> {
        let (bytes, scales, factor) = match (format, format.scaled()) {
            (I2S, _) => (i2_s::encode(codes, scale, I2sOrder::X86)?, vec![], 1.),
            (HuggingFace, _) => (hf::encode(codes), vec![scale], 1.),
            (_, Some(scaled)) => match f16_exact(scale) {
                Some(exact) => (scaled.encode(codes, &exact.to_f32().into())?, vec![], 1.),
                None => (scaled.encode(codes, &1f32.into())?, vec![], scale),
            },
            _ => return Err(QuantError::NotTernaryFormat { format: format.name() }),
        };
        Ok(Self { factor, ..Self::from_parts(format, bytes, shape.dims(), scales, vec![])? })
    }

    /// From the bytes of a file, and separate scales and zero points: one scale for an HF matrix, one for each group in
    /// formats with groups, none for the others.
    ///
    /// # Errors
    /// If the bytes, scales or zero points are not those of such a matrix.
    pub fn from_parts(
        format: PackedFormat,
        bytes: Vec<u8>,
        dims: &[usize],
        scales: Vec<f32>,
        zero_points: Vec<u8>,
    ) -> Result<Self, QuantError> {
        let shape = TensorShape::new(dims)?;
        let (rows, cols) = matrix(&shape);
        let name = format.name();
        let expected = match format {
            I2S => i2_s::byte_size(rows * cols, I2sOrder::X86).ok_or(QuantError::Groups {
                format: name,
                group: 128,
                cols,
            })?,
            HuggingFace => rows.div_ceil(4) * cols,
            Binary { .. } => rows * cols.div_ceil(8),
            Int4 { .. } | UInt4 { .. } => rows * cols.div_ceil(2),
            Q8_0 if !cols.is_multiple_of(32) => return Err(QuantError::Groups { format: name, group: 32, cols }),
            Q8_0 => rows * cols / 32 * 34,
            _ => format.scaled().expect("the others are").byte_size(rows, cols)?,
        };
        if bytes.len() != expected {
            return Err(QuantError::Length { format: name, rows, cols, expected, actual: bytes.len() });
        }
        let counts = format.separate_parts(rows, cols)?;
        if counts != (scales.len(), zero_points.len()) {
            let actual = (scales.len(), zero_points.len());
            return Err(QuantError::Scales { format: name, expected: counts, actual });
        }
        if let Some(index) = scales.iter().position(|s| !s.is_finite()) {
            return Err(QuantError::ScaleNotFinite { format: name, index, value: scales[index] });
        }
        Ok(Self {
            format,
            shape,
            bytes: bytes.into(),
            scales: scales.into(),
            zero_points: zero_points.into(),
            factor: 1.,
        })
    }

    /// Its format.
    pub fn format(&self) -> PackedFormat {
        self.format
    }

    /// Extents.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Scales stored separately from the bytes.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The factor of all values.
    pub fn factor(&self) -> f32 {
        self.factor
    }

    /// The code of 0, for each group or one for all; empty if no code means 0 (binary).
    pub fn zero_points(&self) -> &[u8] {
        match self.format {
            Binary { .. } => &[],
            Int4 { .. } => &[8],
            UInt4 { .. } => &self.zero_points,
            Q8_0 => &[0],
            _ => &[1],
        }
    }

    /// Bits per value, including scales and zero points.
    pub fn bits_per_weight(&self) -> f64 {
        let bytes = self.bytes.len() + 4 * self.scales.len() + self.zero_points.len();
        8. * bytes as f64 / self.shape.elements().max(1) as f64
    }

    /// Its values, f32 on `device`.
    ///
    /// # Errors
    /// If the bytes hold what the format does not allow.
    pub fn dequantize(&self, device: &Device) -> Result<BitNetTensor, QuantError> {
        let (rows, cols) = matrix(&self.shape);
        let mut values = match (self.format, self.format.scaled()) {
            (I2S, _) => i2_s::dequantize(&self.bytes, rows, cols, I2sOrder::X86)?,
            (_, Some(scaled)) => scaled.dequantize(&self.bytes, rows, cols)?,
            (HuggingFace, _) => {
                let codes = hf::decode(&self.bytes, rows, cols)?;
                codes.to_weights().into_iter().map(|w| f32::from(w) * self.scales[0]).collect()
            }
            (Q8_0, _) => {
                let packed = BitNetTensor::from_bytes(&self.bytes, &[rows, cols], BitNetDType::Q8_0, &Device::cpu())?;
                packed.to_dtype(BitNetDType::F32)?.to_vec()?
            }
            (Binary { group }, _) => self.values(1, group, |q, g| self.scales[g] * if q == 1 { 1. } else { -1. }),
            (Int4 { group }, _) => self.values(4, group, |q, g| (f32::from(q) - 8.) / self.scales[g]),
            (UInt4 { group }, _) => {
                self.values(4, group, |q, g| (f32::from(q) - f32::from(self.zero_points[g])) * self.scales[g])
            }
            _ => unreachable!("the others are scaled formats"),
        };
        if self.factor != 1. {
            values.iter_mut().for_each(|v| *v *= self.factor);
        }
        Ok(BitNetTensor::from_slice(&values, self.dims(), device)?)
    }

    /// `value(code, group)` of every code.
    fn values(&self, width: u32, group: usize, value: impl Fn(u8, usize) -> f32) -> Vec<f32> {
        let codes = bits::unpack(&self.bytes, matrix(&self.shape).1, width);
        codes.enumerate().map(|(i, q)| value(q, i / group)).collect()
    }

    /// Codes with one scale for all rows or one for each row, if it is such a matrix.
    fn ternary(&self) -> Result<Option<(TernaryCodes, Vec<f32>)>, QuantError> {
        let (rows, cols) = matrix(&self.shape);
        let (codes, mut scales) = match (self.format, self.format.scaled()) {
            (I2S, _) => {
                let (codes, scale) = i2_s::decode(&self.bytes, rows, cols, I2sOrder::X86)?;
                (codes, vec![scale])
            }
            (HuggingFace, _) => (hf::decode(&self.bytes, rows, cols)?, vec![self.scales[0]]),
            (_, Some(scaled)) => match scaled.decode(&self.bytes, rows, cols) {
                Ok(decoded) => match decoded.ternary_scales()?.one() {
                    Some(scale) => (decoded.codes, vec![scale]),
                    None => return Ok(None),
                },
                // A weight of +2: values, but not ternary.
                Err(QuantError::NotTernary { .. }) => return Ok(None),
                Err(other) => return Err(other),
            },
            (Binary { group }, _) if group == cols => {
                let signs: Vec<i8> = bits::unpack(&self.bytes, cols, 1).map(|q| if q == 1 { 1 } else { -1 }).collect();
                (TernaryCodes::from_weights(rows, cols, &signs)?, self.scales.to_vec())
            }
            _ => return Ok(None),
        };
        scales.iter_mut().for_each(|s| *s *= self.factor);
        Ok(Some((codes, scales)))
    }
}

/// Rows and columns of a tensor as a matrix.
fn matrix(shape: &TensorShape) -> (usize, usize) {
    (shape.elements().checked_div(shape.last()).unwrap_or(0), shape.last())
}

/// All values times a number; the bytes are shared.
impl std::ops::Mul<f32> for QuantizedTensor {
    type Output = Self;

    fn mul(self, by: f32) -> Self {
        Self { factor: self.factor * by, ..self }
    }
}

/// Negated; the bytes are shared.
impl std::ops::Neg for &QuantizedTensor {
    type Output = QuantizedTensor;

    fn neg(self) -> QuantizedTensor {
        self.clone() * -1.
    }
}
