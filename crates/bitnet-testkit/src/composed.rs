//! A device without fused operations of its own: another one whose primitives they are composed of.

use bitnet_core::backend::{Download, Op, TensorMut, TensorRef};
use bitnet_core::{Backend, BitNetDType, Device, Result, TensorStorage};
use std::sync::Arc;

/// The device of `primitives`, which shares its memory, with every fused operation composed.
pub fn composed_device(primitives: Device) -> Device {
    Device::from_backend(Arc::new(Composed(primitives)))
}

#[derive(Debug)]
struct Composed(Device);

impl Backend for Composed {
    fn run(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        if op.is_primitive() { self.0.run(op, inputs, outputs) } else { op.compose(self, inputs, outputs) }
    }

    fn name(&self) -> String {
        format!("{}, composed", self.0.name())
    }

    fn is_host(&self) -> bool {
        self.0.is_host()
    }

    fn has(&self, dtype: BitNetDType) -> bool {
        self.0.has(dtype)
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        self.0.allocate(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        self.0.upload(bytes)
    }

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

    fn as_dyn(&self) -> &dyn Backend {
        self
    }
}
