//! Losses.

use crate::tensor::views::argument;
use crate::{BitNetTensor, Result};

/// What becomes of the losses of single elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// They stay as they are.
    None,
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// How [`BitNetTensor::cross_entropy`] counts.
#[derive(Debug, Clone)]
pub struct CrossEntropyOptions<'a> {
    /// A factor for each class, `[C]`.
    pub weight: Option<&'a BitNetTensor>,
    /// Class targets with this value count nothing; -100 by default.
    pub ignore_index: i64,
    /// The share of every target that is spread over all classes (Szegedy et al. 2016), 0 by default.
    pub label_smoothing: f64,
    /// The mean of class targets is weighted, that of probabilities is over their number.
    pub reduction: Reduction,
}

impl Default for CrossEntropyOptions<'_> {
    fn default() -> Self {
        Self { weight: None, ignore_index: -100, label_smoothing: 0., reduction: Reduction::Mean }
    }
}

impl BitNetTensor {
    /// Cross entropy of these logits `[N, C, ..]` (or `[C]`) and targets (`torch.nn.functional.cross_entropy`): classes,
    /// integers `[N, ..]`, or probabilities of the shape of the logits.
    pub fn cross_entropy(&self, targets: &Self, options: &CrossEntropyOptions) -> Result<Self> {
        const OP: &str = "cross_entropy";
        self.same_device(OP, targets)?;
        if self.rank() == 0 {
            return Err(self.needs(OP, "[N, C, ..] or [C] of logits"));
        }
        if !(0. ..=1.).contains(&options.label_smoothing) {
            return Err(argument(OP, format!("label smoothing is between 0 and 1, got {}", options.label_smoothing)));
        }
        if self.rank() == 1 {
            let targets = targets.unsqueeze(0)?;
            let loss = self.unsqueeze(0)?.cross_entropy(&targets, options)?;
            return if options.reduction == Reduction::None { loss.squeeze(0) } else { Ok(loss) };
        }
        self.widened(OP, |logits| {
            let logs = logits.log_softmax(1)?;
            let classes = logs.dims()[1];
            // [C] as [1, C, 1, ..], which broadcasts over the logits.
            let weight = options.weight.map(|weight| {
                if weight.dims() != [classes] {
                    return Err(weight.needs(OP, &format!("[{classes}] of the weight, a factor for each class")));
                }
                let mut dims = vec![1; logs.rank()];
                dims[1] = classes;
                weight.to_dtype(logs.dtype())?.reshape(&dims)
            });
            let weight = weight.transpose()?;
            if targets.dtype().is_float() {
                return probabilities(&logs, &targets.to_dtype(logs.dtype())?, weight.as_ref(), options);
            }
            class_targets(&logs, targets, weight.as_ref(), options)
        })
    }

    /// Squared difference (`torch.nn.functional.mse_loss`).
    pub fn mse_loss(&self, target: &Self, reduction: Reduction) -> Result<Self> {
        self.widened("mse_loss", |x| x.sub(&target.to_dtype(x.dtype())?)?.square()?.reduced(reduction))
    }

    /// Kullback-Leibler divergence of `target` from these log-probabilities, `t (log t - x)` each
    /// (`torch.nn.functional.kl_div`); the mean is over all elements, as there. `log_target`: `target` is a logarithm too.
    pub fn kl_div(&self, target: &Self, log_target: bool, reduction: Reduction) -> Result<Self> {
        self.widened("kl_div", |x| {
            let target = target.to_dtype(x.dtype())?;
            let each = if log_target {
                target.exp()?.mul(&target.sub(x)?)?
            } else {
                // 0 log 0 is 0.
                let entropy = target.mul(&target.log()?)?.masked_fill(&target.eq(0.)?, 0.)?;
                entropy.sub(&target.mul(x)?)?
            };
            each.reduced(reduction)
        })
    }

    fn reduced(&self, reduction: Reduction) -> Result<Self> {
        match reduction {
            Reduction::None => Ok(self.clone()),
            Reduction::Mean => self.mean(.., false),
            Reduction::Sum => self.sum(.., false),
        }
    }
}

/// `logs` `[N, C, ..]`, `targets` integers `[N, ..]`.
fn class_targets(
    logs: &BitNetTensor,
    targets: &BitNetTensor,
    weight: Option<&BitNetTensor>,
    options: &CrossEntropyOptions,
) -> Result<BitNetTensor> {
    const OP: &str = "cross_entropy";
    let expected = [&logs.dims()[..1], &logs.dims()[2..]].concat();
    if targets.dims() != expected || !targets.dtype().is_integer() {
        let needed = format!("targets that are classes {expected:?} or probabilities {}", logs.shape());
        return Err(targets.needs(OP, &needed));
    }
    let targets = targets.to_dtype(crate::BitNetDType::I64)?;
    let ignored = targets.eq(options.ignore_index)?;
    let classes = targets.masked_fill(&ignored, 0)?.unsqueeze(1)?;
    let at_target = |x: &BitNetTensor| x.gather(1, &classes)?.squeeze(1);
    let mut loss = at_target(logs)?.neg()?;
    let mut factor = match weight {
        Some(weight) => at_target(&weight.expand(logs.dims())?)?,
        None => loss.ones_like()?,
    };
    factor = factor.masked_fill(&ignored, 0.)?;
    loss = loss.mul(&factor)?;
    if options.label_smoothing > 0. {
        let (eps, count) = (options.label_smoothing, logs.dims()[1] as f64);
        let all = match weight {
            Some(weight) => logs.mul(weight)?,
            None => logs.clone(),
        };
        let spread = all.sum(1, false)?.neg()?.masked_fill(&ignored, 0.)?;
        loss = loss.mul(1. - eps)?.add(&spread.mul(eps / count)?)?;
    }
    // What is not counted is zero even where its logarithm is infinite.
    let loss = loss.masked_fill(&ignored, 0.)?;
    match options.reduction {
        Reduction::Mean => loss.sum(.., false)?.div(&factor.sum(.., false)?),
        other => loss.reduced(other),
    }
}

/// `logs` and `targets` `[N, C, ..]`.
fn probabilities(
    logs: &BitNetTensor,
    targets: &BitNetTensor,
    weight: Option<&BitNetTensor>,
    options: &CrossEntropyOptions,
) -> Result<BitNetTensor> {
    if targets.dims() != logs.dims() {
        return Err(targets.needs("cross_entropy", &format!("probabilities {}, the shape of the logits", logs.shape())));
    }
    let (eps, count) = (options.label_smoothing, logs.dims()[1] as f64);
    let mut each = targets.mul(1. - eps)?.add(eps / count)?.mul(logs)?;
    if let Some(weight) = weight {
        each = each.mul(weight)?;
    }
    let loss = each.sum(1, false)?.neg()?;
    loss.reduced(options.reduction)
}
