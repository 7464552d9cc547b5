//! AVX-512 vectors: 16 f32, with VNNI's 16-bit dot products.

use std::arch::asm;
use std::arch::x86_64::*;

use super::simd::{Simd, intrinsics};
use crate::isa::{Avx512, Isa};

// SAFETY of the blocks below: a value of the type exists only where the instructions do; pointers by the trait's contract.
impl Simd for Avx512 {
    const ISA: Isa = Isa::Avx512;
    const LANES: usize = 16;
    const MANY_REGISTERS: bool = true;
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    fn enter<R>(self, f: impl FnOnce() -> R) -> R {
        self.entered(f)
    }

    intrinsics! {
        fn splat(self, x: f32) -> __m512 = _mm512_set1_ps(x);
        fn add(self, a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(self, a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(self, a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(self, a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn min(self, a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        fn max(self, a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn round(self, v: __m512) -> __m512 = _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(v);
        fn pow2(self, n: __m512) -> __m512 = {
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(
                _mm512_cvtps_epi32(n),
                _mm512_set1_epi32(127),
            )))
        };
        fn sum(self, v: __m512) -> f32 = _mm512_reduce_add_ps(v);
        fn largest(self, v: __m512) -> f32 = _mm512_reduce_max_ps(v);
        fn maximum(self, a: __m512, b: __m512) -> __m512 =
            _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a);
        fn minimum(self, a: __m512, b: __m512) -> __m512 =
            _mm512_mask_mov_ps(_mm512_min_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a);
        fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x);
        fn and(self, a: __m512, b: __m512) -> __m512 = _mm512_and_ps(a, b);
        fn or(self, a: __m512, b: __m512) -> __m512 = _mm512_or_ps(a, b);
        fn fence(self) = _mm_sfence();
        fn zero_i(self) -> __m512i = _mm512_setzero_si512();
        fn to_f32(self, v: __m512i) -> __m512 = _mm512_cvtepi32_ps(v);
        fn bits(self, v: __m512i, shift: usize, mask: u8) -> __m512i =
            _mm512_and_si512(_mm512_srl_epi16(v, _mm_cvtsi32_si128(shift as i32)), _mm512_set1_epi8(mask as i8));
        fn join(self, low: __m512i, high: __m512i) -> __m512i = _mm512_or_si512(low, _mm512_slli_epi16::<4>(high));
    }

    intrinsics! { unsafe:
        fn load(self, from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        fn store(self, v: __m512, to: *mut f32) = _mm512_storeu_ps(to, v);
        fn load_f16(self, from: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
        fn store_f16(self, v: __m512, to: *mut u16) =
            _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        fn load_i8(self, from: *const i8) -> __m512 = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())));
        fn load_bf16(self, from: *const u16) -> __m512 =
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))));
        fn load_bytes(self, from: *const u8) -> __m512i = _mm512_loadu_si512(from.cast());
        fn dot_u8(self, acc: __m512i, w: __m512i, x: *const i16) -> __m512i = {
            let even = _mm512_and_si512(w, _mm512_set1_epi16(255));
            self.dot_i16(acc, [even, _mm512_srli_epi16::<8>(w)], x)
        };
        fn dot_i8(self, acc: __m512i, w: __m512i, x: *const i16) -> __m512i = {
            let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(w));
            self.dot_i16(acc, [even, _mm512_srai_epi16::<8>(w)], x)
        };
        fn scaled_16(self, w: __m512i, offset: i16, scales: *const i8) -> [__m512i; 2] = {
            // Each quarter takes its own byte of four to the upper half of its 16 bits.
            let lane = |at: i32| at * 0x0100_0100 + 0x0080_0080;
            let [a, b, c, d] = [lane(0), lane(1), lane(2), lane(3)];
            let to = _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d);
            let four = _mm512_set1_epi32(scales.cast::<i32>().read_unaligned());
            let scales = _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(four, to));
            let offset = _mm512_set1_epi16(offset);
            let even = _mm512_sub_epi16(_mm512_and_si512(w, _mm512_set1_epi16(255)), offset);
            let odd = _mm512_sub_epi16(_mm512_srli_epi16::<8>(w), offset);
            [_mm512_mullo_epi16(even, scales), _mm512_mullo_epi16(odd, scales)]
        };
        fn dot_i16(self, acc: __m512i, w: [__m512i; 2], x: *const i16) -> __m512i = dpwssd(acc, w, x);
        fn half_at(self, from: *const u8) -> f32 = {
            // The compiler inserts 16 bits into a register, and waits for what it held.
            let bits: __m128i;
            asm!("vpbroadcastw {0}, word ptr [{1}]", out(xmm_reg) bits, in(reg) from,
                options(pure, readonly, nostack, preserves_flags));
            _mm_cvtss_f32(_mm_cvtph_ps(bits))
        };
        fn spread_32(self, from: *const f32) -> __m512 =
            _mm512_mask_broadcastss_ps(_mm512_set1_ps(*from), 0xff00, _mm_set_ss(*from.add(1)));
        fn q6_k(self, low: *const u8, high: *const u8, chunk: usize) -> __m512i = {
            let low = _mm512_loadu_si512(low.cast());
            let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(high.cast()));
            // Each half of the vector takes its own two bits to bits 4 and 5.
            let halves = |a: i64, b: i64| _mm512_setr_epi64(a, a, a, a, b, b, b, b);
            let (low, high) = if chunk == 0 {
                (low, _mm512_sllv_epi64(high, halves(4, 2)))
            } else {
                (_mm512_srli_epi16::<4>(low), _mm512_srlv_epi64(high, halves(0, 2)))
            };
            _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), _mm512_and_si512(high, _mm512_set1_epi8(48)))
        };
        fn q4_k(self, nibbles: *const u8, _chunk: usize) -> __m512i = {
            let both = _mm512_broadcast_i64x4(_mm256_loadu_si256(nibbles.cast()));
            let nibbles = _mm512_srlv_epi64(both, _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4));
            _mm512_and_si512(nibbles, _mm512_set1_epi8(15))
        };
        fn q4_0(self, blocks: *const u8, _chunk: usize) -> __m512i = {
            let one = |at: usize| _mm256_broadcastsi128_si256(_mm_loadu_si128(blocks.add(at).cast()));
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(one(2)), one(20));
            let nibbles = _mm512_srlv_epi64(both, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
            _mm512_and_si512(nibbles, _mm512_set1_epi8(15))
        };
        fn q8_0(self, blocks: *const u8, _chunk: usize) -> __m512i = {
            let one = |at: usize| _mm256_loadu_si256(blocks.add(at).cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(one(2)), one(36))
        };
    }

    #[inline(always)]
    unsafe fn transpose<const STREAM: bool>(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above.
        unsafe {
            let mut v = [_mm512_setzero_ps(); 16];
            for (i, v) in v.iter_mut().enumerate() {
                *v = _mm512_loadu_ps(from.add(i * from_row));
            }
            // Pairs of rows, then of pairs, inside each quarter of 4 lanes.
            let mut w = v;
            for i in (0..16).step_by(2) {
                w[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
                w[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
            }
            for i in (0..16).step_by(4) {
                let pair = |a: usize| (_mm512_castps_pd(w[i + a]), _mm512_castps_pd(w[i + a + 2]));
                for half in 0..2 {
                    let (a, b) = pair(half);
                    v[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    v[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            // v[4 g + c], quarter q: rows 4 g.. of column 4 q + c.
            for c in 0..4 {
                let (a, b) =
                    (_mm512_shuffle_f32x4::<0x88>(v[c], v[c + 4]), _mm512_shuffle_f32x4::<0x88>(v[c + 8], v[c + 12]));
                let (e, f) =
                    (_mm512_shuffle_f32x4::<0xdd>(v[c], v[c + 4]), _mm512_shuffle_f32x4::<0xdd>(v[c + 8], v[c + 12]));
                let columns = [
                    _mm512_shuffle_f32x4::<0x88>(a, b),
                    _mm512_shuffle_f32x4::<0x88>(e, f),
                    _mm512_shuffle_f32x4::<0xdd>(a, b),
                    _mm512_shuffle_f32x4::<0xdd>(e, f),
                ];
                for (q, column) in columns.into_iter().enumerate() {
                    let to = to.add((4 * q + c) * to_row);
                    if STREAM { _mm512_stream_ps(to, column) } else { _mm512_storeu_ps(to, column) }
                }
            }
        }
    }
}

/// Twice the intrinsic, of which the compiler would make two instructions each.
///
/// # Safety
/// `x` has 64 readable numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dpwssd(mut acc: __m512i, w: [__m512i; 2], x: *const i16) -> __m512i {
    // SAFETY: reads 128 bytes at x.
    unsafe {
        asm!(
            "vpdpwssd {acc}, {even}, [{x}]",
            "vpdpwssd {acc}, {odd}, [{x} + 64]",
            acc = inout(zmm_reg) acc,
            even = in(zmm_reg) w[0],
            odd = in(zmm_reg) w[1],
            x = in(reg) x,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    acc
}
