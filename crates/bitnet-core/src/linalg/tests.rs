//! Defining properties of decompositions, and values computed by hand; PyTorch's are in the testkit.

use crate::{BitNetDType, BitNetTensor, Device, MatrixNorm};
use half::{bf16, f16};

fn tensor(data: &[f64], dims: &[usize]) -> BitNetTensor {
    BitNetTensor::from_slice(data, dims, &Device::cpu()).unwrap()
}

pub(super) fn numbers(dims: &[usize], seed: u64) -> BitNetTensor {
    let mut x = seed;
    let data: Vec<f64> = (0..dims.iter().product::<usize>())
        .map(|_| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 40) as f64 / (1 << 23) as f64 - 1.0
        })
        .collect();
    tensor(&data, dims)
}

fn assert_close(a: &BitNetTensor, b: &BitNetTensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims());
    let wide = |x: &BitNetTensor| x.to_dtype(BitNetDType::F64).unwrap().to_vec::<f64>().unwrap();
    for (i, (a, b)) in wide(a).into_iter().zip(wide(b)).enumerate() {
        assert!((a - b).abs() <= tolerance, "element {i}: {a} and {b}");
    }
}

fn is_identity(x: &BitNetTensor, tolerance: f64) {
    let n = x.dims()[x.rank() - 1];
    let eye = BitNetTensor::eye(n, x.dtype(), x.device()).unwrap().broadcast_to(x.dims()).unwrap();
    assert_close(x, &eye, tolerance);
}

#[test]
fn products_of_all_ranks_and_strides() {
    let cases: [(&[usize], &[usize], &[usize]); 12] = [
        (&[5], &[5], &[]),
        (&[5], &[5, 3], &[3]),
        (&[4, 5], &[5], &[4]),
        (&[4, 5], &[5, 3], &[4, 3]),
        (&[2, 4, 5], &[5], &[2, 4]),
        (&[5], &[2, 5, 3], &[2, 3]),
        (&[2, 4, 5], &[5, 3], &[2, 4, 3]),
        (&[2, 1, 4, 5], &[3, 5, 2], &[2, 3, 4, 2]),
        (&[0, 5], &[5, 3], &[0, 3]),
        (&[4, 0], &[0, 3], &[4, 3]),
        (&[0, 4, 5], &[5, 3], &[0, 4, 3]),
        (&[40, 3, 4], &[40, 4, 5], &[40, 3, 5]),
    ];
    for (a, b, out) in cases {
        let (a, b) = (numbers(a, 1), numbers(b, 2));
        // Compared with sums of broadcast products, which do not share the code.
        let left = if a.rank() == 1 { a.unsqueeze(0).unwrap() } else { a.clone() }.unsqueeze(-1).unwrap();
        let right = if b.rank() == 1 { b.unsqueeze(-1).unwrap() } else { b.clone() }.unsqueeze(-3).unwrap();
        let expected = left.mul(&right).unwrap().sum(-2, false).unwrap().reshape(out).unwrap();
        assert_close(&a.matmul(&b).unwrap(), &expected, 1e-14);
        let mut into = BitNetTensor::zeros(out, BitNetDType::F64, a.device()).unwrap();
        let shared = into.clone();
        a.matmul_into(&b, &mut into).unwrap();
        assert_close(&into, &expected, 1e-14);
        assert_eq!(shared.to_vec::<f64>().unwrap(), vec![0.0; expected.elements()]);
        for dtype in [BitNetDType::F32, BitNetDType::F16, BitNetDType::BF16] {
            let product = a.to_dtype(dtype).unwrap().matmul(&b.to_dtype(dtype).unwrap()).unwrap();
            assert_eq!(product.dtype(), dtype);
            assert_close(&product, &expected, if dtype == BitNetDType::F32 { 1e-6 } else { 0.03 });
        }
    }
    let (a, b) = (numbers(&[5, 4], 1), numbers(&[5, 3], 2));
    let flipped = a.t().unwrap().flip(&[0]).unwrap().matmul(&b.flip(&[0]).unwrap()).unwrap();
    let plain =
        a.t().unwrap().flip(&[0]).unwrap().copy().unwrap().matmul(&b.flip(&[0]).unwrap().copy().unwrap()).unwrap();
    assert_close(&flipped, &plain, 1e-15);
}

