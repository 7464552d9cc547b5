//! Linear layers, dense or ternary, and groups of them with a common input.

use bitnet_core::backend::{BinaryOp, TensorMut, TensorRef};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Result, TensorOpError};
use bitnet_model::checkpoint::{LinearSource, LowRank, WeightSource};
use bitnet_quant::{ActivationBuffer, ActivationRule, PackedBitLinear};

/// A linear layer in the layout of its device.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: LinearWeights,
    /// Norm of the inputs that belongs to this layer alone: weights and epsilon.
    norm: Option<(BitNetTensor, f32)>,
    adapter: Option<AdapterProduct>,
}

/// `B (A x)`, which is added to the output.
#[derive(Debug)]
struct AdapterProduct {
    /// `[rank, inputs]`
    a: BitNetTensor,
    /// `[outputs, rank]`
    b: BitNetTensor,
}

#[derive(Debug)]
enum LinearWeights {
    Ternary(PackedBitLinear),
    Dense { weights: BitNetTensor, bias: Option<BitNetTensor> },
}

impl Linear {
    pub(crate) fn load(source: LinearSource, device: &Device) -> bitnet_model::Result<Self> {
        let vector = |v: &Vec<f32>| BitNetTensor::from_slice(v, &[v.len()], device);
        let weights = match &source.weight {
            WeightSource::Ternary { codes, scales } => {
                LinearWeights::Ternary(PackedBitLinear::new(codes, scales, source.bias.as_deref(), device)?)
            }
            WeightSource::Dense(dense) => LinearWeights::Dense {
                weights: dense.to_tensor(device)?,
                bias: source.bias.as_ref().map(vector).transpose()?,
            },
        };
        let norm = source.inner_norm.as_ref().map(|(w, eps)| Ok::<_, bitnet_core::BitNetError>((vector(w)?, *eps)));
        Ok(Self { weights, norm: norm.transpose()?, adapter: None })
    }

    /// The same layer with an adapter.
    pub(crate) fn with_adapter(self, adapter: Option<LowRank>, device: &Device) -> Result<Self> {
        let product = |LowRank { rank, a, b }: LowRank| {
            let a = BitNetTensor::from_slice(&a, &[rank, a.len() / rank], device)?;
            Ok::<_, bitnet_core::BitNetError>(AdapterProduct {
                a,
                b: BitNetTensor::from_slice(&b, &[b.len() / rank, rank], device)?,
            })
        };
        Ok(Self { adapter: adapter.map(product).transpose()?, ..self })
    }

    /// Rank and outputs of its adapter.
    fn adapter_size(&self) -> (usize, usize) {
        self.adapter.as_ref().map_or((0, 0), |adapter| (adapter.b.dims()[1], adapter.b.dims()[0]))
    }

    /// `out` `[R, N]`: each row's expert's product, where the weights are those of all experts ([`Op::ExpertLinear`]).
    ///
    /// [`Op::ExpertLinear`]: bitnet_core::backend::Op::ExpertLinear
    pub(crate) fn of_experts(&self, device: &Device, x: TensorRef, experts: TensorRef, out: TensorMut) -> Result<()> {
        match &self.weights {
            LinearWeights::Dense { weights, bias: None } if self.adapter.is_none() => {
                device.expert_linear(x, weights.as_ref(), experts, out)
            }
            _ => {
                let message = "experts with biases, adapters or inputs of 8 bits are not computed".into();
                Err(TensorOpError::Argument { op: "expert_linear", message }.into())
            }
        }
    }

    /// Whether it normalises its input itself.
    pub(crate) fn has_own_norm(&self) -> bool {
        self.norm.is_some()
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weights {
            LinearWeights::Ternary(layer) => layer.packed_bytes(),
            LinearWeights::Dense { weights, .. } => weights.storage_bytes(),
        }
    }
}

