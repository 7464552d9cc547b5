//! The micro-kernel of a blocked product, for one instruction set and type: packed words, and a tile of sums in registers.

use std::marker::PhantomData;

use crate::float::half::{bf16_to_f32, f16_to_f32, f32_to_f16};
use crate::float::simd::{BF16, F16, Simd, prefetch};

/// The most elements of a tile.
pub(super) const MAX_TILE: usize = 512;

/// Products of one type with one instruction set. Having a value proves that the CPU has it.
///
/// A panel of `a` holds for each word of depth one word of each of its rows; a panel of `b` of each of its columns.
/// A word is [`Product::GROUP`] consecutive elements along `k`, the last ones zero where `k` ends.
///
/// # Safety
/// Pointers must be valid for what the function reads or writes.
pub(super) trait Product: Copy + Send + Sync {
    /// Element of the operands.
    type In: Copy + Send + Sync;
    /// Element of packed panels.
    type Word: Copy + Default + Send + Sync;
    /// Element of sums.
    type Acc: Sum;
    /// A vector of sums.
    type V: Copy;
    /// A vector of words.
    type W: Copy;
    /// Lanes of both.
    const LANES: usize;
    /// Rows of a whole tile, a multiple of 4.
    const ROWS: usize;
    /// Columns of a tile, a multiple of `LANES`.
    const COLUMNS: usize;
    /// Elements of a word.
    const GROUP: usize;
    /// Whether a word of the operands' memory is a packed word (of `b`; of `a` after [`Product::signed`]).
    const PLAIN: bool;
    /// Whether words of `a` are [`Product::signed`], so that zeros among them add something, which is taken off.
    const BIASED: bool = false;

    /// Calls `f` where the instructions of this set may be used.
    fn enter<R>(self, f: impl FnOnce() -> R) -> R;
    /// A word of `b` from its elements, `None` beyond the end.
    fn word(self, element: impl Fn(usize) -> Option<Self::In>) -> Self::Word;
    /// A word of `a` from one as `b` has it.
    #[inline(always)]
    fn signed(self, word: Self::Word) -> Self::Word {
        word
    }
    /// An element as a sum.
    fn widen(x: Self::In) -> Self::Acc;

    fn zero(self) -> Self::V;
    unsafe fn load(self, from: *const Self::Acc) -> Self::V;
    unsafe fn store(self, v: Self::V, to: *mut Self::Acc);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    unsafe fn words(self, from: *const Self::Word) -> Self::W;
    fn splat(self, word: Self::Word) -> Self::W;
    /// `sum + a * b`, all elements of a word.
    fn multiply_add(self, a: Self::W, b: Self::W, sum: Self::V) -> Self::V;
    /// [`tile`] of `height` rows (`ROWS`, or 4 or 8 below it): `out[height, COLUMNS]` with rows `stride` apart.
    unsafe fn tile(self, height: usize, depth: usize, panels: Panels<Self>, out: *mut Self::Acc, stride: usize);
}

/// The operands of a tile: packed panels, or matrices as they lie.
pub(super) struct Panels<P: Product> {
    /// Word of row 0 at depth 0.
    pub a: *const P::Word,
    /// Words from a row of `a` to the next, and from one depth to the next: 1 and `height` where it is packed.
    pub a_strides: [isize; 2],
    /// `[depth, COLUMNS]`.
    pub b: *const P::Word,
    /// Words from one depth of `b` to the next: `COLUMNS` where it is packed.
    pub b_stride: isize,
    /// First sums of each column, where they are not zero.
    pub bias: Option<*const P::Acc>,
    /// Whether `out` is added to, not replaced.
    pub accumulate: bool,
}

