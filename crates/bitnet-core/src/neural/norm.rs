//! Normalisation of rows.

use super::derivative::{layer_norm_backward, rms_norm_backward};
use super::shape_error;
use crate::autograd::{differentiable, is_recorded};
use crate::mixed_precision::operands;
use crate::{BitNetDType, BitNetTensor, Result};

impl BitNetTensor {
    /// `(x - mean) / sqrt(var + eps) * weight + bias`, mean and variance over the last dimensions, whose extents are
    /// `normalized`; `weight` and `bias` have that shape (Ba et al. 2016; `torch.nn.functional.layer_norm`).
    pub fn layer_norm(
        &self,
        normalized: &[usize],
        weight: Option<&Self>,
        bias: Option<&Self>,
        eps: f64,
    ) -> Result<Self> {
        const OP: &str = "layer_norm";
        let operands_given: Vec<&Self> = [Some(self), weight, bias].into_iter().flatten().collect();
        if is_recorded(&operands_given) {
            let forward = || self.layer_norm(normalized, weight, bias, eps);
            let (x, w, bias_dtype) = (self.clone(), weight.cloned(), bias.map(Self::dtype));
            let normalized = normalized.to_vec();
            return differentiable(OP, &operands_given, forward, |_| {
                move |grad: &Self| {
                    let d = layer_norm_backward(grad, &x, &normalized, w.as_ref(), eps)?;
                    let of_bias = match (bias_dtype, d.bias) {
                        (Some(dtype), Some(bias)) => Some(Some(bias.to_dtype(dtype)?)),
                        _ => None,
                    };
                    Ok([Some(Some(d.x)), w.is_some().then_some(Some(d.weight)), of_bias]
                        .into_iter()
                        .flatten()
                        .collect())
                }
            });
        }
        let [x, weight, bias] = operands(OP, [Some(self), weight, bias])?;
        let given = x.as_deref().unwrap_or(self);
        let parameters = [weight.as_deref(), bias.as_deref()];
        let x = given.normed(OP, normalized, &parameters)?;
        let columns = normalized.iter().product::<usize>();
        let flat = |t: &Option<&Self>| t.map(|t| t.to_dtype(x.dtype())?.reshape(&[columns])).transpose();
        let (weight, bias) = (flat(&parameters[0])?, flat(&parameters[1])?);
        let rows = [x.elements() / columns.max(1), columns];
        let (input, mut out) = (x.reshape(&rows)?, Self::empty(&rows, x.dtype(), x.device())?);
        let (weight, bias) = (weight.as_ref().map(Self::as_ref), bias.as_ref().map(Self::as_ref));
        if x.elements() > 0 {
            x.device().layer_norm(input.as_ref(), weight, bias, eps, out.as_mut()?)?;
        }
        out.with_layout(out.layout().reshape(x.dims())?).to_dtype(given.dtype())
    }

    /// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension, whose extent `weight` has (Zhang and Sennrich
    /// 2019; `torch.nn.functional.rms_norm`).
    pub fn rms_norm(&self, weight: &Self, eps: f64) -> Result<Self> {
        const OP: &str = "rms_norm";
        if is_recorded(&[self, weight]) {
            let (x, w) = (self.clone(), weight.clone());
            return differentiable(
                OP,
                &[self, weight],
                || self.rms_norm(weight, eps),
                |_| {
                    move |grad: &Self| {
                        let d = rms_norm_backward(grad, &x, &w, eps)?;
                        Ok(vec![Some(d.x), Some(d.weight)])
                    }
                },
            );
        }
        let [x, weight] = operands(OP, [Some(self), Some(weight)])?;
        let (Some(x), Some(weight)) = (x, weight) else { unreachable!("both were given") };
        let given = &x;
        let x = given.normed(OP, &[given.shape().last()], &[Some(&weight)])?;
        let weight = weight.to_dtype(x.dtype())?;
        if x.elements() == 0 {
            return given.zeros_like();
        }
        if x.dtype() == BitNetDType::F64 {
            // The device's eps is an f32.
            return x.mul(&x.square()?.mean(-1, true)?.add_(eps)?.rsqrt()?)?.mul(&weight);
        }
        let mut out = Self::empty(x.dims(), x.dtype(), x.device())?;
        x.device().rms_norm(x.as_ref(), weight.as_ref(), eps as f32, out.as_mut()?)?;
        out.to_dtype(given.dtype())
    }

    /// The tensor in the compute dtype: its own if the parameters have the same, else the widened one. An error unless
    /// it holds floats, its last dimensions are `normalized` and the parameters have that shape.
    fn normed(&self, op: &'static str, normalized: &[usize], parameters: &[Option<&Self>]) -> Result<Self> {
        self.is_float(op)?;
        if normalized.is_empty() || !self.dims().ends_with(normalized) {
            return Err(shape_error(
                op,
                "the tensor",
                self,
                format!("at least one dimension, the last {normalized:?}"),
            ));
        }
        for parameter in parameters.iter().flatten() {
            self.same_device(op, parameter)?;
            if parameter.dims() != normalized {
                let needed = format!("{normalized:?}, the dimensions normalised");
                return Err(shape_error(op, "the weight or bias", parameter, needed));
            }
        }
        let alike = parameters.iter().flatten().all(|parameter| parameter.dtype() == self.dtype());
        if alike { Ok(self.clone()) } else { self.wide(op) }
    }
}