/// Scratch memory for the inputs of linear layers.
#[derive(Debug)]
pub(crate) struct LinearScratch {
    quantized: ActivationBuffer,
    /// f32 `[batch * inputs]`: the input after a layer's own norm; empty if no layer has one.
    normed: BitNetTensor,
    /// f32 `[batch * rank]` and `[batch * outputs]`: the products of adapters; empty if no layer has one.
    adapted: (BitNetTensor, BitNetTensor),
}

impl LinearScratch {
    pub(crate) fn new(
        rule: ActivationRule,
        batch: usize,
        inputs: usize,
        own_norms: bool,
        device: &Device,
    ) -> Result<Self> {
        let elements = if own_norms { batch * inputs } else { 0 };
        Ok(Self {
            quantized: ActivationBuffer::new(rule, batch, inputs, device)?,
            normed: BitNetTensor::empty(&[elements], BitNetDType::F32, device)?,
            adapted: (
                BitNetTensor::empty(&[0], BitNetDType::F32, device)?,
                BitNetTensor::empty(&[0], BitNetDType::F32, device)?,
            ),
        })
    }

    /// With room for the adapters of layers for so many rows each.
    pub(crate) fn with_adapters<'a>(
        mut self,
        layers: impl Iterator<Item = (&'a Linear, usize)>,
        device: &Device,
    ) -> Result<Self> {
        let sizes = layers.map(|(layer, rows)| (layer.adapter_size(), rows));
        let most = sizes.fold((0, 0), |(r, o), ((rank, outputs), rows)| (r.max(rank * rows), o.max(outputs * rows)));
        let buffer = |elements: usize| BitNetTensor::empty(&[elements], BitNetDType::F32, device);
        self.adapted = (buffer(most.0)?, buffer(most.1)?);
        Ok(self)
    }

    /// Runs layers with the same input `x` f32 `[T, K]`; each writes its `out` `[T, N]`. The input is quantized once
    /// for all layers without their own norm.
    pub(crate) fn project<const N: usize>(
        &mut self,
        device: &Device,
        x: TensorRef,
        layers: [(&Linear, TensorMut); N],
    ) -> Result<()> {
        let mut quantized = false;
        for (layer, mut out) in layers {
            let elements = x.layout.shape().elements();
            let input = match &layer.norm {
                Some((weight, eps)) => {
                    let normed = self.normed.as_mut()?.narrow(0, 0, elements)?.reshape(x.layout.dims())?;
                    device.rms_norm(x, weight.as_ref(), *eps, normed)?;
                    quantized = false;
                    self.normed.as_ref().narrow(0, 0, elements)?.reshape(x.layout.dims())?
                }
                None => x,
            };
            match &layer.weights {
                LinearWeights::Ternary(ternary) => {
                    if !quantized {
                        self.quantized.quantize(input)?;
                        quantized = layer.norm.is_none();
                    }
                    ternary.forward_quantized(&self.quantized, device, out.reborrow())?;
                }
                LinearWeights::Dense { weights, bias } => {
                    device.linear(input, weights.as_ref(), out.reborrow())?;
                    if let Some(bias) = bias {
                        device.binary_assign(BinaryOp::Add, out.reborrow(), bias.as_ref())?;
                    }
                }
            }
            if let Some(AdapterProduct { a, b }) = &layer.adapter {
                let (rows, rank, outputs) = (x.layout.dims()[0], a.dims()[0], b.dims()[0]);
                let (thin, added) = &mut self.adapted;
                device.linear(x, a.as_ref(), thin.as_mut()?.narrow(0, 0, rows * rank)?.reshape(&[rows, rank])?)?;
                let thin = thin.as_ref().narrow(0, 0, rows * rank)?.reshape(&[rows, rank])?;
                device.linear(
                    thin,
                    b.as_ref(),
                    added.as_mut()?.narrow(0, 0, rows * outputs)?.reshape(&[rows, outputs])?,
                )?;
                let added = added.as_ref().narrow(0, 0, rows * outputs)?.reshape(&[rows, outputs])?;
                device.binary_assign(BinaryOp::Add, out, added)?;
            }
        }
        Ok(())
    }
}