/// `out = a b`, `HEIGHT` rows by `VECTORS` vectors of sums in registers.
#[inline(always)]
pub(super) unsafe fn tile<P: Product, const HEIGHT: usize, const VECTORS: usize>(
    p: P,
    depth: usize,
    panels: Panels<P>,
    out: *mut P::Acc,
    stride: usize,
) {
    let mut sums = [[p.zero(); VECTORS]; HEIGHT];
    if panels.accumulate {
        for r in 0..HEIGHT {
            for v in 0..VECTORS {
                prefetch(out.wrapping_add(r * stride + v * P::LANES));
            }
        }
    }
    // SAFETY: the caller's promise: panels of `depth` words, `COLUMNS == VECTORS * LANES`.
    unsafe {
        if P::BIASED
            && let Some(bias) = panels.bias
        {
            for row in &mut sums {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = p.load(bias.add(v * P::LANES));
                }
            }
        }
        let ([across, along], mut a, mut b) = (panels.a_strides, panels.a, panels.b);
        for _ in 0..depth {
            let mut columns = [p.words(b); VECTORS];
            for (v, words) in columns.iter_mut().enumerate() {
                *words = p.words(b.add(v * P::LANES));
            }
            for (r, row) in sums.iter_mut().enumerate() {
                let word = p.splat(a.wrapping_offset(r as isize * across).read_unaligned());
                for (sum, &words) in row.iter_mut().zip(&columns) {
                    *sum = p.multiply_add(word, words, *sum);
                }
            }
            a = a.wrapping_offset(along);
            b = b.wrapping_offset(panels.b_stride);
        }
        for (r, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                let to = out.add(r * stride + v * P::LANES);
                p.store(if panels.accumulate { p.add(p.load(to), sum) } else { sum }, to);
            }
        }
    }
}

/// [`tile`] of the heights that occur.
macro_rules! tiles {
    ($($height:literal)+ by $vectors:literal) => {
        #[inline(always)]
        unsafe fn tile(self, height: usize, depth: usize, panels: Panels<Self>, out: *mut Self::Acc, stride: usize) {
            // SAFETY: the caller's promise.
            unsafe {
                match height {
                    $($height => $crate::dense::matmul::product::tile::<Self, $height, $vectors>(self, depth, panels, out, stride),)+
                    _ => unreachable!("no tile has {height} rows"),
                }
            }
        }
    };
}
pub(super) use tiles;

/// What sums are made of.
pub(super) trait Sum: Copy + Default + Send + Sync {
    /// `self + a * b`, integers wrapping.
    fn multiply_add(self, a: Self, b: Self) -> Self;
    /// Integers wrapping.
    fn plus(self, other: Self) -> Self;
    /// Integers wrapping.
    fn minus(self, other: Self) -> Self;
}

impl Sum for f32 {
    #[inline(always)]
    fn multiply_add(self, a: f32, b: f32) -> f32 {
        self + a * b
    }
    #[inline(always)]
    fn plus(self, other: f32) -> f32 {
        self + other
    }
    #[inline(always)]
    fn minus(self, other: f32) -> f32 {
        self - other
    }
}

