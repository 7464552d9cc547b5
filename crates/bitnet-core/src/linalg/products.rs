//! Products of matrices and vectors.

use super::argument;
use crate::autograd::{derivative, is_recorded, not_into};
use crate::ops::broadcast_shapes;
use crate::{BitNetDType, BitNetTensor, Result, TensorOpError};

impl BitNetTensor {
    /// Matrix product of equal dtypes (`torch.matmul`): the dot product of two vectors, a vector for a matrix and a
    /// vector, otherwise products of the matrices in the last two dimensions, the others broadcast. Floats keep their
    /// dtype (f16 and bf16 are summed in f32 and rounded once), `I8` gives `I32`, other integers keep theirs, wrapping.
    ///
    /// ```
    /// use bitnet_core::{BitNetTensor, Device};
    /// let a = BitNetTensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[2, 2], &Device::cpu())?;
    /// let x = BitNetTensor::from_slice(&[1f32, 10.0], &[2], &Device::cpu())?;
    /// assert_eq!(a.matmul(&a)?.to_vec::<f32>()?, [7.0, 10.0, 15.0, 22.0]);
    /// assert_eq!(a.matmul(&x)?.to_vec::<f32>()?, [21.0, 43.0]);
    /// # Ok::<(), bitnet_core::BitNetError>(())
    /// ```
    ///
    /// # Errors
    /// Shapes, dtypes or devices that do not fit, a 0-d operand, `Bool` and packed dtypes.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        self.multiply("matmul", other, None)
    }

    /// [`matmul`](Self::matmul) into `out`, which has its shape and dtype.
    pub fn matmul_into(&self, other: &Self, out: &mut Self) -> Result<()> {
        self.multiply("matmul", other, Some(out)).map(drop)
    }

    /// Product of two matrices (`torch.mm`).
    pub fn mm(&self, other: &Self) -> Result<Self> {
        self.has_rank("mm", 2)?;
        other.has_rank("mm", 2)?;
        self.multiply("mm", other, None)
    }

    /// Product of a matrix and a vector (`torch.mv`).
    pub fn mv(&self, vector: &Self) -> Result<Self> {
        self.has_rank("mv", 2)?;
        vector.has_rank("mv", 1)?;
        self.multiply("mv", vector, None)
    }

    /// Batched matrix product, `[B, M, K]` by `[B, K, N]` (`torch.bmm`).
    pub fn bmm(&self, other: &Self) -> Result<Self> {
        self.has_rank("bmm", 3)?;
        other.has_rank("bmm", 3)?;
        if self.dims()[0] != other.dims()[0] {
            return Err(other.needs("bmm", &format!("{} matrices", self.dims()[0])));
        }
        self.multiply("bmm", other, None)
    }

    /// Dot product of two vectors (`torch.dot`); dtypes as [`matmul`](Self::matmul).
    pub fn dot(&self, other: &Self) -> Result<Self> {
        self.has_rank("dot", 1)?;
        other.has_rank("dot", 1)?;
        self.multiply("dot", other, None)
    }

    /// Outer product of two vectors (`torch.outer`), types promoted.
    pub fn outer(&self, other: &Self) -> Result<Self> {
        self.has_rank("outer", 1)?;
        other.has_rank("outer", 1)?;
        self.unsqueeze(1)?.mul(&other.unsqueeze(0)?)
    }

    /// Cross product of the vectors of 3 elements along `axis`, the rest broadcast (`torch.linalg.cross`).
    pub fn cross(&self, other: &Self, axis: isize) -> Result<Self> {
        let shape = broadcast_shapes("cross", self.shape(), other.shape())?;
        let axis = shape.axis("cross", axis)?;
        if self.rank() != other.rank() || [self, other].iter().any(|x| x.dims()[axis] != 3) {
            let needed = format!("as many dimensions as {} and 3 elements along dimension {axis}", other.shape());
            return Err(self.needs("cross", &needed));
        }
        let part = |x: &Self, i: isize| x.select(axis as isize, i % 3);
        let component = |i: isize| {
            let left = part(self, i + 1)?.mul(&part(other, i + 2)?)?;
            left.sub(&part(self, i + 2)?.mul(&part(other, i + 1)?)?)
        };
        Self::stack(&[&component(0)?, &component(1)?, &component(2)?], axis as isize)
    }

    /// Sum of the diagonal of a matrix (`torch.trace`); integers give `I64`.
    pub fn trace(&self) -> Result<Self> {
        self.has_rank("trace", 2)?;
        self.diagonal(0, 0, 1)?.sum(0, false)
    }

    pub(super) fn has_rank(&self, op: &'static str, rank: usize) -> Result<()> {
        if self.rank() == rank { Ok(()) } else { Err(self.needs(op, &format!("{rank} dimensions"))) }
    }

    fn multiply(&self, op: &'static str, other: &Self, out: Option<&mut Self>) -> Result<Self> {
        self.same_device(op, other)?;
        let (left, right) = (crate::mixed_precision::operand(op, self)?, crate::mixed_precision::operand(op, other)?);
        left.multiplied(op, &right, out)
    }

    /// [`multiply`](Self::multiply) in the dtype that the operands have.
    pub(crate) fn multiplied(&self, op: &'static str, other: &Self, out: Option<&mut Self>) -> Result<Self> {
        if is_recorded(&[self, other]) {
            if out.is_some() {
                not_into(op, &[self, other])?;
            }
            return derivative::matmul(op, self, other, || self.multiplied(op, other, None));
        }
        let (got, needed) = (other.dtype(), self.dtype());
        if got != needed {
            return Err(TensorOpError::DType { op, what: "the second operand", got, needed }.into());
        }
        if self.rank() == 0 || other.rank() == 0 {
            return Err(argument(
                op,
                "both operands need at least one dimension; multiply with a 0-d one by mul".into(),
            ));
        }
        let dtype = if self.dtype() == BitNetDType::I8 { BitNetDType::I32 } else { self.dtype() };
        if let (&[m, k], &[k_b, n], None) = (self.dims(), other.dims(), &out)
            && k == k_b
        {
            let (shape, device) = (crate::TensorShape::new(&[m, n])?, self.device());
            return Self::made(shape, dtype, device, |out| device.matmul(self.as_ref(), other.as_ref(), out));
        }
        // Vectors as a row and as a column.
        let a = if self.rank() == 1 { self.unsqueeze(0)? } else { self.clone() };
        let b = if other.rank() == 1 { other.unsqueeze(1)? } else { other.clone() };
        let (&[ref batch_a @ .., m, k], &[ref batch_b @ .., k_b, n]) = (a.dims(), b.dims()) else {
            unreachable!("two dimensions at least")
        };
        if k != k_b {
            let needed = format!("{k} rows to be multiplied with {}", self.shape());
            return Err(other.needs(op, &needed));
        }
        let shape = |dims: &[usize]| crate::TensorShape::new(dims);
        let batch = broadcast_shapes(op, &shape(batch_a)?, &shape(batch_b)?)?;
        let mut dims = batch.dims().to_vec();
        dims.extend((self.rank() > 1).then_some(m));
        dims.extend((other.rank() > 1).then_some(n));
        let mut made;
        let out = match out {
            Some(out) => {
                out.check_out(op, &shape(&dims)?, dtype, self)?;
                out.as_mut()?; // copies shared storage now: the layout below is final
                out
            }
            None => {
                made = Self::empty(&dims, dtype, self.device())?;
                &mut made
            }
        };
        // Many matrices times one are one tall matrix if their rows are contiguous.
        let tall = (!batch_a.is_empty() && b.rank() == 2 && out.is_contiguous())
            .then(|| a.layout().reshape(&[batch.elements() * m, k]));
        let full = |matrix: &[usize]| [batch.dims(), matrix].concat();
        let (left, right, result) = match tall {
            Some(Ok(layout)) if a.elements() > 0 => {
                (layout, *b.layout(), out.layout().reshape(&[batch.elements() * m, n])?)
            }
            _ => {
                let result = match (self.rank() > 1, other.rank() > 1) {
                    (true, true) => *out.layout(),
                    (false, true) => out.layout().unsqueeze(batch.rank())?,
                    (true, false) => out.layout().unsqueeze(batch.rank() + 1)?,
                    (false, false) => out.layout().unsqueeze(0)?.unsqueeze(0)?,
                };
                (a.layout().broadcast_to(&full(&[m, k]))?, b.layout().broadcast_to(&full(&[k, n]))?, result)
            }
        };
        let (mut left_ref, mut right_ref) = (a.as_ref(), b.as_ref());
        (left_ref.layout, right_ref.layout) = (left, right);
        let device = self.device().clone();
        let mut to = out.as_mut()?;
        to.layout = result;
        device.matmul(left_ref, right_ref, to)?;
        Ok(out.clone())
    }
}
