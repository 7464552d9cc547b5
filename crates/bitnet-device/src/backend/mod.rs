//! The interface between tensors and devices.
//!
//! An operation is data ([`Op`]), whose operands are checked once for all devices and which a device runs ([`Backend::run`]). The
//! fused operations of transformers and ternary layers are composed of primitives ([`Op::compose`]) until a device has its own.
//! The testkit compares every one with its composition.

mod activation_rule;
mod attention;
mod calls;
mod check;
mod compose;
mod functions;
mod fused;
mod gradient;
mod kv_pages;
mod op;
mod parameters;
mod recurrent;
mod sample;
mod ternary;
mod traffic;

pub use activation_rule::ActivationRule;
pub use check::summed;
pub use compose::optional;
pub use functions::*;
pub use kv_pages::{KvPages, KvPagesMut, KvRows};
pub use op::Op;
pub use parameters::{AdamStep, CausalShape};
pub use recurrent::{DeltaGates, DeltaShape, StateRows};
pub use sample::{SampleRow, SampleRows};
pub use ternary::FLOAT_STEPS;
pub use traffic::Traffic;

use crate::{
    BitNetDType, BitNetError, DeviceCapabilities, Layout, RawMemory, Result, TensorOpError, TensorShape, TensorStorage,
};
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

/// Quantized activations, the input of a ternary product.
///
/// A row of the storage of `values` may be longer than `K`; see [`Backend::padded_columns`].
#[derive(Debug, Clone, Copy)]
pub struct QuantizedActivations<'a> {
    /// How they were rounded.
    pub rule: ActivationRule,
    /// i8 `[T, D, K]`, `D` the [digits](ActivationRule::digits).
    pub values: TensorRef<'a>,
    /// f32 `[T, blocks]`.
    pub scales: TensorRef<'a>,
    /// i32 `[T, D, ceil(K / 32)]`, the sums of every 32 columns of `values`.
    pub sums: TensorRef<'a>,
}

/// A ternary matrix in the layout of its device, made by [`Backend::pack_ternary`].
#[derive(Debug)]
pub struct PackedTernary {
    storage: TensorStorage,
    scales: TensorStorage,
    layout: Layout,
    scale_layout: Layout,
}

impl PackedTernary {
    /// `storage` holds `[rows, columns]` weights in the order of the device, `scales` f32 scales, also in its order: one for each
    /// group of [`Backend::ternary_row_group`] rows, or where `groups` is not 1, or rows differ, one for each of that many groups of
    /// columns of every row, perhaps of some rows more.
    pub fn new(
        storage: TensorStorage,
        scales: TensorStorage,
        groups: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        let layout = Layout::contiguous(TensorShape::new(&[rows, columns])?);
        let count = scales.len_bytes() / size_of::<f32>() / groups.max(1);
        let scale_layout = Layout::contiguous(TensorShape::new(&[count, groups])?);
        Ok(Self { storage, scales, layout, scale_layout })
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.layout.dims()[0]
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.layout.dims()[1]
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.storage.len_bytes()
    }

    /// The weights as an operand: [`BitNetDType::Ternary2`] `[rows, columns]`, though the order of their storage is that of
    /// the device.
    pub fn weights(&self) -> TensorRef<'_> {
        TensorRef { storage: &self.storage, layout: self.layout, dtype: BitNetDType::Ternary2 }
    }

    /// The scales as an operand, f32.
    pub fn row_scales(&self) -> TensorRef<'_> {
        TensorRef { storage: &self.scales, layout: self.scale_layout, dtype: BitNetDType::F32 }
    }
}

/// A ternary matrix to pack: canonical codes and scales.
#[derive(Debug, Clone, Copy)]
pub struct TernarySource<'a> {
    /// Codes `w + 1`, four per byte as in [`BitNetDType::Ternary2`], `[rows, ceil(columns / 4)]`.
    pub codes: &'a [u8],
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// `[1]`, the scale of every weight, or `[rows, columns / group]`.
    pub scales: &'a [f32],
    /// Columns that share a scale, a multiple of 32 or all of them; `None`: every weight has the same.
    pub group: Option<usize>,
}

