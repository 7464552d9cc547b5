//! The tensor type: a strided view of reference-counted storage on a device.

mod create;
pub(crate) mod gather;
mod index;
mod join;
mod mask;
#[cfg(feature = "ndarray")]
mod ndarray;
mod random;
mod sort;
#[cfg(test)]
mod tests;
pub(crate) mod views;

pub use create::TensorMetadata;
pub use index::{Index, Slice};
pub use random::Generator;

/// What the operations of a tensor take.
pub mod ops {
    pub use crate::Scalar;
    pub use crate::ops::{Axes, Operand, promote_types, result_type};
}

use crate::Element;
use crate::autograd::{Node, differentiable, not_into};
use crate::backend::{Download, TensorMut, TensorRef};
use crate::{BitNetDType, CpuStorage, Device, Layout, MappedFile, Result, TensorOpError, TensorShape, TensorStorage};
use std::ops::Range;
use std::sync::Arc;

/// A tensor. Cloning shares its storage; writing to shared storage copies it first.
///
/// ```
/// use bitnet_core::{BitNetTensor, Device};
/// let x = BitNetTensor::from_slice(&[1f32, 2., 3., 4., 5., 6.], &[2, 3], &Device::cpu())?;
/// assert_eq!(x.transpose(0, 1)?.to_vec::<f32>()?, [1., 4., 2., 5., 3., 6.]);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BitNetTensor {
    storage: Arc<TensorStorage>,
    layout: Layout,
    dtype: BitNetDType,
    device: Device,
    /// Its node on the tape of [`autograd`](crate::autograd).
    pub(crate) node: Option<Arc<Node>>,
}

impl BitNetTensor {
    /// An uninitialised tensor: it holds whatever the memory held, which for `Bool` may be neither 0 nor 1.
    pub fn empty(dims: &[usize], dtype: BitNetDType, device: &Device) -> Result<Self> {
        Self::made(TensorShape::new(dims)?, dtype, device, |_| Ok(()))
    }

    /// A new tensor that `write` fills.
    #[inline]
    pub(crate) fn made(
        shape: TensorShape,
        dtype: BitNetDType,
        device: &Device,
        write: impl FnOnce(TensorMut) -> Result<()>,
    ) -> Result<Self> {
        let storage = device.allocate(storage_bytes(&shape, dtype)?)?;
        // Made where the caller wants it: a tensor is long to copy.
        let mut out = Ok(Self::from_storage(storage, shape, dtype, device));
        if let Ok(tensor) = &mut out
            && let Err(error) = write(tensor.fresh_mut())
        {
            out = Err(error);
        }
        out
    }

    /// A copy of `data` in row-major order.
    pub fn from_slice<T: Element>(data: &[T], dims: &[usize], device: &Device) -> Result<Self> {
        Self::from_bytes(bytemuck::cast_slice(data), dims, T::DTYPE, device)
    }

    /// A copy of the bytes of a row-major tensor; the only constructor for packed types. Errors: bytes of `Bool` that are
    /// neither 0 nor 1.
    pub fn from_bytes(bytes: &[u8], dims: &[usize], dtype: BitNetDType, device: &Device) -> Result<Self> {
        let shape = Self::checked(bytes.len(), dims, dtype)?;
        refuse_bad_elements("from_bytes", bytes, dtype)?;
        Ok(Self::from_storage(device.upload(bytes)?, shape, dtype, device))
    }

    /// Bytes `range` of a mapped file as a CPU tensor, without a copy if they are aligned. Errors: as
    /// [`from_bytes`](Self::from_bytes).
    pub fn from_mapped(
        file: &Arc<MappedFile>,
        range: Range<usize>,
        dims: &[usize],
        dtype: BitNetDType,
        device: &Device,
    ) -> Result<Self> {
        let shape = Self::checked(range.len(), dims, dtype)?;
        let aligned = file
            .get(range.clone())
            .is_some_and(|bytes| dtype.is_packed() || bytes.as_ptr().align_offset(dtype.block().1) == 0);
        if let Some(bytes) = file.get(range.clone()) {
            refuse_bad_elements("from_mapped", bytes, dtype)?;
        }
        match CpuStorage::mapped(file.clone(), range.clone()) {
            Some(storage) if aligned && device.is_host() => {
                Ok(Self::from_storage(TensorStorage::Cpu(storage), shape, dtype, device))
            }
            Some(storage) => Ok(Self::from_storage(device.upload(storage.bytes())?, shape, dtype, device)),
            None => Err(TensorOpError::OutOfRange { op: "from_mapped", index: range.end, axis: 0, shape }.into()),
        }
    }

