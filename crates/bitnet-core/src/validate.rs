//! Feature `validation`: a backend that looks for infinities and NaN in the results of another.
//!
//! Every operation reads its operands and its results once more, so that it is for finding an error, not for production.

use crate::backend::*;
use crate::{BitNetDType, DeviceCapabilities, Layout, NumericalError, RawMemory, Result, TensorStorage};
use std::fmt::Debug;
use std::sync::Arc;

/// The backend that a [`Device`](crate::Device) holds with the feature `validation`.
#[derive(Debug)]
pub(crate) struct Validated(pub(crate) Arc<dyn Backend>);

/// What tensors hold beside finite numbers.
#[derive(Clone, Copy, Default)]
struct Found {
    infinite: bool,
    nan: bool,
}

impl Found {
    fn note(&mut self, value: f64) {
        self.infinite |= value.is_infinite();
        self.nan |= value.is_nan();
    }

    fn scan(&mut self, device: &dyn Backend, x: &TensorRef) -> Result<()> {
        if !x.dtype.is_float() {
            return Ok(());
        }
        if !x.layout.is_contiguous() {
            let mut storage = device.allocate(x.layout.shape().elements() * x.dtype.size())?;
            let layout = Layout::contiguous(*x.layout.shape());
            device.copy(*x, TensorMut { storage: &mut storage, layout, dtype: x.dtype })?;
            return self.scan(device, &TensorRef { storage: &storage, layout, dtype: x.dtype });
        }
        let size = x.dtype.size();
        let mut bytes = vec![0; x.layout.shape().elements() * size];
        device.download(x.storage, x.layout.offset() * size, &mut bytes)?;
        for element in bytes.chunks_exact(size) {
            self.note(match x.dtype {
                BitNetDType::F64 => bytemuck::pod_read_unaligned::<f64>(element),
                BitNetDType::F32 => bytemuck::pod_read_unaligned::<f32>(element).into(),
                BitNetDType::F16 => bytemuck::pod_read_unaligned::<half::f16>(element).into(),
                _ => bytemuck::pod_read_unaligned::<half::bf16>(element).into(),
            });
        }
        Ok(())
    }

    /// An error where `after` the operation there is what there was not before.
    fn check(self, op: String, after: Self, dtype: BitNetDType) -> Result<()> {
        if after.nan && !self.nan {
            return Err(NumericalError::NotANumber { op }.into());
        }
        if after.infinite && !self.infinite && !self.nan {
            return Err(NumericalError::Overflow { op, dtype }.into());
        }
        Ok(())
    }
}

/// An operand that is scanned.
trait Operand {
    fn scan(&self, device: &dyn Backend, found: &mut Found) -> Result<()>;
}

impl Operand for TensorRef<'_> {
    fn scan(&self, device: &dyn Backend, found: &mut Found) -> Result<()> {
        found.scan(device, self)
    }
}

impl Operand for TensorMut<'_> {
    fn scan(&self, device: &dyn Backend, found: &mut Found) -> Result<()> {
        found.scan(device, &self.as_ref())
    }
}

impl Operand for Option<TensorRef<'_>> {
    fn scan(&self, device: &dyn Backend, found: &mut Found) -> Result<()> {
        self.as_ref().map_or(Ok(()), |x| found.scan(device, x))
    }
}

impl Operand for QuantizedActivations<'_> {
    fn scan(&self, device: &dyn Backend, found: &mut Found) -> Result<()> {
        found.scan(device, &self.scales)
    }
}

/// Operations with their arguments in order; which of these are read and which written, and the argument that names the
/// function, if there are several. What is updated is both read and written.
macro_rules! checked {
    ($(fn $op:ident($($arg:ident: $t:ty),*) $(of $variant:ident)? reads($($x:ident),*) writes($($out:ident),*);)*) => {$(
        fn $op(&self, $($arg: $t),*) -> Result<()> {
            let device = &*self.0;
            #[allow(unused_mut)]
            let (mut before, mut after, mut name) = (Found::default(), Found::default(), stringify!($op).to_string());
            $($x.scan(device, &mut before)?;)*
            $(name = format!("{name} {}", format!("{:?}", $variant).to_lowercase());)?
            let mut outs = ($($out,)*);
            {
                let ($($out,)*) = &mut outs;
                $(let $out = $out.reborrow();)*
                device.$op($($arg),*)?;
            }
            let ($($out,)*) = outs;
            let dtype = [$($out.dtype),*][0];
            $($out.scan(device, &mut after)?;)*
            before.check(name, after, dtype)
        }
    )*};
}

