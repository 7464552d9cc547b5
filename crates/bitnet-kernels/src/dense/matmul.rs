//! Dense matrix products `out = a b` with any strides: f32, f64, f16, bf16 (summed in f32, rounded once) and i8 to i32.
//!
//! The scheme is that of BLIS (Van Zee and van de Geijn 2015): both operands are copied into panels as wide as a tile of
//! sums that stays in registers, block by block as the caches hold them. What differs between instruction sets and
//! types is a `Product` (`matmul/product.rs`); a matrix unit such as AMX is another implementation of it, with a tile of its own.

mod blocks;
mod pack;
mod portable;
mod product;
mod scalar;
mod scratch;
mod vector;

#[cfg(target_arch = "x86_64")]
mod x86_64;

use crate::float::simd::{BF16, F16};
use crate::isa::{self, MISSING};
use crate::lengths::elements;
use crate::{Isa, ThreadPool};
use product::{F32, Output, Widened};

/// Sizes of a product: `out[m, n] = a[m, k] b[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulShape {
    /// Rows of `a` and `out`.
    pub m: usize,
    /// Columns of `b` and `out`.
    pub n: usize,
    /// Columns of `a`, rows of `b`.
    pub k: usize,
}

/// A matrix to read: element `(i, j)` is `data[start + i * row_stride + j * col_stride]`.
#[derive(Debug)]
pub struct Matrix<'a, T> {
    /// Where the elements lie.
    pub data: &'a [T],
    /// Element `(0, 0)`.
    pub start: usize,
    /// From a row to the next, in elements; negative and zero are allowed.
    pub row_stride: isize,
    /// From a column to the next.
    pub col_stride: isize,
}

impl<T> Clone for Matrix<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Matrix<'_, T> {}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `columns` elements that follow each other.
    pub fn row_major(data: &'a [T], columns: usize) -> Self {
        Matrix { data, start: 0, row_stride: columns as isize, col_stride: 1 }
    }

    /// Rows and columns exchanged.
    pub fn t(self) -> Self {
        Matrix { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// The same elements as another type.
    fn cast<U>(self, slice: impl FnOnce(&'a [T]) -> &'a [U]) -> Matrix<'a, U> {
        Matrix { data: slice(self.data), start: self.start, row_stride: self.row_stride, col_stride: self.col_stride }
    }

    fn at(&self, i: usize, j: usize) -> *const T {
        let offset = self.row_stride * i as isize + self.col_stride * j as isize;
        self.data.as_ptr().wrapping_add(self.start).wrapping_offset(offset)
    }

    /// Panics unless all `rows x columns` elements are inside `data`.
    fn check(&self, what: &str, rows: usize, columns: usize) {
        check(what, self.data.len(), self.start, [rows, columns], [self.row_stride, self.col_stride]);
    }
}

/// A matrix to write, see [`Matrix`]; no two of its elements may be one.
#[derive(Debug)]
pub struct MatrixMut<'a, T> {
    /// Where the elements lie.
    pub data: &'a mut [T],
    /// Element `(0, 0)`.
    pub start: usize,
    /// From a row to the next, in elements; may be negative.
    pub row_stride: isize,
    /// From a column to the next.
    pub col_stride: isize,
}

impl<'a, T> MatrixMut<'a, T> {
    /// Rows of `columns` elements that follow each other.
    pub fn row_major(data: &'a mut [T], columns: usize) -> Self {
        MatrixMut { data, start: 0, row_stride: columns as isize, col_stride: 1 }
    }

    fn check(&self, rows: usize, columns: usize) {
        let (extents, strides) = ([rows, columns], [self.row_stride, self.col_stride]);
        check("out", self.data.len(), self.start, extents, strides);
        if extents.contains(&0) {
            return;
        }
        let (near, far) = if strides[0].unsigned_abs() < strides[1].unsigned_abs() { (0, 1) } else { (1, 0) };
        // Does not wrap: what was just checked lies in the slice.
        let reach = strides[near].unsigned_abs() * (extents[near] - 1);
        let apart = |axis: usize, reach: usize| extents[axis] < 2 || strides[axis].unsigned_abs() > reach;
        assert!(apart(near, 0) && apart(far, reach), "elements of out overlap: {strides:?}");
    }
}

