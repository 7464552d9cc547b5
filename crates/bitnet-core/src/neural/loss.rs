//! Losses.

use super::shape_error;
use crate::mixed_precision::operand;
use crate::{BitNetTensor, Result, TensorOpError};

/// How the losses of the elements are reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// Not reduced.
    None,
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    fn apply(self, x: BitNetTensor) -> Result<BitNetTensor> {
        match self {
            Self::None => Ok(x),
            Self::Mean => x.mean(.., false),
            Self::Sum => x.sum(.., false),
        }
    }
}

/// Options of [`BitNetTensor::cross_entropy`].
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyOptions<'a> {
    /// Factor of each class, `[C]`.
    pub weight: Option<&'a BitNetTensor>,
    /// Targets of this class are ignored; -100 by default, as in PyTorch.
    pub ignore_index: i64,
    /// Label smoothing: share of the target distributed over all classes (Szegedy et al. 2016).
    pub label_smoothing: f64,
    /// How the losses of the samples are reduced.
    pub reduction: Reduction,
}

impl Default for CrossEntropyOptions<'_> {
    fn default() -> Self {
        Self { weight: None, ignore_index: -100, label_smoothing: 0., reduction: Reduction::Mean }
    }
}

/// Intermediate values of a cross entropy, which the derivative also uses; classes are the last dimension.
pub(super) struct CrossEntropy {
    /// Logarithms of probabilities, `[.., C]`.
    pub logs: BitNetTensor,
    /// Weight of each class in the loss of each sample, `[.., C]`: `loss = -sum(logs * share)`.
    pub share: BitNetTensor,
    /// Divisor of the sum of losses for the mean, 0-d.
    pub count: BitNetTensor,
}

/// The class dimension: the second, or the only one.
pub(super) fn class_axis(x: &BitNetTensor) -> isize {
    if x.rank() > 1 { 1 } else { 0 }
}

impl CrossEntropy {
    pub fn new(logits: &BitNetTensor, targets: &BitNetTensor, options: &CrossEntropyOptions) -> Result<Self> {
        const OP: &str = "cross_entropy";
        logits.same_device(OP, targets)?;
        if logits.rank() == 0 {
            return Err(shape_error(OP, "the logits", logits, "[N, C, ..] or [C]"));
        }
        let axis = class_axis(logits);
        let classes = logits.dims()[axis as usize];
        let logs = logits.wide(OP)?.movedim(axis, -1)?.log_softmax(-1)?;
        let weight = match options.weight {
            Some(weight) if weight.dims() != [classes] => {
                return Err(shape_error(OP, "the weight", weight, format!("[{classes}], a factor of each class")));
            }
            Some(weight) => Some(weight.to_dtype(logs.dtype())?),
            None => None,
        };
        let smoothing = options.label_smoothing;
        if !(0. ..=1.).contains(&smoothing) {
            let message = format!("label_smoothing is {smoothing}: it must be between 0 and 1");
            return Err(TensorOpError::Argument { op: OP, message }.into());
        }
        let samples = &logs.dims()[..logs.rank() - 1];
        let weighted = |share: BitNetTensor| match &weight {
            Some(weight) => share.mul(weight),
            None => Ok(share),
        };
        if targets.dtype().is_float() {
            if targets.dims() != logits.dims() {
                return Err(shape_error(OP, "the targets", targets, format!("{}, that of the logits", logits.shape())));
            }
            let mut share = targets.to_dtype(logs.dtype())?.movedim(axis, -1)?;
            if smoothing > 0. {
                share = share.mul(1. - smoothing)?.add(smoothing / classes as f64)?;
            }
            let count = BitNetTensor::scalar(samples.iter().product::<usize>(), logs.dtype(), logs.device())?;
            return Ok(Self { share: weighted(share)?, logs, count });
        }
        if targets.dims() != samples {
            return Err(shape_error(OP, "the targets", targets, format!("{samples:?}, a class of each sample")));
        }
        let counted = targets.ne(options.ignore_index)?;
        let safe = targets.masked_fill(&counted.bitwise_not()?, 0)?;
        // Weight of each sample; 0 if ignored.
        let mut sample = counted.to_dtype(logs.dtype())?;
        if let Some(weight) = &weight {
            sample = sample.mul(&weight.index_select(0, &safe.reshape(&[safe.elements()])?)?.reshape(samples)?)?;
        }
        let mut share = logs.zeros_like()?;
        share.scatter_(-1, &safe.unsqueeze(-1)?, &sample.mul(1. - smoothing)?.unsqueeze(-1)?)?;
        if smoothing > 0. {
            let even = counted.to_dtype(logs.dtype())?.unsqueeze(-1)?.mul(smoothing / classes as f64)?;
            share = share.add(&weighted(even.expand(logs.dims())?)?)?;
        }
        Ok(Self { logs, share, count: sample.sum(.., false)? })
    }

