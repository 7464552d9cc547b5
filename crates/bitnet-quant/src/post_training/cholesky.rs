//! The triangular factor for error feedback, in f64.

use bitnet_kernels::dense::matmul::{MatmulShape, Matrix, MatrixMut, matmul_f64};
use bitnet_kernels::{Isa, ThreadPool};

/// Columns of a block that are factored together; blocks are combined by matrix products.
const BLOCK: usize = 128;

/// `C^T` `[n, n]`, upper triangular, with `H = C^T C`; `None` where `H` `[n, n]` is not positive definite. `H` is
/// overwritten.
///
/// This is the Cholesky factor of `H` with reversed rows and columns, reversed again: row `i` of `C^T` concerns columns
/// `i..` of the weights, those rounded after column `i`.
pub(super) fn reverse_factor(isa: Isa, pool: &ThreadPool, mut h: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    h.reverse();
    let (mut diagonal, mut inverse) = ([0.; BLOCK * BLOCK], [0.; BLOCK * BLOCK]);
    let mut out = vec![0.; n * BLOCK.min(n)];
    for start in (0..n).step_by(BLOCK) {
        let (width, end) = (BLOCK.min(n - start), n.min(start + BLOCK));
        // These columns minus the contribution of earlier ones, [n - start, width].
        let before = Matrix { start: start * n, ..Matrix::row_major(&h, n) };
        let shape = MatmulShape { m: n - start, n: width, k: start };
        matmul_f64(isa, pool, shape, before, before.t(), MatrixMut::row_major(&mut out, width));
        for (row, product) in h[start * n..].chunks_exact_mut(n).zip(out.chunks_exact(width)) {
            row[start..end].iter_mut().zip(product).for_each(|(a, p)| *a -= p);
        }
        for (i, row) in diagonal.chunks_exact_mut(width).take(width).enumerate() {
            row.copy_from_slice(&h[(start + i) * n..][start..end]);
        }
        lower_factor(&mut diagonal, width)?;
        lower_inverse(&diagonal, &mut inverse, width);
        for (i, row) in diagonal.chunks_exact(width).take(width).enumerate() {
            h[(start + i) * n..][start..=start + i].copy_from_slice(&row[..=i]);
            h[(start + i) * n..][start + i + 1..n].fill(0.);
        }
        // The rows below: L21 = A21 L11^-T, [n - end, width].
        let below = Matrix { start: (end * n + start).min(n * n), ..Matrix::row_major(&h, n) };
        let shape = MatmulShape { m: n - end, n: width, k: width };
        let to = MatrixMut::row_major(&mut out, width);
        matmul_f64(isa, pool, shape, below, Matrix::row_major(&inverse, width).t(), to);
        for (row, product) in h[end * n..].chunks_exact_mut(n).zip(out.chunks_exact(width)) {
            row[start..end].copy_from_slice(product);
        }
    }
    h.reverse();
    Some(h)
}

/// The lower triangle of `a` `[n, n]` becomes `L` of `a = L L^T`, row after row.
fn lower_factor(a: &mut [f64], n: usize) -> Option<()> {
    for i in 0..n {
        let (above, row) = a.split_at_mut(i * n);
        for j in 0..i {
            let other = &above[j * n..j * n + j + 1];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let rest = row[i] - dot(&row[..i], &row[..i]);
        // Of NaN as well.
        if !(rest > 0. && rest.is_finite()) {
            return None;
        }
        row[i] = rest.sqrt();
    }
    Some(())
}

/// `L^-1` of the lower triangle `l`, `[n, n]`: row `i` is that of the unit matrix less the rows above it, `L_ij` times.
fn lower_inverse(l: &[f64], inverse: &mut [f64], n: usize) {
    inverse[..n * n].fill(0.);
    for i in 0..n {
        let (above, row) = inverse.split_at_mut(i * n);
        row[i] = 1.;
        for (j, above) in above.chunks_exact(n).enumerate() {
            row[..=j].iter_mut().zip(above).for_each(|(x, a)| *x -= l[i * n + j] * a);
        }
        row[..=i].iter_mut().for_each(|x| *x /= l[i * n + i]);
    }
}

/// In eight partial sums, to hide latency.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.; 8];
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.0.iter().zip(b.0) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a.1.iter().zip(b.1).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_gives_the_matrix_back() {
        let pool = ThreadPool::new(2);
        let factor = |h, n| reverse_factor(Isa::selected().unwrap(), &pool, h, n);
        for n in [21, 300] {
            let b: Vec<f64> = (0..n * n).map(|i| ((i * 7919 % 1009) as f64) / 500. - 1.).collect();
            let product = |i: usize, j: usize| (0..n).map(|k| b[i * n + k] * b[j * n + k]).sum::<f64>();
            let h: Vec<f64> =
                (0..n * n).map(|i| product(i / n, i % n) + if i / n == i % n { 0.1 } else { 0. }).collect();
            let u = factor(h.clone(), n).unwrap();
            for i in 0..n {
                for j in 0..n {
                    let got: f64 = (0..n).map(|k| u[i * n + k] * u[j * n + k]).sum();
                    assert!((got - h[i * n + j]).abs() < 1e-12 * n as f64, "{i}, {j}: {got}");
                    assert!(j >= i || u[i * n + j] == 0.);
                }
            }
        }
        assert!(factor(vec![1., 2., 2., 1.], 2).is_none());
        assert!(factor(vec![f64::NAN], 1).is_none());
        assert_eq!(factor(vec![], 0), Some(vec![]));
    }
}