impl Backend for Validated {
    checked! {
        fn copy(source: TensorRef, out: TensorMut) reads(source) writes(out);
        fn unary(op: UnaryOp, x: TensorRef, out: TensorMut) of op reads(x) writes(out);
        fn binary(op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) of op reads(a, b) writes(out);
        fn compare(op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) reads(a, b) writes(out);
        fn select(condition: TensorRef, a: TensorRef, b: TensorRef, out: TensorMut) reads(a, b) writes(out);
        fn cast(x: TensorRef, out: TensorMut) reads(x) writes(out);
        fn reduce(op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) of op reads(x) writes(out);
        fn scan(op: ScanOp, x: TensorRef, axis: usize, out: TensorMut) of op reads(x) writes(out);
        fn matmul(a: TensorRef, b: TensorRef, out: TensorMut) reads(a, b) writes(out);
        fn gather(source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) reads(source) writes(out);
        fn scatter(op: ScatterOp, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut)
            of op reads(source, out) writes(out);
        fn sort(x: TensorRef, axis: usize, descending: bool, values: TensorMut, indices: TensorMut)
            reads(x) writes(values, indices);
        fn random(distribution: Distribution, seed: u64, offset: u64, out: TensorMut) reads() writes(out);
        fn unary_assign(op: UnaryOp, x: TensorMut) of op reads(x) writes(x);
        fn binary_assign(op: BinaryOp, y: TensorMut, x: TensorRef) of op reads(x, y) writes(y);
        fn rms_norm(x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) reads(x, weight) writes(out);
        fn softmax(x: TensorRef, out: TensorMut) reads(x) writes(out);
        fn log_softmax(x: TensorRef, out: TensorMut) reads(x) writes(out);
        fn layer_norm(x: TensorRef, weight: Option<TensorRef>, bias: Option<TensorRef>, eps: f64, out: TensorMut)
            reads(x, weight, bias) writes(out);
        fn variance(x: TensorRef, axis: usize, correction: f64, mean: TensorMut, out: TensorMut)
            reads(x) writes(mean, out);
        fn rope(x: TensorMut, cos: TensorRef, sin: TensorRef, start: usize) reads(x, cos, sin) writes(x);
        fn attention(q: TensorRef, keys: TensorRef, values: TensorRef, start: usize, out: TensorMut)
            reads(q, keys, values) writes(out);
        fn gated(act: GateActivation, gate: TensorMut, up: TensorRef) of act reads(gate, up) writes(gate);
        fn embedding(ids: &[u32], table: TensorRef, out: TensorMut) reads(table) writes(out);
        fn linear(x: TensorRef, w: TensorRef, out: TensorMut) reads(x, w) writes(out);
        fn quantize_activations(x: TensorRef, values: TensorMut, scales: TensorMut, sums: TensorMut)
            reads(x) writes(values, scales, sums);
        fn ternary_matmul(x: QuantizedActivations, w: &PackedTernary, out: TensorMut) reads(x) writes(out);
        fn rms_norm_backward(
            grad: TensorRef, x: TensorRef, weight: TensorRef, eps: f32, dx: TensorMut, dweight: TensorMut
        ) reads(grad, x, weight) writes(dx, dweight);
        fn gated_halves(act: GateActivation, both: TensorRef, out: TensorMut) of act reads(both) writes(out);
        fn gated_halves_backward(act: GateActivation, grad: TensorRef, both: TensorRef, out: TensorMut)
            of act reads(grad, both) writes(out);
        fn causal_attention(shape: CausalShape, qkv: TensorRef, cos: TensorRef, sin: TensorRef, out: TensorMut)
            reads(qkv, cos, sin) writes(out);
        fn causal_attention_backward(
            shape: CausalShape, grad: TensorRef, qkv: TensorRef, cos: TensorRef, sin: TensorRef, out: TensorMut
        ) reads(grad, qkv, cos, sin) writes(out);
        fn scale(x: TensorRef, rows: Option<TensorRef>, columns: Option<TensorRef>, out: TensorMut)
            reads(x, rows, columns) writes(out);
        fn adam_step(step: AdamStep, x: TensorMut, grad: TensorRef, first: TensorMut, second: TensorMut)
            reads(x, grad, first, second) writes(x, first, second);
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn kernel(&self) -> String {
        self.0.kernel()
    }

    fn is_host(&self) -> bool {
        self.0.is_host()
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.0.capabilities()
    }

    fn raw_memory(&self) -> Option<Arc<dyn RawMemory>> {
        self.0.raw_memory()
    }

    fn as_dyn(&self) -> &dyn Backend {
        self.0.as_dyn()
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        self.0.allocate(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        self.0.upload(bytes)
    }

    fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.0.download(source, offset, bytes)
    }

    fn synchronize(&self) -> Result<()> {
        self.0.synchronize()
    }

    fn padded_columns(&self, columns: usize) -> usize {
        self.0.padded_columns(columns)
    }

    fn ternary_row_group(&self) -> usize {
        self.0.ternary_row_group()
    }

    fn pack_ternary(&self, parts: &[TernarySource]) -> Result<PackedTernary> {
        self.0.pack_ternary(parts)
    }
}

#[cfg(test)]
mod tests {
    use crate::{BitNetDType::F16, BitNetTensor, Device};

    #[test]
    fn what_becomes_infinite_or_nan_is_an_error_that_names_the_operation() {
        let x = |values: &[f32]| BitNetTensor::from_slice(values, &[values.len()], &Device::cpu()).unwrap();
        let message = |result: crate::Result<BitNetTensor>| result.unwrap_err().to_string();
        let (one, zero, infinite) = (x(&[1., 2.]), x(&[0., 0.]), x(&[f32::INFINITY, 1.]));
        assert!(message(one.div(&zero)).starts_with("binary div: a result is infinite"));
        assert!(message(zero.div(&zero)).starts_with("binary div: a result is NaN"));
        assert!(message(x(&[-1.]).sqrt()).starts_with("unary sqrt: a result is NaN"));
        assert!(message(x(&[1e5]).to_dtype(F16)).starts_with("cast: a result is infinite"));
        assert!(message(infinite.mul(&zero)).starts_with("binary mul: a result is NaN"));
        assert!(message(infinite.reshape(&[2, 1]).unwrap().transpose(0, 1).unwrap().mul(&zero)).contains("NaN"));
        assert!(infinite.add(&one).is_ok() && x(&[f32::NAN]).exp().is_ok(), "what an operand had is no error");
        assert_eq!(one.div(&x(&[2., 4.])).unwrap().to_vec::<f32>().unwrap(), [0.5, 0.5]);
    }
}
