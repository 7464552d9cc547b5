//! SSE4.1 vectors: 4 f32, without fused products and 16-bit conversions.

use std::arch::x86_64::*;

use super::half::f32_to_f16;
use super::simd::{Simd, intrinsics};
use crate::isa::{Isa, Sse41};

// SAFETY of the blocks below: a value of the type exists only where the instructions do; pointers by the trait's contract.
impl Simd for Sse41 {
    const ISA: Isa = Isa::Sse41;
    const LANES: usize = 4;
    const MANY_REGISTERS: bool = false;
    type F = __m128;
    type I = __m128i;

    #[inline(always)]
    fn enter<R>(self, f: impl FnOnce() -> R) -> R {
        self.entered(f)
    }

    intrinsics! {
        fn splat(self, x: f32) -> __m128 = _mm_set1_ps(x);
        fn add(self, a: __m128, b: __m128) -> __m128 = _mm_add_ps(a, b);
        fn sub(self, a: __m128, b: __m128) -> __m128 = _mm_sub_ps(a, b);
        fn mul(self, a: __m128, b: __m128) -> __m128 = _mm_mul_ps(a, b);
        fn div(self, a: __m128, b: __m128) -> __m128 = _mm_div_ps(a, b);
        fn min(self, a: __m128, b: __m128) -> __m128 = _mm_min_ps(a, b);
        fn max(self, a: __m128, b: __m128) -> __m128 = _mm_max_ps(a, b);
        fn maximum(self, a: __m128, b: __m128) -> __m128 = _mm_blendv_ps(_mm_max_ps(a, b), a, _mm_cmpunord_ps(a, a));
        fn minimum(self, a: __m128, b: __m128) -> __m128 = _mm_blendv_ps(_mm_min_ps(a, b), a, _mm_cmpunord_ps(a, a));
        fn select_lt(self, a: __m128, b: __m128, x: __m128, y: __m128) -> __m128 =
            _mm_blendv_ps(y, x, _mm_cmplt_ps(a, b));
        fn and(self, a: __m128, b: __m128) -> __m128 = _mm_and_ps(a, b);
        fn or(self, a: __m128, b: __m128) -> __m128 = _mm_or_ps(a, b);
        fn fence(self) = _mm_sfence();
        fn zero_i(self) -> __m128i = _mm_setzero_si128();
        fn to_f32(self, v: __m128i) -> __m128 = _mm_cvtepi32_ps(v);
        fn bits(self, v: __m128i, shift: usize, mask: u8) -> __m128i =
            _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128(shift as i32)), _mm_set1_epi8(mask as i8));
        fn join(self, low: __m128i, high: __m128i) -> __m128i = _mm_or_si128(low, _mm_slli_epi16::<4>(high));
        fn round(self, v: __m128) -> __m128 = _mm_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
        fn pow2(self, n: __m128) -> __m128 =
            _mm_castsi128_ps(_mm_slli_epi32::<23>(_mm_add_epi32(_mm_cvtps_epi32(n), _mm_set1_epi32(127))));
        fn sum(self, v: __m128) -> f32 = {
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
        };
        fn largest(self, v: __m128) -> f32 = {
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps::<1>(v, v)))
        };
    }

    intrinsics! { unsafe:
        fn load(self, from: *const f32) -> __m128 = _mm_loadu_ps(from);
        fn store(self, v: __m128, to: *mut f32) = _mm_storeu_ps(to, v);
        fn load_f16(self, from: *const u16) -> __m128 = {
            let bits = _mm_cvtepu16_epi32(_mm_loadl_epi64(from.cast())); // as `half::f16_to_f32`
            let sign = _mm_slli_epi32::<16>(_mm_and_si128(bits, _mm_set1_epi32(0x8000)));
            let magnitude = _mm_slli_epi32::<13>(_mm_and_si128(bits, _mm_set1_epi32(0x7fff)));
            let scale = _mm_castsi128_ps(_mm_set1_epi32((127 + 112) << 23));
            let scaled = _mm_mul_ps(_mm_castsi128_ps(magnitude), scale);
            let infinite = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32((0x7c00 << 13) - 1));
            let infinite = _mm_and_si128(infinite, _mm_set1_epi32(0x7f80_0000));
            _mm_or_ps(scaled, _mm_castsi128_ps(_mm_or_si128(infinite, sign)))
        };
        fn store_f16(self, v: __m128, to: *mut u16) = {
            let mut lanes = [0.0; 4];
            _mm_storeu_ps(lanes.as_mut_ptr(), v);
            to.cast::<[u16; 4]>().write_unaligned(lanes.map(f32_to_f16))
        };
        fn load_i8(self, from: *const i8) -> __m128 = _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_loadu_si32(from.cast())));
        fn load_bf16(self, from: *const u16) -> __m128 =
            _mm_castsi128_ps(_mm_slli_epi32::<16>(_mm_cvtepu16_epi32(_mm_loadl_epi64(from.cast()))));
        fn load_bytes(self, from: *const u8) -> __m128i = _mm_loadu_si128(from.cast());
        fn dot_u8(self, acc: __m128i, w: __m128i, x: *const i16) -> __m128i = {
            let even = _mm_and_si128(w, _mm_set1_epi16(255));
            let odd = _mm_srli_epi16::<8>(w);
            let even = _mm_madd_epi16(even, _mm_loadu_si128(x.cast()));
            let odd = _mm_madd_epi16(odd, _mm_loadu_si128(x.add(8).cast()));
            _mm_add_epi32(acc, _mm_add_epi32(even, odd))
        };
        fn dot_i8(self, acc: __m128i, w: __m128i, x: *const i16) -> __m128i = {
            let even = _mm_srai_epi16::<8>(_mm_slli_epi16::<8>(w));
            let odd = _mm_srai_epi16::<8>(w);
            let even = _mm_madd_epi16(even, _mm_loadu_si128(x.cast()));
            let odd = _mm_madd_epi16(odd, _mm_loadu_si128(x.add(8).cast()));
            _mm_add_epi32(acc, _mm_add_epi32(even, odd))
        };
        fn scaled_16(self, w: __m128i, offset: i16, scales: *const i8) -> [__m128i; 2] = {
            let (scales, offset) = (_mm_set1_epi16((*scales).into()), _mm_set1_epi16(offset));
            let even = _mm_sub_epi16(_mm_and_si128(w, _mm_set1_epi16(255)), offset);
            let odd = _mm_sub_epi16(_mm_srli_epi16::<8>(w), offset);
            [_mm_mullo_epi16(even, scales), _mm_mullo_epi16(odd, scales)]
        };
        fn dot_i16(self, acc: __m128i, w: [__m128i; 2], x: *const i16) -> __m128i = {
            let even = _mm_madd_epi16(w[0], _mm_loadu_si128(x.cast()));
            let odd = _mm_madd_epi16(w[1], _mm_loadu_si128(x.add(8).cast()));
            _mm_add_epi32(acc, _mm_add_epi32(even, odd))
        };
        fn spread_32(self, from: *const f32) -> __m128 = _mm_set1_ps(*from);
        fn q4_0(self, blocks: *const u8, chunk: usize) -> __m128i =
            self.bits(_mm_loadu_si128(blocks.add(2).cast()), 4 * chunk, 15);
    }

    #[inline(always)]
    unsafe fn transpose<const STREAM: bool>(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above.
        unsafe {
            let row = |i: usize| _mm_loadu_ps(from.add(i * from_row));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (ef, gh) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            let columns = [_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab), _mm_movelh_ps(ef, gh), _mm_movehl_ps(gh, ef)];
            for (i, column) in columns.into_iter().enumerate() {
                let to = to.add(i * to_row);
                if STREAM { _mm_stream_ps(to, column) } else { _mm_storeu_ps(to, column) }
            }
        }
    }

    #[inline(always)]
    fn fma(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        // The product is exact in f64, so that but for the rarest double rounding this is what one instruction gives.
        // SAFETY: see above.
        unsafe {
            let (high_a, high_b, high_c) = (_mm_movehl_ps(a, a), _mm_movehl_ps(b, b), _mm_movehl_ps(c, c));
            let low = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(a), _mm_cvtps_pd(b)), _mm_cvtps_pd(c));
            let high = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(high_a), _mm_cvtps_pd(high_b)), _mm_cvtps_pd(high_c));
            _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high))
        }
    }
}
