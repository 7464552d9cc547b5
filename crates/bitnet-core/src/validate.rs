//! Feature `validation`: a backend that looks for infinities and NaN in the results of another.
//!
//! Every operation reads its operands and its results once more, so that it is for finding an error, not for production.

use crate::backend::*;
use crate::delegate::{delegate_questions, delegate_transfers};
use crate::{BitNetDType, Layout, NumericalError, Result, TensorStorage};
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

impl Backend for Validated {
    delegate_questions!();
    delegate_transfers!();

    fn run(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        let device = &*self.0;
        let (mut before, mut after) = (Found::default(), Found::default());
        for x in inputs {
            before.scan(device, x)?;
        }
        if op.updates() {
            for out in &*outputs {
                before.scan(device, &out.as_ref())?;
            }
        }
        device.run(op, inputs, outputs)?;
        for out in &*outputs {
            after.scan(device, &out.as_ref())?;
        }
        let dtype = outputs.first().map_or(BitNetDType::F32, |out| out.dtype);
        before.check(op.to_string(), after, dtype)
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        self.0.allocate(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        self.0.upload(bytes)
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
