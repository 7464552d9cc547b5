//! Products with packed matrices.

use super::{PackedFormat, QuantizedTensor};
use crate::{ActivationBuffer, ActivationRule, PackedBitLinear, QuantError, TernaryCodes, TernaryScales};
use bitnet_core::{BitNetDType, BitNetError, BitNetTensor, Device, TensorOpError, autograd};

/// A packed matrix `[N, K]` in the layout of a device for products.
#[derive(Debug)]
pub struct PackedProduct {
    kind: Kind,
    device: Device,
    outputs: usize,
    inputs: usize,
    /// `[N]` or `[1]`
    factors: Option<BitNetTensor>,
}

#[derive(Debug)]
enum Kind {
    /// Codes; inputs are quantized to 8 bits.
    Ternary(Box<PackedBitLinear>),
    /// Weights of a type that the device multiplies.
    Weights(BitNetTensor),
}

impl QuantizedTensor {
    /// Prepares the matrix `[N, K]` for products on `device`. Ternary matrices with one scale, and binary ones with a
    /// scale per row, use 2 bits a weight, Q8_0 is kept; the others become f32.
    ///
    /// # Errors
    /// If it is not a matrix, or the bytes hold what the format does not allow.
    pub fn to_product(&self, device: &Device) -> Result<PackedProduct, QuantError> {
        let &[outputs, inputs] = self.dims() else {
            let needed = "[outputs, inputs]".into();
            let (op, what, got) = ("to_product", "the matrix", self.shape);
            return Err(QuantError::from(TensorOpError::Shape { op, what, got, needed }));
        };
        let factors = |f: &[f32]| BitNetTensor::from_slice(f, &[f.len()], device);
        let ternary = |codes: &TernaryCodes, scale| -> Result<Kind, QuantError> {
            Ok(Kind::Ternary(Box::new(PackedBitLinear::new(codes, &TernaryScales::from(scale), None, device)?)))
        };
        let (kind, factors) = match self.ternary()? {
            Some((codes, scales)) => match scales[..] {
                [scale] => (ternary(&codes, scale)?, None),
                _ => (ternary(&codes, 1.)?, Some(factors(&scales)?)),
            },
            None if self.format() == PackedFormat::Q8_0 => {
                let weights = BitNetTensor::from_bytes(self.bytes(), self.dims(), BitNetDType::Q8_0, device)?;
                (Kind::Weights(weights), (self.factor() != 1.).then(|| factors(&[self.factor()])).transpose()?)
            }
            None => (Kind::Weights(self.dequantize(device)?), None),
        };
        Ok(PackedProduct { kind, device: device.clone(), outputs, inputs, factors })
    }

    /// `x W^T` of `x` f32 `[.., K]` and this matrix `[N, K]`. To multiply more than once, keep [`Self::to_product`].
    ///
    /// The gradient of `x` is `dy W`, straight through where inputs are quantized.
    ///
    /// # Errors
    /// As [`Self::to_product`] and [`PackedProduct::linear`].
    pub fn linear(&self, x: &BitNetTensor) -> Result<BitNetTensor, QuantError> {
        let product = self.to_product(x.device())?;
        let forward = || product.linear(&x.detach());
        Ok(autograd::differentiable("linear", &[x], forward, |_| {
            let (weights, device) = (self.clone(), x.device().clone());
            move |grad: &BitNetTensor| {
                let weights = weights.dequantize(&device).map_err(|e| match e {
                    QuantError::Tensor(e) => *e,
                    e => BitNetError::from(TensorOpError::Argument { op: "linear", message: e.to_string() }),
                })?;
                Ok(vec![Some(grad.matmul(&weights)?)])
            }
        })?)
    }
}

impl PackedProduct {
    /// `x W^T` `[.., N]` of `x` f32 `[.., K]`. A ternary product quantizes each row of `x` to 8 bits, as BitLinear
    /// does.
    ///
    /// # Errors
    /// When `x` is not f32, has other columns, is on another device or requires a gradient: [`QuantizedTensor::linear`]
    /// supports that.
    pub fn linear(&self, x: &BitNetTensor) -> bitnet_core::Result<BitNetTensor> {
        let (op, what) = ("linear", "the input");
        if x.dtype() != BitNetDType::F32 {
            let (got, needed) = (x.dtype(), BitNetDType::F32);
            return Err(TensorOpError::DType { op, what, got, needed }.into());
        }
        if x.rank() == 0 || x.shape().last() != self.inputs {
            let needed = format!("[.., {}]", self.inputs);
            return Err(TensorOpError::Shape { op, what, got: *x.shape(), needed }.into());
        }
        if *x.device() != self.device {
            let (left, right) = (self.device.name(), x.device().name());
            return Err(TensorOpError::Device { op, left, right }.into());
        }
        if autograd::is_recorded(&[x]) {
            let message = "a laid out product has no gradient: call QuantizedTensor::linear or detach the input".into();
            return Err(TensorOpError::Argument { op, message }.into());
        }
        let outer = &x.dims()[..x.rank() - 1];
        let tokens: usize = outer.iter().product();
        let dims = [outer, &[self.outputs]].concat();
        let mut out = BitNetTensor::empty(&[tokens, self.outputs], BitNetDType::F32, &self.device)?;
        if out.elements() == 0 {
            return out.reshape(&dims);
        }
        let x = x.detach().reshape(&[tokens, self.inputs])?.contiguous()?;
        match &self.kind {
            Kind::Ternary(layer) => {
                let mut buffer = ActivationBuffer::new(ActivationRule::Token, tokens, self.inputs, &self.device)?;
                layer.forward(x.as_ref(), &mut buffer, &self.device, out.as_mut()?)?;
            }
            Kind::Weights(weights) => self.device.linear(x.as_ref(), weights.as_ref(), out.as_mut()?)?,
        }
        if let Some(factors) = &self.factors {
            out.mul_(factors)?;
        }
        out.reshape(&dims)
    }

    /// Bytes of the weights on the device.
    pub fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Ternary(layer) => layer.packed_bytes(),
            Kind::Weights(weights) => weights.storage_bytes(),
        }
    }
}
