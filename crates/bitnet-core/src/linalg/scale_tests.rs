//! Matrices of every scale, singular, defective and empty ones. Values are PyTorch's 2.15 or worked out by hand.

use crate::BitNetDType::{self, F32, F64};
use crate::{BitNetTensor, Device, MatrixNorm};

const MATRIX: [f64; 6] = [3., 1., 0., 2., -1., 4.];
/// What an element of each dtype can be multiplied with.
const SCALES: [(BitNetDType, &[f64]); 2] =
    [(F32, &[1e-38, 1e-25, 1e-12, 1., 1e19, 1e25, 1e36]), (F64, &[1e-306, 1e-165, 1e-154, 1., 1e154, 1e165, 1e306])];

fn tensor(data: &[f64], dims: &[usize], dtype: BitNetDType) -> BitNetTensor {
    BitNetTensor::from_slice(data, dims, &Device::cpu()).unwrap().to_dtype(dtype).unwrap()
}

fn values(x: &BitNetTensor) -> Vec<f64> {
    x.to_dtype(F64).unwrap().to_vec().unwrap()
}

/// Whether `x` is `expected * scale`, to a few roundings of the dtype.
fn assert_scaled(what: &str, x: &BitNetTensor, expected: &BitNetTensor, scale: f64) {
    let tolerance = if x.dtype() == F32 { 1e-5 } else { 1e-13 };
    assert_eq!(x.dims(), expected.dims(), "{what}");
    let expected = values(expected);
    let largest = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    for (x, expected) in values(x).into_iter().zip(expected) {
        // Powers of ten may be subnormal and then have few digits.
        let x = x / scale;
        assert!((x - expected).abs() <= tolerance * largest, "{what} at {scale:e}: {x} and {expected}");
    }
}

#[test]
fn the_scale_of_a_matrix_changes_nothing_else() {
    for (dtype, scales) in SCALES {
        let one = tensor(&MATRIX, &[3, 2], dtype);
        let square = tensor(&[4., 1., 2., 1., 5., 3., 2., 3., 6.], &[3, 3], dtype);
        let b = tensor(&[1., 2., -3.], &[3, 1], dtype);
        for &scale in scales {
            // What is multiplied with a rounded scale: the scale that elements have.
            let scale = values(&tensor(&[scale], &[1], dtype))[0];
            let (x, y, side) = (one.mul(scale).unwrap(), square.mul(scale).unwrap(), b.mul(scale).unwrap());
            let check =
                |what: &str, f: &dyn Fn(&BitNetTensor) -> crate::Result<BitNetTensor>, of: [&BitNetTensor; 2], by| {
                    assert_scaled(what, &f(of[0]).unwrap(), &f(of[1]).unwrap(), by)
                };
            check("svdvals", &|x| x.svdvals(), [&x, &one], scale);
            check("svd", &|x| Ok(x.svd(false)?.1), [&x, &one], scale);
            check("svd, U", &|x| x.svd(false)?.0.abs(), [&x, &one], 1.);
            check("svd, V", &|x| x.svd(true)?.2.abs(), [&x, &one], 1.);
            check("lu, L", &|x| Ok(x.lu()?.1), [&y, &square], 1.);
            check("lu, U", &|x| Ok(x.lu()?.2), [&y, &square], scale);
            check("qr, Q", &|x| x.qr()?.0.abs(), [&y, &square], 1.);
            check("qr, R", &|x| x.qr()?.1.abs(), [&y, &square], scale);
            check("eigh", &|x| Ok(x.eigh()?.0), [&y, &square], scale);
            check("eigh, V", &|x| x.eigh()?.1.abs(), [&y, &square], 1.);
            check("eig", &|x| Ok(x.eig()?.values.sort(0, false)?.0), [&y, &square], scale);
            check("eig, V", &|x| x.eig()?.vectors.abs()?.sum(.., false), [&y, &square], 1.);
            check("matrix_rank", &|x| x.matrix_rank(), [&x, &one], 1.);
            let root = values(&tensor(&[scale], &[1], dtype).sqrt().unwrap())[0];
            check("cholesky", &|x| x.cholesky(), [&y, &square], root);
            check("slogdet, sign", &|x| Ok(x.slogdet()?.0), [&y, &square], 1.);
            let log = values(&y.slogdet().unwrap().1)[0] - 3. * scale.ln();
            assert!((log - 70f64.ln()).abs() < 2e-4, "slogdet at {scale:e}: {log}");
            for norm in [
                MatrixNorm::Frobenius,
                MatrixNorm::Nuclear,
                MatrixNorm::LargestRow,
                MatrixNorm::SmallestColumn,
                MatrixNorm::LargestSingular,
            ] {
                check("matrix_norm", &|x| x.matrix_norm(norm), [&y, &square], scale);
                check("cond", &|x| x.cond(norm), [&y, &square], 1.);
            }
            for p in [0.5, 1., 2., 3., 7.5, f64::INFINITY, f64::NEG_INFINITY] {
                check("norm", &|x| x.norm(p, -1, false), [&y, &square], scale);
                check("norm of all", &|x| x.norm(p, .., false), [&x, &one], scale);
            }
            assert_scaled("solve", &y.solve(&side).unwrap(), &square.solve(&b).unwrap(), 1.);
            assert_scaled("lstsq", &x.lstsq(&side).unwrap(), &one.lstsq(&b).unwrap(), 1.);
            // Inverses of the smallest are beyond the type.
            if scale > 1e-300 && (dtype == F64 || scale > 1e-37) {
                check("pinv", &|x| x.pinv(), [&x, &one], 1. / scale);
                check("inv", &|x| x.inv(), [&y, &square], 1. / scale);
            }
        }
    }
}

