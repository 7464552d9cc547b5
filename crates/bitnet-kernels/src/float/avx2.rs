//! AVX2 vectors: 8 f32, with FMA and F16C.

use std::arch::asm;
use std::arch::x86_64::*;

use super::simd::{Simd, intrinsics};
use crate::isa::{Avx2, Isa};

// SAFETY of the blocks below: a value of the type exists only where the instructions do; pointers by the trait's contract.
impl Simd for Avx2 {
    const ISA: Isa = Isa::Avx2;
    const LANES: usize = 8;
    const MANY_REGISTERS: bool = false;
    type F = __m256;
    type I = __m256i;

    #[inline(always)]
    fn enter<R>(self, f: impl FnOnce() -> R) -> R {
        self.entered(f)
    }

    intrinsics! {
        fn splat(self, x: f32) -> __m256 = _mm256_set1_ps(x);
        fn add(self, a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        fn sub(self, a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        fn mul(self, a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fn div(self, a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn min(self, a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        fn max(self, a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        fn maximum(self, a: __m256, b: __m256) -> __m256 =
            _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
        fn minimum(self, a: __m256, b: __m256) -> __m256 =
            _mm256_blendv_ps(_mm256_min_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
        fn select_lt(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 =
            _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
        fn and(self, a: __m256, b: __m256) -> __m256 = _mm256_and_ps(a, b);
        fn or(self, a: __m256, b: __m256) -> __m256 = _mm256_or_ps(a, b);
        fn fence(self) = _mm_sfence();
        fn zero_i(self) -> __m256i = _mm256_setzero_si256();
        fn to_f32(self, v: __m256i) -> __m256 = _mm256_cvtepi32_ps(v);
        fn bits(self, v: __m256i, shift: usize, mask: u8) -> __m256i =
            _mm256_and_si256(_mm256_srl_epi16(v, _mm_cvtsi32_si128(shift as i32)), _mm256_set1_epi8(mask as i8));
        fn join(self, low: __m256i, high: __m256i) -> __m256i = _mm256_or_si256(low, _mm256_slli_epi16::<4>(high));
        fn round(self, v: __m256) -> __m256 = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
        fn pow2(self, n: __m256) -> __m256 = {
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
                _mm256_cvtps_epi32(n),
                _mm256_set1_epi32(127),
            )))
        };
        fn sum(self, v: __m256) -> f32 = {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        };
        fn largest(self, v: __m256) -> f32 = {
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        };
    }

    intrinsics! { unsafe:
        fn load(self, from: *const f32) -> __m256 = _mm256_loadu_ps(from);
        fn store(self, v: __m256, to: *mut f32) = _mm256_storeu_ps(to, v);
        fn load_f16(self, from: *const u16) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
        fn store_f16(self, v: __m256, to: *mut u16) =
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        fn load_i8(self, from: *const i8) -> __m256 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
        fn load_bf16(self, from: *const u16) -> __m256 =
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()))));
        fn load_bytes(self, from: *const u8) -> __m256i = _mm256_loadu_si256(from.cast());
        fn dot_u8(self, acc: __m256i, w: __m256i, x: *const i16) -> __m256i = {
            let even = _mm256_and_si256(w, _mm256_set1_epi16(255));
            let odd = _mm256_srli_epi16::<8>(w);
            let even = _mm256_madd_epi16(even, _mm256_loadu_si256(x.cast()));
            let odd = _mm256_madd_epi16(odd, _mm256_loadu_si256(x.add(16).cast()));
            _mm256_add_epi32(acc, _mm256_add_epi32(even, odd))
        };
        fn dot_i8(self, acc: __m256i, w: __m256i, x: *const i16) -> __m256i = {
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w));
            let odd = _mm256_srai_epi16::<8>(w);
            let even = _mm256_madd_epi16(even, _mm256_loadu_si256(x.cast()));
            let odd = _mm256_madd_epi16(odd, _mm256_loadu_si256(x.add(16).cast()));
            _mm256_add_epi32(acc, _mm256_add_epi32(even, odd))
        };
        fn scaled_16(self, w: __m256i, offset: i16, scales: *const i8) -> [__m256i; 2] = {
            let scale = |at: usize| _mm_set1_epi16((*scales.add(at)).into());
            let (scales, offset) = (_mm256_set_m128i(scale(1), scale(0)), _mm256_set1_epi16(offset));
            let even = _mm256_sub_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)), offset);
            let odd = _mm256_sub_epi16(_mm256_srli_epi16::<8>(w), offset);
            [_mm256_mullo_epi16(even, scales), _mm256_mullo_epi16(odd, scales)]
        };
        fn dot_i16(self, acc: __m256i, w: [__m256i; 2], x: *const i16) -> __m256i = {
            let even = _mm256_madd_epi16(w[0], _mm256_loadu_si256(x.cast()));
            let odd = _mm256_madd_epi16(w[1], _mm256_loadu_si256(x.add(16).cast()));
            _mm256_add_epi32(acc, _mm256_add_epi32(even, odd))
        };
        fn half_at(self, from: *const u8) -> f32 = {
            // The compiler inserts 16 bits into a register, and waits for what it held.
            let bits: __m128i;
            asm!("vpbroadcastw {0}, word ptr [{1}]", out(xmm_reg) bits, in(reg) from,
                options(pure, readonly, nostack, preserves_flags));
            _mm_cvtss_f32(_mm_cvtph_ps(bits))
        };
        fn spread_32(self, from: *const f32) -> __m256 = _mm256_set1_ps(*from);
        fn q4_0(self, blocks: *const u8, _chunk: usize) -> __m256i = {
            let both = _mm256_broadcastsi128_si256(_mm_loadu_si128(blocks.add(2).cast()));
            let nibbles = _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4));
            _mm256_and_si256(nibbles, _mm256_set1_epi8(15))
        };
    }

    #[inline(always)]
    unsafe fn transpose<const STREAM: bool>(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above.
        unsafe {
            let mut v = [_mm256_setzero_ps(); 8];
            for (i, v) in v.iter_mut().enumerate() {
                *v = _mm256_loadu_ps(from.add(i * from_row));
            }
            let mut w = v;
            for i in (0..8).step_by(2) {
                w[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
                w[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
            }
            for i in (0..8).step_by(4) {
                for half in 0..2 {
                    let (a, b) = (_mm256_castps_pd(w[i + half]), _mm256_castps_pd(w[i + half + 2]));
                    v[i + 2 * half] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                    v[i + 2 * half + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
                }
            }
            // v[4 g + c], half q: rows 4 g.. of column 4 q + c.
            for c in 0..4 {
                let columns =
                    [_mm256_permute2f128_ps::<0x20>(v[c], v[c + 4]), _mm256_permute2f128_ps::<0x31>(v[c], v[c + 4])];
                for (q, column) in columns.into_iter().enumerate() {
                    let to = to.add((4 * q + c) * to_row);
                    if STREAM { _mm256_stream_ps(to, column) } else { _mm256_storeu_ps(to, column) }
                }
            }
        }
    }
}
