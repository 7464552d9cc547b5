//! The interface between tensors and devices.
//!
//! A device implements the primitives. The fused operations of transformers and ternary layers are composed of them
//! ([`fused`]) until the device overrides them. The testkit compares every override with its composition.

pub mod attention;
pub mod fused;
pub mod gradient;
mod ops;
mod parameters;

pub use ops::*;
pub use parameters::{AdamStep, CausalShape};

use crate::{BitNetDType, BitNetError, DeviceCapabilities, Layout, RawMemory, Result, TensorStorage};
use std::fmt::Debug;

/// An operand: storage, layout and dtype.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    pub storage: &'a TensorStorage,
    pub layout: Layout,
    pub dtype: BitNetDType,
}

/// A result to be written: storage, layout and dtype.
#[allow(missing_docs)]
#[derive(Debug)]
pub struct TensorMut<'a> {
    pub storage: &'a mut TensorStorage,
    pub layout: Layout,
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
    /// The same tensor, read-only.
    pub fn as_ref(&self) -> TensorRef<'_> {
        TensorRef { storage: self.storage, layout: self.layout, dtype: self.dtype }
    }

    /// The same tensor with a shorter lifetime.
    pub fn reborrow(&mut self) -> TensorMut<'_> {
        TensorMut { storage: self.storage, layout: self.layout, dtype: self.dtype }
    }
}

/// Activations quantized per token, the input of a ternary product.
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

/// A ternary matrix in the layout of its device, made by [`Backend::pack_ternary`].
#[derive(Debug)]
pub struct PackedTernary {
    /// Packed weights.
    pub storage: TensorStorage,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// f32 scale of each group of [`Backend::ternary_row_group`] rows, so that matrices with one input can be stacked.
    pub scales: Vec<f32>,
}

/// A ternary matrix to pack: canonical codes and one scale.
#[derive(Debug, Clone, Copy)]
pub struct TernarySource<'a> {
    /// Codes `w + 1`, four per byte as in [`BitNetDType::Ternary2`], `[rows, ceil(columns / 4)]`.
    pub codes: &'a [u8],
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Scale of every weight.
    pub scale: f32,
}

/// The operations of a device. Operands must be on this device; results must not overlap operands.
///
/// Every operation returns [`BitNetError::Unsupported`] for a dtype that the device lacks; none falls back to another
/// device.
pub trait Backend: Debug + Send + Sync {
    /// Name with index, such as `cpu` or `cuda:0`.
    fn name(&self) -> String;
    /// Name and kernels for profiles, such as `cpu avx512`.
    fn kernel(&self) -> String {
        self.name()
    }
    /// Whether its storage is host memory, so that mapped files can be used without a copy.
    fn is_host(&self) -> bool {
        false
    }

