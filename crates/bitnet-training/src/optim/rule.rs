//! The formulas of the optimizers.

use super::muon::{self, MuonScale};
use crate::{Result, TrainingError};
use bitnet_core::backend::AdamStep;
use bitnet_core::{BitNetDType, BitNetTensor};

/// How a parameter `p` is changed by its gradient `g`, with the learning rate `lr` and the weight decay `wd`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// `b = momentum b + (g + wd p)`, `p -= lr b`, or with Nesterov's momentum `p -= lr (g + wd p + momentum b)`
    /// (`torch.optim.SGD`; Sutskever et al. 2013).
    Sgd {
        /// Share of the last step in this one; 0 for plain descent, which has no state.
        momentum: f64,
        /// Whether the gradient is taken ahead.
        nesterov: bool,
    },
    /// Adam (Kingma and Ba 2015; `torch.optim.Adam`): weight decay is part of the gradient.
    Adam {
        /// Decay of the mean of the gradient and of its square.
        betas: (f64, f64),
        /// Added to the root of the second.
        eps: f64,
    },
    /// Adam with decoupled weight decay, `p *= 1 - lr wd` before the step (Loshchilov and Hutter 2019;
    /// `torch.optim.AdamW`).
    AdamW {
        /// Decay of the mean of the gradient and of its square.
        betas: (f64, f64),
        /// Added to the root of the second.
        eps: f64,
    },
    /// Lion (Chen et al. 2023): `p -= lr (sign(b1 m + (1 - b1) g) + wd p)`, `m = b2 m + (1 - b2) g`.
    Lion {
        /// `b1` of the step and `b2` of the memory.
        betas: (f64, f64),
    },
    /// Muon (Jordan et al. 2024; `torch.optim.Muon`), for matrices only: momentum, made orthogonal.
    Muon {
        /// Decay of the mean of the gradient.
        momentum: f64,
        /// Whether the gradient is taken ahead.
        nesterov: bool,
        /// Factor of the step by the shape of the matrix.
        scale: MuonScale,
    },
}

/// What an update is given beside gradient and moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates<'a> {
    /// [`Rule::rates`] of this update, in the dtype of the parameter: on the device, so that a recorded update takes others.
    pub values: &'a BitNetTensor,
    /// Whether there is weight decay.
    pub decays: bool,
    pub parameter: &'a str,
}

/// Numbers of [`Rule::rates`].
pub(super) const RATES: usize = 4;

impl Rates<'_> {
    fn get(&self, index: isize) -> Result<BitNetTensor> {
        Ok(self.values.select(0, index)?)
    }

    /// `1 - learning rate * weight decay`.
    fn shrink(&self) -> Result<BitNetTensor> {
        self.get(0)
    }

    /// The learning rate, times what the rule makes of it.
    fn rate(&self) -> Result<BitNetTensor> {
        self.get(1)
    }

    /// `sqrt(1 - b2^t)` of Adam.
    fn root(&self) -> Result<BitNetTensor> {
        self.get(2)
    }

    fn weight_decay(&self) -> Result<BitNetTensor> {
        self.get(3)
    }
}

impl Rule {
    /// Adam with the numbers of its paper.
    pub fn adam() -> Self {
        Self::Adam { betas: (0.9, 0.999), eps: 1e-8 }
    }

    /// AdamW with the numbers of its paper.
    pub fn adamw() -> Self {
        Self::AdamW { betas: (0.9, 0.999), eps: 1e-8 }
    }

    /// Lion with the numbers of its paper.
    pub fn lion() -> Self {
        Self::Lion { betas: (0.9, 0.99) }
    }

    /// Muon with the numbers of its author.
    pub fn muon() -> Self {
        Self::Muon { momentum: 0.95, nesterov: true, scale: MuonScale::Original }
    }

    /// Names of the tensors of its state of a parameter, and whether they hold negative numbers.
    pub(super) fn moments(&self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Sgd { momentum: 0., .. } => &[],
            Self::Sgd { .. } | Self::Muon { .. } => &[("momentum_buffer", true)],
            Self::Adam { .. } | Self::AdamW { .. } => &[("exp_avg", true), ("exp_avg_sq", false)],
            Self::Lion { .. } => &[("exp_avg", true)],
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let share = |what: &str, value: f64| {
            if (0. ..1.).contains(&value) {
                return Ok(());
            }
            Err(TrainingError::Invalid(format!("{what} is {value}: it must be at least 0 and below 1")))
        };
        match *self {
            Self::Sgd { momentum: 0., nesterov: true } => {
                Err(TrainingError::Invalid("Nesterov's momentum needs a momentum above 0".into()))
            }
            Self::Sgd { momentum, .. } | Self::Muon { momentum, .. } => share("momentum", momentum),
            Self::Lion { betas } => share("beta 1", betas.0).and(share("beta 2", betas.1)),
            Self::Adam { betas, eps } | Self::AdamW { betas, eps } => {
                share("beta 1", betas.0).and(share("beta 2", betas.1))?;
                let good = (0. ..f64::INFINITY).contains(&eps);
                if good { Ok(()) } else { Err(TrainingError::Invalid(format!("eps is {eps}"))) }
            }
        }
    }

