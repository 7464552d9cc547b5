//! NEON vectors: 4 f32, with fused products and 16-bit conversions.

use std::arch::aarch64::*;

use super::simd::{Simd, intrinsics};
use crate::isa::{Isa, Neon};

// SAFETY of the blocks below: a value of the type exists only where the instructions do; pointers by the trait's contract.
impl Simd for Neon {
    const ISA: Isa = Isa::Neon;
    const LANES: usize = 4;
    const MANY_REGISTERS: bool = true;
    type F = float32x4_t;
    type I = uint8x16_t;

    #[inline(always)]
    fn enter<R>(self, f: impl FnOnce() -> R) -> R {
        self.entered(f)
    }

    intrinsics! {
        fn splat(self, x: f32) -> float32x4_t = vdupq_n_f32(x);
        fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vminq_f32(a, b);
        fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxq_f32(a, b);
        fn round(self, v: float32x4_t) -> float32x4_t = vrndnq_f32(v);
        fn pow2(self, n: float32x4_t) -> float32x4_t =
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127))));
        fn sum(self, v: float32x4_t) -> f32 = vaddvq_f32(v);
        fn largest(self, v: float32x4_t) -> f32 = vmaxvq_f32(v);
        fn maximum(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxq_f32(a, b);
        fn minimum(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vminq_f32(a, b);
        fn select_lt(self, a: float32x4_t, b: float32x4_t, x: float32x4_t, y: float32x4_t) -> float32x4_t =
            vbslq_f32(vcltq_f32(a, b), x, y);
        fn and(self, a: float32x4_t, b: float32x4_t) -> float32x4_t =
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
        fn or(self, a: float32x4_t, b: float32x4_t) -> float32x4_t =
            vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
        fn zero_i(self) -> uint8x16_t = vdupq_n_u8(0);
        fn to_f32(self, v: uint8x16_t) -> float32x4_t = vcvtq_f32_s32(vreinterpretq_s32_u8(v));
        fn bits(self, v: uint8x16_t, shift: usize, mask: u8) -> uint8x16_t =
            vandq_u8(vshlq_u8(v, vdupq_n_s8(-(shift as i8))), vdupq_n_u8(mask));
        fn join(self, low: uint8x16_t, high: uint8x16_t) -> uint8x16_t = vsliq_n_u8::<4>(low, high);
    }

    intrinsics! { unsafe:
        fn load(self, from: *const f32) -> float32x4_t = vld1q_f32(from);
        fn store(self, v: float32x4_t, to: *mut f32) = vst1q_f32(to, v);
        fn load_f16(self, from: *const u16) -> float32x4_t = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
        fn store_f16(self, v: float32x4_t, to: *mut u16) = vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(v)));
        fn load_i8(self, from: *const i8) -> float32x4_t = {
            let bytes = vreinterpret_s8_s32(vdup_n_s32(from.cast::<i32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        };
        fn load_bf16(self, from: *const u16) -> float32x4_t = vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from)));
        fn load_bytes(self, from: *const u8) -> uint8x16_t = vld1q_u8(from);
        fn dot_u8(self, acc: uint8x16_t, w: uint8x16_t, x: *const i16) -> uint8x16_t = {
            let w = vreinterpretq_u16_u8(w);
            let (even, odd) =
                (vreinterpretq_s16_u16(vandq_u16(w, vdupq_n_u16(255))), vreinterpretq_s16_u16(vshrq_n_u16::<8>(w)));
            let (a, b) = (vld1q_s16(x), vld1q_s16(x.add(8)));
            let acc = vreinterpretq_s32_u8(acc);
            let acc = vmlal_s16(acc, vget_low_s16(even), vget_low_s16(a));
            let acc = vmlal_high_s16(acc, even, a);
            let acc = vmlal_s16(acc, vget_low_s16(odd), vget_low_s16(b));
            vreinterpretq_u8_s32(vmlal_high_s16(acc, odd, b))
        };
        fn dot_i8(self, acc: uint8x16_t, w: uint8x16_t, x: *const i16) -> uint8x16_t = {
            let w = vreinterpretq_s16_u8(w);
            let (even, odd) = (vshrq_n_s16::<8>(vshlq_n_s16::<8>(w)), vshrq_n_s16::<8>(w));
            let (a, b) = (vld1q_s16(x), vld1q_s16(x.add(8)));
            let acc = vreinterpretq_s32_u8(acc);
            let acc = vmlal_s16(acc, vget_low_s16(even), vget_low_s16(a));
            let acc = vmlal_high_s16(acc, even, a);
            let acc = vmlal_s16(acc, vget_low_s16(odd), vget_low_s16(b));
            vreinterpretq_u8_s32(vmlal_high_s16(acc, odd, b))
        };
        fn scaled_16(self, w: uint8x16_t, offset: i16, scales: *const i8) -> [uint8x16_t; 2] = {
            let (w, offset) = (vreinterpretq_u16_u8(w), vdupq_n_s16(offset));
            let even = vsubq_s16(vreinterpretq_s16_u16(vandq_u16(w, vdupq_n_u16(255))), offset);
            let odd = vsubq_s16(vreinterpretq_s16_u16(vshrq_n_u16::<8>(w)), offset);
            let scale = (*scales).into();
            [even, odd].map(|v| vreinterpretq_u8_s16(vmulq_n_s16(v, scale)))
        };
        fn dot_i16(self, acc: uint8x16_t, w: [uint8x16_t; 2], x: *const i16) -> uint8x16_t = {
            let [even, odd] = w.map(|w| vreinterpretq_s16_u8(w));
            let (a, b) = (vld1q_s16(x), vld1q_s16(x.add(8)));
            let acc = vreinterpretq_s32_u8(acc);
            let acc = vmlal_s16(acc, vget_low_s16(even), vget_low_s16(a));
            let acc = vmlal_high_s16(acc, even, a);
            let acc = vmlal_s16(acc, vget_low_s16(odd), vget_low_s16(b));
            vreinterpretq_u8_s32(vmlal_high_s16(acc, odd, b))
        };
        fn spread_32(self, from: *const f32) -> float32x4_t = vdupq_n_f32(*from);
        fn q4_0(self, blocks: *const u8, chunk: usize) -> uint8x16_t =
            self.bits(vld1q_u8(blocks.add(2)), 4 * chunk, 15);
    }

    #[inline(always)]
    unsafe fn transpose<const STREAM: bool>(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above.
        unsafe {
            let row = |i: usize| vld1q_f32(from.add(i * from_row));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            // (a0 b0 a2 b2), (a1 b1 a3 b3) and the same of c and d.
            let (ab, cd) = (vtrnq_f32(a, b), vtrnq_f32(c, d));
            let join = |low, high| vcombine_f32(low, high);
            let columns = [
                join(vget_low_f32(ab.0), vget_low_f32(cd.0)),
                join(vget_low_f32(ab.1), vget_low_f32(cd.1)),
                join(vget_high_f32(ab.0), vget_high_f32(cd.0)),
                join(vget_high_f32(ab.1), vget_high_f32(cd.1)),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                vst1q_f32(to.add(i * to_row), column);
            }
        }
    }
}
