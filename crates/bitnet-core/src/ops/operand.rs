//! Operands that are a tensor or a single value.

use crate::{BitNetDType, BitNetTensor, Device, Result, Scalar};

/// The right operand of a binary operation: a tensor or a number.
#[derive(Debug, Clone, Copy)]
pub enum Operand<'a> {
    /// Broadcast with the other operand.
    Tensor(&'a BitNetTensor),
    /// One value for all elements.
    Scalar(Scalar),
}

impl<'a> From<&'a BitNetTensor> for Operand<'a> {
    fn from(tensor: &'a BitNetTensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl From<Scalar> for Operand<'_> {
    fn from(value: Scalar) -> Self {
        Self::Scalar(value)
    }
}

macro_rules! numbers {
    ($($rust:ty),*) => { $(
        impl From<$rust> for Operand<'_> {
            fn from(value: $rust) -> Self {
                Self::Scalar(value.into())
            }
        }
    )* };
}
numbers!(f32, f64, i8, i16, i32, i64, isize, u8, u16, u32, u64, usize, bool);

impl BitNetTensor {
    /// A 0-d tensor of `value`, cast to `dtype` as [`Scalar::cast`] does.
    pub fn scalar(value: impl Into<Scalar>, dtype: BitNetDType, device: &Device) -> Result<Self> {
        let bytes = value.into().to_bytes(dtype);
        let bytes = bytes.ok_or_else(|| crate::backend::unsupported(&**device, "scalar", dtype))?;
        Self::from_bytes(&bytes[..dtype.size()], &[], dtype, device)
    }

    /// The elements as `dtype` (`torch.Tensor.to`); the tensor itself if it has that type. Floats round to nearest;
    /// casts to integers truncate and saturate floats (NaN gives 0) and wrap integers; casts to `Bool` give whether not
    /// zero.
    ///
    /// ```
    /// use bitnet_core::{BitNetDType, BitNetTensor, Device};
    /// let x = BitNetTensor::from_slice(&[1.7f32, -1.7, 0.0], &[3], &Device::cpu())?;
    /// assert_eq!(x.to_dtype(BitNetDType::I32)?.to_vec::<i32>()?, [1, -1, 0]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn to_dtype(&self, dtype: BitNetDType) -> Result<Self> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        let forward = || {
            let mut out = Self::empty(self.dims(), dtype, self.device())?;
            self.device().cast(self.as_ref(), out.as_mut()?)?;
            Ok(out)
        };
        if !dtype.is_float() {
            // Casts to integers have no derivative.
            return crate::autograd::no_grad(forward);
        }
        crate::autograd::differentiable("to_dtype", &[self], forward, |_| {
            let own = self.dtype();
            move |grad: &Self| Ok(vec![Some(grad.to_dtype(own)?)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BitNetDType::*;
    use half::bf16;

    #[test]
    fn a_scalar_tensor_holds_its_element() {
        let cpu = Device::cpu();
        assert_eq!(BitNetTensor::scalar(-2, I64, &cpu).unwrap().to_vec::<i64>().unwrap(), [-2]);
        assert_eq!(BitNetTensor::scalar(u64::MAX, U64, &cpu).unwrap().to_vec::<u64>().unwrap(), [u64::MAX]);
        assert_eq!(BitNetTensor::scalar(1.5, BF16, &cpu).unwrap().to_vec::<bf16>().unwrap(), [bf16::from_f32(1.5)]);
        assert_eq!(BitNetTensor::scalar(-1, U16, &cpu).unwrap().to_vec::<u16>().unwrap(), [u16::MAX]);
        assert!(BitNetTensor::scalar(1, Ternary2, &cpu).is_err());
    }
}