impl TernarySource<'_> {
    /// Scales of a row.
    pub fn groups(&self) -> usize {
        self.group.map_or(1, |group| self.columns.div_ceil(group.max(1)))
    }

    /// The scales of row `row`, `[groups]`.
    pub fn row_scales(&self, row: usize) -> &[f32] {
        match self.group {
            None => self.scales,
            Some(_) => &self.scales[row * self.groups()..][..self.groups()],
        }
    }

    /// An error unless codes and scales are those of the shape.
    pub fn check(&self) -> Result<()> {
        let codes = self.rows.checked_mul(self.columns.div_ceil(4));
        let whole = self.group.is_none_or(|group| {
            group == self.columns || (group > 0 && group.is_multiple_of(32) && self.columns.is_multiple_of(group))
        });
        let scales = if self.group.is_none() { Some(1) } else { self.rows.checked_mul(self.groups()) };
        if whole && codes == Some(self.codes.len()) && scales == Some(self.scales.len()) {
            return Ok(());
        }
        let got = TensorShape::new(&[self.rows, self.columns])?;
        let needed = format!(
            "its {} bytes of codes and {} scales, in groups of a multiple of 32 columns",
            self.codes.len(),
            self.scales.len()
        );
        Err(TensorOpError::Shape { op: "pack_ternary", what: "part", got, needed }.into())
    }
}

/// A device: memory and operations. Operands must be on this device.
///
/// Operations are ordered and may be asynchronous: an error of the device reaches the next call that waits ([`download`],
/// [`Download::wait`] or [`synchronize`]), and memory that is freed is used again in the order of the queue.
///
/// [`download`]: Backend::download
/// [`synchronize`]: Backend::synchronize
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
    /// Whether it has elements of this dtype at all; many have no 64-bit types.
    fn has(&self, _dtype: BitNetDType) -> bool {
        true
    }

    /// Storage of `bytes` bytes.
    fn allocate(&self, bytes: usize) -> Result<TensorStorage>;
    /// Storage holding these bytes.
    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage>;
    /// Writes bytes to storage, from byte `offset`.
    fn write(&self, target: &mut TensorStorage, offset: usize, bytes: &[u8]) -> Result<()>;
    /// The first `bytes.len()` bytes of `source`, from byte `offset`; waits for the operations that write them.
    fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()>;
    /// Starts a [`download`](Backend::download) of `len` bytes, which [`Download::wait`] gives as they are now in the order of
    /// the queue, whatever is run before it is called. A device without a queue has them at once.
    fn start_download(&self, source: &TensorStorage, offset: usize, len: usize) -> Result<Download> {
        let mut bytes = vec![0; len];
        self.download(source, offset, &mut bytes)?;
        Ok(Download::new(move || Ok(bytes)))
    }
    /// Waits until all operations are complete.
    fn synchronize(&self) -> Result<()>;

    /// Runs an operation whose operands have been checked ([`Op::check`]); callers use the methods of `dyn Backend`, which do.
    /// A device that has no kernel of its own for a fused operation calls [`Op::compose`].
    ///
    /// # Errors
    /// [`BitNetError::Unsupported`] for a dtype that the device lacks; nothing falls back to another device.
    fn run(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()>;
    /// Runs `step` and, where the device can, records the operations it ran, so that they can be replayed with the same
    /// storage; `None` where the step has to be run each time. A step that is recorded must not wait for the device.
    fn record(&self, step: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>> {
        step().map(|()| None)
    }

    /// Allocated columns of a row of quantized activations, including the device's padding.
    fn padded_columns(&self, columns: usize) -> usize {
        columns
    }
    /// Rows of a [`PackedTernary`] that share a scale.
    fn ternary_row_group(&self) -> usize {
        1
    }
    /// Stacks matrices with one input, and scales for as many groups of columns, in the device's layout. The rows of each but the last must be whole groups
    /// ([`Backend::ternary_row_group`]).
    fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
        ternary::pack_ternary(self.as_dyn(), parts)
    }

    /// `self` as a trait object, for composed operations.
    fn as_dyn(&self) -> &dyn Backend;
}

/// Bytes on their way to the host, see [`Backend::start_download`].
pub struct Download(Box<dyn FnOnce() -> Result<Vec<u8>> + Send>);

impl Download {
    /// Bytes that `wait` waits for.
    pub fn new(wait: impl FnOnce() -> Result<Vec<u8>> + Send + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Waits for the bytes; an error where the device found one until then and no other call had it.
    pub fn wait(self) -> Result<Vec<u8>> {
        (self.0)()
    }
}

impl Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Download")
    }
}

/// A recorded step, see [`Backend::record`].
pub trait Graph: Debug + Send + Sync {
    /// Runs the operations of the step again, on the storage they were recorded with.
    fn replay(&self) -> Result<()>;
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
