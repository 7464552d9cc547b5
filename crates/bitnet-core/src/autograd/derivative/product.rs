//! Products of matrices and vectors.

use crate::autograd::differentiable;
use crate::{BitNetTensor, Result};

/// `a b` by the rules of [`BitNetTensor::matmul`], computed by `forward`: the gradient of `a` is `g b^T`, that of `b`
/// is `a^T g`, each summed over broadcast dimensions.
pub fn matmul(
    op: &'static str,
    a: &BitNetTensor,
    b: &BitNetTensor,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable(op, &[a, b], forward, |_| {
        let (for_a, for_b) = (a.requires_grad().then(|| b.clone()), b.requires_grad().then(|| a.clone()));
        let (a, b) = (*a.shape(), Right::of(b));
        move |grad: &BitNetTensor| {
            // [.., M, N]
            let mut g = grad.clone();
            if b.rank == 1 {
                g = g.unsqueeze(-1)?;
            }
            if a.rank() == 1 {
                g = g.unsqueeze(-2)?;
            }
            let of_a = match &for_a {
                Some(right) => {
                    let right = if right.rank() == 1 { right.unsqueeze(1)? } else { right.clone() };
                    let product = g.multiplied("matmul", &right.transpose(-2, -1)?, None)?;
                    let full = if a.rank() == 1 { vec![1, a.dims()[0]] } else { a.dims().to_vec() };
                    Some(product.sum_to_shape(&full)?.reshape(a.dims())?)
                }
                None => None,
            };
            let of_b = match &for_b {
                Some(left) => {
                    let left = if left.rank() == 1 { left.unsqueeze(0)? } else { left.clone() };
                    Some(b.gradient(&left, &g)?)
                }
                None => None,
            };
            Ok(vec![of_a, of_b])
        }
    })
}

/// The right operand; its own gradient depends only on its shape.
struct Right {
    dims: Vec<usize>,
    rank: usize,
    /// Whether it is a transposed view: its gradient is then computed as that of the matrix.
    turned: bool,
}

impl Right {
    fn of(b: &BitNetTensor) -> Self {
        let turned = b.rank() == 2 && b.layout().strides()[0] == 1 && b.layout().strides()[1] != 1;
        Self { dims: b.dims().to_vec(), rank: b.rank(), turned }
    }

    /// `a^T g` of `a` `[.., M, K]` and `g` `[.., M, N]`.
    fn gradient(&self, a: &BitNetTensor, g: &BitNetTensor) -> Result<BitNetTensor> {
        let (k, n) = (a.shape().last(), g.shape().last());
        let product = |a: &BitNetTensor, b: &BitNetTensor| a.transpose(-2, -1)?.multiplied("matmul", b, None);
        if self.rank > 2 {
            return product(a, g)?.sum_to_shape(&self.dims);
        }
        // One matrix multiplied all of them: their rows can be stacked.
        let rows = g.elements() / n.max(1);
        if n == 0 || a.elements() != rows * k {
            return product(a, g)?.sum_to_shape(&[k, n])?.reshape(&self.dims);
        }
        let (a, g) = (a.reshape(&[rows, k])?, g.reshape(&[rows, n])?);
        let out = if self.turned { product(&g, &a)?.transpose(0, 1)? } else { product(&a, &g)? };
        out.reshape(&self.dims)
    }
}
