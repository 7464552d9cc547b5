//! Softmax and its logarithm over any dimension.

use super::derivative::{log_softmax_backward, softmax_backward};
use crate::autograd::differentiable_by_result;
use crate::backend::{TensorMut, TensorRef};
use crate::mixed_precision::operand;
use crate::{Backend, BitNetTensor, Layout, Result};

type Function = fn(&dyn Backend, TensorRef, TensorMut) -> Result<()>;

impl BitNetTensor {
    /// `exp(x) / sum(exp(x))` over dimension `axis`, floats (`torch.softmax`).
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let x = BitNetTensor::from_slice(&[0f32, 0., 1., 1.], &[2, 2], &Device::cpu())?;
    /// assert_eq!(x.softmax(1)?.to_vec::<f32>()?, [0.5; 4]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn softmax(&self, axis: isize) -> Result<Self> {
        let forward = || over_axis("softmax", self, axis, |device, x, out| device.softmax(x, out));
        differentiable_by_result("softmax", &[self], forward, || {
            let dtype = self.dtype();
            move |grad: &Self, y: &Self| Ok(vec![Some(softmax_backward(grad, y, axis)?.to_dtype(dtype)?)])
        })
    }

    /// `x - log(sum(exp(x)))` over dimension `axis`, floats (`torch.log_softmax`).
    pub fn log_softmax(&self, axis: isize) -> Result<Self> {
        let forward = || over_axis("log_softmax", self, axis, |device, x, out| device.log_softmax(x, out));
        differentiable_by_result("log_softmax", &[self], forward, || {
            let dtype = self.dtype();
            move |grad: &Self, y: &Self| Ok(vec![Some(log_softmax_backward(grad, y, axis)?.to_dtype(dtype)?)])
        })
    }
}

/// Applies a function of the last dimension to dimension `axis`.
fn over_axis(op: &'static str, x: &BitNetTensor, axis: isize, f: Function) -> Result<BitNetTensor> {
    x.is_float(op)?;
    let x = operand(op, x)?;
    let mut out = BitNetTensor::empty(x.dims(), x.dtype(), x.device())?;
    let scalar = x.rank() == 0 && (-1..=0).contains(&axis);
    let axis = if scalar { 0 } else { x.shape().axis(op, axis)? };
    let last =
        |layout: &Layout| if scalar { layout.unsqueeze(0) } else { layout.transpose(axis, layout.dims().len() - 1) };
    let from = x.as_ref().as_ref();
    let to = out.as_mut()?;
    let (from_layout, to_layout) = (last(&from.layout)?, last(&to.layout)?);
    f(&**x.device(), TensorRef { layout: from_layout, ..from }, TensorMut { layout: to_layout, ..to })?;
    Ok(out)
}
