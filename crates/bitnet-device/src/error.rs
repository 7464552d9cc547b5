//! Errors of tensors, memory and devices.

use crate::{BitNetDType, TensorShape};
use std::path::PathBuf;

/// Result of everything in this crate.
pub type Result<T, E = BitNetError> = std::result::Result<T, E>;

/// An error of memory, a device or a tensor operation.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BitNetError {
    /// An operation was given operands that do not fit together.
    #[error(transparent)]
    TensorOp(#[from] Box<TensorOpError>),
    /// A device lacks an operation for a dtype; nothing falls back silently.
    #[error("device {device} has no `{op}` for {dtype}: move the tensor to another device or cast it")]
    Unsupported { op: &'static str, dtype: BitNetDType, device: String },
    /// A device that is not compiled in or not present.
    #[error("{0}")]
    NoDevice(String),
    /// The system or the device has no more memory.
    #[error("{device}: out of memory: {requested} bytes asked for, {in_use} in use{}", of_all(*total))]
    OutOfMemory { device: String, requested: usize, in_use: usize, total: Option<u64> },
    /// A limit in a pool's configuration leaves no room; `setting` is its field.
    #[error("{device}: {requested} bytes asked for, {in_use} in use, and {setting} is {limit}: free some or raise it")]
    PoolLimit { device: String, requested: usize, in_use: usize, setting: &'static str, limit: usize },
    /// A result that is not a finite number.
    #[error(transparent)]
    Numerical(#[from] NumericalError),
    /// A file could not be opened or mapped.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// A file of tensors is damaged, holds what a tensor cannot, or could not be written.
    #[error(transparent)]
    File(Box<dyn std::error::Error + Send + Sync>),
}

fn of_all(total: Option<u64>) -> String {
    total.map_or_else(String::new, |total| format!(", of the {total} that there are"))
}

impl From<TensorOpError> for BitNetError {
    fn from(error: TensorOpError) -> Self {
        Self::TensorOp(Box::new(error))
    }
}

/// A result that is not a finite number though the operands were; looked for with the feature `validation`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NumericalError {
    /// A result became infinite.
    #[error("{op}: a result is infinite and no operand was: it exceeds {dtype}, or divides by zero")]
    Overflow {
        /// Operation.
        op: String,
        /// The result's dtype.
        dtype: BitNetDType,
    },
    /// A result became NaN.
    #[error("{op}: a result is NaN and no operand was")]
    NotANumber {
        /// Operation.
        op: String,
    },
}

/// Operands that do not fit together.
#[allow(missing_docs)] // the messages explain the fields
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorOpError {
    /// A shape is not the one the operation needs.
    #[error("{op}: {what} has shape {got}, needed {needed}")]
    Shape { op: &'static str, what: &'static str, got: TensorShape, needed: String },
    /// A dtype is not the one the operation needs.
    #[error("{op}: {what} is {got}, needed {needed}")]
    DType { op: &'static str, what: &'static str, got: BitNetDType, needed: BitNetDType },
    /// A result that would lose its kind of number in the tensor it is written to.
    #[error("{op}: the result is {from}, which a tensor of {to} cannot take: use `{op}` out of place, or cast")]
    CannotCast { op: &'static str, from: BitNetDType, to: BitNetDType },
    /// Two shapes that broadcasting does not bring together.
    #[error("{op}: {} and {} do not broadcast: extents must be equal or 1, counted from the last dimension", .shapes.0, .shapes.1)]
    Broadcast { op: &'static str, shapes: Box<(TensorShape, TensorShape)> },
    /// Two operands live on different devices.
    #[error("{op}: operands are on {left} and {right}: move one with to_device()")]
    Device { op: &'static str, left: String, right: String },
    /// A slice or index leaves its dimension.
    #[error("{op}: {index} is outside dimension {axis} of {shape}")]
    OutOfRange { op: &'static str, index: usize, axis: usize, shape: TensorShape },
    /// An element of an index tensor leaves its dimension.
    #[error("{op}: index {index} is outside dimension {axis} of {shape}")]
    IndexOutOfRange { op: &'static str, index: i64, axis: usize, shape: TensorShape },
    /// A dimension that the tensor does not have.
    #[error("{op}: {shape} has no dimension {axis}")]
    NoAxis {
        op: &'static str,
        /// The dimension asked for, negative from the end.
        axis: isize,
        shape: TensorShape,
    },
    /// An integer divided by zero.
    #[error("{op}: integer division by zero")]
    DivisionByZero { op: &'static str },
    /// An argument that the operation cannot take.
    #[error("{op}: {message}")]
    Argument {
        op: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A layout that the operation cannot take.
    #[error("{op}: {what} is not contiguous: call contiguous() first")]
    NotContiguous { op: &'static str, what: &'static str },
    /// A mapped file holds elements at an address the CPU cannot read them from.
    #[error("{dtype} elements of a mapped file are not aligned: copy the tensor first")]
    Unaligned { dtype: BitNetDType },
    /// More dimensions than a shape can hold.
    #[error("a shape has at most {max} dimensions, got {got}")]
    TooManyDims {
        /// Limit.
        max: usize,
        got: usize,
    },
    /// The number of elements does not fit in memory.
    #[error("shape {0} has more elements than memory can address")]
    TooLarge(TensorShape),
}

#[cfg(test)]
#[test]
fn out_of_memory_names_a_limit_only_where_there_is_one() {
    let (device, requested, in_use) = ("cpu".to_string(), 9, 5);
    let none = |total| BitNetError::OutOfMemory { device: device.clone(), requested, in_use, total }.to_string();
    assert_eq!(none(None), "cpu: out of memory: 9 bytes asked for, 5 in use");
    assert_eq!(none(Some(12)), "cpu: out of memory: 9 bytes asked for, 5 in use, of the 12 that there are");
    let limit = BitNetError::PoolLimit { device, requested, in_use, setting: "max_large_pool_size", limit: 12 };
    let wanted = "cpu: 9 bytes asked for, 5 in use, and max_large_pool_size is 12: free some or raise it";
    assert_eq!(limit.to_string(), wanted);
}
