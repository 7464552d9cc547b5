#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod capabilities;
mod cast;
mod compare;
mod copy;
mod dense;
mod elementwise;
mod float;
mod fused;
mod gather;
mod gradient;
mod integer;
mod kv_pages;
mod matmul;
mod norm;
mod operand;
mod random;
mod recurrent;
mod reduce;
mod run;
mod sample;
mod scatter;
mod sort;
mod wide;

use bitnet_device::backend::*;
use bitnet_device::{BitNetDType, CpuStorage, DeviceCapabilities, HybridMemoryPool, Result, TensorStorage};
pub use bitnet_kernels::threads::available_threads;
pub use bitnet_kernels::{Isa, IsaError};
use bitnet_kernels::{Kernels, ThreadPool, probe};
use std::sync::OnceLock;
use std::time::Duration;

/// The CPU with its threads and the kernels chosen for it.
pub struct CpuBackend {
    /// An error if `BITNET_ISA` asks for an unavailable instruction set; every operation that needs kernels returns it.
    kernels: Result<Kernels, IsaError>,
    threads: ThreadPool,
    memory: HybridMemoryPool,
    /// GB/s at which it reads memory, once measured.
    bandwidth: OnceLock<f64>,
}

impl CpuBackend {
    /// A CPU with the kernels of `isa` and this many threads (at least one). Where the system refuses threads it has fewer,
    /// with a note on standard error.
    pub fn new(isa: Result<Isa, IsaError>, threads: usize) -> Self {
        let kernels = isa.map(|isa| Kernels::for_isa(isa).expect("an available instruction set has kernels"));
        let pool = ThreadPool::new(threads.max(1));
        if let Some(error) = pool.refused() {
            eprintln!("note: the system refuses more threads ({error}): computing on {} of {threads}", pool.threads());
        }
        let memory = HybridMemoryPool::global().clone();
        Self { kernels, threads: pool, memory, bandwidth: OnceLock::new() }
    }

    /// The same device with memory from `pool`.
    pub fn with_memory(mut self, pool: &HybridMemoryPool) -> Self {
        self.memory = pool.clone();
        self
    }

    /// The kernels, or the error why there are none.
    pub fn kernels(&self) -> Result<&Kernels> {
        self.kernels.as_ref().map_err(|e| e.clone().into())
    }
}

impl std::fmt::Debug for CpuBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuBackend({:?}, {} threads)", self.kernels, self.threads.threads())
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> String {
        "cpu".into()
    }

    fn kernel(&self) -> String {
        self.kernels.as_ref().map_or("cpu".into(), |kernels| format!("cpu {}", kernels.isa.name()))
    }

    fn is_host(&self) -> bool {
        true
    }

    fn as_dyn(&self) -> &dyn Backend {
        self
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let probe = || probe::read_bandwidth_within(&self.threads, Duration::from_millis(50));
        let isa = self.kernels.as_ref().ok().map(|kernels| kernels.isa);
        capabilities::of_cpu(isa, self.threads.threads(), *self.bandwidth.get_or_init(probe))
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        CpuStorage::allocate(&self.memory, bytes).map(TensorStorage::Cpu)
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        let mut storage = CpuStorage::allocate(&self.memory, bytes.len())?;
        storage.bytes_mut()?.copy_from_slice(bytes);
        Ok(TensorStorage::Cpu(storage))
    }

    fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let source = source.cpu("download", BitNetDType::U8)?.bytes();
        let Some(part) = source.get(offset..).and_then(|rest| rest.get(..bytes.len())) else {
            return Err(operand::length("download", "source", source.len(), offset.saturating_add(bytes.len())));
        };
        bytes.copy_from_slice(part);
        Ok(())
    }

    fn write(&self, target: &mut TensorStorage, offset: usize, bytes: &[u8]) -> Result<()> {
        let target = target.cpu_mut("write", BitNetDType::U8)?.bytes_mut()?;
        let len = target.len();
        let Some(part) = target.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len())) else {
            return Err(operand::length("write", "target", len, offset.saturating_add(bytes.len())));
        };
        part.copy_from_slice(bytes);
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn run(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        run::run(self, op, inputs, outputs)
    }

    fn padded_columns(&self, columns: usize) -> usize {
        bitnet_kernels::activation::padded(columns)
    }

    fn ternary_row_group(&self) -> usize {
        bitnet_kernels::ternary::PANEL
    }

    fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
        fused::pack_ternary(self, parts)
    }
}
