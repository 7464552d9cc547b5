//! The seam between tensors and devices.
//!
//! A device implements the primitives; the fused operations of transformers and ternary layers then work, composed of
//! them ([`fused`]), and become fast one override at a time. The testkit holds every override against its composition.

pub mod fused;

use crate::{BitNetDType, BitNetError, Layout, Result, TensorStorage};
use std::fmt::Debug;

/// An operand: storage, where its elements lie, and their type.
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    /// Bytes.
    pub storage: &'a TensorStorage,
    /// Shape and strides.
    pub layout: Layout,
    /// Element type.
    pub dtype: BitNetDType,
}

/// A result: as [`TensorRef`], to be written.
#[derive(Debug)]
pub struct TensorMut<'a> {
    /// Bytes.
    pub storage: &'a mut TensorStorage,
    /// Shape and strides.
    pub layout: Layout,
    /// Element type.
    pub dtype: BitNetDType,
}

impl TensorRef<'_> {
    /// See [`Layout::narrow`].
    pub fn narrow(self, axis: usize, start: usize, len: usize) -> Result<Self> {
        Ok(Self { layout: self.layout.narrow(axis, start, len)?, ..self })
    }

    /// See [`Layout::reshape`].
    pub fn reshape(self, dims: &[usize]) -> Result<Self> {
        Ok(Self { layout: self.layout.reshape(dims)?, ..self })
    }

    /// See [`Layout::transpose`].
    pub fn transpose(self, a: usize, b: usize) -> Result<Self> {
        Ok(Self { layout: self.layout.transpose(a, b)?, ..self })
    }
}

impl<'a> TensorMut<'a> {
    /// See [`Layout::narrow`].
    pub fn narrow(self, axis: usize, start: usize, len: usize) -> Result<Self> {
        Ok(Self { layout: self.layout.narrow(axis, start, len)?, ..self })
    }

    /// See [`Layout::reshape`].
    pub fn reshape(self, dims: &[usize]) -> Result<Self> {
        Ok(Self { layout: self.layout.reshape(dims)?, ..self })
    }
}

impl TensorMut<'_> {
    /// The same tensor, to read.
    pub fn as_ref(&self) -> TensorRef<'_> {
        TensorRef { storage: self.storage, layout: self.layout, dtype: self.dtype }
    }

    /// The same tensor, for a shorter time.
    pub fn reborrow(&mut self) -> TensorMut<'_> {
        TensorMut { storage: self.storage, layout: self.layout, dtype: self.dtype }
    }
}

/// Element-wise functions of one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum UnaryOp {
    Neg,
    Abs,
    Exp,
    Sqrt,
    Reciprocal,
    Relu,
    Sigmoid,
    /// To the nearest integer, halves to even.
    Round,
}

/// Element-wise functions of two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Minimum,
    Maximum,
}

/// Comparisons; the result is a `Bool` tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum CompareOp {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Reductions over one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ReduceOp {
    Sum,
    Max,
    Min,
}

/// Gates of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `relu(g)^2 * u` (BitNet b1.58 2B4T).
    Relu2,
    /// `g * sigmoid(g) * u` (Llama).
    Silu,
}

/// Activations quantized per token: what a ternary product reads.
///
/// `values` is i8 `[T, K]`, `scales` f32 `[T]` with `s = 127 / max(|x|, 1e-5)`, `sums` i32 `[T]` the sum of each row of
/// `values`. A row of the storage of `values` may be longer than `K`; see [`Backend::padded_columns`].
#[derive(Debug, Clone, Copy)]
pub struct QuantizedActivations<'a> {
    /// i8 `[T, K]`.
    pub values: TensorRef<'a>,
    /// f32 `[T]`.
    pub scales: TensorRef<'a>,
    /// i32 `[T]`.
    pub sums: TensorRef<'a>,
}

/// A ternary matrix in the layout that its device multiplies fastest, made by [`Backend::pack_ternary`].
#[derive(Debug)]
pub struct PackedTernary {
    /// The device's layout of it.
    pub storage: TensorStorage,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// f32 factor of each group of [`Backend::ternary_row_group`] rows; matrices of one input can be stacked.
    pub scales: Vec<f32>,
}

/// Ternary matrices that are multiplied with one input: canonical codes and the factor of each.
#[derive(Debug, Clone, Copy)]
pub struct TernarySource<'a> {
    /// Codes `w + 1`, four a byte as in [`BitNetDType::Ternary2`], `[rows, ceil(columns / 4)]`.
    pub codes: &'a [u8],
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Factor of every weight.
    pub scale: f32,
}

/// What a device does. Operands must be of this device, results must not overlap operands.
///
/// Every operation returns [`BitNetError::Unsupported`] for a dtype that the device lacks; none falls back to another.
pub trait Backend: Debug + Send + Sync {
    /// Name with index, such as `cpu` or `cuda:0`.
    fn name(&self) -> String;
    /// Whether its storage is host memory, so that mapped files can be used without a copy.
    fn is_host(&self) -> bool {
        false
    }

    // ---- primitives: every device has them ----

