//! Blocked transposition, a register tile at a time.

use crate::float::simd::Simd;

/// Rows and columns of a block: the pages of its rows are translated once.
const BLOCK: usize = 64;

/// See [`super::DenseKernel::transpose`].
#[inline(always)]
pub(super) fn transpose<S: Simd>(
    s: S,
    x: &[f32],
    stride: usize,
    rows: usize,
    first: usize,
    stream: bool,
    out: &mut [f32],
) {
    let Some(count) = super::columns_of(x, stride, rows, first, out) else { return };
    let aligned = rows.is_multiple_of(S::LANES) && (out.as_ptr() as usize).is_multiple_of(S::BYTES);
    if stream && aligned {
        blocks::<S, true>(s, x, stride, rows, first, count, out);
        s.fence();
    } else {
        blocks::<S, false>(s, x, stride, rows, first, count, out);
    }
}

#[inline(always)]
fn blocks<S: Simd, const STREAM: bool>(
    s: S,
    x: &[f32],
    stride: usize,
    rows: usize,
    first: usize,
    count: usize,
    out: &mut [f32],
) {
    let (whole_rows, whole_columns) = (rows / S::LANES * S::LANES, count / S::LANES * S::LANES);
    for row_block in (0..whole_rows).step_by(BLOCK) {
        for column_block in (0..whole_columns).step_by(BLOCK) {
            for column in (column_block..(column_block + BLOCK).min(whole_columns)).step_by(S::LANES) {
                for row in (row_block..(row_block + BLOCK).min(whole_rows)).step_by(S::LANES) {
                    // SAFETY: LANES rows and columns from here are within both, as checked by the caller; with STREAM out
                    // and its rows are aligned.
                    unsafe {
                        let from = x.as_ptr().add(row * stride + first + column);
                        s.transpose::<STREAM>(from, stride, out.as_mut_ptr().add(column * rows + row), rows);
                    }
                }
            }
        }
    }
    for column in 0..count {
        let from = if column < whole_columns { whole_rows } else { 0 };
        for row in from..rows {
            out[column * rows + row] = x[row * stride + first + column];
        }
    }
}
