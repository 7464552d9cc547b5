//! Products with instructions of x86-64 beyond f32 vectors: f64, pairs of bfloat16, groups of bytes.

use std::arch::x86_64::*;

use super::product::{Of, Panels, Product, tiles};
use crate::float::half::bf16_to_f32;
use crate::float::simd::BF16;
use crate::isa::{Avx2, Avx512, Isa, Sse41, kernel};

/// The functions that are one intrinsic, with their vectors and pointers cast.
macro_rules! vectors {
    ($v:ty, $acc:ty, $zero:ident, $load:ident, $store:ident, $add:ident, $w:ty, $word:ty, $words:ident) => {
        #[inline(always)]
        fn enter<R>(self, f: impl FnOnce() -> R) -> R {
            self.entered(f)
        }
        #[inline(always)]
        fn zero(self) -> $v {
            // SAFETY: a value of the type exists only where the instructions do (all blocks here).
            unsafe { $zero() }
        }
        #[inline(always)]
        unsafe fn load(self, from: *const $acc) -> $v {
            // SAFETY: the caller's promise.
            unsafe { $load(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store(self, v: $v, to: *mut $acc) {
            // SAFETY: the caller's promise.
            unsafe { $store(to.cast(), v) }
        }
        #[inline(always)]
        fn add(self, a: $v, b: $v) -> $v {
            // SAFETY: see above.
            unsafe { $add(a, b) }
        }
        #[inline(always)]
        unsafe fn words(self, from: *const $word) -> $w {
            // SAFETY: the caller's promise.
            unsafe { $words(from.cast()) }
        }
    };
}

kernel!(
    /// bfloat16 with AVX512-BF16.
    Bf16Avx512,
    Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
    "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma"
);

macro_rules! f64_product {
    ($isa:ident, $lanes:literal, $rows:literal x $columns:literal, $splat:ident, $fma:ident,
     [$($vectors:tt)*], [$($tiles:tt)*]) => {
        impl Product for Of<$isa, f64> {
            type In = f64;
            type Word = f64;
            type Acc = f64;
            $($vectors)*
            const LANES: usize = $lanes;
            const ROWS: usize = $rows;
            const COLUMNS: usize = $columns;
            const GROUP: usize = 1;
            const PLAIN: bool = true;

            #[inline(always)]
            fn word(self, element: impl Fn(usize) -> Option<f64>) -> f64 {
                element(0).unwrap_or_default()
            }
            #[inline(always)]
            fn widen(x: f64) -> f64 {
                x
            }
            #[inline(always)]
            fn splat(self, word: f64) -> Self::W {
                // SAFETY: see above.
                unsafe { $splat(word) }
            }
            #[inline(always)]
            fn multiply_add(self, a: Self::W, b: Self::W, sum: Self::V) -> Self::V {
                // SAFETY: see above.
                unsafe { $fma(a, b, sum) }
            }
            $($tiles)*
        }
    };
}

f64_product!(
    Avx512, 8, 12 x 16, _mm512_set1_pd, _mm512_fmadd_pd,
    [
        type V = __m512d;
        type W = __m512d;
        vectors!(__m512d, f64, _mm512_setzero_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_add_pd,
            __m512d, f64, _mm512_loadu_pd);
    ],
    [tiles!(12 8 4 by 2);]
);
f64_product!(
    Avx2, 4, 4 x 12, _mm256_set1_pd, _mm256_fmadd_pd,
    [
        type V = __m256d;
        type W = __m256d;
        vectors!(__m256d, f64, _mm256_setzero_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_add_pd,
            __m256d, f64, _mm256_loadu_pd);
    ],
    [tiles!(4 by 3);]
);

impl Product for Bf16Avx512 {
    type In = BF16;
    type Word = u32;
    type Acc = f32;
    type V = __m512;
    type W = __m512i;
    const LANES: usize = 16;
    const ROWS: usize = 12;
    const COLUMNS: usize = 32;
    const GROUP: usize = 2;
    const PLAIN: bool = true;

    vectors!(
        __m512,
        f32,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        __m512i,
        u32,
        _mm512_loadu_si512
    );
    #[inline(always)]
    fn word(self, element: impl Fn(usize) -> Option<BF16>) -> u32 {
        let bits = |e| element(e).map_or(0, |x| x.0 as u32);
        bits(0) | bits(1) << 16
    }
    #[inline(always)]
    fn widen(x: BF16) -> f32 {
        bf16_to_f32(x.0)
    }
    #[inline(always)]
    fn splat(self, word: u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(word as i32) }
    }
    #[inline(always)]
    fn multiply_add(self, a: __m512i, b: __m512i, sum: __m512) -> __m512 {
        // SAFETY: see above; both types are 64 bytes of any bits.
        unsafe {
            let pairs = |v: __m512i| std::mem::transmute::<__m512i, __m512bh>(v);
            _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
        }
    }
    tiles!(12 8 4 by 2);
}

/// VNNI: `a + 128` unsigned, what that adds taken off beforehand.
impl Product for Of<Avx512, i8> {
    type In = i8;
    type Word = u32;
    type Acc = i32;
    type V = __m512i;
    type W = __m512i;
    const LANES: usize = 16;
    const ROWS: usize = 12;
    const COLUMNS: usize = 32;
    const GROUP: usize = 4;
    const PLAIN: bool = true;
    const BIASED: bool = true;

    vectors!(
        __m512i,
        i32,
        _mm512_setzero_si512,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_add_epi32,
        __m512i,
        u32,
        _mm512_loadu_si512
    );
    #[inline(always)]
    fn word(self, element: impl Fn(usize) -> Option<i8>) -> u32 {
        let bits = |e| element(e).map_or(0, |x| x as u8 as u32);
        bits(0) | bits(1) << 8 | bits(2) << 16 | bits(3) << 24
    }
    #[inline(always)]
    fn signed(self, word: u32) -> u32 {
        word ^ 0x8080_8080
    }
    #[inline(always)]
    fn widen(x: i8) -> i32 {
        x as i32
    }
    #[inline(always)]
    fn splat(self, word: u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(word as i32) }
    }
    #[inline(always)]
    fn multiply_add(self, a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_dpbusd_epi32(sum, a, b) }
    }
    tiles!(12 8 4 by 2);
}

