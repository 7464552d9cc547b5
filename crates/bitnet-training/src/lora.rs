//! Low-rank adapters (LoRA, Hu et al. 2022) on a ternary base: the latent weights stay, and a product of two thin matrices
//! is added to them before they are quantized. So the merged model, quantized anew, is exactly what was trained.

use crate::data::Batch;
use crate::fingerprint::fingerprint;
use crate::model::Transformer;
use crate::module::{Module, init};
use crate::objective::{Objective, documents};
use crate::{Result, TrainingError};
use bitnet_core::serialize::TensorMap;
use bitnet_core::serialize::safetensors::{SafetensorsFile, save};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator, autograd};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[lora]`: train adapters instead of the weights of `model.init`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the product that is added to a matrix.
    pub rank: usize,
    /// The product is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Linear layers that have adapters, by the last part of their names.
    pub targets: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        Self { rank: 8, alpha: 16., targets: targets.map(str::to_owned).into() }
    }
}

/// A model that stays as it is, and adapters that are trained: of `model.layers.0.mlp.up_proj` they are
/// `model.layers.0.mlp.up_proj.lora_a` `[rank, inputs]` and `.lora_b` `[outputs, rank]`.
#[derive(Debug, Clone)]
pub struct Lora {
    base: Transformer,
    scale: f64,
    adapters: TensorMap,
}

const A: &str = ".lora_a";
const B: &str = ".lora_b";
const SCALE: &str = "lora_scale";
const BASE: &str = "lora_base_fingerprint";

impl Lora {
    /// Adapters that change nothing yet: `A` uniform within `1 / sqrt(inputs)`, `B` zero.
    ///
    /// # Errors
    /// When a target is no linear layer of the model, or a number is out of range.
    pub fn new(base: Transformer, config: &LoraConfig, generator: &mut Generator) -> Result<Self> {
        let bad = |problem: String| Err(TrainingError::Invalid(format!("lora: {problem}")));
        if config.rank == 0 || !config.alpha.is_finite() {
            return bad(format!("rank is {}, alpha {}: both must be above 0", config.rank, config.alpha));
        }
        let (rank, device) = (config.rank, base.device().clone());
        let mut adapters = TensorMap::new();
        let mut used = vec![false; config.targets.len()];
        for (name, weight) in base.tensors() {
            let Some(module) = name.strip_suffix(".weight") else { continue };
            let Some(target) = config.targets.iter().position(|target| is_of(module, target)) else { continue };
            let &[outputs, inputs] = weight.dims() else { continue };
            used[target] = true;
            let a = init::uniform(&[rank, inputs], (inputs.max(1) as f64).sqrt().recip(), generator, &device)?;
            adapters.insert(format!("{module}{A}"), a);
            adapters.insert(format!("{module}{B}"), BitNetTensor::zeros(&[outputs, rank], BitNetDType::F32, &device)?);
        }
        if let Some(target) = used.iter().position(|used| !used) {
            return bad(format!("the model has no linear layer {}", config.targets[target]));
        }
        Self::from_adapters(base, config.alpha / rank as f64, adapters)
    }

    /// Adapters that exist, and the factor of their product.
    ///
    /// # Errors
    /// When they do not fit the model.
    pub fn from_adapters(mut base: Transformer, scale: f64, mut adapters: TensorMap) -> Result<Self> {
        for tensor in base.tensors_mut().values_mut() {
            tensor.requires_grad_(false)?;
        }
        for (name, tensor) in &mut adapters {
            let module = name.strip_suffix(A).or(name.strip_suffix(B));
            let weight = module.and_then(|module| base.tensors().get(&format!("{module}.weight")));
            let weight = weight.ok_or_else(|| TrainingError::UnexpectedTensor { name: name.clone() })?;
            let axis = usize::from(name.ends_with(A));
            if weight.rank() != 2 || tensor.rank() != 2 || tensor.dims()[axis] != weight.dims()[axis] {
                let (got, needed) = (tensor.dims().to_vec(), weight.dims().to_vec());
                return Err(TrainingError::TensorShape { name: name.clone(), got, needed });
            }
            *tensor = tensor.detach().to_dtype(BitNetDType::F32)?.to_device(base.device())?;
            tensor.requires_grad_(true)?;
        }
        Ok(Self { base, scale, adapters })
    }

    /// The model with the adapters' products in its weights; gradients reach the adapters.
    fn applied(&self, adapters: &TensorMap) -> Result<Transformer> {
        let mut model = self.base.clone();
        for (name, a) in adapters {
            let Some(module) = name.strip_suffix(A) else { continue };
            let b = adapters.get(&format!("{module}{B}"));
            let b = b.ok_or_else(|| TrainingError::MissingTensor { name: format!("{module}{B}") })?;
            let weight = &mut model.tensors_mut()[&format!("{module}.weight")];
            *weight = adapted(weight, a, b, self.scale)?;
        }
        Ok(model)
    }

    /// The model with the adapters in its latent weights, as they are.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn merged(&self) -> Result<Transformer> {
        self.result(None)
    }

    /// Writes the adapters, their factor and the fingerprint of their base, as safetensors.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let (scale, base) = (self.scale.to_string(), fingerprint(&self.base)?.to_string());
        save(path, &self.adapters, &[("format", "pt"), (SCALE, &scale), (BASE, &base)])?;
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote, for the model that it was trained on.
    ///
    /// # Errors
    /// When it cannot be read, does not fit the model, or was trained on another.
    pub fn load(base: Transformer, path: &Path) -> Result<Self> {
        let file = SafetensorsFile::open(path)?;
        let scale = file.header().metadata.get(SCALE).and_then(|scale| scale.parse().ok());
        let scale = scale.ok_or_else(|| TrainingError::data(path, format!("is no file of adapters: no {SCALE}")))?;
        let trained_on = file.header().metadata.get(BASE);
        if trained_on.is_some_and(|trained_on| !fingerprint(&base).is_ok_and(|own| *trained_on == own.to_string())) {
            return Err(TrainingError::data(path, "the adapters were trained on another base model: give that one"));
        }
        let read = |name: &str| Ok((name.to_owned(), file.tensor(name, &Device::cpu())?));
        let adapters = file.header().tensors().map(|info| read(&info.name)).collect::<Result<_>>()?;
        Self::from_adapters(base, scale, adapters)
    }
}

/// `weight + scale b a`, recorded as one operation of `a` `[rank, inputs]` and `b` `[outputs, rank]`.
fn adapted(weight: &BitNetTensor, a: &BitNetTensor, b: &BitNetTensor, scale: f64) -> Result<BitNetTensor> {
    let (a_saved, b_saved) = (a.detach(), b.detach());
    let forward = || b.matmul(a)?.mul(scale)?.add(weight);
    let adapted = autograd::differentiable("lora", &[a, b], forward, |_| {
        move |grad: &BitNetTensor| {
            let da = b_saved.t()?.matmul(grad)?.mul(scale)?;
            Ok(vec![Some(da), Some(grad.matmul(&a_saved.t()?)?.mul(scale)?)])
        }
    });
    Ok(adapted?)
}

/// Whether a layer has that name, or its last parts.
fn is_of(module: &str, target: &str) -> bool {
    module.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether the tensors of a checkpoint are adapters.
pub(crate) fn are_adapters(tensors: &TensorMap) -> bool {
    tensors.keys().any(|name| name.ends_with(A))
}

impl Module for Lora {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        self.adapters.iter().map(|(name, tensor)| (name.clone(), tensor)).collect()
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        self.adapters.iter_mut().map(|(name, tensor)| (name.clone(), tensor)).collect()
    }
}

impl Objective for Lora {
    fn model(&self) -> &Transformer {
        &self.base
    }

    fn set_lambda(&mut self, lambda: f64) {
        self.base.set_lambda(lambda);
    }

    fn loss(&self, batch: &Batch, generator: Option<&mut Generator>) -> Result<BitNetTensor> {
        self.applied(&self.adapters)?.loss(&batch.inputs, &batch.targets, documents(batch), generator)
    }

    fn fixed_model(&self) -> Option<&Transformer> {
        Some(&self.base)
    }

    fn result(&self, average: Option<&TensorMap>) -> Result<Transformer> {
        let adapters = average.unwrap_or(&self.adapters).iter().map(|(name, x)| (name.clone(), x.detach()));
        let merged = self.applied(&adapters.collect())?;
        let tensors = merged.tensors().iter().map(|(name, x)| (name.clone(), x.detach())).collect();
        Transformer::from_parameters(merged.config().clone(), *merged.options(), tensors)
    }
}
