//! A backend that delegates to another and records each call.

use super::{COPY_FOR, Counts, Key, OperationKind, note};
use crate::backend::*;
use crate::{BitNetDType, Layout, Result, TensorStorage};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

/// Calls that move fewer bytes count as small: the overhead of the call dominates.
const SMALL: u64 = 16 << 10;

/// The backend of a [`Device`](crate::Device), and its recording wrapper.
#[derive(Debug)]
pub(crate) struct Profiled(pub(crate) Arc<dyn Backend>);

/// One call: its name and the bytes it moves.
struct Call {
    operation: String,
    kind: OperationKind,
    from: Option<BitNetDType>,
    to: Option<BitNetDType>,
    read: u64,
    written: u64,
}

impl Call {
    fn new(operation: &str) -> Self {
        let kind = OperationKind::Compute;
        Self { operation: operation.into(), kind, from: None, to: None, read: 0, written: 0 }
    }

    /// One of several functions.
    fn of(operation: &str, variant: impl Debug) -> Self {
        Self::new(&format!("{operation} {}", format!("{variant:?}").to_lowercase()))
    }

    fn kind(mut self, kind: OperationKind) -> Self {
        self.kind = kind;
        self
    }

    fn reads(mut self, x: &TensorRef) -> Self {
        self.from.get_or_insert(x.dtype);
        self.read += distinct_bytes(&x.layout, x.dtype);
        self
    }

    fn writes(mut self, x: &TensorMut) -> Self {
        self.to.get_or_insert(x.dtype);
        self.written += distinct_bytes(&x.layout, x.dtype);
        self
    }

    fn updates(self, x: &TensorMut) -> Self {
        self.reads(&x.as_ref()).writes(x)
    }

    fn bytes(mut self, read: usize, written: usize) -> Self {
        self.read += read as u64;
        self.written += written as u64;
        self
    }
}

/// Bytes of the elements of a layout; broadcast elements count once.
pub(super) fn distinct_bytes(layout: &Layout, dtype: BitNetDType) -> u64 {
    if dtype.is_packed() {
        let rows = layout.shape().elements() / layout.shape().last().max(1);
        return (rows * dtype.row_bytes(layout.shape().last())) as u64;
    }
    let extents = layout.dims().iter().zip(layout.strides());
    let places: usize = extents.map(|(&extent, &stride)| if stride == 0 { extent.min(1) } else { extent }).product();
    (places * dtype.size()) as u64
}

impl Profiled {
    fn run<R>(&self, call: Call, f: impl FnOnce(&dyn Backend) -> R) -> R {
        let start = Instant::now();
        let result = f(&*self.0);
        let time = start.elapsed();
        let dtypes = match (call.from, call.to) {
            (Some(from), Some(to)) if from != to => format!("{from} -> {to}"),
            (Some(dtype), _) | (_, Some(dtype)) => dtype.name().into(),
            _ => String::new(),
        };
        let kernel = self.0.kernel();
        let small = u64::from(call.read + call.written < SMALL && call.kind == OperationKind::Compute);
        let counts = Counts { calls: 1, small, time, read: call.read, written: call.written };
        note(Key { operation: call.operation, dtypes, kernel, kind: call.kind }, counts);
        result
    }
}

impl Backend for Profiled {
    fn name(&self) -> String {
        self.0.name()
    }

    fn kernel(&self) -> String {
        self.0.kernel()
    }

    fn is_host(&self) -> bool {
        self.0.is_host()
    }

    fn capabilities(&self) -> crate::DeviceCapabilities {
        self.0.capabilities()
    }

    fn raw_memory(&self) -> Option<Arc<dyn crate::RawMemory>> {
        self.0.raw_memory()
    }

    fn as_dyn(&self) -> &dyn Backend {
        self.0.as_dyn()
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        self.run(Call::new("allocate").kind(OperationKind::Memory), |b| b.allocate(bytes))
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        let call = Call::new("upload").kind(OperationKind::Memory).bytes(bytes.len(), bytes.len());
        self.run(call, |b| b.upload(bytes))
    }

    fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let call = Call::new("download").kind(OperationKind::Memory).bytes(bytes.len(), bytes.len());
        self.run(call, |b| b.download(source, offset, bytes))
    }

    fn copy(&self, source: TensorRef, out: TensorMut) -> Result<()> {
        let call = match COPY_FOR.take() {
            Some(operation) => Call::new(operation).kind(OperationKind::ShapeCopy),
            None => Call::new("copy"),
        };
        self.run(call.reads(&source).writes(&out), |b| b.copy(source, out))
    }

    fn unary(&self, op: UnaryOp, x: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::of("unary", op).reads(&x).writes(&out), |b| b.unary(op, x, out))
    }

    fn binary(&self, op: BinaryOp, x: TensorRef, y: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::of("binary", op).reads(&x).reads(&y).writes(&out), |b| b.binary(op, x, y, out))
    }

    fn compare(&self, op: CompareOp, x: TensorRef, y: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::of("compare", op).reads(&x).reads(&y).writes(&out), |b| b.compare(op, x, y, out))
    }

    fn select(&self, condition: TensorRef, x: TensorRef, y: TensorRef, out: TensorMut) -> Result<()> {
        let call = Call::new("select").reads(&x).reads(&y).reads(&condition).writes(&out);
        self.run(call, |b| b.select(condition, x, y, out))
    }

    fn cast(&self, x: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::new("cast").reads(&x).writes(&out), |b| b.cast(x, out))
    }

    fn reduce(&self, op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
        self.run(Call::of("reduce", op).reads(&x).writes(&out), |b| b.reduce(op, x, axis, out))
    }

    fn scan(&self, op: ScanOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
        self.run(Call::of("scan", op).reads(&x).writes(&out), |b| b.scan(op, x, axis, out))
    }

    fn matmul(&self, x: TensorRef, y: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::new("matmul").reads(&x).reads(&y).writes(&out), |b| b.matmul(x, y, out))
    }

    fn gather(&self, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()> {
        // As many elements are read as written.
        let taken = TensorRef { layout: out.layout, ..source };
        let call = Call::new("gather").reads(&taken).reads(&indices).writes(&out);
        self.run(call, |b| b.gather(source, axis, indices, out))
    }

    fn scatter(&self, op: ScatterOp, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()> {
        let call = Call::of("scatter", op).reads(&source).reads(&indices).bytes(0, source_bytes(&source));
        self.run(call, |b| b.scatter(op, source, axis, indices, out))
    }

    fn sort(&self, x: TensorRef, axis: usize, descending: bool, values: TensorMut, indices: TensorMut) -> Result<()> {
        let call = Call::new("sort").reads(&x).writes(&values).writes(&indices);
        self.run(call, |b| b.sort(x, axis, descending, values, indices))
    }

    fn random(&self, distribution: Distribution, seed: u64, offset: u64, out: TensorMut) -> Result<()> {
        self.run(Call::new("random").writes(&out), |b| b.random(distribution, seed, offset, out))
    }

    fn synchronize(&self) -> Result<()> {
        self.run(Call::new("synchronize").kind(OperationKind::Memory), |b| b.synchronize())
    }

    fn unary_assign(&self, op: UnaryOp, x: TensorMut) -> Result<()> {
        self.run(Call::of("unary_assign", op).updates(&x), |b| b.unary_assign(op, x))
    }

    fn binary_assign(&self, op: BinaryOp, y: TensorMut, x: TensorRef) -> Result<()> {
        self.run(Call::of("binary_assign", op).updates(&y).reads(&x), |b| b.binary_assign(op, y, x))
    }

    fn rms_norm(&self, x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) -> Result<()> {
        self.run(Call::new("rms_norm").reads(&x).reads(&weight).writes(&out), |b| b.rms_norm(x, weight, eps, out))
    }

    fn softmax(&self, x: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::new("softmax").reads(&x).writes(&out), |b| b.softmax(x, out))
    }

    fn log_softmax(&self, x: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::new("log_softmax").reads(&x).writes(&out), |b| b.log_softmax(x, out))
    }

    fn layer_norm(
        &self,
        x: TensorRef,
        weight: Option<TensorRef>,
        bias: Option<TensorRef>,
        eps: f64,
        out: TensorMut,
    ) -> Result<()> {
        let call = Call::new("layer_norm").reads(&x).writes(&out);
        let call = [&weight, &bias].into_iter().flatten().fold(call, Call::reads);
        self.run(call, |b| b.layer_norm(x, weight, bias, eps, out))
    }

    fn variance(&self, x: TensorRef, axis: usize, correction: f64, mean: TensorMut, out: TensorMut) -> Result<()> {
        let call = Call::new("variance").reads(&x).writes(&mean).writes(&out);
        self.run(call, |b| b.variance(x, axis, correction, mean, out))
    }

    fn standard_deviation(&self, x: TensorRef, axis: usize, correction: f64, out: TensorMut) -> Result<()> {
        let call = Call::new("standard_deviation").reads(&x).writes(&out);
        self.run(call, |b| b.standard_deviation(x, axis, correction, out))
    }

    fn rope(&self, x: TensorMut, cos: TensorRef, sin: TensorRef, start: usize) -> Result<()> {
        let tokens = x.layout.dims().first().copied().unwrap_or(0);
        let angles = 2 * tokens * cos.layout.shape().last() * cos.dtype.size();
        self.run(Call::new("rope").updates(&x).bytes(angles, 0), |b| b.rope(x, cos, sin, start))
    }

    fn attention(&self, q: TensorRef, keys: TensorRef, values: TensorRef, start: usize, out: TensorMut) -> Result<()> {
        // Only the part of the cache that is filled is read.
        let tokens = q.layout.dims().first().copied().unwrap_or(0);
        let seen =
            |t: TensorRef| start.checked_add(tokens).and_then(|n| t.narrow(1, 0, n).ok()).map(|t| source_bytes(&t));
        let cache = seen(keys).unwrap_or(0) + seen(values).unwrap_or(0);
        let call = Call::new("attention").reads(&q).writes(&out).bytes(cache, 0);
        self.run(call, |b| b.attention(q, keys, values, start, out))
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
        let call = Call::new("rms_norm_backward").reads(&grad).reads(&x).reads(&weight).writes(&dx).writes(&dweight);
        self.run(call, |b| b.rms_norm_backward(grad, x, weight, eps, dx, dweight))
    }

    fn gated_halves(&self, act: GateActivation, both: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::of("gated_halves", act).reads(&both).writes(&out), |b| b.gated_halves(act, both, out))
    }

    fn gated_halves_backward(
        &self,
        act: GateActivation,
        grad: TensorRef,
        both: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        let call = Call::of("gated_halves_backward", act).reads(&grad).reads(&both).writes(&out);
        self.run(call, |b| b.gated_halves_backward(act, grad, both, out))
    }

    fn causal_attention(
        &self,
        shape: CausalShape,
        qkv: TensorRef,
        cos: TensorRef,
        sin: TensorRef,
        out: TensorMut,
    ) -> Result<()> {
        let call = Call::new("causal_attention").reads(&qkv).reads(&cos).reads(&sin).writes(&out);
        self.run(call, |b| b.causal_attention(shape, qkv, cos, sin, out))
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
        let call = Call::new("causal_attention_backward").reads(&grad).reads(&qkv).reads(&cos).reads(&sin).writes(&out);
        self.run(call, |b| b.causal_attention_backward(shape, grad, qkv, cos, sin, out))
    }

    fn scale(&self, x: TensorRef, rows: Option<TensorRef>, columns: Option<TensorRef>, out: TensorMut) -> Result<()> {
        self.run(Call::new("scale").reads(&x).writes(&out), |b| b.scale(x, rows, columns, out))
    }

    fn adam_step(
        &self,
        step: AdamStep,
        x: TensorMut,
        grad: TensorRef,
        first: TensorMut,
        second: TensorMut,
    ) -> Result<()> {
        let call = Call::new("adam_step").reads(&grad).updates(&x).updates(&first).updates(&second);
        self.run(call, |b| b.adam_step(step, x, grad, first, second))
    }

    fn gated(&self, act: GateActivation, gate: TensorMut, up: TensorRef) -> Result<()> {
        self.run(Call::of("gated", act).updates(&gate).reads(&up), |b| b.gated(act, gate, up))
    }

    fn embedding(&self, ids: &[u32], table: TensorRef, out: TensorMut) -> Result<()> {
        let rows = ids.len() * (table.dtype.row_bytes(table.layout.shape().last()) + size_of::<u32>());
        self.run(Call::new("embedding").writes(&out).bytes(rows, 0), |b| b.embedding(ids, table, out))
    }

    fn linear(&self, x: TensorRef, w: TensorRef, out: TensorMut) -> Result<()> {
        self.run(Call::of("linear", w.dtype).reads(&x).reads(&w).writes(&out), |b| b.linear(x, w, out))
    }

    fn padded_columns(&self, columns: usize) -> usize {
        self.0.padded_columns(columns)
    }

    fn quantize_activations(&self, x: TensorRef, values: TensorMut, scales: TensorMut, sums: TensorMut) -> Result<()> {
        let call = Call::new("quantize_activations").reads(&x).writes(&values).writes(&scales).writes(&sums);
        self.run(call, |b| b.quantize_activations(x, values, scales, sums))
    }

    fn ternary_row_group(&self) -> usize {
        self.0.ternary_row_group()
    }

    fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
        let codes: usize = parts.iter().map(|part| part.codes.len()).sum();
        self.run(Call::new("pack_ternary").bytes(codes, codes), |b| b.pack_ternary(parts))
    }

    fn ternary_matmul(&self, x: QuantizedActivations, w: &PackedTernary, out: TensorMut) -> Result<()> {
        let weights = w.storage.len_bytes() + 4 * w.scales.len();
        let call = Call::new("ternary_matmul").reads(&x.values).reads(&x.scales).reads(&x.sums).writes(&out);
        self.run(call.bytes(weights, 0), |b| b.ternary_matmul(x, w, out))
    }
}

fn source_bytes(t: &TensorRef) -> usize {
    distinct_bytes(&t.layout, t.dtype) as usize
}