    fn checked(len: usize, dims: &[usize], dtype: BitNetDType) -> Result<TensorShape> {
        let shape = TensorShape::new(dims)?;
        let needed = storage_bytes(&shape, dtype)?;
        if len != needed {
            let needed = format!("{needed} bytes of {dtype} for this shape, got {len}");
            return Err(TensorOpError::Shape { op: "from_bytes", what: "data", got: shape, needed }.into());
        }
        Ok(shape)
    }

    #[inline]
    fn from_storage(storage: TensorStorage, shape: TensorShape, dtype: BitNetDType, device: &Device) -> Self {
        Self {
            storage: Arc::new(storage),
            layout: Layout::contiguous(shape),
            dtype,
            device: device.clone(),
            node: None,
        }
    }

    /// Extents.
    pub fn dims(&self) -> &[usize] {
        self.layout.dims()
    }

    /// Shape.
    pub fn shape(&self) -> &TensorShape {
        self.layout.shape()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.layout.shape().rank()
    }

    /// Number of elements; PyTorch's `numel`.
    pub fn elements(&self) -> usize {
        self.layout.shape().elements()
    }

    /// Element type.
    pub fn dtype(&self) -> BitNetDType {
        self.dtype
    }

    /// Device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Layout of its elements in its storage.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// An error unless both tensors are on one device.
    #[inline]
    pub(crate) fn same_device(&self, op: &'static str, other: &Self) -> Result<()> {
        if self.device == other.device {
            return Ok(());
        }
        let (left, right) = (self.device.name(), other.device.name());
        Err(TensorOpError::Device { op, left, right }.into())
    }

    /// Bytes of its storage, shared or not.
    pub fn storage_bytes(&self) -> usize {
        self.storage.len_bytes()
    }

