//! Backends that change one thing of another and leave the rest to it.

use crate::backend::*;
use crate::{CpuStorage, HybridMemoryPool, Result, TensorStorage};
use std::sync::Arc;

/// The questions to a [`Backend`] that a wrapper `struct(Arc<dyn Backend>, ..)` leaves to the backend in it. It has that
/// one's identity: both are one device.
macro_rules! delegate_questions {
    () => {
        fn name(&self) -> String {
            self.0.name()
        }
        fn kernel(&self) -> String {
            self.0.kernel()
        }
        fn is_host(&self) -> bool {
            self.0.is_host()
        }
        fn capabilities(&self) -> $crate::DeviceCapabilities {
            self.0.capabilities()
        }
        fn raw_memory(&self) -> Option<std::sync::Arc<dyn $crate::RawMemory>> {
            self.0.raw_memory()
        }
        fn has(&self, dtype: $crate::BitNetDType) -> bool {
            self.0.has(dtype)
        }
        fn as_dyn(&self) -> &dyn Backend {
            self.0.as_dyn()
        }
        fn record(&self, step: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>> {
            self.0.record(step)
        }
        fn padded_columns(&self, columns: usize) -> usize {
            self.0.padded_columns(columns)
        }
        fn ternary_row_group(&self) -> usize {
            self.0.ternary_row_group()
        }
    };
}
pub(crate) use delegate_questions;

/// As [`delegate_questions`], what moves bytes.
macro_rules! delegate_transfers {
    () => {
        fn write(&self, target: &mut TensorStorage, offset: usize, bytes: &[u8]) -> Result<()> {
            self.0.write(target, offset, bytes)
        }
        fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()> {
            self.0.download(source, offset, bytes)
        }
        fn start_download(&self, source: &TensorStorage, offset: usize, len: usize) -> Result<Download> {
            self.0.start_download(source, offset, len)
        }
        fn synchronize(&self) -> Result<()> {
            self.0.synchronize()
        }
        fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
            self.0.pack_ternary(parts)
        }
    };
}
#[cfg(feature = "validation")]
pub(crate) use delegate_transfers;

/// A host device that allocates from another pool: what the tensors of a pool hold, so that results are of that pool too.
#[derive(Debug)]
pub(crate) struct Pooled(pub(crate) Arc<dyn Backend>, pub(crate) HybridMemoryPool);

impl Backend for Pooled {
    delegate_questions!();
    delegate_transfers!();

    fn run(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        self.0.run(op, inputs, outputs)
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        CpuStorage::allocate(&self.1, bytes).map(TensorStorage::Cpu)
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        let mut storage = CpuStorage::allocate(&self.1, bytes.len())?;
        storage.bytes_mut()?.copy_from_slice(bytes);
        Ok(TensorStorage::Cpu(storage))
    }
}
