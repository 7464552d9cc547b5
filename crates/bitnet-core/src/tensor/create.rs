//! Creating tensors, and reading their values.

use super::views::argument;
use crate::{
    BitNetDType, BitNetTensor, CpuStorage, Device, HybridMemoryPool, Result, Scalar, TensorOpError, TensorShape,
    TensorStorage,
};
use BitNetDType::Bool;
use bitnet_device::by_dtype;
use std::ops::Range;

/// Shape, dtype and device of a tensor.
///
/// ```
/// use bitnet_core::{BitNetDType, BitNetTensor, Device, HybridMemoryPool, TensorMetadata};
/// let pool = HybridMemoryPool::new()?;
/// let metadata = TensorMetadata::new(vec![2, 3], BitNetDType::F32, Device::cpu());
/// assert_eq!(BitNetTensor::new(metadata, &pool)?.to_vec::<f32>()?, [0.; 6]);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq)]
pub struct TensorMetadata {
    pub shape: Vec<usize>,
    pub dtype: BitNetDType,
    pub device: Device,
}

impl TensorMetadata {
    /// Metadata of a tensor; the shape is checked when the tensor is made.
    pub fn new(shape: Vec<usize>, dtype: BitNetDType, device: Device) -> Self {
        Self { shape, dtype, device }
    }
}

impl BitNetTensor {
    /// A tensor of zeros in memory of `pool`. The results of operations on it are in that pool too; of several operands, the
    /// first decides. Errors: a shape that does not fit in memory, a limit of the pool, or a device that does not use host
    /// memory.
    pub fn new(metadata: TensorMetadata, pool: &HybridMemoryPool) -> Result<Self> {
        let TensorMetadata { shape, dtype, device } = metadata;
        if !device.is_host() {
            let message =
                format!("a pool of host memory holds no tensors of {}: use BitNetTensor::zeros", device.name());
            return Err(argument("new", message));
        }
        let shape = TensorShape::new(&shape)?;
        let storage = CpuStorage::zeroed(pool, super::storage_bytes(&shape, dtype)?)?;
        Ok(Self::from_storage(TensorStorage::Cpu(storage), shape, dtype, &device.with_pool(pool)))
    }

    /// Shape, dtype and device of this tensor.
    pub fn metadata(&self) -> TensorMetadata {
        TensorMetadata::new(self.dims().to_vec(), self.dtype, self.device.clone())
    }

    /// A tensor of zeros; zero bytes for a packed type.
    pub fn zeros(dims: &[usize], dtype: BitNetDType, device: &Device) -> Result<Self> {
        if dtype.is_packed() {
            let shape = TensorShape::new(dims)?;
            let bytes = super::try_zeroed::<u8>("zeros", super::storage_bytes(&shape, dtype)?)?;
            return Ok(Self::from_storage(device.upload(&bytes)?, shape, dtype, device));
        }
        Self::full(dims, 0, dtype, device)
    }

    /// A tensor of ones.
    pub fn ones(dims: &[usize], dtype: BitNetDType, device: &Device) -> Result<Self> {
        Self::full(dims, 1, dtype, device)
    }

    /// A tensor of `value`, cast to `dtype`.
    pub fn full(dims: &[usize], value: impl Into<Scalar>, dtype: BitNetDType, device: &Device) -> Result<Self> {
        let mut out = Self::empty(dims, dtype, device)?;
        out.fill_(value)?;
        Ok(out)
    }

    /// Zeros in the shape, dtype and device of this tensor.
    pub fn zeros_like(&self) -> Result<Self> {
        Self::zeros(self.dims(), self.dtype, &self.device)
    }

    /// Ones in the shape, dtype and device of this tensor.
    pub fn ones_like(&self) -> Result<Self> {
        Self::ones(self.dims(), self.dtype, &self.device)
    }

    /// `value` in the shape, dtype and device of this tensor.
    pub fn full_like(&self, value: impl Into<Scalar>) -> Result<Self> {
        Self::full(self.dims(), value, self.dtype, &self.device)
    }

    /// An uninitialised tensor in the shape, dtype and device of this tensor.
    pub fn empty_like(&self) -> Result<Self> {
        Self::empty(self.dims(), self.dtype, &self.device)
    }