#[test]
fn rows_of_very_different_sizes_keep_their_inverse() {
    let x = tensor(&[1e-200, 0., 0., 1e200], &[2, 2], F64);
    assert_eq!(values(&x.inv().unwrap()), [1e200, 0., 0., 1e-200]);
    assert_eq!(values(&x.det().unwrap()), [1.]);
    // The product of pivots leaves the range on its way: 1e200 1e200 1e-200 1e-200.
    let diagonal = tensor(&[1e200, 1e200, 1e-200, 1e-200], &[4, 1], F64);
    let det = values(&BitNetTensor::eye(4, F64, &Device::cpu()).unwrap().mul(&diagonal).unwrap().det().unwrap())[0];
    assert!((det - 1.).abs() < 1e-14, "{det}");
    // Pivots whose reciprocal is infinite.
    let small = tensor(&[1., 0., 0., 1e-310], &[2, 2], F64);
    assert_eq!(values(&small.solve(&tensor(&[1., 1e-310], &[2], F64)).unwrap()), [1., 1.]);
    let (p, l, u) = tensor(&[1., 0., 0., 1e-310, 0., 5e-311], &[3, 2], F64).lu().unwrap();
    assert_eq!(values(&p.matmul(&l).unwrap().matmul(&u).unwrap())[..4], [1., 0., 0., 1e-310]);
}

#[test]
fn factors_of_singular_matrices_are_finite() {
    let cases: [(&[f64], [usize; 2]); 8] = [
        (&[0., 1., 0., 2.], [2, 2]),
        (&[1., 2., 2., 4.], [2, 2]),
        (&[0.; 9], [3, 3]),
        (&[0., 0., 1., 0., 0., 2., 1., 1., 1.], [3, 3]),
        (&[1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1.], [4, 3]),
        (&[0., 0., 0., 3., 0., 1.], [2, 3]),
        (&[0., 0., 0., 3., 0., 1.], [3, 2]),
        (&[5.], [1, 1]),
    ];
    for (dtype, (data, dims)) in [F32, F64].into_iter().flat_map(|dtype| cases.map(|case| (dtype, case))) {
        let x = tensor(data, &dims, dtype);
        let (p, l, u) = x.lu().unwrap();
        assert_eq!(values(&p.matmul(&l).unwrap().matmul(&u).unwrap()), data, "{dims:?} of {dtype}");
        assert!(values(&l).iter().all(|x| x.abs() <= 1.));
    }
    // As LAPACK: a column without a pivot leaves L the identity there.
    let (p, l, u) = tensor(&[0., 1., 0., 2.], &[2, 2], F64).lu().unwrap();
    assert_eq!(
        [values(&p), values(&l), values(&u)],
        [vec![1., 0., 0., 1.], vec![1., 0., 0., 1.], vec![0., 1., 0., 2.]]
    );
    // A large one, in blocks, whose columns 7 and 60 are those before them.
    let x = super::tests::numbers(&[80, 80], 5);
    let from = |j: i64| if j == 7 || j == 60 { j - 1 } else { j };
    let columns = BitNetTensor::from_vec((0..80).map(from).collect(), &[80], &Device::cpu()).unwrap();
    let x = x.index_select(1, &columns).unwrap();
    let (p, l, u) = x.lu().unwrap();
    let difference = p.matmul(&l).unwrap().matmul(&u).unwrap().sub(&x).unwrap().norm(2., .., false).unwrap();
    assert!(values(&difference)[0] < 1e-12);
    assert_eq!(values(&tensor(&[0.; 9], &[3, 3], F64).det().unwrap()), [0.]);
    assert_eq!(values(&tensor(&[1., 2., 2., 4.], &[2, 2], F64).slogdet().unwrap().1), [f64::NEG_INFINITY]);
}

#[test]
fn the_condition_does_not_ask_the_determinant() {
    // det is 1e-50, which f32 does not hold; the condition is 1.
    let eye = BitNetTensor::eye(50, F32, &Device::cpu()).unwrap().mul(0.1).unwrap();
    for norm in [MatrixNorm::LargestColumn, MatrixNorm::LargestRow, MatrixNorm::LargestSingular] {
        assert!((values(&eye.cond(norm).unwrap())[0] - 1.).abs() < 1e-6);
    }
    let stack = tensor(&[1., 2., 2., 4., 2., 0., 0., 4.], &[2, 2, 2], F64);
    assert_eq!(values(&stack.cond(MatrixNorm::LargestColumn).unwrap()), [f64::INFINITY, 2.]);
    let nested = stack.reshape(&[1, 2, 1, 2, 2]).unwrap().cond(MatrixNorm::LargestRow).unwrap();
    assert_eq!((nested.dims(), values(&nested)), (&[1, 2, 1][..], vec![f64::INFINITY, 2.]));
    let wide = tensor(&MATRIX, &[2, 3], F64).cond(MatrixNorm::LargestRow).unwrap_err().to_string();
    assert!(wide.contains("square"), "{wide}");
}

