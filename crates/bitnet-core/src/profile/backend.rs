//! A backend that delegates to another and records each call.

use super::{COPY_FOR, Counts, Key, OperationKind, note};
use crate::backend::*;
use crate::delegate::delegate_questions;
use crate::{Result, TensorStorage};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

/// Calls that move fewer bytes count as small: the overhead of the call dominates.
const SMALL: u64 = 16 << 10;

/// The backend of a [`Device`](crate::Device), and its recording wrapper.
#[derive(Debug)]
pub(crate) struct Profiled(pub(crate) Arc<dyn Backend>);

impl Profiled {
    fn timed<R>(
        &self,
        operation: impl ToString,
        kind: OperationKind,
        dtypes: String,
        moved: Traffic,
        f: impl FnOnce(&dyn Backend) -> R,
    ) -> R {
        let start = Instant::now();
        let result = f(&*self.0);
        let time = start.elapsed();
        let small = u64::from(moved.read + moved.written < SMALL && kind == OperationKind::Compute);
        let counts =
            Counts { calls: 1, small, time, read: moved.read, written: moved.written, operations: moved.operations };
        note(Key { operation: operation.to_string(), dtypes, kernel: self.0.kernel(), kind }, counts);
        result
    }

    /// A call that moves bytes between host and device, or waits.
    fn memory<R>(&self, operation: &str, bytes: usize, f: impl FnOnce(&dyn Backend) -> R) -> R {
        let moved = Traffic { read: bytes as u64, written: bytes as u64, operations: 0 };
        self.timed(operation, OperationKind::Memory, String::new(), moved, f)
    }
}

impl Backend for Profiled {
    delegate_questions!();

    fn run(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        let (mut name, mut kind) = (op.to_string(), OperationKind::Compute);
        match (op, inputs) {
            (Op::Copy, _) => {
                if let Some(cause) = COPY_FOR.take() {
                    (name, kind) = (cause.into(), OperationKind::ShapeCopy);
                }
            }
            (Op::Linear, [_, w]) => name = format!("{name} {}", w.dtype),
            _ => {}
        }
        let moved = op.traffic(inputs, outputs);
        let from = inputs.first().map(|x| x.dtype);
        let dtypes = match (from.or(outputs.first().map(|out| out.dtype)), outputs.first().map(|out| out.dtype)) {
            (Some(from), Some(to)) if from != to => format!("{from} -> {to}"),
            (Some(dtype), _) | (_, Some(dtype)) => dtype.name().into(),
            _ => String::new(),
        };
        self.timed(name, kind, dtypes, moved, |device| device.run(op, inputs, outputs))
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        self.memory("allocate", 0, |device| device.allocate(bytes))
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        self.memory("upload", bytes.len(), |device| device.upload(bytes))
    }

    fn write(&self, target: &mut TensorStorage, offset: usize, bytes: &[u8]) -> Result<()> {
        self.memory("write", bytes.len(), |device| device.write(target, offset, bytes))
    }

    fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.memory("download", bytes.len(), |device| device.download(source, offset, bytes))
    }

    /// Counted when it starts, with the time that this takes.
    fn start_download(&self, source: &TensorStorage, offset: usize, len: usize) -> Result<Download> {
        self.memory("download", len, |device| device.start_download(source, offset, len))
    }

    fn synchronize(&self) -> Result<()> {
        self.memory("synchronize", 0, |device| device.synchronize())
    }

    fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
        let codes = parts.iter().map(|part| part.codes.len() as u64).sum();
        let moved = Traffic { read: codes, written: codes, operations: 0 };
        self.timed("pack_ternary", OperationKind::Compute, String::new(), moved, |device| device.pack_ternary(parts))
    }
}
