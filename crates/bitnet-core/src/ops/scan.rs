//! Cumulative sums and products.

use crate::autograd::derivative;
use crate::backend::{ScanOp, summed};
use crate::mixed_precision::operand;
use crate::{BitNetDType, BitNetTensor, Result};
use std::borrow::Cow;

impl BitNetTensor {
    /// Cumulative sum along `axis` (`torch.cumsum`); dtypes as [`sum`](Self::sum).
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let x = BitNetTensor::from_slice(&[1f32, 2.0, 3.0], &[3], &Device::cpu())?;
    /// assert_eq!(x.cumsum(0)?.to_vec::<f32>()?, [1.0, 3.0, 6.0]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn cumsum(&self, axis: isize) -> Result<Self> {
        self.scan("cumsum", ScanOp::Sum, axis)
    }

    /// Cumulative product along `axis` (`torch.cumprod`); dtypes as [`sum`](Self::sum).
    pub fn cumprod(&self, axis: isize) -> Result<Self> {
        self.scan("cumprod", ScanOp::Prod, axis)
    }

    fn scan(&self, name: &'static str, op: ScanOp, axis: isize) -> Result<Self> {
        self.unpacked(name)?;
        if let Cow::Owned(x) = operand(name, self)? {
            return x.scan(name, op, axis);
        }
        let dtype = summed(self.dtype(), self.device().has(BitNetDType::I64));
        if self.rank() == 0 && (-1..=0).contains(&axis) {
            return self.to_dtype(dtype);
        }
        let axis = self.shape().axis(name, axis)?;
        let forward = || {
            let mut out = Self::empty(self.dims(), dtype, self.device())?;
            if out.elements() > 0 {
                self.device().scan(op, self.as_ref(), axis, out.as_mut()?)?;
            }
            Ok(out)
        };
        derivative::scan(name, op, self, axis as isize, forward)
    }
}