    /// Every element becomes `value`, cast to the dtype.
    pub fn fill_(&mut self, value: impl Into<Scalar>) -> Result<&mut Self> {
        let (dtype, device) = (self.dtype, self.device.clone());
        let element =
            value.into().to_bytes(dtype).ok_or_else(|| crate::backend::unsupported(&*device, "fill_", dtype))?;
        if self.is_rewritten("fill_", &[])? {
            // A constant from now on.
            *self = self.empty_like()?;
        } else if !self.is_writable() {
            self.set_values(self.empty_like()?);
        }
        let out = self.as_mut()?;
        if let (TensorStorage::Cpu(storage), true) = (&mut *out.storage, out.layout.is_contiguous()) {
            let (start, len) = (out.layout.offset(), out.layout.shape().elements());
            macro_rules! fill {
                ($t:ty) => {
                    storage.elements_mut::<$t>()?[start..start + len]
                        .fill(bytemuck::pod_read_unaligned(&element[..size_of::<$t>()]))
                };
            }
            match dtype.size() {
                1 => fill!(u8),
                2 => fill!(u16),
                4 => fill!(u32),
                _ => fill!(u64),
            }
            return Ok(self);
        }
        let one = Self::from_bytes(&element[..dtype.size()], &[], dtype, &device)?.expand(out.layout.dims())?;
        device.copy(one.as_ref(), out)?;
        Ok(self)
    }

    /// `start`, `start + step`, ... below `end` (`torch.arange`). Integer dtypes are computed in integers, `start` and `step`
    /// truncated, others in f64.
    pub fn arange(
        start: impl Into<Scalar>,
        end: impl Into<Scalar>,
        step: impl Into<Scalar>,
        dtype: BitNetDType,
        device: &Device,
    ) -> Result<Self> {
        const OP: &str = "arange";
        let (start, end, step) = (start.into(), end.into(), step.into());
        let wrong = || argument(OP, format!("no count leads from {start} to {end} in steps of {step}"));
        let cpu = Device::cpu();
        let floats = [start, end, step].iter().any(|x| matches!(x, Scalar::Float(_)));
        let count = if floats || !dtype.is_integer() {
            let count = ((end.to_f64() - start.to_f64()) / step.to_f64()).ceil();
            if !(0. ..=(isize::MAX / 64) as f64).contains(&count) || step.to_f64() == 0. {
                return Err(wrong());
            }
            count as usize
        } else {
            let step = exact(step);
            let span = (exact(end) - exact(start)) * step.signum();
            if step == 0 || span < 0 {
                return Err(wrong());
            }
            usize::try_from(span.unsigned_abs().div_ceil(step.unsigned_abs())).map_err(|_| wrong())?
        };
        let shape = TensorShape::new(&[count])?;
        let counted = if dtype.is_integer() {
            // What wraps here wraps back in the dtype.
            let (first, step) = (start.to_i64(), step.to_i64());
            let value = |i| first.wrapping_add(step.wrapping_mul(i as i64));
            Self::from_slice(&numbers(OP, count, value)?, shape.dims(), &cpu)?
        } else {
            let (first, step) = (start.to_f64(), step.to_f64());
            Self::from_slice(&numbers(OP, count, |i| first + step * i as f64)?, shape.dims(), &cpu)?
        };
        counted.to_dtype(dtype)?.to_device(device)
    }

    /// `steps` evenly spaced values from `start` to `end`, both included.
    pub fn linspace(start: f64, end: f64, steps: usize, dtype: BitNetDType, device: &Device) -> Result<Self> {
        const OP: &str = "linspace";
        let shape = TensorShape::new(&[steps])?;
        let step = if steps > 1 { (end - start) / (steps - 1) as f64 } else { 0. };
        // From both ends, as PyTorch: the last value is exactly `end`.
        let value =
            |i| if i < steps.div_ceil(2) { start + step * i as f64 } else { end - step * (steps - 1 - i) as f64 };
        Self::from_slice(&numbers(OP, steps, value)?, shape.dims(), &Device::cpu())?.to_dtype(dtype)?.to_device(device)
    }

    /// An identity matrix.
    pub fn eye(n: usize, dtype: BitNetDType, device: &Device) -> Result<Self> {
        let mut out = Self::zeros(&[n, n], dtype, device)?;
        let layout = out.layout.diagonal(0, 0, 1)?;
        let ones = Self::ones(&[n], dtype, device)?;
        device.copy(ones.as_ref(), crate::backend::TensorMut { layout, ..out.as_mut()? })?;
        Ok(out)
    }

