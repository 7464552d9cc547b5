//! The norm of gradients, clipping, scaling.

use crate::Result;
use bitnet_core::BitNetTensor;
use bitnet_core::autograd::no_grad;

/// The Euclidean norm of all gradients together; parameters without one count nothing.
pub fn grad_norm(parameters: &[(String, &BitNetTensor)]) -> Result<f64> {
    no_grad(|| {
        let mut squares = 0.;
        for gradient in parameters.iter().filter_map(|(_, parameter)| parameter.grad()) {
            squares += gradient.norm(2., .., false)?.to_scalar()?.to_f64().powi(2);
        }
        Ok(squares.sqrt())
    })
}

/// Multiplies all gradients by one factor so that their norm together is at most `max_norm`
/// (`torch.nn.utils.clip_grad_norm_`); gives the norm before. Where that is not finite the gradients stay as they are.
pub fn clip_grad_norm(parameters: &[(String, &BitNetTensor)], max_norm: f64) -> Result<f64> {
    let norm = grad_norm(parameters)?;
    // PyTorch's guard against the norm 0.
    let factor = max_norm / (norm + 1e-6);
    if norm.is_finite() && factor < 1. {
        scale_grad(parameters, factor)?;
    }
    Ok(norm)
}

/// Multiplies all gradients by `factor`.
pub fn scale_grad(parameters: &[(String, &BitNetTensor)], factor: f64) -> Result<()> {
    for (_, parameter) in parameters {
        if let Some(mut gradient) = parameter.take_grad() {
            no_grad(|| gradient.mul_(factor).map(drop))?;
            parameter.set_grad(Some(gradient))?;
        }
    }
    Ok(())
}
