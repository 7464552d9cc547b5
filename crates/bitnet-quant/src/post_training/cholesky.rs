//! The triangular factor that error feedback reads, in f64.

/// `C` `[n, n]`, lower triangular, with `H = C^T C`; `None` where `H` `[n, n]` is not positive definite. `H` is used up.
///
/// This is the Cholesky factor of `H` with rows and columns in reverse, read backwards: row `k` of `C` is about columns
/// `0..=k`, those that have been rounded by the time column `k` is.
pub(super) fn reverse_factor(mut h: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    h.reverse();
    lower_factor(&mut h, n)?;
    // C[k][i] = L[n-1-i][n-1-k]
    let mut c = vec![0.; n * n];
    for k in 0..n {
        for i in 0..=k {
            c[k * n + i] = h[(n - 1 - i) * n + (n - 1 - k)];
        }
    }
    Some(c)
}

/// The lower triangle of `a` becomes `L` of `a = L L^T`, row after row.
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

/// In eight sums, which do not wait for each other.
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
        let n = 21;
        let b: Vec<f64> = (0..n * n).map(|i| ((i * 7919 % 1009) as f64) / 500. - 1.).collect();
        let product = |i: usize, j: usize| (0..n).map(|k| b[i * n + k] * b[j * n + k]).sum::<f64>();
        let h: Vec<f64> = (0..n * n).map(|i| product(i / n, i % n) + if i / n == i % n { 0.1 } else { 0. }).collect();
        let c = reverse_factor(h.clone(), n).unwrap();
        for i in 0..n {
            for j in 0..n {
                let got: f64 = (0..n).map(|k| c[k * n + i] * c[k * n + j]).sum();
                assert!((got - h[i * n + j]).abs() < 1e-12, "{i}, {j}: {got}");
                assert!(j <= i || c[i * n + j] == 0.);
            }
        }
        assert!(reverse_factor(vec![1., 2., 2., 1.], 2).is_none());
        assert!(reverse_factor(vec![f64::NAN], 1).is_none());
        assert_eq!(reverse_factor(vec![], 0), Some(vec![]));
    }
}
