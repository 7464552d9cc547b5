//! Activations quantized to 8 bits per token, in a reusable buffer.

use bitnet_core::backend::{QuantizedActivations, TensorMut, TensorRef};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Layout, Result, TensorShape};

/// A buffer for quantized activations: 8-bit values with a scale and a sum for each token.
///
/// `s = 127 / max(|x|, 1e-5)`, `q = clamp(round(x * s), -128, 127)`, halves to even (transformers,
/// `integrations/bitnet.py`).
#[derive(Debug)]
pub struct ActivationBuffer {
    device: Device,
    values: BitNetTensor,
    scales: BitNetTensor,
    sums: BitNetTensor,
    /// Tokens and columns of the current content.
    shape: (usize, usize),
}

impl ActivationBuffer {
    /// A buffer for `tokens` rows of up to `columns` values.
    pub fn new(tokens: usize, columns: usize, device: &Device) -> Result<Self> {
        let elements = tokens * device.padded_columns(columns);
        Ok(Self {
            device: device.clone(),
            values: BitNetTensor::empty(&[elements], BitNetDType::I8, device)?,
            scales: BitNetTensor::empty(&[tokens], BitNetDType::F32, device)?,
            sums: BitNetTensor::empty(&[tokens], BitNetDType::I32, device)?,
            shape: (0, 0),
        })
    }

    fn layout(&self, tokens: usize, columns: usize) -> Result<Layout> {
        let padded = TensorShape::new(&[tokens, self.device.padded_columns(columns)])?;
        Layout::contiguous(padded).narrow(1, 0, columns)
    }

    /// Quantizes `x` f32 `[T, K]` into the buffer.
    pub fn quantize(&mut self, x: TensorRef) -> Result<()> {
        let (tokens, columns) = (x.layout.dims()[0], x.layout.shape().last());
        let layout = self.layout(tokens, columns)?;
        let values = TensorMut { layout, ..self.values.as_mut()? };
        let scales = self.scales.as_mut()?.narrow(0, 0, tokens)?;
        let sums = self.sums.as_mut()?.narrow(0, 0, tokens)?;
        self.device.quantize_activations(x, values, scales, sums)?;
        self.shape = (tokens, columns);
        Ok(())
    }

    /// The content as tensors: values i8 `[T, K]` and scales f32 `[T]`.
    pub fn into_tensors(self) -> Result<(BitNetTensor, BitNetTensor)> {
        let (tokens, columns) = self.shape;
        let padded = self.device.padded_columns(columns);
        let values = self.values.narrow(0, 0, tokens * padded)?.reshape(&[tokens, padded])?.narrow(1, 0, columns)?;
        Ok((values, self.scales.narrow(0, 0, tokens)?))
    }

    /// The content.
    pub fn get(&self) -> Result<QuantizedActivations<'_>> {
        let (tokens, columns) = self.shape;
        Ok(QuantizedActivations {
            values: TensorRef { layout: self.layout(tokens, columns)?, ..self.values.as_ref() },
            scales: self.scales.as_ref().narrow(0, 0, tokens)?,
            sums: self.sums.as_ref().narrow(0, 0, tokens)?,
        })
    }
}
