//! Linear algebra. The unique parts of a decomposition are returned; its defining properties are checked here.

use crate::calls::{Args, Called};
use bitnet_core::BitNetDType::{F32, F64};
use bitnet_core::{BitNetTensor, MatrixNorm, Result, TensorOpError};

pub fn call(op: &str, args: &Args) -> Called {
    let x = || args.t(0);
    let result = match op {
        "matmul" => x().matmul(args.t(1)),
        "mm" => x().mm(args.t(1)),
        "bmm" => x().bmm(args.t(1)),
        "mv" => x().mv(args.t(1)),
        "dot" => x().dot(args.t(1)),
        "outer" => x().outer(args.t(1)),
        "cross" => x().cross(args.t(1), args.int("axis")),
        "einsum" => BitNetTensor::einsum(args.text("equation"), &args.list(0)),
        "trace" => x().trace(),
        "det" => x().det(),
        "inv" => x().inv(),
        "pinv" => x().pinv(),
        "solve" => x().solve(args.t(1)),
        "lstsq" => x().lstsq(args.t(1)),
        "cholesky" => x().cholesky(),
        "matrix_power" => x().matrix_power(args.int("n") as i64),
        "matrix_norm" => x().matrix_norm(norm(args.text("ord"))),
        "matrix_rank" => x().matrix_rank(),
        "cond" => x().cond(MatrixNorm::LargestSingular),
        "slogdet" => return Some(x().slogdet().map(|(sign, log)| vec![sign, log])),
        "lu" => return Some(lu(x())),
        "qr" => return Some(qr(x())),
        "svd" => return Some(svd(x())),
        "eigh" => return Some(eigh(x())),
        "eig" => return Some(eig(x())),
        _ => return None,
    };
    Some(result.map(|t| vec![t]))
}

/// The `_into` form.
pub fn into(op: &str, args: &Args, out: &mut BitNetTensor) -> Option<Result<()>> {
    (op == "matmul").then(|| args.t(0).matmul_into(args.t(1), out))
}

fn norm(name: &str) -> MatrixNorm {
    match name {
        "fro" => MatrixNorm::Frobenius,
        "nuc" => MatrixNorm::Nuclear,
        "inf" => MatrixNorm::LargestRow,
        "-inf" => MatrixNorm::SmallestRow,
        "1" => MatrixNorm::LargestColumn,
        "-1" => MatrixNorm::SmallestColumn,
        "2" => MatrixNorm::LargestSingular,
        "-2" => MatrixNorm::SmallestSingular,
        other => panic!("no norm {other}"),
    }
}

/// Matrices in f64.
struct Matrices {
    rows: usize,
    columns: usize,
    each: Vec<Vec<f64>>,
}

impl Matrices {
    fn of(x: &BitNetTensor) -> Result<Self> {
        let &[ref batch @ .., rows, columns] = x.dims() else { panic!("no matrix: {:?}", x.dims()) };
        let values = x.to_dtype(F64)?.to_vec::<f64>()?;
        let count = batch.iter().product();
        let each = (0..count).map(|i| values[i * rows * columns..][..rows * columns].to_vec()).collect();
        Ok(Self { rows, columns, each })
    }

    fn times(&self, other: &Self) -> Self {
        assert_eq!((self.columns, self.each.len()), (other.rows, other.each.len()), "parts that do not multiply");
        let cell = |a: &[f64], b: &[f64], i: usize| {
            let (row, column) = (i / other.columns, i % other.columns);
            (0..self.columns).map(|k| a[row * self.columns + k] * b[k * other.columns + column]).sum()
        };
        let product = |(a, b): (&Vec<f64>, &Vec<f64>)| (0..self.rows * other.columns).map(|i| cell(a, b, i)).collect();
        let each = self.each.iter().zip(&other.each).map(product).collect();
        Self { rows: self.rows, columns: other.columns, each }
    }

    fn map(&self, rows: usize, columns: usize, f: impl Fn(&[f64], usize, usize) -> f64) -> Self {
        let one = |m: &Vec<f64>| (0..rows * columns).map(|i| f(m, i / columns, i % columns)).collect();
        Self { rows, columns, each: self.each.iter().map(one).collect() }
    }

    fn transposed(&self) -> Self {
        self.map(self.columns, self.rows, |m, i, j| m[j * self.columns + i])
    }

    fn identity(&self) -> Self {
        self.map(self.rows, self.rows, |_, i, j| f64::from(i == j))
    }

    fn largest(&self) -> f64 {
        self.each.iter().flatten().fold(0., |m, v| v.abs().max(m))
    }

    /// An error unless both are equal up to 64 eps of the dtype times the extents and the largest element.
    fn equals(&self, other: &Self, what: &str, x: &BitNetTensor) -> Result<()> {
        let eps = if x.dtype() == F32 { f32::EPSILON.into() } else { f64::EPSILON };
        let bound = 64. * eps * (self.rows.max(self.columns) as f64) * other.largest().max(1.);
        let pairs = self.each.iter().flatten().zip(other.each.iter().flatten());
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0., |m, d| if d <= m { m } else { d });
        let same_size = self.each.iter().flatten().count() == other.each.iter().flatten().count();
        check(same_size && worst <= bound, format!("{what} is off by {worst:e}, more than {bound:e}"))
    }
}

/// A property that does not hold, as an error of the call.
fn check(holds: bool, message: String) -> Result<()> {
    if holds { Ok(()) } else { Err(TensorOpError::Argument { op: "property", message }.into()) }
}