    /// The lower triangle of matrices, zeros above diagonal `diagonal` (0: the main one, positive: above it).
    pub fn tril(&self, diagonal: isize) -> Result<Self> {
        self.triangle("tril", |row| 0..row + diagonal as i128 + 1)
    }

    /// The upper triangle of matrices, zeros below diagonal `diagonal`.
    pub fn triu(&self, diagonal: isize) -> Result<Self> {
        self.triangle("triu", |row| row + diagonal as i128..i128::MAX)
    }

    /// The elements whose column is `kept` in their row, zeros elsewhere.
    fn triangle(&self, op: &'static str, kept: impl Fn(i128) -> Range<i128>) -> Result<Self> {
        self.unpacked(op)?;
        let [.., rows, columns] = *self.dims() else {
            return Err(self.needs(op, "at least 2 dimensions"));
        };
        if self.elements() == 0 {
            return self.copy();
        }
        let mut mask = super::try_zeroed::<u8>(op, rows * columns)?;
        let edge = |at: i128| at.clamp(0, columns as i128) as usize;
        for (row, mask) in mask.chunks_exact_mut(columns).enumerate() {
            let kept = kept(row as i128);
            mask[edge(kept.start)..edge(kept.end)].fill(1);
        }
        let mask = Self::from_bytes(&mask, &[rows, columns], Bool, &self.device)?;
        Self::where_(&mask, self, &Self::zeros(&[], self.dtype, &self.device)?)
    }

    /// The elements of `data` in row-major order.
    pub fn from_vec<T: crate::Element>(data: Vec<T>, dims: &[usize], device: &Device) -> Result<Self> {
        Self::from_slice(&data, dims, device)
    }

    /// A `Bool` tensor of `data` in row-major order.
    pub fn from_bools(data: &[bool], dims: &[usize], device: &Device) -> Result<Self> {
        let bytes: Vec<u8> = data.iter().map(|&b| b.into()).collect();
        Self::from_bytes(&bytes, dims, Bool, device)
    }

    /// The elements of a `Bool` tensor in row-major order.
    pub fn to_bools(&self) -> Result<Vec<bool>> {
        if self.dtype != Bool {
            return Err(TensorOpError::DType { op: "to_bools", what: "tensor", got: self.dtype, needed: Bool }.into());
        }
        Ok(self.to_bytes()?.into_iter().map(|byte| byte != 0).collect())
    }

    /// Replaces the elements by `values`, in row-major order: in place, so that a recorded step reads them when it is replayed,
    /// unless the storage is shared.
    ///
    /// # Errors
    /// Another number or type of values, a layout with gaps, a tensor that requires a gradient.
    pub fn write_slice<T: crate::Element>(&mut self, values: &[T]) -> Result<()> {
        const OP: &str = "write_slice";
        if self.dtype != T::DTYPE {
            return Err(TensorOpError::DType { op: OP, what: "tensor", got: self.dtype, needed: T::DTYPE }.into());
        }
        if self.elements() != values.len() || !self.layout.is_contiguous() {
            return Err(self.needs(OP, &format!("{} elements without gaps", values.len())));
        }
        let (device, start) = (self.device.clone(), self.layout.offset() * size_of::<T>());
        device.write(self.as_mut()?.storage, start, bytemuck::cast_slice(values))
    }

    /// The single element, as the Rust type of the dtype.
    pub fn item<T: crate::Element>(&self) -> Result<T> {
        match self.to_vec::<T>()?[..] {
            [one] => Ok(one),
            _ => Err(self.needs("item", "one element: select it first")),
        }
    }

    /// The single element, of any dtype.
    pub fn to_scalar(&self) -> Result<Scalar> {
        self.unpacked("to_scalar")?;
        if self.elements() != 1 {
            return Err(self.needs("to_scalar", "one element: select it first"));
        }
        let bytes = self.to_bytes()?;
        Ok(by_dtype!(self.dtype, T => bytemuck::pod_read_unaligned::<T>(&bytes).into(), bool => (bytes[0] != 0).into()))
    }
}

/// `value(i)` of the numbers below `count`, which may be more than memory holds.
fn numbers<T>(op: &'static str, count: usize, value: impl Fn(usize) -> T) -> Result<Vec<T>> {
    let mut out = super::try_with_capacity(op, count)?;
    out.extend((0..count).map(value));
    Ok(out)
}

/// An integer or truth value without loss.
fn exact(x: Scalar) -> i128 {
    match x {
        Scalar::UInt(x) => x.into(),
        x => x.to_i64().into(),
    }
}