    /// The loss of each sample. A class of weight 0 does not count, even if its probability is zero.
    fn losses(&self) -> Result<BitNetTensor> {
        let products = self.logs.mul(&self.share)?;
        products.masked_fill(&self.share.eq(0)?, 0.)?.sum(-1, false)?.neg()
    }
}

impl BitNetTensor {
    /// Cross entropy of logits `[N, C, ..]` or `[C]` (`torch.nn.functional.cross_entropy`). Targets are class indices
    /// `[N, ..]`, integers, or probabilities of the shape of the logits, floats. The mean is weighted by the target
    /// weights.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device, neural::CrossEntropyOptions};
    /// let logits = BitNetTensor::from_slice(&[0f32, 0., 5., 5.], &[2, 2], &Device::cpu())?;
    /// let targets = BitNetTensor::from_slice(&[0i64, 1], &[2], &Device::cpu())?;
    /// let loss = logits.cross_entropy(&targets, &CrossEntropyOptions::default())?;
    /// assert!((loss.item::<f32>()? - 2f32.ln()).abs() < 1e-6);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn cross_entropy(&self, targets: &Self, options: &CrossEntropyOptions) -> Result<Self> {
        let logits = operand("cross_entropy", self)?;
        let parts = CrossEntropy::new(&logits, targets, options)?;
        let losses = parts.losses()?;
        let loss = match options.reduction {
            Reduction::None => losses,
            Reduction::Sum => losses.sum(.., false)?,
            Reduction::Mean => losses.sum(.., false)?.div(&parts.count)?,
        };
        loss.to_dtype(logits.dtype())
    }

    /// `(x - target)^2` (`torch.nn.functional.mse_loss`); equal shapes.
    pub fn mse_loss(&self, target: &Self, reduction: Reduction) -> Result<Self> {
        let (x, y, dtype) = self.with_target("mse_loss", target)?;
        reduction.apply(x.sub(&y)?.square()?)?.to_dtype(dtype)
    }

    /// Kullback-Leibler divergence `target (log(target) - x)` of logarithms of probabilities `x` from probabilities
    /// `target`, or their logarithms with `log_target` (`torch.nn.functional.kl_div`, whose mean is over all elements).
    pub fn kl_div(&self, target: &Self, log_target: bool, reduction: Reduction) -> Result<Self> {
        let (x, y, dtype) = self.with_target("kl_div", target)?;
        let losses = if log_target {
            y.exp()?.mul(&y.sub(&x)?)?
        } else {
            // 0 log(0) is 0.
            let own = y.mul(&y.log()?)?.masked_fill(&y.eq(0)?, 0.)?;
            own.sub(&y.mul(&x)?)?
        };
        reduction.apply(losses)?.to_dtype(dtype)
    }

    /// Both operands in the compute dtype, and the dtype of the result.
    pub(super) fn with_target(&self, op: &'static str, target: &Self) -> Result<(Self, Self, crate::BitNetDType)> {
        self.same_device(op, target)?;
        if self.dims() != target.dims() {
            return Err(shape_error(op, "the target", target, format!("{}, that of the tensor", self.shape())));
        }
        let (x, y) = (operand(op, self)?, operand(op, target)?);
        let dtype = crate::promote_types(x.dtype(), y.dtype())?;
        let (x, y) = (x.to_dtype(dtype)?.wide(op)?, y.to_dtype(dtype)?.wide(op)?);
        Ok((x, y, dtype))
    }
}