/// `values` as diagonal matrices.
fn diagonal(values: &BitNetTensor) -> Result<Matrices> {
    let row = Matrices::of(&values.unsqueeze(-2)?)?;
    let n = row.columns;
    Ok(row.map(n, n, |m, i, j| if i == j { m[i] } else { 0. }))
}

/// No unique part: P, L and U are checked.
fn lu(x: &BitNetTensor) -> Result<Vec<BitNetTensor>> {
    let (p, l, u) = x.lu()?;
    let (p, l, u) = (Matrices::of(&p)?, Matrices::of(&l)?, Matrices::of(&u)?);
    p.times(&l).times(&u).equals(&Matrices::of(x)?, "P L U", x)?;
    p.times(&p.transposed()).equals(&p.identity(), "P P^T", x)?;
    let of_bits = p.each.iter().flatten().all(|&v| v == 0. || v == 1.);
    check(of_bits, "P is no permutation".into())?;
    l.equals(&l.map(l.rows, l.columns, |m, i, j| triangle(m, l.columns, i, j, true)), "L, unit lower triangular,", x)?;
    u.equals(&u.map(u.rows, u.columns, |m, i, j| triangle(m, u.columns, i, j, false)), "U, upper triangular,", x)?;
    Ok(vec![])
}

/// What an element of a triangular matrix must be.
fn triangle(m: &[f64], columns: usize, i: usize, j: usize, unit_lower: bool) -> f64 {
    match unit_lower {
        true if i == j => 1.,
        true if j > i => 0.,
        false if i > j => 0.,
        _ => m[i * columns + j],
    }
}

/// `|R|`, which is unique where the columns are independent.
fn qr(x: &BitNetTensor) -> Result<Vec<BitNetTensor>> {
    let (q, r) = x.qr()?;
    let (mq, mr) = (Matrices::of(&q)?, Matrices::of(&r)?);
    mq.times(&mr).equals(&Matrices::of(x)?, "Q R", x)?;
    let qtq = mq.transposed().times(&mq);
    qtq.equals(&qtq.identity(), "Q^T Q", x)?;
    mr.equals(&mr.map(mr.rows, mr.columns, |m, i, j| triangle(m, mr.columns, i, j, false)), "R, upper triangular,", x)?;
    Ok(vec![r.abs()?])
}

/// Singular values; also of the full matrices.
fn svd(x: &BitNetTensor) -> Result<Vec<BitNetTensor>> {
    for full in [true, false] {
        let (u, s, vt) = x.svd(full)?;
        let (u, vt) = (Matrices::of(&u)?, Matrices::of(&vt)?);
        let (utu, vtv) = (u.transposed().times(&u), vt.times(&vt.transposed()));
        utu.equals(&utu.identity(), "U^T U", x)?;
        vtv.equals(&vtv.identity(), "V^T V", x)?;
        let s = diagonal(&s)?;
        let k = s.columns;
        let stretched = s.map(u.columns, vt.rows, |m, i, j| if i == j && i < k { m[i * k + i] } else { 0. });
        u.times(&stretched).times(&vt).equals(&Matrices::of(x)?, "U S V^T", x)?;
    }
    Ok(vec![x.svd(false)?.1])
}

/// Eigenvalues in ascending order.
fn eigh(x: &BitNetTensor) -> Result<Vec<BitNetTensor>> {
    let (values, vectors) = x.eigh()?;
    let v = Matrices::of(&vectors)?;
    let vtv = v.transposed().times(&v);
    vtv.equals(&vtv.identity(), "V^T V", x)?;
    v.times(&diagonal(&values)?).times(&v.transposed()).equals(&Matrices::of(x)?, "V diag(w) V^T", x)?;
    Ok(vec![values])
}

/// Real and imaginary parts of the eigenvalues of one matrix, sorted by them.
fn eig(x: &BitNetTensor) -> Result<Vec<BitNetTensor>> {
    let eigen = x.eig()?;
    let (re, im) = (Matrices::of(&eigen.vectors)?, Matrices::of(&eigen.vectors_imag)?);
    let (a, wr, wi) = (Matrices::of(x)?, diagonal(&eigen.values)?, diagonal(&eigen.values_imag)?);
    // (re + i im) (wr + i wi)
    let minus = |a: &Matrices, b: &Matrices| sum(a, b, -1.);
    a.times(&re).equals(&minus(&re.times(&wr), &im.times(&wi)), "the real part of A V", x)?;
    a.times(&im).equals(&sum(&re.times(&wi), &im.times(&wr), 1.), "the imaginary part of A V", x)?;
    let (values, imag) = (eigen.values.to_dtype(F64)?, eigen.values_imag.to_dtype(F64)?);
    let mut pairs: Vec<(f64, f64)> = values.to_vec()?.into_iter().zip(imag.to_vec()?).collect();
    // Pairs of conjugates have equal real parts up to rounding.
    pairs.sort_by(|p, q| {
        let close = (p.0 - q.0).abs() < 1e-3;
        if close { p.1.total_cmp(&q.1) } else { p.0.total_cmp(&q.0) }
    });
    let part = |f: fn(&(f64, f64)) -> f64| {
        let values: Vec<f64> = pairs.iter().map(f).collect();
        BitNetTensor::from_slice(&values, &[values.len()], x.device())?.to_dtype(x.dtype())
    };
    Ok(vec![part(|p| p.0)?, part(|p| p.1)?])
}

fn sum(a: &Matrices, b: &Matrices, factor: f64) -> Matrices {
    let add = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a + factor * b).collect();
    Matrices { rows: a.rows, columns: a.columns, each: a.each.iter().zip(&b.each).map(add).collect() }
}