    /// As an operand of [`Backend`](crate::backend::Backend) operations, which no tape records. What is computed from it
    /// has no history, as after [`detach`](Self::detach); operations with a gradient use it inside
    /// [`differentiable`].
    #[inline]
    pub fn as_ref(&self) -> TensorRef<'_> {
        TensorRef { storage: &self.storage, layout: self.layout, dtype: self.dtype }
    }

    /// As a result of [`Backend`](crate::backend::Backend) operations; storage that is shared, or that
    /// holds several elements in one place (after a broadcast), is copied first.
    ///
    /// # Errors
    /// If it requires a gradient, outside of [`no_grad`](crate::autograd::no_grad): the tape does not record writes.
    pub fn as_mut(&mut self) -> Result<TensorMut<'_>> {
        not_into("as_mut", &[self])?;
        if !self.is_writable() {
            let copy = self.copied()?;
            self.set_values(copy);
        }
        let storage = Arc::get_mut(&mut self.storage).expect("not shared after the copy");
        Ok(TensorMut { storage, layout: self.layout, dtype: self.dtype })
    }

    /// A tensor that was just made, as a result: its storage is not shared.
    #[inline]
    fn fresh_mut(&mut self) -> TensorMut<'_> {
        let storage = Arc::get_mut(&mut self.storage).expect("just made");
        TensorMut { storage, layout: self.layout, dtype: self.dtype }
    }

    /// Whether [`BitNetTensor::as_mut`] copies nothing.
    pub(crate) fn is_writable(&mut self) -> bool {
        // Overlapping elements cannot be written independently.
        Arc::get_mut(&mut self.storage).is_some() && !self.layout.overlaps()
    }

    /// A contiguous copy with its own storage.
    pub fn copy(&self) -> Result<Self> {
        differentiable("copy", &[self], || self.copied(), |_| |grad: &Self| Ok(vec![Some(grad.clone())]))
    }

    fn copied(&self) -> Result<Self> {
        let mut out = Self::empty(self.dims(), self.dtype, &self.device)?;
        self.device
            .copy(TensorRef { storage: &self.storage, layout: self.layout, dtype: self.dtype }, out.as_mut()?)?;
        Ok(out)
    }

    pub(crate) fn unpacked(&self, op: &'static str) -> Result<()> {
        if self.dtype.is_packed() {
            return Err(crate::backend::unsupported(&*self.device, op, self.dtype));
        }
        Ok(())
    }

    /// The elements in row-major order; an error if `T` is not the tensor's type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype != T::DTYPE {
            return Err(TensorOpError::DType { op: "to_vec", what: "tensor", got: self.dtype, needed: T::DTYPE }.into());
        }
        let mut out = try_zeroed::<T>("to_vec", self.elements())?;
        self.read_bytes(bytemuck::cast_slice_mut(&mut out))?;
        Ok(out)
    }

    /// The bytes of the elements in row-major order.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = try_zeroed::<u8>("to_bytes", storage_bytes(self.shape(), self.dtype)?)?;
        self.read_bytes(&mut bytes)?;
        Ok(bytes)
    }

    /// Starts to bring [`to_bytes`](Self::to_bytes) to the host, so that what is run meanwhile need not wait for it.
    pub fn start_download(&self) -> Result<Download> {
        if !self.layout.is_contiguous() {
            return self.copied()?.start_download();
        }
        let (block, size) = self.dtype.block();
        let len = storage_bytes(self.shape(), self.dtype)?;
        self.device.start_download(&self.storage, self.layout.offset() / block * size, len)
    }

    fn read_bytes(&self, bytes: &mut [u8]) -> Result<()> {
        if !self.layout.is_contiguous() {
            return self.copied()?.read_bytes(bytes);
        }
        let (block, size) = self.dtype.block();
        self.device.download(&self.storage, self.layout.offset() / block * size, bytes)
    }

    /// A copy on another device; the tensor itself if it is there already.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if *device == self.device {
            return Ok(self.clone());
        }
        let forward = || Self::from_bytes(&self.to_bytes()?, self.dims(), self.dtype, device);
        differentiable("to_device", &[self], forward, |_| {
            let home = self.device.clone();
            move |grad: &Self| Ok(vec![Some(grad.to_device(&home)?)])
        })
    }

    /// A copy in host memory.
    pub fn to_cpu(&self) -> Result<Self> {
        self.to_device(&Device::cpu())
    }

    /// A copy on the first GPU; an error if none is compiled in and present.
    pub fn to_gpu(&self) -> Result<Self> {
        self.to_device(&Device::gpu()?)
    }

    /// A copy on the device that [`auto_select_device`](crate::auto_select_device) selects.
    pub fn auto_device(&self) -> Result<Self> {
        self.to_device(&crate::auto_select_device())
    }
}

/// An error for bytes that are no elements of the dtype: arithmetic takes those of a `Bool` tensor for 0 or 1.
fn refuse_bad_elements(op: &'static str, bytes: &[u8], dtype: BitNetDType) -> Result<()> {
    match crate::serialize::bad_element(bytes, dtype) {
        Some(message) => Err(TensorOpError::Argument { op, message }.into()),
        None => Ok(()),
    }
}

/// Bytes of a contiguous tensor.
fn storage_bytes(shape: &TensorShape, dtype: BitNetDType) -> Result<usize> {
    let rows = shape.elements() / shape.last().max(1);
    rows.checked_mul(dtype.row_bytes(shape.last())).ok_or_else(|| TensorOpError::TooLarge(*shape).into())
}

/// A vector with space for `count` values: an error where host memory has none, where a `Vec` of its own would end the program.
pub(crate) fn try_with_capacity<T>(op: &'static str, count: usize) -> Result<Vec<T>> {
    let mut out = Vec::new();
    out.try_reserve_exact(count).map_err(|_| too_many::<T>(op, count))?;
    Ok(out)
}

/// `count` zeros in host memory, see [`try_with_capacity`].
fn try_zeroed<T: Element>(op: &'static str, count: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(count).map_err(|()| too_many::<T>(op, count))
}

fn too_many<T>(op: &'static str, count: usize) -> crate::BitNetError {
    let message = format!("host memory holds no {count} values of {} bytes: ask for fewer", size_of::<T>());
    TensorOpError::Argument { op, message }.into()
}