/// Bytes as pairs of 16 bits.
macro_rules! pairs_product {
    ($isa:ident, $lanes:literal, $splat:ident, $madd:ident, $add:ident, [$($vectors:tt)*]) => {
        impl Product for Of<$isa, i8> {
            type In = i8;
            type Word = u32;
            type Acc = i32;
            $($vectors)*
            const LANES: usize = $lanes;
            const ROWS: usize = 4;
            const COLUMNS: usize = 2 * $lanes;
            const GROUP: usize = 2;
            const PLAIN: bool = false;

            #[inline(always)]
            fn word(self, element: impl Fn(usize) -> Option<i8>) -> u32 {
                let bits = |e| element(e).map_or(0, |x| x as i16 as u16 as u32);
                bits(0) | bits(1) << 16
            }
            #[inline(always)]
            fn widen(x: i8) -> i32 {
                x as i32
            }
            #[inline(always)]
            fn splat(self, word: u32) -> Self::W {
                // SAFETY: see above.
                unsafe { $splat(word as i32) }
            }
            #[inline(always)]
            fn multiply_add(self, a: Self::W, b: Self::W, sum: Self::V) -> Self::V {
                // SAFETY: see above. Two products of bytes are far from what 32 bits hold.
                unsafe { $add(sum, $madd(a, b)) }
            }
            tiles!(4 by 2);
        }
    };
}

pairs_product!(Avx2, 8, _mm256_set1_epi32, _mm256_madd_epi16, _mm256_add_epi32, [
    type V = __m256i;
    type W = __m256i;
    vectors!(__m256i, i32, _mm256_setzero_si256, load_256, store_256, _mm256_add_epi32,
        __m256i, u32, load_256);
]);
pairs_product!(Sse41, 4, _mm_set1_epi32, _mm_madd_epi16, _mm_add_epi32, [
    type V = __m128i;
    type W = __m128i;
    vectors!(__m128i, i32, _mm_setzero_si128, _mm_loadu_si128, _mm_storeu_si128, _mm_add_epi32,
        __m128i, u32, _mm_loadu_si128);
]);

use _mm256_loadu_si256 as load_256;
use _mm256_storeu_si256 as store_256;
