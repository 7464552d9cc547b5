//! Broadcasting of shapes, and checks of tensors that results are written to.

use crate::{BitNetDType, BitNetTensor, MAX_DIMS, Result, TensorOpError, TensorShape};

/// The common shape of two operands by NumPy's rule: aligned at the last dimension, extents equal or 1.
pub(crate) fn broadcast_shapes(op: &'static str, a: &TensorShape, b: &TensorShape) -> Result<TensorShape> {
    if a == b {
        return Ok(*a);
    }
    let rank = a.rank().max(b.rank());
    let extent = |shape: &TensorShape, axis: usize| match (axis + shape.rank()).checked_sub(rank) {
        Some(axis) => shape.dims()[axis],
        None => 1,
    };
    let mut dims = [1; MAX_DIMS];
    for (axis, dim) in dims[..rank].iter_mut().enumerate() {
        *dim = match (extent(a, axis), extent(b, axis)) {
            (left, right) if left == right || right == 1 => left,
            (1, right) => right,
            _ => return Err(TensorOpError::Broadcast { op, shapes: Box::new((*a, *b)) }.into()),
        };
    }
    TensorShape::new(&dims[..rank])
}

impl BitNetTensor {
    /// An error unless a result of this shape and dtype, made on the device of `other`, can be written here.
    pub(crate) fn check_out(
        &self,
        op: &'static str,
        shape: &TensorShape,
        dtype: BitNetDType,
        other: &Self,
    ) -> Result<()> {
        self.same_device(op, other)?;
        if self.dtype() != dtype {
            return Err(TensorOpError::DType { op, what: "out", got: self.dtype(), needed: dtype }.into());
        }
        if self.shape() != shape {
            let (got, needed) = (*self.shape(), shape.to_string());
            return Err(TensorOpError::Shape { op, what: "out", got, needed }.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        let broadcast = |a: &[usize], b: &[usize]| {
            let (a, b) = (TensorShape::new(a).unwrap(), TensorShape::new(b).unwrap());
            let (forth, back) = (broadcast_shapes("add", &a, &b), broadcast_shapes("add", &b, &a));
            assert_eq!(forth.as_ref().ok(), back.as_ref().ok());
            forth.map(|shape| shape.dims().to_vec()).map_err(|e| e.to_string())
        };
        assert_eq!(broadcast(&[2, 1, 4], &[3, 1]), Ok(vec![2, 3, 4]));
        assert_eq!(broadcast(&[], &[5]), Ok(vec![5]));
        assert_eq!(broadcast(&[0, 3], &[1, 3]), Ok(vec![0, 3]));
        assert_eq!(broadcast(&[0], &[1]), Ok(vec![0]));
        assert!(broadcast(&[2, 3], &[4]).unwrap_err().contains("[2, 3] and [4] do not broadcast"));
        assert!(broadcast(&[0], &[2]).is_err());
        // Each shape is valid, the result would overflow.
        assert!(broadcast(&[1 << 40, 1], &[1 << 40]).is_err());
    }
}
