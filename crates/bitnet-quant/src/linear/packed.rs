//! The ternary linear layer of BitNet b1.58 for inference: codes packed for the device.

use crate::{ActivationBuffer, TernaryCodes, TernaryScales};
use bitnet_core::backend::{BinaryOp, PackedTernary, TensorMut, TensorRef, TernarySource};
use bitnet_core::{BitNetTensor, Device, Result};

/// `y = x . W^T + bias`, where `W` is ternary with a scale for the matrix, each row, or each group of columns of a row, and `x`
/// quantized as its buffer says. Integer products are exact.
#[derive(Debug)]
pub struct PackedBitLinear {
    weights: PackedTernary,
    bias: Option<BitNetTensor>,
}

impl PackedBitLinear {
    /// Packs the weights `[outputs, inputs]` for a device; `bias` has a value for each output.
    pub fn new(codes: &TernaryCodes, scales: &TernaryScales, bias: Option<&[f32]>, device: &Device) -> Result<Self> {
        let source = TernarySource {
            codes: codes.as_bytes(),
            rows: codes.rows(),
            columns: codes.cols(),
            scales: scales.values(),
            group: scales.group(),
        };
        Ok(Self {
            weights: device.pack_ternary(&[source])?,
            bias: bias.map(|b| BitNetTensor::from_slice(b, &[b.len()], device)).transpose()?,
        })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.weights.rows()
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.weights.columns()
    }

    /// Bytes of the packed weights.
    pub fn packed_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// `out` f32 `[T, outputs]` from the quantized inputs `[T, inputs]`.
    pub fn forward_quantized(&self, x: &ActivationBuffer, device: &Device, mut out: TensorMut) -> Result<()> {
        device.ternary_matmul(x.get()?, &self.weights, out.reborrow())?;
        match &self.bias {
            Some(bias) => device.binary_assign(BinaryOp::Add, out, bias.as_ref()),
            None => Ok(()),
        }
    }

    /// `out` f32 `[T, outputs]` from `x` f32 `[T, inputs]`; `buffer` is overwritten.
    pub fn forward(&self, x: TensorRef, buffer: &mut ActivationBuffer, device: &Device, out: TensorMut) -> Result<()> {
        buffer.quantize(x)?;
        self.forward_quantized(buffer, device, out)
    }
}