#[test]
fn integers_widen_or_wrap() {
    let device = Device::cpu();
    let a = BitNetTensor::from_slice(&[-128i8; 6], &[2, 3], &device).unwrap();
    assert_eq!(a.matmul(&a.t().unwrap()).unwrap().to_vec::<i32>().unwrap(), [3 * 16384; 4]);
    let a = BitNetTensor::from_slice(&[200u8, 3], &[1, 2], &device).unwrap();
    assert_eq!(a.matmul(&a.t().unwrap()).unwrap().to_vec::<u8>().unwrap(), [(40009 % 256) as u8]);
    let a = BitNetTensor::from_slice(&[i64::MAX, 1], &[2], &device).unwrap();
    assert_eq!(a.dot(&a).unwrap().to_vec::<i64>().unwrap(), [2]);
    let a = BitNetTensor::from_slice(&[1i32, 2, 3, 4], &[2, 2], &device).unwrap();
    assert!(a.outer(&a).unwrap_err().to_string().contains("1 dimensions"));
    assert_eq!(a.trace().unwrap().to_vec::<i64>().unwrap(), [5]);
}

#[test]
fn halves_are_rounded_once() {
    let device = Device::cpu();
    let (f, b) = (f16::from_f32(1.0 / 3.0), bf16::from_f32(1.0 / 3.0));
    let k = 3000;
    let x = BitNetTensor::from_slice(&vec![f; k], &[1, k], &device).unwrap();
    let expected = f16::from_f64(f.to_f64() * f.to_f64() * k as f64);
    assert_eq!(x.matmul(&x.t().unwrap()).unwrap().to_vec::<f16>().unwrap(), [expected]);
    let x = BitNetTensor::from_slice(&vec![b; 64 * k], &[64, k], &device).unwrap();
    let expected = bf16::from_f64(b.to_f64() * b.to_f64() * k as f64);
    assert_eq!(x.matmul(&x.t().unwrap()).unwrap().to_vec::<bf16>().unwrap(), [expected; 64 * 64]);
}

