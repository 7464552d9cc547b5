//! Conversion from and to arrays of the `ndarray` crate (feature `ndarray`).

use super::views::argument;
use crate::{BitNetTensor, Device, Element, Result};
use ndarray::{ArrayBase, ArrayD, Data, Dimension};

impl BitNetTensor {
    /// A copy of an array of any layout.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let array = ndarray::array![[1f32, 2.], [3., 4.]];
    /// let x = BitNetTensor::from_ndarray(&array.t(), &Device::cpu())?;
    /// assert_eq!(x.to_vec::<f32>()?, [1., 3., 2., 4.]);
    /// assert_eq!(x.to_ndarray::<f32>()?, array.t().into_dyn());
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    pub fn from_ndarray<T, S, D>(array: &ArrayBase<S, D>, device: &Device) -> Result<Self>
    where
        T: Element,
        S: Data<Elem = T>,
        D: Dimension,
    {
        match array.as_slice() {
            Some(data) => Self::from_slice(data, array.shape(), device),
            None => Self::from_vec(array.iter().copied().collect(), array.shape(), device),
        }
    }

    /// A copy as an array in row-major order; an error if `T` is not the tensor's type.
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayD<T>> {
        ArrayD::from_shape_vec(self.dims(), self.to_vec()?).map_err(|e| argument("to_ndarray", e.to_string()))
    }
}
