//! Softmax and its logarithm along any dimension.

use crate::backend::{Backend, TensorMut, TensorRef};
use crate::{BitNetDType, BitNetTensor, Result};

type Fused = fn(&dyn Backend, TensorRef, TensorMut) -> Result<()>;

impl BitNetTensor {
    /// `e^x / sum(e^x)` along a dimension (`torch.softmax`), the largest subtracted first.
    pub fn softmax(&self, axis: isize) -> Result<Self> {
        self.normalized(
            "softmax",
            axis,
            |device, x, out| device.softmax(x, out),
            |x| {
                let exp = x.sub(&x.amax(-1, true)?)?.exp()?;
                exp.div(&exp.sum(-1, true)?)
            },
        )
    }

    /// `x - log(sum(e^x))` along a dimension (`torch.log_softmax`), the largest subtracted first.
    pub fn log_softmax(&self, axis: isize) -> Result<Self> {
        self.normalized(
            "log_softmax",
            axis,
            |device, x, out| device.log_softmax(x, out),
            |x| {
                let shifted = x.sub(&x.amax(-1, true)?)?;
                shifted.sub(&shifted.exp()?.sum(-1, true)?.log()?)
            },
        )
    }

    /// Applies a function of the last dimension along `axis`: the device's in f32, `composed` in f64.
    fn normalized(
        &self,
        op: &'static str,
        axis: isize,
        fused: Fused,
        composed: fn(&Self) -> Result<Self>,
    ) -> Result<Self> {
        let Some(axis) = self.axis_of_any(op, axis)? else {
            return self.unsqueeze(0)?.normalized(op, 0, fused, composed)?.squeeze(0);
        };
        let dtype = super::compute_dtype(op, self.dtype())?;
        if self.elements() == 0 {
            return self.empty_like();
        }
        let x = self.movedim(axis as isize, -1)?.to_dtype(dtype)?;
        let out = if dtype == BitNetDType::F32 {
            let x = x.contiguous()?;
            let mut out = Self::empty(x.dims(), dtype, x.device())?;
            fused(&**x.device(), x.as_ref(), out.as_mut()?)?;
            out
        } else {
            composed(&x)?
        };
        out.movedim(-1, axis as isize)?.to_dtype(self.dtype())
    }
}