#[test]
fn eigenvectors_of_defective_matrices_are_finite_and_of_length_1() {
    let block = |n: usize, root: f64| -> Vec<f64> {
        (0..n * n).map(|at| if at % n == at / n { root } else { f64::from(at % n == at / n + 1) }).collect()
    };
    for (dtype, scales) in SCALES {
        for n in [2, 3, 7, 40] {
            for (root, &scale) in
                [0., 1., -3.].into_iter().flat_map(|root| scales.iter().map(move |scale| (root, scale)))
            {
                let x = tensor(&block(n, root), &[n, n], dtype).mul(scale).unwrap();
                let eigen = x.eig().unwrap();
                let (re, im) = (eigen.vectors.to_dtype(F64).unwrap(), eigen.vectors_imag.to_dtype(F64).unwrap());
                let lengths = values(&re.square().unwrap().add(&im.square().unwrap()).unwrap().sum(0, false).unwrap());
                assert!(lengths.iter().all(|x| (x - 1.).abs() < 1e-5), "{n} {root} {scale:e} {dtype}: {lengths:?}");
            }
        }
    }
    // Equal eigenvalues with directions of their own keep them: the identity, and two chains.
    let eye = BitNetTensor::eye(3, F64, &Device::cpu()).unwrap();
    assert!(values(&eye.eig().unwrap().vectors.det().unwrap())[0].abs() > 0.5);
}

#[test]
fn a_vector_for_stacks_of_one_gives_a_stack_of_vectors() {
    let ones = |dims: &[usize]| BitNetTensor::ones(dims, F64, &Device::cpu()).unwrap();
    for (a, b, x) in [
        (&[1, 1, 1][..], &[1][..], &[1, 1][..]),
        (&[1, 1, 1], &[1, 1], &[1, 1]),
        (&[1, 1, 1], &[1, 1, 1], &[1, 1, 1]),
        (&[2, 1, 1], &[1], &[2, 1]),
        (&[2, 1, 1], &[2, 1], &[2, 1]),
        (&[1, 1], &[2, 1, 1], &[2, 1, 1]),
        (&[1, 1, 1, 1], &[1], &[1, 1, 1]),
    ] {
        assert_eq!(ones(a).solve(&ones(b)).unwrap().dims(), x, "{a:?} and {b:?}");
        let mut recorded = ones(b);
        recorded.requires_grad_(true).unwrap();
        ones(a).solve(&recorded).unwrap().sum(.., false).unwrap().backward().unwrap();
        assert_eq!(recorded.grad().unwrap().dims(), b);
    }
}

#[test]
fn norms_of_matrices_without_elements() {
    use MatrixNorm::*;
    let all =
        [Frobenius, Nuclear, LargestRow, SmallestRow, LargestColumn, SmallestColumn, LargestSingular, SmallestSingular];
    // Those that PyTorch refuses.
    let refused: [([usize; 2], &[MatrixNorm]); 3] = [
        ([0, 3], &[SmallestRow, SmallestSingular]),
        ([3, 0], &[SmallestColumn, SmallestSingular]),
        ([0, 0], &[SmallestRow, SmallestColumn, SmallestSingular]),
    ];
    for (dims, refused) in refused {
        for norm in all {
            let x = BitNetTensor::zeros(&[&[2], &dims[..]].concat(), F64, &Device::cpu()).unwrap();
            match x.matrix_norm(norm) {
                Ok(result) => {
                    assert_eq!((result.dims(), values(&result)), (&[2][..], vec![0.; 2]), "{norm:?} {dims:?}")
                }
                Err(_) => assert!(refused.contains(&norm), "{norm:?} of {dims:?}"),
            }
        }
        let x = BitNetTensor::zeros(&dims, F64, &Device::cpu()).unwrap();
        assert_eq!(values(&x.cond(LargestSingular).unwrap()), [0.]);
    }
    for dims in [[0, 3], [3, 0], [0, 0]] {
        let x = BitNetTensor::zeros(&dims, F32, &Device::cpu()).unwrap();
        x.svd(true).unwrap();
        x.lu().unwrap();
        x.qr().unwrap();
        x.matrix_rank().unwrap();
        assert_eq!(x.pinv().unwrap().dims(), [dims[1], dims[0]]);
        let b = BitNetTensor::zeros(&[dims[0], 2], F32, &Device::cpu()).unwrap();
        assert_eq!(x.lstsq(&b).unwrap().dims(), [dims[1], 2]);
    }
}
