//! Products without vector instructions of their own: small arrays, which the compiler vectorizes.

use std::marker::PhantomData;

use super::product::{Panels, Product, Sum, Widened, tiles};

/// Sums in `A` of elements `T`, four lanes.
pub(super) struct Portable<A, T>(PhantomData<(A, T)>);

impl<A, T> Clone for Portable<A, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A, T> Copy for Portable<A, T> {}

impl<A, T> Portable<A, T> {
    pub(super) fn new() -> Self {
        Portable(PhantomData)
    }
}

impl<A: Sum, T: Widened<A>> Product for Portable<A, T> {
    type In = T;
    type Word = A;
    type Acc = A;
    type V = [A; 4];
    type W = [A; 4];
    const LANES: usize = 4;
    const ROWS: usize = 4;
    const COLUMNS: usize = 8;
    const GROUP: usize = 1;
    const PLAIN: bool = T::SAME;

    #[inline(always)]
    fn enter<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn word(self, element: impl Fn(usize) -> Option<T>) -> A {
        element(0).map_or(A::default(), T::widened)
    }
    #[inline(always)]
    fn widen(x: T) -> A {
        x.widened()
    }
    #[inline(always)]
    fn zero(self) -> [A; 4] {
        [A::default(); 4]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const A) -> [A; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[A; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(self, v: [A; 4], to: *mut A) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[A; 4]>().write(v) }
    }
    #[inline(always)]
    fn add(self, a: [A; 4], b: [A; 4]) -> [A; 4] {
        std::array::from_fn(|i| a[i].plus(b[i]))
    }
    #[inline(always)]
    unsafe fn words(self, from: *const A) -> [A; 4] {
        // SAFETY: the caller's promise.
        unsafe { self.load(from) }
    }
    #[inline(always)]
    fn splat(self, word: A) -> [A; 4] {
        [word; 4]
    }
    #[inline(always)]
    fn multiply_add(self, a: [A; 4], b: [A; 4], sum: [A; 4]) -> [A; 4] {
        std::array::from_fn(|i| sum[i].multiply_add(a[i], b[i]))
    }
    tiles!(4 by 2);
}
