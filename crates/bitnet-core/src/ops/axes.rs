//! The dimensions that a reduction runs over.

use crate::{MAX_DIMS, Result, TensorOpError, TensorShape};
use std::ops::RangeFull;

/// Dimensions to reduce: `..` for all, one number, or an array; negative from the end. An empty list means all, as in
/// PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axes {
    axes: [isize; MAX_DIMS],
    /// Can be longer than `MAX_DIMS`: then a dimension is named twice.
    len: usize,
}

impl Axes {
    fn new(axes: impl ExactSizeIterator<Item = isize>) -> Self {
        let mut out = Self { axes: [0; MAX_DIMS], len: axes.len() };
        for (to, axis) in out.axes.iter_mut().zip(axes) {
            *to = axis;
        }
        out
    }

    /// For each dimension of `shape` whether it is selected; an error for one that does not exist or is named twice. A
    /// 0-d tensor counts as having one dimension.
    pub(crate) fn resolve(&self, op: &'static str, shape: &TensorShape) -> Result<[bool; MAX_DIMS]> {
        let mut meant = [self.len == 0; MAX_DIMS];
        let twice = |axis| TensorOpError::Argument { op, message: format!("dimension {axis} is named twice") };
        let axes = self.axes.get(..self.len).ok_or_else(|| twice(self.axes[MAX_DIMS - 1]))?;
        for &axis in axes {
            let at = if shape.rank() == 0 && (-1..=0).contains(&axis) { 0 } else { shape.axis(op, axis)? };
            if std::mem::replace(&mut meant[at], true) {
                return Err(twice(axis).into());
            }
        }
        Ok(meant)
    }
}

impl From<RangeFull> for Axes {
    fn from(_: RangeFull) -> Self {
        Self { axes: [0; MAX_DIMS], len: 0 }
    }
}

impl From<i32> for Axes {
    fn from(axis: i32) -> Self {
        Self::from(axis as isize)
    }
}

impl From<isize> for Axes {
    fn from(axis: isize) -> Self {
        Self::from([axis])
    }
}

impl<const N: usize> From<[i32; N]> for Axes {
    fn from(axes: [i32; N]) -> Self {
        Self::new(axes.into_iter().map(|axis| axis as isize))
    }
}

impl<const N: usize> From<[isize; N]> for Axes {
    fn from(axes: [isize; N]) -> Self {
        Self::new(axes.into_iter())
    }
}

impl From<&[isize]> for Axes {
    fn from(axes: &[isize]) -> Self {
        Self::new(axes.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_name_dimensions_once() {
        let shape = TensorShape::new(&[2, 3, 4]).unwrap();
        let meant = |axes: Axes| axes.resolve("sum", &shape).map(|meant| meant[..3].to_vec()).ok();
        assert_eq!(meant((..).into()), Some(vec![true; 3]));
        assert_eq!(meant((-1).into()), Some(vec![false, false, true]));
        assert_eq!(meant([0, -2].into()), Some(vec![true, true, false]));
        assert_eq!(meant((&[] as &[isize]).into()), Some(vec![true; 3]));
        assert_eq!(meant([0, -3].into()), None);
        assert_eq!(meant(3.into()), None);
        assert_eq!(meant([0; 9].into()), None);
        let scalar = TensorShape::new(&[]).unwrap();
        assert!(Axes::from(-1).resolve("sum", &scalar).is_ok() && Axes::from(1).resolve("sum", &scalar).is_err());
    }
}
