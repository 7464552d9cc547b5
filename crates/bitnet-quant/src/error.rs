//! Errors of packed weights and quantization.

use bitnet_core::{BitNetError, TensorOpError};

/// Packed weights cannot be decoded, or a matrix cannot be quantized or encoded.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The number of bytes is not that of the shape.
    #[error("{format}: a {rows} x {cols} matrix takes {expected} bytes, but there are {actual}")]
    Length { format: &'static str, rows: usize, cols: usize, expected: usize, actual: usize },
    /// A shape whose size does not fit in `usize`.
    #[error("a {rows} x {cols} matrix is larger than this machine can address")]
    TooLarge { rows: usize, cols: usize },
    /// Rows that are not whole blocks of the format.
    #[error(
        "{format} stores rows in blocks of {block} weights and {cols} is not a multiple; a type that fits: {fitting}"
    )]
    RowNotBlocks {
        format: &'static str,
        block: usize,
        cols: usize,
        /// Names of the types that hold such rows.
        fitting: String,
    },
    /// A 2-bit code 3 (value +2) where only -1, 0 and +1 are ternary.
    #[error("{format}: the weight at row {row}, column {col} has code 3 (value +2), so this tensor is not ternary")]
    NotTernary { format: &'static str, row: usize, col: usize },
    /// Weights that a format cannot express.
    #[error("{format} holds {holds}, and this matrix has others; take TQ1_0, TQ2_0, Q2_0 or I2_S")]
    NotHeld { format: &'static str, holds: &'static str },
    /// A value to encode that is not -1, 0 or +1.
    #[error("the weight {value} at row {row}, column {col} is not -1, 0 or +1")]
    WeightOutOfRange { row: usize, col: usize, value: i8 },
    /// A scale that is NaN or infinite.
    #[error("{format}: scale number {index} is {value}; the file is damaged or was written from a model that diverged")]
    ScaleNotFinite {
        format: &'static str,
        /// Index of the scale in the tensor.
        index: usize,
        value: f32,
    },
    /// A format whose blocks have one scale each, for a matrix with more.
    #[error(
        "{format} has one scale for every {block} weights of a row, and this matrix has more: take a type of smaller blocks"
    )]
    BlockScales { format: &'static str, block: usize },
    /// A scale of a block that f16 does not hold.
    #[error("{format}: scale number {index} is {value}, which f16 would round")]
    ScaleNotF16 { format: &'static str, index: usize, value: f32 },
    /// A value to quantize that is NaN or infinite, or whose block scale exceeds f16.
    #[error("{format}: the value {value} at row {row}, column {col} cannot be quantized")]
    ValueOutOfRange { format: &'static str, row: usize, col: usize, value: f32 },
    /// Rows that are not whole groups.
    #[error("{format}: rows of {cols} weights are not whole groups of {group}")]
    Groups { format: &'static str, group: usize, cols: usize },
    /// Scales or zero points that are not those of the shape.
    #[error(
        "{format}: {} scales and {} zero points were given, but the shape has {} and {}",
        .actual.0, .actual.1, .expected.0, .expected.1
    )]
    Scales {
        format: &'static str,
        /// Scales and zero points that the shape needs.
        expected: (usize, usize),
        /// Scales and zero points that were given.
        actual: (usize, usize),
    },
    /// Ternary codes for a format of other values.
    #[error("{format} does not hold ternary codes: take I2_S, TQ1_0, TQ2_0, Q2_0 or HF packed")]
    NotTernaryFormat { format: &'static str },
    /// A value of calibration data that is NaN or infinite.
    #[error("calibration: value {index} of the data is {value}; the model diverges on it, or the data is damaged")]
    NotFinite { index: usize, value: f32 },
    /// No data was observed.
    #[error("calibration: no data was observed: give at least one value")]
    NoData,
    /// An argument that the operation cannot take.
    #[error("{op}: {message}")]
    Argument {
        op: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// An operation on tensors failed.
    #[error(transparent)]
    Tensor(#[from] Box<BitNetError>),
}

impl From<BitNetError> for QuantError {
    fn from(error: BitNetError) -> Self {
        Self::Tensor(Box::new(error))
    }
}

impl From<TensorOpError> for QuantError {
    fn from(error: TensorOpError) -> Self {
        BitNetError::from(error).into()
    }
}