    /// What changes from update to update, of update number `step`, from 1, of a parameter: see [`Rates`].
    pub(super) fn rates(&self, learning_rate: f64, weight_decay: f64, step: u64, dims: &[usize]) -> [f64; RATES] {
        let correction = |beta: f64| 1. - beta.powf(step as f64);
        let (rate, root) = match *self {
            Self::Adam { betas, .. } | Self::AdamW { betas, .. } => {
                (learning_rate / correction(betas.0), correction(betas.1).sqrt())
            }
            Self::Muon { scale, .. } if dims.len() == 2 => (learning_rate * scale.factor(dims), 1.),
            _ => (learning_rate, 1.),
        };
        // Adam's decay is part of its gradient.
        let shrink = if matches!(self, Self::Adam { .. }) { 1. } else { 1. - learning_rate * weight_decay };
        [shrink, rate, root, weight_decay]
    }

    /// Updates a parameter and the state of the rule for it, by operations of the device.
    pub(super) fn apply(
        &self,
        p: &mut BitNetTensor,
        g: &BitNetTensor,
        moments: &mut [BitNetTensor],
        rates: Rates,
    ) -> Result<()> {
        match (*self, moments) {
            (Self::Sgd { momentum, nesterov }, moments) => sgd(p, g, moments.first_mut(), momentum, nesterov, rates),
            (Self::Adam { betas, eps }, [m, v]) => {
                let coupled = rates.decays.then(|| with_decay(g, p, rates)).transpose()?;
                adam_step(p, coupled.as_ref().unwrap_or(g), m, v, betas, eps, Rates { decays: false, ..rates })
            }
            (Self::AdamW { betas, eps }, [m, v]) => adam_step(p, g, m, v, betas, eps, rates),
            (Self::Lion { betas }, [m]) => {
                decay(p, rates)?;
                let mut step = m.mul(betas.0)?;
                step.add_(&g.mul(1. - betas.0)?)?.sign_()?.mul_(&rates.rate()?)?;
                p.sub_(&step)?;
                g.mul_into(1. - betas.1, &mut step)?;
                m.mul_(betas.1)?.add_(&step)?;
                Ok(())
            }
            (Self::Muon { momentum, nesterov, .. }, [buffer]) => {
                toward(buffer, g, 1. - momentum)?;
                let ahead = nesterov.then(|| g.lerp(buffer, momentum)).transpose()?;
                let update = muon::orthogonal(ahead.as_ref().unwrap_or(buffer), rates.parameter)?;
                decay(p, rates)?;
                p.sub_(&*update.to_dtype(p.dtype())?.mul_(&rates.rate()?)?)?;
                Ok(())
            }
            _ => unreachable!("as many moments as the rule names"),
        }
    }
}

/// `p *= 1 - lr wd`.
fn decay(p: &mut BitNetTensor, rates: Rates) -> Result<()> {
    if rates.decays {
        p.mul_(&rates.shrink()?)?;
    }
    Ok(())
}

/// `g + wd p`.
fn with_decay(g: &BitNetTensor, p: &BitNetTensor, rates: Rates) -> Result<BitNetTensor> {
    let mut out = p.mul(&rates.weight_decay()?)?;
    out.add_(g)?;
    Ok(out)
}

/// `m += share (g - m)`; gives memory of the same size to use again.
fn toward(m: &mut BitNetTensor, g: &BitNetTensor, share: f64) -> Result<BitNetTensor> {
    let mut difference = g.sub(&*m)?;
    difference.mul_(share)?;
    m.add_(&difference)?;
    Ok(difference)
}

fn sgd(
    p: &mut BitNetTensor,
    g: &BitNetTensor,
    buffer: Option<&mut BitNetTensor>,
    momentum: f64,
    nesterov: bool,
    rates: Rates,
) -> Result<()> {
    let g = with_decay(g, p, rates)?;
    let mut step = match buffer {
        None => g,
        Some(buffer) => {
            buffer.mul_(momentum)?.add_(&g)?;
            if nesterov { g.add(&buffer.mul(momentum)?)? } else { buffer.copy()? }
        }
    };
    p.sub_(&*step.mul_(&rates.rate()?)?)?;
    Ok(())
}

/// Decoupled decay; `m` and `v` follow the gradient and its square; `p -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)`.
fn adam_step(
    p: &mut BitNetTensor,
    g: &BitNetTensor,
    m: &mut BitNetTensor,
    v: &mut BitNetTensor,
    betas: (f64, f64),
    eps: f64,
    rates: Rates,
) -> Result<()> {
    if p.dtype() == BitNetDType::F32 {
        let step = AdamStep { beta1: betas.0, beta2: betas.1, eps: eps as f32 };
        let (device, numbers) = (p.device().clone(), rates.values.narrow(0, 0, 3)?);
        let (m, v) = (m.as_mut()?, v.as_mut()?);
        return Ok(device.adam_step(step, numbers.as_ref(), p.as_mut()?, g.contiguous()?.as_ref(), m, v)?);
    }
    decay(p, rates)?;
    let mut scratch = toward(m, g, 1. - betas.0)?;
    g.square_into(&mut scratch)?;
    v.mul_(betas.1)?.add_(&*scratch.mul_(1. - betas.1)?)?;
    v.sqrt_into(&mut scratch)?;
    scratch.div_(&rates.root()?)?.add_(eps)?;
    let mut step = m.div(&scratch)?;
    p.sub_(&*step.mul_(&rates.rate()?)?)?;
    Ok(())
}