fn check(what: &str, len: usize, start: usize, extents: [usize; 2], strides: [isize; 2]) {
    if extents.contains(&0) {
        return;
    }
    let (mut low, mut high) = (start as i128, start as i128);
    for (extent, stride) in extents.into_iter().zip(strides) {
        let reach = (extent as i128 - 1) * stride as i128;
        if reach < 0 { low += reach } else { high += reach }
    }
    assert!(low >= 0 && high < len as i128, "{what}: elements {low} to {high} of a slice of {len}");
}

/// `out = a b` in f32; every instruction set within the rounding of sums of `k` products in its own order.
///
/// # Panics
/// When a matrix leaves its slice, elements of `out` overlap, or this CPU lacks `isa` (all products here).
pub fn matmul_f32(
    isa: Isa,
    pool: &ThreadPool,
    shape: MatmulShape,
    a: Matrix<f32>,
    b: Matrix<f32>,
    out: MatrixMut<f32>,
) {
    check_all(&shape, &a, &b, &out);
    f32_like(isa, pool, shape, a, b, Target::new(out));
}

/// `out = a b` in f64.
///
/// # Panics
/// As [`matmul_f32`].
pub fn matmul_f64(
    isa: Isa,
    pool: &ThreadPool,
    shape: MatmulShape,
    a: Matrix<f64>,
    b: Matrix<f64>,
    out: MatrixMut<f64>,
) {
    check_all(&shape, &a, &b, &out);
    let out = Target::new(out);
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => blocks::run(x86_64::F64Avx512::new().expect(MISSING), pool, shape, a, b, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => blocks::run(x86_64::F64Avx2::new().expect(MISSING), pool, shape, a, b, out),
        Isa::Scalar => scalar::matmul(shape, a, b, out),
        _ => blocks::run(portable::Portable::<f64>::new(), pool, shape, a, b, out),
    }
}

/// `out = a b` of IEEE halves (their bits), summed in f32 and rounded once.
///
/// # Panics
/// As [`matmul_f32`].
pub fn matmul_f16(
    isa: Isa,
    pool: &ThreadPool,
    shape: MatmulShape,
    a: Matrix<u16>,
    b: Matrix<u16>,
    out: MatrixMut<u16>,
) {
    check_all(&shape, &a, &b, &out);
    f32_like(isa, pool, shape, a.cast(F16::slice), b.cast(F16::slice), Target::<F16>::new_bits(out));
}

/// `out = a b` of bfloat16 (their bits), summed in f32 and rounded once. With AVX512-BF16 the products of two neighbours
/// are added to a sum together and subnormal numbers count as zero; the difference is below that of another order.
///
/// # Panics
/// As [`matmul_f32`].
pub fn matmul_bf16(
    isa: Isa,
    pool: &ThreadPool,
    shape: MatmulShape,
    a: Matrix<u16>,
    b: Matrix<u16>,
    out: MatrixMut<u16>,
) {
    check_all(&shape, &a, &b, &out);
    bf16(isa, pool, shape, a, b, Target::<BF16>::new_bits(out));
}

/// [`matmul_bf16`] with the sums as they are, in f32.
///
/// # Panics
/// As [`matmul_f32`].
pub fn matmul_bf16_f32(
    isa: Isa,
    pool: &ThreadPool,
    shape: MatmulShape,
    a: Matrix<u16>,
    b: Matrix<u16>,
    out: MatrixMut<f32>,
) {
    check_all(&shape, &a, &b, &out);
    bf16(isa, pool, shape, a, b, Target::new(out));
}