    /// Storage of `bytes` bytes.
    fn allocate(&self, bytes: usize) -> Result<TensorStorage>;
    /// Storage holding these bytes.
    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage>;
    /// The first `bytes.len()` bytes of `source`, from byte `offset`.
    fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()>;
    /// `out = source`, element by element, equal shapes and dtypes, any strides.
    fn copy(&self, source: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = op(x)`, equal shapes.
    fn unary(&self, op: UnaryOp, x: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = op(a, b)`, equal shapes (broadcast views beforehand).
    fn binary(&self, op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = a op b`, a `Bool` tensor.
    fn compare(&self, op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = condition ? a : b`.
    fn select(&self, condition: TensorRef, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = x` in `out`'s dtype. Packed weight types can be read, not written.
    fn cast(&self, x: TensorRef, out: TensorMut) -> Result<()>;
    /// Reduces dimension `axis`, which has extent 1 in `out`.
    fn reduce(&self, op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()>;
    /// `out[.., m, n] = sum over k of a[.., m, k] * b[.., k, n]`, equal leading dimensions, any strides.
    fn matmul(&self, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()>;
    /// `out[t, ..] = source[indices[t], ..]`; indices are u32, one out of range is an error.
    fn gather(&self, source: TensorRef, indices: TensorRef, out: TensorMut) -> Result<()>;
    /// Waits until everything asked of the device is done.
    fn synchronize(&self) -> Result<()>;

    // ---- fused operations: composed of primitives unless overridden ----

    /// `y += x`, `x` broadcast to the shape of `y`.
    fn add_assign(&self, y: TensorMut, x: TensorRef) -> Result<()> {
        fused::add_assign(self.as_dyn(), y, x)
    }
    /// Root mean square norm of rows: `out = x / sqrt(mean(x^2) + eps) * weight`; `x` and `out` f32 `[T, H]`, `weight` f32 `[H]`.
    fn rms_norm(&self, x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) -> Result<()> {
        fused::rms_norm(self.as_dyn(), x, weight, eps, out)
    }
    /// Softmax of the last dimension.
    fn softmax(&self, x: TensorRef, out: TensorMut) -> Result<()> {
        fused::softmax(self.as_dyn(), x, out)
    }
    /// Rotary position embedding in place, halves rotated: `x` f32 `[T, heads, D]`, `cos` and `sin` f32
    /// `[positions, D/2]`, first token at position `start`.
    fn rope(&self, x: TensorMut, cos: TensorRef, sin: TensorRef, start: usize) -> Result<()> {
        fused::rope(self.as_dyn(), x, cos, sin, start)
    }
    /// Causal attention over a cache: `q` f32 `[T, heads, D]` at positions `start..start + T`, `keys` and `values`
    /// `[kv_heads, capacity, D]` (f32 or f16) that hold positions `0..start + T`, `out` f32 `[T, heads, D]`.
    /// Head `h` reads key head `h / (heads / kv_heads)`; scores are divided by `sqrt(D)`.
    fn attention(&self, q: TensorRef, keys: TensorRef, values: TensorRef, start: usize, out: TensorMut) -> Result<()> {
        fused::attention(self.as_dyn(), q, keys, values, start, out)
    }
    /// A feed-forward gate in place: `gate = act(gate) * up`, f32, equal shapes.
    fn gated(&self, act: Gate, gate: TensorMut, up: TensorRef) -> Result<()> {
        fused::gated(self.as_dyn(), act, gate, up)
    }
    /// Rows of `table` `[V, H]` (any float or weight type) as f32 `[T, H]`.
    fn embedding(&self, ids: &[u32], table: TensorRef, out: TensorMut) -> Result<()> {
        fused::embedding(self.as_dyn(), ids, table, out)
    }
    /// `out = x w^T`: `x` f32 `[T, K]`, `w` `[N, K]` of any float or weight type, `out` f32 `[T, N]`.
    fn linear(&self, x: TensorRef, w: TensorRef, out: TensorMut) -> Result<()> {
        fused::linear(self.as_dyn(), x, w, out)
    }
    /// Columns that a row of quantized activations must have room for; the extra ones are the device's.
    fn padded_columns(&self, columns: usize) -> usize {
        columns
    }
    /// Quantizes each row of `x` f32 `[T, K]` to 8 bits, see [`QuantizedActivations`].
    fn quantize_activations(&self, x: TensorRef, values: TensorMut, scales: TensorMut, sums: TensorMut) -> Result<()> {
        fused::quantize_activations(self.as_dyn(), x, values, scales, sums)
    }
    /// Rows that share a factor in [`PackedTernary::scales`].
    fn ternary_row_group(&self) -> usize {
        1
    }
    /// Matrices of equal input, one above the other, in the device's layout. Each must have rows in whole groups
    /// ([`Backend::ternary_row_group`]) unless it is the last.
    fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
        fused::pack_ternary(self.as_dyn(), parts)
    }
    /// `out = (x . w^T) * scale / s`, f32 `[T, rows]`; the integer product is exact.
    fn ternary_matmul(&self, x: QuantizedActivations, w: &PackedTernary, out: TensorMut) -> Result<()> {
        fused::ternary_matmul(self.as_dyn(), x, w, out)
    }

    /// `self` as a trait object, for the composed defaults.
    fn as_dyn(&self) -> &dyn Backend;
}

/// The error of an operation that `backend` does not have for `dtype`.
pub fn unsupported(backend: &dyn Backend, op: &'static str, dtype: BitNetDType) -> BitNetError {
    BitNetError::Unsupported { op, dtype, device: backend.name() }
}
