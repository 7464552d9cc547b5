//! The specification: every result is the sum over `k`, in order.

use super::Job;
use super::product::{Output, Sum, Widened};

/// `out = a b`, sums in `A`.
pub(super) fn matmul<T, A, O>(Job { shape, a, b, out, .. }: Job<T, O>)
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
