//! Storage of tensors: host memory, or opaque storage of a device.

use crate::dtype::Element;
use crate::{BitNetDType, HybridMemoryPool, MappedFile, MemoryHandle, Result, TensorOpError};
use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// The bytes of one or more tensors, on one device.
#[derive(Debug)]
pub enum TensorStorage {
    /// Host memory.
    Cpu(CpuStorage),
    /// Memory that only its device can read.
    Device(Box<dyn DeviceStorage>),
}

/// Opaque storage of a device; its backend downcasts it.
pub trait DeviceStorage: Debug + Send + Sync {
    /// Bytes held.
    fn len_bytes(&self) -> usize;
    /// For downcasting by the device's backend.
    fn as_any(&self) -> &dyn Any;
    /// For downcasting by the device's backend.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// Host memory: a block of a pool, or a part of a mapped file that is copied when written.
#[derive(Debug)]
pub struct CpuStorage {
    memory: CpuMemory,
}

#[derive(Debug)]
enum CpuMemory {
    Pooled(MemoryHandle),
    Mapped { file: Arc<MappedFile>, range: Range<usize> },
}

impl CpuStorage {
    /// `len` bytes from `pool`: zeroed or uninitialised.
    #[track_caller]
    pub fn allocate(pool: &HybridMemoryPool, len: usize) -> Result<Self> {
        Ok(Self { memory: CpuMemory::Pooled(pool.allocate_bytes(len)?) })
    }

    /// `len` zero bytes from `pool`; memory fresh from the system is already zero and is not written, so that its pages
    /// are not committed before use.
    #[track_caller]
    pub fn zeroed(pool: &HybridMemoryPool, len: usize) -> Result<Self> {
        let mut handle = pool.allocate_bytes(len)?;
        if !handle.is_fresh() {
            handle.bytes_mut().fill(0);
        }
        Ok(Self { memory: CpuMemory::Pooled(handle) })
    }

    /// Bytes `range` of a mapped file or of [shared memory](crate::SharedMemory); `None` if it is shorter.
    pub fn mapped(file: Arc<MappedFile>, range: Range<usize>) -> Option<Self> {
        file.get(range.clone())?;
        Some(Self { memory: CpuMemory::Mapped { file, range } })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            CpuMemory::Pooled(handle) => handle.bytes(),
            CpuMemory::Mapped { file, range } => &file[range.clone()],
        }
    }

    /// The bytes, to write; a mapped part is first copied into the global pool. Those of a `Bool` tensor must be 0 or 1.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        if let CpuMemory::Mapped { file, range } = &self.memory {
            let mut handle = HybridMemoryPool::global().allocate_bytes(range.len())?;
            handle.bytes_mut().copy_from_slice(&file[range.clone()]);
            self.memory = CpuMemory::Pooled(handle);
        }
        match &mut self.memory {
            CpuMemory::Pooled(handle) => Ok(handle.bytes_mut()),
            CpuMemory::Mapped { .. } => unreachable!("copied above"),
        }
    }

    /// Asks for huge or small pages, see [`MemoryHandle::advise_huge_pages`].
    pub fn advise_huge_pages(&self, wanted: bool) {
        if let CpuMemory::Pooled(handle) = &self.memory {
            handle.advise_huge_pages(wanted);
        }
    }

    /// The bytes as elements; an error where a mapped file does not align them.
    pub fn elements<T: Element>(&self) -> Result<&[T]> {
        let bytes = self.bytes();
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        bytemuck::try_cast_slice(&bytes[..whole]).map_err(|_| unaligned::<T>())
    }

    /// The bytes as elements, to write.
    pub fn elements_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        let bytes = self.bytes_mut()?;
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        bytemuck::try_cast_slice_mut(&mut bytes[..whole]).map_err(|_| unaligned::<T>())
    }
}

fn unaligned<T: Element>() -> crate::BitNetError {
    TensorOpError::Unaligned { dtype: T::DTYPE }.into()
}

impl TensorStorage {
    /// Bytes held.
    pub fn len_bytes(&self) -> usize {
        match self {
            Self::Cpu(cpu) => cpu.bytes().len(),
            Self::Device(device) => device.len_bytes(),
        }
    }

    /// Host memory, or an error naming the operation that needs it.
    pub fn cpu(&self, op: &'static str, dtype: BitNetDType) -> Result<&CpuStorage> {
        match self {
            Self::Cpu(cpu) => Ok(cpu),
            Self::Device(_) => Err(not_on_cpu(op, dtype)),
        }
    }

    /// Host memory to write, or an error naming the operation that needs it.
    pub fn cpu_mut(&mut self, op: &'static str, dtype: BitNetDType) -> Result<&mut CpuStorage> {
        match self {
            Self::Cpu(cpu) => Ok(cpu),
            Self::Device(_) => Err(not_on_cpu(op, dtype)),
        }
    }
}

fn not_on_cpu(op: &'static str, dtype: BitNetDType) -> crate::BitNetError {
    crate::BitNetError::Unsupported { op, dtype, device: "cpu (the tensor lives on another device)".into() }
}
