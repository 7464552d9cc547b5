//! A second device: plain loops over storage that nobody else can read, integers exact and floats in f64.
//!
//! It has the primitives of [`Backend`](bitnet_core::Backend) and nothing else, so every fused operation on it is the
//! composed default. Code that runs here does not assume that data is in host memory.

mod elementwise;
mod number;
mod primitives;
mod random;
mod reduce;

use bitnet_core::backend::{TensorMut, TensorRef, unsupported};
use bitnet_core::{BitNetDType, BitNetError, Device, DeviceStorage, Layout, Result, TensorOpError, TensorStorage};
use bitnet_kernels::blocks::dequantize_row;
use number::{Number, get, put};
use std::any::Any;
use std::sync::Arc;

/// The reference device.
pub fn reference_device() -> Device {
    Device::from_backend(Arc::new(ReferenceBackend))
}

/// See the module.
#[derive(Debug)]
pub struct ReferenceBackend;

/// Bytes that only [`ReferenceBackend`] reads.
#[derive(Debug)]
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    /// Storage of the reference device.
    pub(crate) fn storage(bytes: Vec<u8>) -> TensorStorage {
        TensorStorage::Device(Box::new(Self(bytes)))
    }

    /// The bytes of storage that [`storage`](Self::storage) made.
    pub(crate) fn into_vec(mut storage: TensorStorage) -> Vec<u8> {
        match &mut storage {
            TensorStorage::Device(device) => {
                device.as_any_mut().downcast_mut::<Self>().map(|b| std::mem::take(&mut b.0))
            }
            TensorStorage::Cpu(_) => None,
        }
        .unwrap_or_default()
    }
}

impl DeviceStorage for Bytes {
    fn len_bytes(&self) -> usize {
        self.0.len()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl ReferenceBackend {
    fn bytes<'a>(&self, op: &'static str, storage: &'a TensorStorage) -> Result<&'a [u8]> {
        match storage {
            TensorStorage::Device(device) => device.as_any().downcast_ref::<Bytes>().map(|b| b.0.as_slice()),
            TensorStorage::Cpu(_) => None,
        }
        .ok_or_else(|| elsewhere(op))
    }

    fn bytes_mut<'a>(&self, op: &'static str, storage: &'a mut TensorStorage) -> Result<&'a mut [u8]> {
        match storage {
            TensorStorage::Device(device) => device.as_any_mut().downcast_mut::<Bytes>().map(|b| b.0.as_mut_slice()),
            TensorStorage::Cpu(_) => None,
        }
        .ok_or_else(|| elsewhere(op))
    }

    /// The elements of `t` in row-major order.
    fn read(&self, op: &'static str, t: &TensorRef) -> Result<Vec<Number>> {
        let bytes = self.bytes(op, t.storage)?;
        if t.dtype.is_packed() {
            return unpack(self, op, t, bytes);
        }
        let size = t.dtype.block().1;
        let element = |i: usize| get(t.dtype, &bytes[i * size..][..size]).ok_or_else(|| unsupported(self, op, t.dtype));
        t.layout.indices().map(element).collect()
    }

    /// Writes elements in row-major order.
    fn put(&self, op: &'static str, t: TensorMut, values: impl IntoIterator<Item = Number>) -> Result<()> {
        let (dtype, size) = (t.dtype, t.dtype.block().1);
        let indices = t.layout.indices();
        let bytes = self.bytes_mut(op, t.storage)?;
        for (i, value) in indices.zip(values) {
            if !put(dtype, &mut bytes[i * size..][..size], value) {
                return Err(unsupported(self, op, dtype));
            }
        }
        Ok(())
    }

    /// The elements of `x` as lines along `axis`, in row-major order of the other dimensions.
    fn lines(&self, op: &'static str, x: &TensorRef, axis: usize) -> Result<Vec<Vec<Number>>> {
        let last = x.layout.shape().rank() - 1;
        let length = x.layout.dims()[axis];
        if length == 0 {
            return Ok(vec![
                Vec::new();
                x.layout.dims().iter().enumerate().filter(|d| d.0 != axis).map(|d| d.1).product()
            ]);
        }
        let values = self.read(op, &TensorRef { layout: to_last(&x.layout, axis, last)?, ..*x })?;
        Ok(values.chunks(length).map(<[Number]>::to_vec).collect())
    }

    /// Writes lines along `axis`, see [`ReferenceBackend::lines`].
    fn write_lines(&self, op: &'static str, out: TensorMut, axis: usize, lines: &[Vec<Number>]) -> Result<()> {
        let layout = to_last(&out.layout, axis, out.layout.shape().rank() - 1)?;
        self.put(op, TensorMut { layout, ..out }, lines.iter().flatten().copied())
    }
}

/// Dimension `axis` moved to the end.
fn to_last(layout: &Layout, axis: usize, last: usize) -> Result<Layout> {
    (axis..last).try_fold(*layout, |layout, d| layout.transpose(d, d + 1))
}

fn elsewhere(op: &'static str) -> BitNetError {
    TensorOpError::Device { op, left: "reference".into(), right: "another device".into() }.into()
}

/// All rows of a packed type, which are whole and in order.
fn unpack(backend: &ReferenceBackend, op: &'static str, t: &TensorRef, bytes: &[u8]) -> Result<Vec<Number>> {
    let columns = t.layout.shape().last();
    if !t.layout.is_contiguous() || t.layout.offset() != 0 {
        return Err(TensorOpError::NotContiguous { op, what: "packed tensor" }.into());
    }
    let mut out = Vec::new();
    let mut row_values = vec![0f32; columns];
    let rows = t.layout.shape().elements() / columns.max(1);
    for row in bytes.chunks_exact(t.dtype.row_bytes(columns)).take(rows) {
        match t.dtype.weight_type() {
            Some(kind) => dequantize_row(kind, row, &mut row_values),
            None if t.dtype == BitNetDType::Ternary2 => {
                let code = |i: usize| (row[i / 4] >> (2 * (i % 4))) & 3;
                row_values.iter_mut().enumerate().for_each(|(i, v)| *v = code(i) as f32 - 1.);
            }
            None => return Err(unsupported(backend, op, t.dtype)),
        }
        out.extend(row_values.iter().map(|&v| Number::Float(v.into())));
    }
    Ok(out)
}
