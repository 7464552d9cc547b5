//! Dense products.

use super::operand::{input, output};
use crate::backend::{TensorMut, TensorRef};
use crate::{Result, TensorOpError};

pub(super) fn matmul(a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    let rank = out.layout.shape().rank();
    let dims = (a.layout.dims(), b.layout.dims(), out.layout.dims());
    let fits = rank >= 2
        && dims.0.len() == rank
        && dims.1.len() == rank
        && dims.0[..rank - 2] == dims.2[..rank - 2]
        && dims.1[..rank - 2] == dims.2[..rank - 2]
        && dims.0[rank - 2] == dims.2[rank - 2]
        && dims.1[rank - 1] == dims.2[rank - 1]
        && dims.0[rank - 1] == dims.1[rank - 2];
    if !fits {
        let needed =
            format!("[.., M, K] by [.., K, N] = [.., M, N], got {} and {}", b.layout.shape(), out.layout.shape());
        return Err(TensorOpError::Shape { op: "matmul", what: "a", got: *a.layout.shape(), needed }.into());
    }
    let (inner, columns) = (dims.0[rank - 1], dims.2[rank - 1]);
    let (left, right) = (input::<f32>("matmul", &a)?, input::<f32>("matmul", &b)?);
    let (step_a, step_b) = (a.layout.strides()[rank - 1], b.layout.strides()[rank - 2]);
    // First element of each row of a, and of each column of b for the same batch.
    let rows = a.layout.narrow(rank - 1, 0, inner.min(1))?;
    let heads = b.layout.narrow(rank - 2, 0, inner.min(1))?;
    let heads: Vec<usize> = heads.indices().collect();
    let rows_a_batch = dims.2[rank - 2];
    let (to, layout) = output::<f32>("matmul", out)?;
    let mut results = layout.indices();
    if inner == 0 {
        results.for_each(|o| to[o] = 0.);
        return Ok(());
    }
    for (row, i) in rows.indices().enumerate() {
        let batch = row / rows_a_batch;
        for &j in &heads[batch * columns..(batch + 1) * columns] {
            let product = |k: usize| {
                let at = |start: usize, step: isize| start.wrapping_add_signed(step * k as isize);
                left[at(i, step_a)] as f64 * right[at(j, step_b)] as f64
            };
            let o = results.next().expect("a result for every row and column");
            to[o] = (0..inner).map(product).sum::<f64>() as f32;
        }
    }
    Ok(())
}
