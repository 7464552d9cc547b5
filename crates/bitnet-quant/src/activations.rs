//! Quantized activations in a reusable buffer.

use bitnet_core::backend::{ActivationRule, QuantizedActivations, TensorMut, TensorRef};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Layout, Result, TensorShape};

/// A buffer for activations quantized by a rule.
#[derive(Debug)]
pub struct ActivationBuffer {
    device: Device,
    rule: ActivationRule,
    values: BitNetTensor,
    scales: BitNetTensor,
    sums: BitNetTensor,
    /// Tokens and columns of the current content.
    shape: (usize, usize),
}

impl ActivationBuffer {
    /// A buffer for `tokens` rows of up to `columns` values, quantized by `rule`.
    pub fn new(rule: ActivationRule, tokens: usize, columns: usize, device: &Device) -> Result<Self> {
        let rows = tokens * rule.digits();
        let (elements, sums) = (rows * device.padded_columns(columns), rows * sums_of(columns));
        Ok(Self {
            device: device.clone(),
            rule,
            values: BitNetTensor::empty(&[elements], BitNetDType::I8, device)?,
            scales: BitNetTensor::empty(&[tokens * rule.blocks(columns)], BitNetDType::F32, device)?,
            sums: BitNetTensor::empty(&[sums], BitNetDType::I32, device)?,
            shape: (0, 0),
        })
    }

    /// `[T, D, K]`, and the dimensions of scales and sums.
    fn layouts(&self, (tokens, columns): (usize, usize)) -> Result<(Layout, [usize; 2], [usize; 3])> {
        let digits = self.rule.digits();
        let padded = TensorShape::new(&[tokens, digits, self.device.padded_columns(columns)])?;
        let values = Layout::contiguous(padded).narrow(2, 0, columns)?;
        Ok((values, [tokens, self.rule.blocks(columns)], [tokens, digits, sums_of(columns)]))
    }

    /// Quantizes `x` f32 `[T, K]` into the buffer.
    pub fn quantize(&mut self, x: TensorRef) -> Result<()> {
        let shape = (x.layout.dims()[0], x.layout.shape().last());
        let (layout, scales, sums) = self.layouts(shape)?;
        let values = TensorMut { layout, ..self.values.as_mut()? };
        let scales = self.scales.as_mut()?.narrow(0, 0, scales.iter().product())?.reshape(&scales)?;
        let sums = self.sums.as_mut()?.narrow(0, 0, sums.iter().product())?.reshape(&sums)?;
        self.device.quantize_activations(self.rule, x, values, scales, sums)?;
        self.shape = shape;
        Ok(())
    }

    /// The content of a buffer whose rule is [`ActivationRule::Token`]: values i8 `[T, K]` and scales f32 `[T]`.
    pub fn into_tensors(self) -> Result<(BitNetTensor, BitNetTensor)> {
        let (tokens, columns) = self.shape;
        let padded = self.device.padded_columns(columns);
        let values = self.values.narrow(0, 0, tokens * padded)?.reshape(&[tokens, padded])?.narrow(1, 0, columns)?;
        Ok((values, self.scales.narrow(0, 0, tokens)?))
    }

    /// The content.
    pub fn get(&self) -> Result<QuantizedActivations<'_>> {
        let (layout, scales, sums) = self.layouts(self.shape)?;
        Ok(QuantizedActivations {
            rule: self.rule,
            values: TensorRef { layout, ..self.values.as_ref() },
            scales: self.scales.as_ref().narrow(0, 0, scales.iter().product())?.reshape(&scales)?,
            sums: self.sums.as_ref().narrow(0, 0, sums.iter().product())?.reshape(&sums)?,
        })
    }
}

/// Sums of a row of `columns` values.
fn sums_of(columns: usize) -> usize {
    columns.div_ceil(ActivationRule::SUM_COLUMNS)
}
