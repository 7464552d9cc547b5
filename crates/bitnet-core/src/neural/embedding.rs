//! Embedding, one-hot encoding, and rotary position embedding.

use crate::tensor::gather::index_dtype;
use crate::tensor::views::argument;
use crate::{BitNetDType, BitNetTensor, Result, Scalar};

impl BitNetTensor {
    /// Row `ids[..]` of this table `[V, H]` as `[.., H]` (`torch.nn.functional.embedding`); `ids` `I64` or `U32` of any
    /// shape; an id outside the table is an error. Rows of packed weights are returned as f32.
    pub fn embedding(&self, ids: &Self) -> Result<Self> {
        const OP: &str = "embedding";
        let &[_, width] = self.dims() else { return Err(self.needs(OP, "[V, H], a table of rows")) };
        if self.dtype().is_packed() {
            self.same_device(OP, ids)?;
            // An id that is negative or beyond u32 becomes the last one, which no table has.
            let ids_u32 = match ids.as_indices(OP)? {
                ids if ids.dtype() == BitNetDType::U32 => ids,
                ids => ids.clamp(Some((-1).into()), Some(i64::from(u32::MAX).into()))?.to_dtype(BitNetDType::U32)?,
            };
            let ids_u32 = ids_u32.reshape(&[ids.elements()])?.contiguous()?;
            let mut out = Self::empty(&[ids.elements(), width], BitNetDType::F32, self.device())?;
            self.device().embedding(ids_u32.as_ref(), self.as_ref(), out.as_mut()?)?;
            return out.reshape(&[ids.dims(), &[width]].concat());
        }
        let rows = self.index_select(0, &ids.reshape(&[ids.elements()])?)?;
        rows.reshape(&[ids.dims(), &[width]].concat())
    }

    /// 1 at the position of each index and 0 elsewhere, `I64` `[.., classes]` (`torch.nn.functional.one_hot`); `U32` where
    /// the device lacks it.
    pub fn one_hot(&self, classes: usize) -> Result<Self> {
        const OP: &str = "one_hot";
        if !self.dtype().is_integer() {
            return Err(argument(OP, format!("takes integers, got {}", self.dtype())));
        }
        if self.elements() > 0 {
            let (low, high) = (self.amin(.., false)?.to_scalar()?, self.amax(.., false)?.to_scalar()?);
            let fits = |x: Scalar| u64::try_from(x.to_i64()).is_ok_and(|x| x < classes as u64);
            if !fits(low) || !fits(high) {
                return Err(argument(OP, format!("indices {low} to {high} do not fit {classes} classes")));
            }
        }
        let dtype = index_dtype(self.device());
        let class = Self::arange(0, classes, 1, dtype, self.device())?;
        self.to_dtype(dtype)?.unsqueeze(-1)?.eq(&class)?.to_dtype(dtype)
    }

    /// Rotary position embedding, halves rotated (Su et al. 2021, in the order of GPT-NeoX and Hugging Face): of `x`
    /// `[.., T, D]` the pair `(i, i + D/2)` of token `t` by the angle whose cosine and sine are `cos[t, i]`,
    /// `sin[t, i]`, `[T, D/2]` (or anything that broadcasts to `[.., T, D/2]`).
    pub fn rope(&self, cos: &Self, sin: &Self) -> Result<Self> {
        const OP: &str = "rope";
        let width = self.shape().last();
        if self.rank() < 2 || !width.is_multiple_of(2) {
            return Err(self.needs(OP, "[.., T, D] with an even D"));
        }
        self.widened(OP, |x| {
            let (cos, sin) = (cos.to_dtype(x.dtype())?, sin.to_dtype(x.dtype())?);
            let (low, high) = (x.narrow(-1, 0, width / 2)?, x.narrow(-1, width / 2, width / 2)?);
            let new_low = low.mul(&cos)?.sub(&high.mul(&sin)?)?;
            let new_high = high.mul(&cos)?.add(&low.mul(&sin)?)?;
            if new_low.dims() != low.dims() {
                return Err(cos.needs(OP, &format!("cos and sin that broadcast to {}", low.shape())));
            }
            Self::cat(&[&new_low, &new_high], -1)
        })
    }
}
