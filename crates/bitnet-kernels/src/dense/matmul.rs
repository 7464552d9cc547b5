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
use crate::isa::{Scalar, dispatch};
use crate::lengths::elements;
use crate::{Isa, ThreadPool};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use portable::Portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use product::Of;
use product::{Output, Widened};

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

/// A product: what is read and written, checked.
#[derive(Clone, Copy)]
struct Job<'a, T, O> {
    pool: &'a ThreadPool,
    shape: MatmulShape,
    a: Matrix<'a, T>,
    b: Matrix<'a, T>,
    out: Target<O>,
}

impl<'a, T, O> Job<'a, T, O> {
    fn new(
        pool: &'a ThreadPool,
        shape: MatmulShape,
        a: Matrix<'a, T>,
        b: Matrix<'a, T>,
        out: MatrixMut<'a, O>,
    ) -> Self {
        let MatmulShape { m, n, k } = shape;
        // Strides of 0 make matrices of any size; the loops over them count in usize.
        for sizes in [[m, k], [k, n], [m, n]] {
            assert!(elements(sizes).is_some_and(|count| count <= isize::MAX as usize), "{shape:?} is too large");
        }
        a.check("a", m, k);
        b.check("b", k, n);
        out.check(m, n);
        Job { pool, shape, a, b, out: Target::new(out) }
    }

    /// The same elements as other types.
    fn cast<U, V>(self, slice: fn(&'a [T]) -> &'a [U]) -> Job<'a, U, V> {
        let Job { pool, shape, a, b, out } = self;
        Job { pool, shape, a: a.cast(slice), b: b.cast(slice), out: out.cast() }
    }
}

/// The products of an instruction set.
trait Products: Copy {
    /// Of what widens to f32.
    fn f32<T: Widened<f32>, O: Output<f32>>(self, job: Job<T, O>);
    fn bf16<O: Output<f32>>(self, job: Job<BF16, O>) {
        self.f32(job);
    }
    fn f64(self, job: Job<f64, f64>);
    fn i8(self, job: Job<i8, i32>);
}

impl Products for Scalar {
    fn f32<T: Widened<f32>, O: Output<f32>>(self, job: Job<T, O>) {
        scalar::matmul(job);
    }
    fn f64(self, job: Job<f64, f64>) {
        scalar::matmul(job);
    }
    fn i8(self, job: Job<i8, i32>) {
        scalar::matmul(job);
    }
}

/// [`Products`] in blocks, by the [`Product`] of each type.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! products {
    ($isa:ident, |$s:ident| $f32:expr, $f64:expr, $i8:expr $(, $bf16:item)?) => {
        #[allow(unused_variables)] // portable products need no proof
        impl Products for crate::isa::$isa {
            fn f32<T: Widened<f32>, O: Output<f32>>(self, job: Job<T, O>) {
                let $s = self;
                blocks::run($f32, job);
            }
            fn f64(self, job: Job<f64, f64>) {
                let $s = self;
                blocks::run($f64, job);
            }
            fn i8(self, job: Job<i8, i32>) {
                let $s = self;
                blocks::run($i8, job);
            }
            $($bf16)?
        }
    };
}
#[cfg(target_arch = "x86_64")]
products!(Sse41, |s| Portable::<f32, T>::new(), Portable::<f64, f64>::new(), Of::<_, i8>::new(s));
#[cfg(target_arch = "x86_64")]
products!(Avx2, |s| Of::<_, T>::new(s), Of::<_, f64>::new(s), Of::<_, i8>::new(s));
#[cfg(target_arch = "x86_64")]
products!(
    Avx512,
    |s| Of::<_, T>::new(s),
    Of::<_, f64>::new(s),
    Of::<_, i8>::new(s),
    fn bf16<O: Output<f32>>(self, job: Job<BF16, O>) {
        match x86_64::Bf16Avx512::new() {
            Some(p) => blocks::run(p, job),
            None => self.f32(job),
        }
    }
);
#[cfg(target_arch = "aarch64")]
products!(Neon, |s| Of::<_, T>::new(s), Portable::<f64, f64>::new(), Portable::<i32, i8>::new());

/// A public product: `$job` by the function `$f` of [`Products`].
macro_rules! product {
    ($(#[$doc:meta])* $name:ident, $in:ty, $out:ty, $f:ident, |$job:ident| $cast:expr) => {
        $(#[$doc])*
        ///
        /// # Panics
        /// When a matrix leaves its slice, elements of `out` overlap, or this CPU lacks `isa`.
        pub fn $name(
            isa: Isa,
            pool: &ThreadPool,
            shape: MatmulShape,
            a: Matrix<$in>,
            b: Matrix<$in>,
            out: MatrixMut<$out>,
        ) {
            let $job = Job::new(pool, shape, a, b, out);
            let job = $cast;
            dispatch!(isa, |s| s.$f(job), Scalar.$f(job));
        }
    };
}

product!(
    /// `out = a b` in f32; every instruction set within the rounding of sums of `k` products in its own order.
    matmul_f32, f32, f32, f32, |job| job
);
product!(
    /// `out = a b` in f64.
    matmul_f64, f64, f64, f64, |job| job
);
product!(
    /// `out = a b` of IEEE halves (their bits), summed in f32 and rounded once.
    matmul_f16, u16, u16, f32, |job| job.cast::<F16, F16>(F16::slice)
);
product!(
    /// `out = a b` of bfloat16 (their bits), summed in f32 and rounded once. With AVX512-BF16 the products of two neighbours
    /// are added to a sum together and subnormal numbers count as zero; the difference is below that of another order.
    matmul_bf16, u16, u16, bf16, |job| job.cast::<BF16, BF16>(BF16::slice)
);
product!(
    /// [`matmul_bf16`] with the sums as they are, in f32.
    matmul_bf16_f32, u16, f32, bf16, |job| job.cast::<BF16, f32>(BF16::slice)
);
product!(
    /// `out = a b` of i8 in i32, wrapping (which takes `k >= 2^17`): every instruction set gives the same bits.
    matmul_i8, i8, i32, i8, |job| job
);

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

    /// `U` is `O`, or has its bits.
    fn cast<U>(self) -> Target<U> {
        const { assert!(size_of::<O>() == size_of::<U>() && align_of::<O>() == align_of::<U>()) };
        Target { data: self.data.cast(), row_stride: self.row_stride, col_stride: self.col_stride }
    }

    fn at(&self, i: usize, j: usize) -> *mut O {
        self.data.wrapping_offset(self.row_stride * i as isize + self.col_stride * j as isize)
    }

    fn t(self) -> Self {
        Target { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}
