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
mod matmul;
mod norm;
mod operand;
mod random;
mod reduce;
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
            return Err(fused::length("download", "source", source.len(), offset.saturating_add(bytes.len())));
        };
        bytes.copy_from_slice(part);
        Ok(())
    }

    fn copy(&self, source: TensorRef, mut out: TensorMut) -> Result<()> {
        if dense::transpose(self, &source, out.reborrow())? {
            return Ok(());
        }
        copy::copy(&self.threads, source, out)
    }

    fn unary(&self, op: UnaryOp, x: TensorRef, mut out: TensorMut) -> Result<()> {
        if dense::unary(self, op, &x, out.reborrow())? {
            return Ok(());
        }
        elementwise::unary(self, op, x, out)
    }

    fn binary(&self, op: BinaryOp, a: TensorRef, b: TensorRef, mut out: TensorMut) -> Result<()> {
        if dense::binary(self, op, &a, &b, out.reborrow())? {
            return Ok(());
        }
        elementwise::binary(&self.threads, op, a, b, out)
    }

    fn compare(&self, op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        compare::compare(&self.threads, op, a, b, out)
    }

    fn select(&self, condition: TensorRef, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        compare::select(&self.threads, condition, a, b, out)
    }

    fn cast(&self, x: TensorRef, mut out: TensorMut) -> Result<()> {
        if dense::cast(self, &x, out.reborrow())? {
            return Ok(());
        }
        cast::cast(&self.threads, x, out)
    }

    fn reduce(&self, op: ReduceOp, x: TensorRef, axis: usize, mut out: TensorMut) -> Result<()> {
        if op == ReduceOp::Norm {
            return norm::norm(self, x, axis, out);
        }
        if dense::reduce(self, op, &x, axis, out.reborrow())? {
            return Ok(());
        }
        reduce::reduce(&self.threads, op, x, axis, out)
    }

    fn matmul(&self, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
        matmul::matmul(self, a, b, out)
    }

    fn gather(&self, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()> {
        gather::gather(&self.threads, source, axis, indices, out)
    }

    fn scan(&self, op: ScanOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
        reduce::scan(op, x, axis, out)
    }

    fn scatter(&self, op: ScatterOp, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()> {
        scatter::scatter(op, source, axis, indices, out)
    }

    fn sort(&self, x: TensorRef, axis: usize, descending: bool, values: TensorMut, indices: TensorMut) -> Result<()> {
        sort::sort(&self.threads, x, axis, descending, values, indices)
    }

    fn random(&self, distribution: Distribution, seed: u64, offset: u64, out: TensorMut) -> Result<()> {
        random::random(&self.threads, distribution, seed, offset, out)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn unary_assign(&self, op: UnaryOp, mut x: TensorMut) -> Result<()> {
        if dense::unary_assign(self, op, x.reborrow())? {
            return Ok(());
        }
        elementwise::unary_assign(self, op, x)
    }

    fn binary_assign(&self, op: BinaryOp, y: TensorMut, x: TensorRef) -> Result<()> {
        fused::binary_assign(self, op, y, x)
    }

    fn rms_norm(&self, x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) -> Result<()> {
        fused::rms_norm(self, x, weight, eps, out)
    }

    fn softmax(&self, x: TensorRef, mut out: TensorMut) -> Result<()> {
        if dense::softmax(self, &x, false, out.reborrow())? {
            return Ok(());
        }
        bitnet_device::backend::fused::softmax(self, x, out)
    }

    fn log_softmax(&self, x: TensorRef, mut out: TensorMut) -> Result<()> {
        if dense::softmax(self, &x, true, out.reborrow())? {
            return Ok(());
        }
        bitnet_device::backend::fused::log_softmax(self, x, out)
    }

    fn layer_norm(
        &self,
        x: TensorRef,
        weight: Option<TensorRef>,
        bias: Option<TensorRef>,
        eps: f64,
        mut out: TensorMut,
    ) -> Result<()> {
        if dense::layer_norm(self, &x, weight, bias, eps, out.reborrow())? {
            return Ok(());
        }
        bitnet_device::backend::fused::layer_norm(self, x, weight, bias, eps, out)
    }

    fn variance(
        &self,
        x: TensorRef,
        axis: usize,
        correction: f64,
        mut mean: TensorMut,
        mut out: TensorMut,
    ) -> Result<()> {
        if dense::variance(self, &x, axis, correction, mean.reborrow(), out.reborrow())? {
            return Ok(());
        }
        bitnet_device::backend::fused::variance(self, x, axis, correction, mean, out)
    }

    fn standard_deviation(&self, x: TensorRef, axis: usize, correction: f64, mut out: TensorMut) -> Result<()> {
        if dense::standard_deviation(self, &x, axis, correction, out.reborrow())? {
            return Ok(());
        }
        norm::standard_deviation(self, x, axis, correction, out)
    }

    fn rope(&self, x: TensorMut, cos: TensorRef, sin: TensorRef, start: usize) -> Result<()> {
        fused::rope(self, x, cos, sin, start)
    }

    fn attention(&self, q: TensorRef, keys: TensorRef, values: TensorRef, start: usize, out: TensorMut) -> Result<()> {
        fused::attention(self, q, keys, values, start, out)
    }

    fn gated(&self, act: GateActivation, gate: TensorMut, up: TensorRef) -> Result<()> {
        fused::gated(self, act, gate, up)
    }

    fn embedding(&self, ids: &[u32], table: TensorRef, out: TensorMut) -> Result<()> {
        fused::embedding(ids, table, out)
    }

    fn linear(&self, x: TensorRef, w: TensorRef, out: TensorMut) -> Result<()> {
        fused::linear(self, x, w, out)
    }

    fn padded_columns(&self, columns: usize) -> usize {
        bitnet_kernels::activation::padded(columns)
    }

    fn quantize_activations(&self, x: TensorRef, values: TensorMut, scales: TensorMut, sums: TensorMut) -> Result<()> {
        fused::quantize_activations(self, x, values, scales, sums)
    }

    fn ternary_row_group(&self) -> usize {
        bitnet_kernels::ternary::PANEL
    }

    fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
        fused::pack_ternary(self, parts)
    }

    fn rms_norm_backward(
        &self,
        grad: TensorRef,
        x: TensorRef,
        weight: TensorRef,
        eps: f32,
        dx: TensorMut,
        dweight: TensorMut,
    ) -> Result<()> {
        gradient::rms_norm_backward(self, grad, x, weight, eps, dx, dweight)
    }

    fn gated_halves(&self, act: GateActivation, both: TensorRef, out: TensorMut) -> Result<()> {
        gradient::gated_halves(self, act, both, out)
    }

    fn gated_halves_backward(
        &self,
        act: GateActivation,
        grad: TensorRef,
        both: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        gradient::gated_halves_backward(self, act, grad, both, out)
    }

    fn causal_attention(
        &self,
        shape: CausalShape,
        qkv: TensorRef,
        cos: TensorRef,
        sin: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        gradient::causal_attention(self, shape, qkv, cos, sin, out)
    }

    fn causal_attention_backward(
        &self,
        shape: CausalShape,
        grad: TensorRef,
        qkv: TensorRef,
        cos: TensorRef,
        sin: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        gradient::causal_attention_backward(self, shape, grad, qkv, cos, sin, out)
    }

    fn scale(&self, x: TensorRef, rows: Option<TensorRef>, columns: Option<TensorRef>, out: TensorMut) -> Result<()> {
        gradient::scale(self, x, rows, columns, out)
    }

    fn adam_step(
        &self,
        step: AdamStep,
        x: TensorMut,
        grad: TensorRef,
        first: TensorMut,
        second: TensorMut,
    ) -> Result<()> {
        gradient::adam_step(self, step, x, grad, first, second)
    }

    fn ternary_matmul(&self, x: QuantizedActivations, w: &PackedTernary, out: TensorMut) -> Result<()> {
        fused::ternary_matmul(self, x, w, out)
    }
}