    /// Its detected properties.
    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities::named(self.name())
    }
    /// Its allocator, for pools; `None` if it manages its own memory.
    fn raw_memory(&self) -> Option<std::sync::Arc<dyn RawMemory>> {
        None
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
    /// `out = op(x)`, equal shapes and dtypes.
    fn unary(&self, op: UnaryOp, x: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = op(a, b)`, equal shapes and dtypes (broadcast views and cast beforehand); beside an `F16` or `BF16` result one
    /// operand may be `F32`, a number that is not to be rounded first.
    fn binary(&self, op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = a op b`, a `Bool` tensor; equal shapes, `a` and `b` of one dtype.
    fn compare(&self, op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = condition ? a : b`; equal shapes, one dtype, `condition` a `Bool` tensor.
    fn select(&self, condition: TensorRef, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()>;
    /// `out = x` in `out`'s dtype: to floats, round to nearest (ties to even); floats to integers, truncate and
    /// saturate (NaN gives 0); integers to narrower ones, wrap; to `Bool`, whether not zero. Packed weight types can be
    /// read, not written.
    fn cast(&self, x: TensorRef, out: TensorMut) -> Result<()>;
    /// Reduces dimension `axis`, which has extent 1 in `out`.
    fn reduce(&self, op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()>;
    /// Cumulative reduction along dimension `axis`; equal shapes.
    fn scan(&self, op: ScanOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()>;
    /// `out[.., m, n] = sum over k of a[.., m, k] * b[.., k, n]`, equal leading dimensions, any strides. Floats give
    /// their dtype (f16 and bf16 summed in f32; bf16 also into an f32 `out`, not rounded), `I8` gives `I32`, other
    /// integers theirs, wrapping.
    fn matmul(&self, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()>;
    /// `out[.., i, ..] = source[.., indices[.., i, ..], ..]` along `axis`: `indices` (`I64` or `U32`) has the shape of
    /// `out`, `source` extents at least as large on the other dimensions. An index outside the dimension is an error.
    fn gather(&self, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()>;
    /// `out[.., indices[.., i, ..], ..] op= source[.., i, ..]` along `axis`, shapes as in [`Backend::gather`] with the
    /// roles of `source` and `out` exchanged. Reads and writes `out`; nothing is written when an index is outside.
    fn scatter(&self, op: ScatterOp, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()>;
    /// Stable sort along `axis`, NaN as the largest; `indices` is `I64`. Equal shapes.
    fn sort(&self, x: TensorRef, axis: usize, descending: bool, values: TensorMut, indices: TensorMut) -> Result<()>;
    /// Element `i` in row-major order is made of number `n = offset + i` (wrapping) of the stream of `seed`, the same
    /// on every device: 64-bit word `n % 2` of Philox4x32-10 (Salmon et al. 2011) with the counter `n / 2` in its two
    /// lower words (the lowest first, the others 0) and the seed as the key (the lower word first); of the four words
    /// that it gives, 0 and 1 are word 0 and 2 and 3 are word 1, the lower first. With `w` as the word and `u(b)` as
    /// its upper `b` bits divided by `2^b`:
    /// - uniform: `low + (high - low) * u(b)` in f64, `b` 53, 24, 11 or 8 for f64, f32, f16 or bf16, rounded to the dtype;
    ///   `low` where that is not below `high`;
    /// - normal (Box and Muller 1958), `u` and `v` the `u(53)` of the words `2 (n / 2)` and `2 (n / 2) + 1`:
    ///   `mean + std * (r * cos(2 pi v))`, for odd `n` `sin`, with `r = sqrt(-2 ln(1 - u))`, in f64, rounded to the dtype;
    ///   logarithm, sine and cosine may differ between devices in the last place;
    /// - integer: `low + floor(w * (high - low) / 2^64)`, exactly;
    /// - Bernoulli: 1 if `u(53) < p`.
    fn random(&self, distribution: Distribution, seed: u64, offset: u64, out: TensorMut) -> Result<()>;
    /// Waits until all operations of the device are complete.
    fn synchronize(&self) -> Result<()>;

    // ---- fused operations: composed of primitives unless overridden ----

    /// `x = op(x)`.
    fn unary_assign(&self, op: UnaryOp, x: TensorMut) -> Result<()> {
        fused::unary_assign(self.as_dyn(), op, x)
    }
    /// `y = op(y, x)`, `x` broadcast to the shape of `y`, dtypes as in [`Backend::binary`].
    fn binary_assign(&self, op: BinaryOp, y: TensorMut, x: TensorRef) -> Result<()> {
        fused::binary_assign(self.as_dyn(), op, y, x)
    }
    /// Root mean square norm of rows: `out = x / sqrt(mean(x^2) + eps) * weight`; `x` and `out` `[.., H]`, `weight`
    /// `[H]`, floats of one dtype.
    fn rms_norm(&self, x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) -> Result<()> {
        fused::rms_norm(self.as_dyn(), x, weight, eps, out)
    }
    /// Softmax of the last dimension.
    fn softmax(&self, x: TensorRef, out: TensorMut) -> Result<()> {
        fused::softmax(self.as_dyn(), x, out)
    }
    /// Logarithm of the softmax of the last dimension.
    fn log_softmax(&self, x: TensorRef, out: TensorMut) -> Result<()> {
        fused::log_softmax(self.as_dyn(), x, out)
    }
    /// `out = (x - mean) / sqrt(var + eps) * weight + bias` of the last dimension (Ba et al. 2016); floats of one
    /// dtype, `weight` and `bias` `[H]`.
    fn layer_norm(
        &self,
        x: TensorRef,
        weight: Option<TensorRef>,
        bias: Option<TensorRef>,
        eps: f64,
        out: TensorMut,
    ) -> Result<()> {
        fused::layer_norm(self.as_dyn(), x, weight, bias, eps, out)
    }
    /// Mean, and sum of squared differences from it divided by `max(0, N - correction)`, over dimension `axis` (extent
    /// 1 in the results); floats of one dtype.
    fn variance(&self, x: TensorRef, axis: usize, correction: f64, mean: TensorMut, out: TensorMut) -> Result<()> {
        fused::variance(self.as_dyn(), x, axis, correction, mean, out)
    }
    /// Root of the variance over dimension `axis` (extent 1 in the result), also where f32 does not hold the variance;
    /// floats of one dtype.
    fn standard_deviation(&self, x: TensorRef, axis: usize, correction: f64, out: TensorMut) -> Result<()> {
        fused::standard_deviation(self.as_dyn(), x, axis, correction, out)
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
    /// Gated activation in place: `gate = act(gate) * up`, f32, equal shapes.
    fn gated(&self, act: GateActivation, gate: TensorMut, up: TensorRef) -> Result<()> {
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
    /// Allocated columns of a row of quantized activations, including the device's padding.
    fn padded_columns(&self, columns: usize) -> usize {
        columns
    }
    /// Quantizes each row of `x` f32 `[T, K]` to 8 bits, see [`QuantizedActivations`].
    fn quantize_activations(&self, x: TensorRef, values: TensorMut, scales: TensorMut, sums: TensorMut) -> Result<()> {
        fused::quantize_activations(self.as_dyn(), x, values, scales, sums)
    }
    /// Rows that share a scale in [`PackedTernary::scales`].
    fn ternary_row_group(&self) -> usize {
        1
    }
    /// Stacks matrices with one input in the device's layout. The rows of each but the last must be whole groups
    /// ([`Backend::ternary_row_group`]).
    fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
        fused::pack_ternary(self.as_dyn(), parts)
    }
    /// `out = (x . w^T) * scale / s`, f32 `[T, rows]`; the integer product is exact.
    fn ternary_matmul(&self, x: QuantizedActivations, w: &PackedTernary, out: TensorMut) -> Result<()> {
        fused::ternary_matmul(self.as_dyn(), x, w, out)
    }

    // ---- fused operations of training, see [`gradient`] ----

    /// Derivative of [`Backend::rms_norm`]: `grad`, `x` and `dx` `[.., H]`, `weight` and `dweight` `[H]`, floats. With
    /// `r = 1 / sqrt(mean(x^2) + eps)` and `g = grad weight`, `dx = r (g - x r^2 mean(g x))` and `dweight` is the sum
    /// of `grad x r` over the rows.
    fn rms_norm_backward(
        &self,
        grad: TensorRef,
        x: TensorRef,
        weight: TensorRef,
        eps: f32,
        dx: TensorMut,
        dweight: TensorMut,
    ) -> Result<()> {
        gradient::rms_norm_backward(self.as_dyn(), grad, x, weight, eps, dx, dweight)
    }
    /// `out = act(gate) * up` of concatenated halves: `both` `[.., 2 I]`, gate first, `out` `[.., I]`, floats.
    fn gated_halves(&self, act: GateActivation, both: TensorRef, out: TensorMut) -> Result<()> {
        gradient::gated_halves(self.as_dyn(), act, both, out)
    }
    /// Derivative of [`Backend::gated_halves`]: `grad` `[.., I]`, `both` and `out` `[.., 2 I]`.
    fn gated_halves_backward(
        &self,
        act: GateActivation,
        grad: TensorRef,
        both: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        gradient::gated_halves_backward(self.as_dyn(), act, grad, both, out)
    }
    /// Causal attention of a batch of sequences, with rotary embedding: `qkv` f32 `[B * T, (heads + 2 kv_heads) * D]`,
    /// queries, keys and values of all heads concatenated, `cos` and `sin` f32 `[T, D / 2]`, `out` f32
    /// `[B * T, heads * D]`. Scores are divided by `sqrt(D)`.
    fn causal_attention(
        &self,
        shape: CausalShape,
        qkv: TensorRef,
        cos: TensorRef,
        sin: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        attention::causal_attention(self.as_dyn(), shape, qkv, cos, sin, out)
    }
    /// Derivative of [`Backend::causal_attention`] by `qkv`: `grad` f32 `[B * T, heads * D]`, `out` f32 as `qkv`.
    fn causal_attention_backward(
        &self,
        shape: CausalShape,
        grad: TensorRef,
        qkv: TensorRef,
        cos: TensorRef,
        sin: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        attention::causal_attention_backward(self.as_dyn(), shape, grad, qkv, cos, sin, out)
    }
    /// `out[i, j] = x[i, j] * rows[i] * columns[j]`: `x` f32 or i8 `[R, C]`, `rows` f32 `[R]`, `columns` f32 `[C]`,
    /// `out` of any float dtype.
    fn scale(&self, x: TensorRef, rows: Option<TensorRef>, columns: Option<TensorRef>, out: TensorMut) -> Result<()> {
        gradient::scale(self.as_dyn(), x, rows, columns, out)
    }
    /// A step of Adam or AdamW in place, f32, equal shapes; see [`AdamStep`].
    fn adam_step(
        &self,
        step: AdamStep,
        x: TensorMut,
        grad: TensorRef,
        first: TensorMut,
        second: TensorMut,
    ) -> Result<()> {
        gradient::adam_step(self.as_dyn(), step, x, grad, first, second)
    }

    /// `self` as a trait object, for the composed defaults.
    fn as_dyn(&self) -> &dyn Backend;
}

impl AsRef<dyn Backend> for dyn Backend {
    fn as_ref(&self) -> &(dyn Backend + 'static) {
        self
    }
}

/// The error for an operation that `backend` lacks for `dtype`.
pub fn unsupported(backend: &dyn Backend, op: &'static str, dtype: BitNetDType) -> BitNetError {
    BitNetError::Unsupported { op, dtype, device: backend.name() }
}
