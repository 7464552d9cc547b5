//! Every instruction set's products against plain sums in f64 and i64: odd sizes, strides, extremes.

use bitnet_kernels::dense::matmul::*;
use bitnet_kernels::{Isa, ThreadPool};
use half::{bf16, f16};

/// Sizes at and around the tiles of all instruction sets, the blocks of depth, vectors and nothing.
const SHAPES: [(usize, usize, usize); 22] = [
    (0, 3, 2),
    (3, 0, 2),
    (2, 3, 0),
    (1, 1, 1),
    (1, 1, 700),
    (1, 100, 37),
    (1, 600, 130),
    (100, 1, 37),
    (2, 3, 5),
    (4, 8, 16),
    (5, 7, 3),
    (12, 32, 8),
    (13, 33, 17),
    (11, 31, 9),
    (24, 48, 64),
    (25, 49, 65),
    (9, 200, 100),
    (130, 70, 40),
    (64, 64, 513),
    (33, 40, 1200),
    (20, 36, 4100),
    (200, 130, 111),
];

/// How the matrix `rows x columns` lies in memory: row major, column major, both reversed, every second, one row for all.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lay {
    Rows,
    Columns,
    Reversed,
    Spaced,
    Repeated,
}

impl Lay {
    /// Length, start, row stride, column stride.
    fn of(self, rows: usize, columns: usize) -> (usize, usize, isize, isize) {
        let (r, c) = (rows as isize, columns as isize);
        match self {
            Lay::Rows => (rows * columns, 0, c, 1),
            Lay::Columns => (rows * columns, 0, 1, r),
            Lay::Reversed => (rows * columns, (rows * columns).saturating_sub(1), -c, -1),
            Lay::Spaced => (rows * (2 * columns + 3) + 1, 1, 2 * c + 3, 2),
            Lay::Repeated => (columns, 0, 0, 1),
        }
    }
}

fn numbers(len: usize, seed: u64) -> impl Iterator<Item = u64> {
    let mut x = seed;
    (0..len).map(move |_| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        x >> 33
    })
}

/// Runs `product` on all shapes, layouts and instruction sets, and compares with sums made by `exact`.
fn check<T: Copy, O: Copy + Default + PartialEq>(
    element: impl Fn(u64) -> T,
    product: impl Fn(Isa, &ThreadPool, MatmulShape, Matrix<T>, Matrix<T>, MatrixMut<O>),
    agrees: impl Fn(&[(T, T)], O) -> bool,
    untouched: O,
) {
    let pools = [ThreadPool::new(1), ThreadPool::new(3)];
    let lays = [
        (Lay::Rows, Lay::Rows, Lay::Rows),
        (Lay::Rows, Lay::Columns, Lay::Rows),
        (Lay::Columns, Lay::Rows, Lay::Columns),
        (Lay::Reversed, Lay::Spaced, Lay::Reversed),
        (Lay::Spaced, Lay::Reversed, Lay::Spaced),
        (Lay::Repeated, Lay::Repeated, Lay::Rows),
    ];
    for (i, (m, n, k)) in SHAPES.into_iter().enumerate() {
        for (la, lb, lo) in lays {
            let ((len_a, start_a, ra, ca), (len_b, start_b, rb, cb)) = (la.of(m, k), lb.of(k, n));
            let a: Vec<T> = numbers(len_a, 1).map(&element).collect();
            let b: Vec<T> = numbers(len_b, 2).map(&element).collect();
            for isa in Isa::available() {
                let (len, start, ro, co) = lo.of(m, n);
                let mut out = vec![untouched; len];
                product(
                    isa,
                    &pools[i % 2],
                    MatmulShape { m, n, k },
                    Matrix { data: &a, start: start_a, row_stride: ra, col_stride: ca },
                    Matrix { data: &b, start: start_b, row_stride: rb, col_stride: cb },
                    MatrixMut { data: &mut out, start, row_stride: ro, col_stride: co },
                );
                let at = |start: usize, i: usize, r: isize, j: usize, c: isize| {
                    start.wrapping_add_signed(r * i as isize + c * j as isize)
                };
                for i in 0..m {
                    for j in 0..n {
                        let pair = |l: usize| (a[at(start_a, i, ra, l, ca)], b[at(start_b, l, rb, j, cb)]);
                        let pairs: Vec<(T, T)> = (0..k).map(pair).collect();
                        let got = std::mem::replace(&mut out[at(start, i, ro, j, co)], untouched);
                        assert!(agrees(&pairs, got), "{isa} {m} x {n} x {k}, {la:?} {lb:?} {lo:?}, ({i}, {j})");
                    }
                }
                assert!(out.iter().all(|&x| x == untouched), "{isa}: something else was written");
            }
        }
    }
}

/// Whether `got` is the sum of products with sums and results rounded to `unit`.
fn close(pairs: impl Iterator<Item = (f64, f64)> + Clone, got: f64, sum: f64, result: f64) -> bool {
    let exact: f64 = pairs.clone().map(|(a, b)| a * b).sum();
    let size: f64 = pairs.clone().map(|(a, b)| (a * b).abs()).sum();
    (got - exact).abs() <= size * sum * pairs.count() as f64 + exact.abs() * result
}

fn float(bits: u64) -> f64 {
    (bits % 4001) as f64 / 1000.0 - 2.0
}

#[test]
fn f32_sums() {
    let agrees = |pairs: &[(f32, f32)], got: f32| {
        close(pairs.iter().map(|&(a, b)| (a.into(), b.into())), got.into(), f32::EPSILON as f64, f32::EPSILON as f64)
    };
    check(|x| float(x) as f32, matmul_f32, agrees, 1e30);
}