impl Sum for f64 {
    #[inline(always)]
    fn multiply_add(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
    #[inline(always)]
    fn plus(self, other: f64) -> f64 {
        self + other
    }
    #[inline(always)]
    fn minus(self, other: f64) -> f64 {
        self - other
    }
}

impl Sum for i32 {
    #[inline(always)]
    fn multiply_add(self, a: i32, b: i32) -> i32 {
        self.wrapping_add(a.wrapping_mul(b))
    }
    #[inline(always)]
    fn plus(self, other: i32) -> i32 {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn minus(self, other: i32) -> i32 {
        self.wrapping_sub(other)
    }
}

/// An element that becomes one of sums without loss.
pub(super) trait Widened<Acc>: Copy + Send + Sync {
    /// Whether it is one already.
    const SAME: bool = false;
    fn widened(self) -> Acc;
}

impl Widened<f32> for f32 {
    const SAME: bool = true;
    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
}

impl Widened<f64> for f64 {
    const SAME: bool = true;
    #[inline(always)]
    fn widened(self) -> f64 {
        self
    }
}

impl Widened<f32> for F16 {
    #[inline(always)]
    fn widened(self) -> f32 {
        f16_to_f32(self.0)
    }
}

impl Widened<f32> for BF16 {
    #[inline(always)]
    fn widened(self) -> f32 {
        bf16_to_f32(self.0)
    }
}

impl Widened<i32> for i8 {
    #[inline(always)]
    fn widened(self) -> i32 {
        self as i32
    }
}

/// An element of a result: a sum, rounded.
pub(super) trait Output<Acc>: Copy + Send + Sync {
    /// Whether it is the sum itself, so that several blocks of `k` can be added up in it.
    const SAME: bool = false;
    fn rounded(sum: Acc) -> Self;
}

impl<A: Sum> Output<A> for A {
    const SAME: bool = true;
    #[inline(always)]
    fn rounded(sum: A) -> A {
        sum
    }
}

impl Output<f32> for F16 {
    #[inline(always)]
    fn rounded(sum: f32) -> F16 {
        F16(f32_to_f16(sum))
    }
}

impl Output<f32> for BF16 {
    /// To nearest, ties to even; NaN stays NaN.
    #[inline(always)]
    fn rounded(sum: f32) -> BF16 {
        let bits = sum.to_bits();
        let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        BF16(if sum.is_nan() { (bits >> 16) as u16 | 0x40 } else { nearest })
    }
}

/// Products of elements `T` with the instructions of `S`; those of what widens to f32 with the vectors of the other float
/// operations.
pub(super) struct Of<S, T>(S, PhantomData<T>);

impl<S: Copy, T> Clone for Of<S, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Copy, T> Copy for Of<S, T> {}

impl<S, T> Of<S, T> {
    pub(super) fn new(set: S) -> Self {
        Of(set, PhantomData)
    }

    #[inline(always)]
    pub(super) fn entered<R>(self, f: impl FnOnce() -> R) -> R
    where
        S: Simd,
    {
        self.0.enter(f)
    }
}

impl<S: Simd, T: Widened<f32>> Product for Of<S, T> {
    type In = T;
    type Word = f32;
    type Acc = f32;
    type V = S::F;
    type W = S::F;
    const LANES: usize = S::LANES;
    const ROWS: usize = if S::MANY_REGISTERS { if S::LANES == 16 { 12 } else { 8 } } else { 4 };
    const COLUMNS: usize = S::LANES * if S::LANES == 16 { 2 } else { 3 };
    const GROUP: usize = 1;
    const PLAIN: bool = T::SAME;

    #[inline(always)]
    fn enter<R>(self, f: impl FnOnce() -> R) -> R {
        self.entered(f)
    }
    #[inline(always)]
    fn word(self, element: impl Fn(usize) -> Option<T>) -> f32 {
        element(0).map_or(0.0, T::widened)
    }
    #[inline(always)]
    fn widen(x: T) -> f32 {
        x.widened()
    }
    #[inline(always)]
    fn zero(self) -> S::F {
        self.0.splat(0.0)
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { self.0.load(from) }
    }
    #[inline(always)]
    unsafe fn store(self, v: S::F, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.0.store(v, to) }
    }
    #[inline(always)]
    fn add(self, a: S::F, b: S::F) -> S::F {
        self.0.add(a, b)
    }
    #[inline(always)]
    unsafe fn words(self, from: *const f32) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { self.0.load(from) }
    }
    #[inline(always)]
    fn splat(self, word: f32) -> S::F {
        self.0.splat(word)
    }
    #[inline(always)]
    fn multiply_add(self, a: S::F, b: S::F, sum: S::F) -> S::F {
        self.0.fma(a, b, sum)
    }
    #[inline(always)]
    unsafe fn tile(self, height: usize, depth: usize, panels: Panels<Self>, out: *mut f32, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match (S::LANES, height) {
                (16, 12) => tile::<Self, 12, 2>(self, depth, panels, out, stride),
                (16, 8) => tile::<Self, 8, 2>(self, depth, panels, out, stride),
                (16, _) => tile::<Self, 4, 2>(self, depth, panels, out, stride),
                (_, 8) => tile::<Self, 8, 3>(self, depth, panels, out, stride),
                _ => tile::<Self, 4, 3>(self, depth, panels, out, stride),
            }
        }
    }
}