fn bf16<O: Output<f32>>(
    isa: Isa,
    pool: &ThreadPool,
    shape: MatmulShape,
    a: Matrix<u16>,
    b: Matrix<u16>,
    out: Target<O>,
) {
    let (a, b) = (a.cast(BF16::slice), b.cast(BF16::slice));
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512
        && let Some(p) = x86_64::Bf16Avx512::new()
    {
        return blocks::run(p, pool, shape, a, b, out);
    }
    f32_like(isa, pool, shape, a, b, out);
}

/// `out = a b` of i8 in i32, wrapping (which takes `k >= 2^17`): every instruction set gives the same bits.
///
/// # Panics
/// As [`matmul_f32`].
pub fn matmul_i8(isa: Isa, pool: &ThreadPool, shape: MatmulShape, a: Matrix<i8>, b: Matrix<i8>, out: MatrixMut<i32>) {
    check_all(&shape, &a, &b, &out);
    let out = Target::new(out);
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => blocks::run(x86_64::I8Avx512::new().expect(MISSING), pool, shape, a, b, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => blocks::run(x86_64::I8Avx2::new().expect(MISSING), pool, shape, a, b, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Sse41 => blocks::run(x86_64::I8Sse41::new().expect(MISSING), pool, shape, a, b, out),
        Isa::Scalar => scalar::matmul(shape, a, b, out),
        _ => blocks::run(portable::Portable::<i32>::new(), pool, shape, a, b, out),
    }
}

fn check_all<A, B, O>(shape: &MatmulShape, a: &Matrix<A>, b: &Matrix<B>, out: &MatrixMut<O>) {
    let MatmulShape { m, n, k } = *shape;
    // Strides of 0 make matrices of any size; the loops over them count in usize.
    for sizes in [[m, k], [k, n], [m, n]] {
        assert!(elements(sizes).is_some_and(|count| count <= isize::MAX as usize), "{shape:?} is too large");
    }
    a.check("a", shape.m, shape.k);
    b.check("b", shape.k, shape.n);
    out.check(shape.m, shape.n);
}

/// Products of what widens to f32.
fn f32_like<T, O>(isa: Isa, pool: &ThreadPool, shape: MatmulShape, a: Matrix<T>, b: Matrix<T>, out: Target<O>)
where
    T: Widened<f32>,
    O: Output<f32>,
{
    macro_rules! with {
        ($simd:expr) => {
            blocks::run(F32::<_, T>::new($simd.expect(MISSING)), pool, shape, a, b, out)
        };
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => with!(isa::Avx512::new()),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => with!(isa::Avx2::new()),
        #[cfg(target_arch = "x86_64")]
        Isa::Sse41 => blocks::run(portable::Portable::<f32, T>::new(), pool, shape, a, b, out),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDotprod => with!(isa::Neon::new()),
        _ => scalar::matmul(shape, a, b, out),
    }
}

/// Where results go, from several threads.
struct Target<O> {
    data: *mut O,
    row_stride: isize,
    col_stride: isize,
}

impl<O> Clone for Target<O> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<O> Copy for Target<O> {}
// SAFETY: each element is written by the one task that computes it.
unsafe impl<O: Send> Send for Target<O> {}
// SAFETY: as above.
unsafe impl<O: Send> Sync for Target<O> {}

impl<O> Target<O> {
    fn new(out: MatrixMut<O>) -> Self {
        let data = out.data.as_mut_ptr().wrapping_add(out.start);
        Target { data, row_stride: out.row_stride, col_stride: out.col_stride }
    }

    /// `O` is a transparent u16.
    fn new_bits(out: MatrixMut<u16>) -> Self {
        const { assert!(size_of::<O>() == 2 && align_of::<O>() == 2) };
        let data = out.data.as_mut_ptr().wrapping_add(out.start).cast();
        Target { data, row_stride: out.row_stride, col_stride: out.col_stride }
    }

    fn at(&self, i: usize, j: usize) -> *mut O {
        self.data.wrapping_offset(self.row_stride * i as isize + self.col_stride * j as isize)
    }

    fn t(self) -> Self {
        Target { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}