#[test]
fn f64_sums() {
    let agrees = |pairs: &[(f64, f64)], got: f64| close(pairs.iter().copied(), got, f64::EPSILON, f64::EPSILON);
    check(float, matmul_f64, agrees, 1e300);
}

#[test]
fn halves_are_summed_in_f32_and_rounded_once() {
    let wide = |x: u16| f16::from_bits(x).to_f64();
    let agrees = |pairs: &[(u16, u16)], got: u16| {
        let pairs = pairs.iter().map(|&(a, b)| (wide(a), wide(b)));
        close(pairs, wide(got), f32::EPSILON as f64, 1.0 / 2048.0)
    };
    check(|x| f16::from_f64(float(x)).to_bits(), matmul_f16, agrees, 0x7b00);
}

#[test]
fn bfloat16_is_summed_in_f32_and_rounded_once() {
    let wide = |x: u16| bf16::from_bits(x).to_f64();
    let agrees = |pairs: &[(u16, u16)], got: u16| {
        let pairs = pairs.iter().map(|&(a, b)| (wide(a), wide(b)));
        close(pairs, wide(got), f32::EPSILON as f64, 1.0 / 256.0)
    };
    check(|x| bf16::from_f64(float(x)).to_bits(), matmul_bf16, agrees, 0x7b00);
}

fn exact(pairs: &[(i8, i8)], got: i32) -> bool {
    pairs.iter().map(|&(a, b)| a as i32 * b as i32).sum::<i32>() == got
}

#[test]
fn bytes_are_summed_exactly() {
    check(|x| x as i8, matmul_i8, exact, i32::MIN);
}

#[test]
fn bytes_of_the_largest_size_are_summed_exactly() {
    for (a, b) in [(-128i8, -128i8), (-128, 127), (127, -128), (127, 127)] {
        let (m, n, k) = (13, 33, (1 << 17) - 1);
        let (a, b) = (vec![a; m * k], vec![b; k * n]);
        for isa in Isa::available() {
            let mut out = vec![0; m * n];
            matmul_i8(
                isa,
                &ThreadPool::new(2),
                MatmulShape { m, n, k },
                Matrix::row_major(&a, k),
                Matrix::row_major(&b, n),
                MatrixMut::row_major(&mut out, n),
            );
            assert!(out.iter().all(|&x| x == a[0] as i32 * b[0] as i32 * k as i32), "{isa}");
        }
    }
}

#[test]
fn infinities_and_not_a_number_pass_through() {
    for isa in Isa::available() {
        for (m, n, k) in [(1, 5, 40), (13, 33, 17)] {
            let mut a = vec![1f32; m * k];
            (a[0], a[1]) = (f32::INFINITY, 0.0);
            let mut b = vec![1f32; k * n];
            (b[1], b[n + 2]) = (0.0, f32::NEG_INFINITY);
            let mut out = vec![0f32; m * n];
            matmul_f32(
                isa,
                &ThreadPool::new(1),
                MatmulShape { m, n, k },
                Matrix::row_major(&a, k),
                Matrix::row_major(&b, n),
                MatrixMut::row_major(&mut out, n),
            );
            assert_eq!(out[0], f32::INFINITY, "{isa}");
            assert!(out[1].is_nan() && out[2].is_nan(), "{isa}: {:?}", &out[..3]);
        }
    }
}

#[test]
#[should_panic(expected = "elements of out overlap")]
fn results_that_overlap_are_refused() {
    let out = MatrixMut { data: &mut [0.0; 4], start: 0, row_stride: 1, col_stride: 1 };
    let x = [1f32; 4];
    let shape = MatmulShape { m: 2, n: 2, k: 2 };
    matmul_f32(Isa::Scalar, &ThreadPool::new(1), shape, Matrix::row_major(&x, 2), Matrix::row_major(&x, 2), out);
}

#[test]
#[should_panic(expected = "a: elements 0 to 5 of a slice of 4")]
fn matrices_that_leave_their_slice_are_refused() {
    let x = [1f32; 4];
    let mut out = [0.0; 4];
    let (a, b) = (Matrix::row_major(&x, 3), Matrix::row_major(&x, 1));
    let shape = MatmulShape { m: 2, n: 1, k: 3 };
    matmul_f32(Isa::Scalar, &ThreadPool::new(1), shape, a, b, MatrixMut::row_major(&mut out, 1));
}

/// Multiplies when its thread ends, after the memory that products keep for the thread is gone.
struct Late(Option<std::sync::mpsc::Sender<f32>>);

impl Drop for Late {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            _ = sender.send(product_of_ones());
        }
    }
}

/// An element of a product that is large enough to be packed.
fn product_of_ones() -> f32 {
    let (ones, mut out) = (vec![1f32; 64 * 64], vec![0f32; 64 * 64]);
    let (a, shape) = (Matrix::row_major(&ones, 64), MatmulShape { m: 64, n: 64, k: 64 });
    matmul_f32(Isa::detect(), &ThreadPool::new(1), shape, a, a, MatrixMut::row_major(&mut out, 64));
    out[64 * 64 - 1]
}

#[test]
fn a_product_in_the_destructor_of_a_thread_local_is_right() {
    thread_local!(static LATE: std::cell::RefCell<Late> = const { std::cell::RefCell::new(Late(None)) });
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // The last thread-local that was used first is the last to go.
        LATE.with_borrow_mut(|late| late.0 = Some(sender));
        assert_eq!(product_of_ones(), 64.);
    });
    // The program would have been aborted.
    assert_eq!(receiver.recv(), Ok(64.));
}