#[test]
fn shape_errors_say_what_is_needed() {
    let (a, b) = (numbers(&[2, 3], 1), numbers(&[4, 3], 2));
    for (result, words) in [
        (a.matmul(&b), "matmul"),
        (a.matmul(&numbers(&[], 1)), "at least one dimension"),
        (a.matmul(&numbers(&[3, 2], 1).to_dtype(BitNetDType::F32).unwrap()), "f32"),
        (numbers(&[2, 4, 3], 1).matmul(&numbers(&[3, 3, 2], 1)), "broadcast"),
        (a.det(), "square"),
        (tensor(&[1., 2., 2., 4.], &[2, 2]).inv(), "singular"),
        (tensor(&[1., 2., 2., 4.], &[2, 2]).solve(&tensor(&[1., 2.], &[2])), "singular"),
        (tensor(&[1., 2., 2., 1.], &[2, 2]).cholesky(), "positive definite"),
        (tensor(&[f64::NAN; 4], &[2, 2]).svdvals(), "NaN"),
        (tensor(&[1.0; 4], &[4]).svdvals(), "2 dimensions"),
        (a.to_dtype(BitNetDType::I32).unwrap().svdvals(), "svdvals"),
        (BitNetTensor::einsum("ij,jk->ik", &[&a, &a]), "extents"),
        (BitNetTensor::einsum("ij->ii", &[&a]), "twice"),
        (BitNetTensor::einsum("ij->k", &[&a]), "in no operand"),
        (BitNetTensor::einsum("i->i", &[&a]), "2 dimensions"),
        (BitNetTensor::einsum("ij-ji", &[&a]), "neither"),
        (BitNetTensor::einsum("ii", &[&a]), "two extents"),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn einsum_is_what_it_says() {
    let (a, b, c) = (numbers(&[2, 3], 1), numbers(&[3, 4], 2), numbers(&[4, 2], 3));
    let all = |equation, operands: &[&BitNetTensor]| BitNetTensor::einsum(equation, operands).unwrap();
    assert_close(&all("ij,jk", &[&a, &b]), &a.matmul(&b).unwrap(), 1e-15);
    assert_close(&all("ij , jk -> ki", &[&a, &b]), &a.matmul(&b).unwrap().t().unwrap(), 1e-15);
    assert_close(&all("ij,jk,kl->il", &[&a, &b, &c]), &a.matmul(&b).unwrap().matmul(&c).unwrap(), 1e-15);
    let loops = a.matmul(&b).unwrap().matmul(&c).unwrap().trace().unwrap();
    assert_close(&all("ij,jk,ki", &[&a, &b, &c]), &loops, 1e-15);
    assert_close(&all("ba", &[&a]), &a.t().unwrap(), 0.0);
    let square = numbers(&[3, 3], 4);
    assert_close(&all("ii->i", &[&square]), &square.diagonal(0, 0, 1).unwrap(), 0.0);
    let batch = numbers(&[2, 5, 3], 5);
    assert_close(&all("...ij,...jk->...ik", &[&batch, &b]), &batch.matmul(&b).unwrap(), 1e-15);
    assert_close(&all("...j,j", &[&batch, &numbers(&[3], 6)]), &batch.matmul(&numbers(&[3], 6)).unwrap(), 1e-15);
    assert_close(&all("i...->...i", &[&batch]), &batch.permute(&[1, 2, 0]).unwrap(), 0.0);
    assert_close(&all("ij,ij->ij", &[&a, &a]), &a.mul(&a).unwrap(), 0.0);
    assert_close(&all("ij,ij->", &[&a, &a]), &a.mul(&a).unwrap().sum(.., false).unwrap(), 1e-15);
    let one = numbers(&[1, 4], 7);
    assert_close(&all("ij,jk->ik", &[&a, &one]), &a.sum(1, true).unwrap().mul(&one).unwrap(), 1e-15);
}

#[test]
fn factors_give_the_matrix_back() {
    for dims in [[1, 1], [2, 2], [5, 3], [3, 5], [20, 20], [0, 0], [0, 3], [3, 0]] {
        let x = numbers(&[2, dims[0], dims[1]], 3);
        let (p, l, u) = x.lu().unwrap();
        assert_close(&p.matmul(&l).unwrap().matmul(&u).unwrap(), &x, 1e-13);
        assert_close(&u.triu(0).unwrap(), &u, 0.0);
        assert_close(&l.tril(0).unwrap(), &l, 0.0);
        let (q, r) = x.qr().unwrap();
        assert_close(&q.matmul(&r).unwrap(), &x, 1e-13);
        assert_close(&r.triu(0).unwrap(), &r, 0.0);
        is_identity(&q.transpose(-1, -2).unwrap().matmul(&q).unwrap(), 1e-13);
        for full in [false, true] {
            let (u, s, vt) = x.svd(full).unwrap();
            is_identity(&u.transpose(-1, -2).unwrap().matmul(&u).unwrap(), 1e-13);
            is_identity(&vt.matmul(&vt.transpose(-1, -2).unwrap()).unwrap(), 1e-13);
            let k = dims[0].min(dims[1]);
            let scaled = u.narrow(-1, 0, k).unwrap().mul(&s.unsqueeze(-2).unwrap()).unwrap();
            assert_close(&scaled.matmul(&vt.narrow(-2, 0, k).unwrap()).unwrap(), &x, 1e-13);
            assert_close(&x.svdvals().unwrap(), &s, 1e-13);
        }
    }
}

#[test]
fn square_matrices() {
    for n in [1, 3, 17] {
        let x = numbers(&[2, n, n], 5);
        let xt = x.transpose(-1, -2).unwrap();
        is_identity(&x.matmul(&x.inv().unwrap()).unwrap(), 1e-10);
        let b = numbers(&[n, 2], 6);
        assert_close(&x.matmul(&x.solve(&b).unwrap()).unwrap(), &b.broadcast_to(&[2, n, 2]).unwrap(), 1e-10);
        let symmetric = x.add(&xt).unwrap();
        let (w, v) = symmetric.eigh().unwrap();
        assert_close(&symmetric.matmul(&v).unwrap(), &v.mul(&w.unsqueeze(-2).unwrap()).unwrap(), 1e-12);
        is_identity(&v.transpose(-1, -2).unwrap().matmul(&v).unwrap(), 1e-12);
        let positive = x.matmul(&xt).unwrap();
        let l = positive.cholesky().unwrap();
        assert_close(&l.matmul(&l.transpose(-1, -2).unwrap()).unwrap(), &positive, 1e-12);
        let e = x.eig().unwrap();
        let scaled = |v: &BitNetTensor, w: &BitNetTensor| v.mul(&w.unsqueeze(-2).unwrap()).unwrap();
        let real = scaled(&e.vectors, &e.values).sub(&scaled(&e.vectors_imag, &e.values_imag)).unwrap();
        let imag = scaled(&e.vectors, &e.values_imag).add(&scaled(&e.vectors_imag, &e.values)).unwrap();
        assert_close(&x.matmul(&e.vectors).unwrap(), &real, 1e-11);
        assert_close(&x.matmul(&e.vectors_imag).unwrap(), &imag, 1e-11);
        let (sign, log) = x.slogdet().unwrap();
        assert_close(&sign.mul(&log.exp().unwrap()).unwrap(), &x.det().unwrap(), 1e-9);
        assert_close(&x.matrix_power(3).unwrap(), &x.matmul(&x).unwrap().matmul(&x).unwrap(), 1e-11);
        is_identity(&x.matrix_power(0).unwrap(), 0.0);
        is_identity(&x.matrix_power(-2).unwrap().matmul(&x).unwrap().matmul(&x).unwrap(), 1e-6);
    }
}

#[test]
fn values_worked_out_by_hand() {
    let x = tensor(&[1., -2., 3., 4.], &[2, 2]);
    assert_close(&x.det().unwrap(), &tensor(&[10.], &[]), 1e-14);
    assert_close(&tensor(&[0., 1., 1., 0.], &[2, 2]).det().unwrap(), &tensor(&[-1.], &[]), 0.0);
    let norm = |which| x.matrix_norm(which).unwrap().to_vec::<f64>().unwrap()[0];
    assert_eq!(norm(MatrixNorm::LargestRow), 7.0);
    assert_eq!(norm(MatrixNorm::SmallestRow), 3.0);
    assert_eq!(norm(MatrixNorm::LargestColumn), 6.0);
    assert_eq!(norm(MatrixNorm::SmallestColumn), 4.0);
    assert!((norm(MatrixNorm::Frobenius) - 30f64.sqrt()).abs() < 1e-14);
    // The product of singular values is |det|; the sum of their squares is the squared Frobenius norm.
    assert!((norm(MatrixNorm::LargestSingular) * norm(MatrixNorm::SmallestSingular) - 10.0).abs() < 1e-13);
    assert!((norm(MatrixNorm::Nuclear).powi(2) - 50.0).abs() < 1e-13);
    assert!((x.cond(MatrixNorm::LargestColumn).unwrap().to_vec::<f64>().unwrap()[0] - 6.0 * 0.7).abs() < 1e-14);
    let singular = tensor(&[1., 2., 3., 2., 4., 6., 3., 6., 9.], &[3, 3]);
    assert_eq!(singular.det().unwrap().to_vec::<f64>().unwrap(), [0.0]);
    assert_eq!(singular.slogdet().unwrap().1.to_vec::<f64>().unwrap(), [f64::NEG_INFINITY]);
    assert_eq!(singular.matrix_rank().unwrap().to_vec::<i64>().unwrap(), [1]);
    assert_eq!(singular.cond(MatrixNorm::LargestRow).unwrap().to_vec::<f64>().unwrap(), [f64::INFINITY]);
    let pinv = singular.pinv().unwrap();
    assert_close(&singular.matmul(&pinv).unwrap().matmul(&singular).unwrap(), &singular, 1e-13);
    // Least-squares line through (0, 1), (1, 2), (2, 4): 5/6 + 3/2 x.
    let line = tensor(&[1., 0., 1., 1., 1., 2.], &[3, 2]).lstsq(&tensor(&[1., 2., 4.], &[3, 1])).unwrap();
    assert_close(&line, &tensor(&[5. / 6., 1.5], &[2, 1]), 1e-14);
    let (a, b) = (tensor(&[1., 2., 3.], &[3]), tensor(&[4., 5., 6.], &[3]));
    assert_close(&a.cross(&b, -1).unwrap(), &tensor(&[-3., 6., -3.], &[3]), 0.0);
    assert_close(&a.dot(&b).unwrap(), &tensor(&[32.], &[]), 0.0);
    assert_eq!(
        BitNetTensor::eye(0, BitNetDType::F64, &Device::cpu()).unwrap().det().unwrap().to_vec::<f64>().unwrap(),
        [1.0]
    );
}
