//! The norm of gradients, clipping, scaling: by operations of the device, so that nothing waits.

use crate::Result;
use crate::model::widest;
use bitnet_core::autograd::no_grad;
use bitnet_core::{BitNetDType, BitNetTensor, Device, Operand};

/// The Euclidean norm of all gradients together, a scalar in the widest float of their device; parameters without one count
/// nothing.
pub fn grad_norm(parameters: &[(String, &BitNetTensor)]) -> Result<BitNetTensor> {
    no_grad(|| {
        let gradients: Vec<BitNetTensor> = parameters.iter().filter_map(|(_, parameter)| parameter.grad()).collect();
        let Some(device) = gradients.first().map(BitNetTensor::device) else {
            return Ok(BitNetTensor::zeros(&[], widest(&Device::cpu()), &Device::cpu())?);
        };
        let norms = gradients.iter().map(|g| g.norm(2., .., false)?.to_device(device)?.to_dtype(widest(device)));
        let norms = norms.collect::<bitnet_core::Result<Vec<_>>>()?;
        Ok(BitNetTensor::stack(&norms.iter().collect::<Vec<_>>(), 0)?.norm(2., .., false)?)
    })
}

/// Multiplies all gradients by one factor so that their norm together is at most `max_norm`
/// (`torch.nn.utils.clip_grad_norm_`); gives the norm before, as [`grad_norm`]. Where that is not finite the gradients stay as
/// they are.
pub fn clip_grad_norm(parameters: &[(String, &BitNetTensor)], max_norm: f64) -> Result<BitNetTensor> {
    let norm = grad_norm(parameters)?;
    no_grad(|| {
        // PyTorch's guard against the norm 0.
        let factor = norm.add(1e-6)?.reciprocal()?.mul(max_norm)?.minimum(1.)?;
        let factor = factor.masked_fill(&norm.isfinite()?.bitwise_not()?, 1.)?;
        // What is in host memory can be looked at: gradients within the limit are not passed over.
        if norm.device().is_host() && factor.to_scalar()?.to_f64() == 1. {
            return Ok(norm.clone());
        }
        scale_grad(parameters, &factor.to_dtype(BitNetDType::F32)?)?;
        Ok(norm.clone())
    })
}

/// Multiplies all gradients by `factor`, a number or a scalar tensor.
pub fn scale_grad<'a>(parameters: &[(String, &BitNetTensor)], factor: impl Into<Operand<'a>>) -> Result<()> {
    let factor = factor.into();
    for (_, parameter) in parameters {
        if let Some(mut gradient) = parameter.take_grad() {
            no_grad(|| gradient.mul_(factor).map(drop))?;
            parameter.set_grad(Some(gradient))?;
        }
    }
    Ok(())
}
