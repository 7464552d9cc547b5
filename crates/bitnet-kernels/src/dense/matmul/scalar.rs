//! The specification: every result is the sum over `k`, in order.

use super::product::{Output, Sum, Widened};
use super::{MatmulShape, Matrix, Target};

/// `out = a b`, sums in `A`.
pub(super) fn matmul<T, A, O>(shape: MatmulShape, a: Matrix<T>, b: Matrix<T>, out: Target<O>)
where
    T: Widened<A>,
    A: Sum,
    O: Output<A>,
{
    for i in 0..shape.m {
        for j in 0..shape.n {
            // SAFETY: the matrices hold these elements (checked where they come in).
            let product = |k: usize| unsafe { ((*a.at(i, k)).widened(), (*b.at(k, j)).widened()) };
            let sum = (0..shape.k).map(product).fold(A::default(), |sum, (a, b)| sum.multiply_add(a, b));
            // SAFETY: as above.
            unsafe { out.at(i, j).write(O::rounded(sum)) };
        }
    }
}
