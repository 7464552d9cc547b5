//! The SIMD interface of the float operations, so that each is written once for all instruction sets.
//!
//! The operations in [`super::vector`], [`super::attention`] and [`super::linear`] are generic functions that are
//! always inlined into [`Simd::enter`], the one place where the wider instructions are switched on.

use super::half::{bf16_to_f32, f16_to_f32};
use crate::Isa;

/// The widest [`Simd::LANES`].
pub(crate) const MAX_LANES: usize = 16;

/// A closure that is always inlined: what stays a function of its own is compiled without the wider instructions, which
/// is right but a hundred times slower. (Only as an argument: elsewhere the language has no attributes on expressions.)
macro_rules! inlined {
    ($($closure:tt)*) => { #[inline(always)] $($closure)* };
}
pub(crate) use inlined;

/// Functions of [`Simd`] that are some intrinsics, which a value of the type proves to be there; `unsafe:` before those that
/// take pointers, valid by the trait's contract.
macro_rules! intrinsics {
    (unsafe: $(fn $name:ident($self:ident $(, $arg:ident: $t:ty)*) $(-> $r:ty)? = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name($self $(, $arg: $t)*) $(-> $r)? {
            // SAFETY: see above.
            unsafe { $body }
        }
    )*};
    ($(fn $name:ident($self:ident $(, $arg:ident: $t:ty)*) $(-> $r:ty)? = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $t)*) $(-> $r)? {
            // SAFETY: see above.
            unsafe { $body }
        }
    )*};
}
pub(crate) use intrinsics;

/// The vectors of one instruction set. Having a value proves that the CPU has it, so its functions may be called.
///
/// # Safety
/// Pointers must be valid for what the function reads or writes; they need no alignment.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    const ISA: Isa;
    /// f32 lanes of a vector: 4, 8 or 16.
    const LANES: usize;
    /// Whether there are 32 vector registers, not 16.
    const MANY_REGISTERS: bool;
    /// Bytes of a vector.
    const BYTES: usize = 4 * Self::LANES;
    /// `LANES` f32.
    type F: Copy;
    /// `BYTES` integers of 8 bits, or `LANES` of 32.
    type I: Copy;

    /// Calls `f`, which must be [`inlined`], where the instructions of this set may be used.
    fn enter<R>(self, f: impl FnOnce() -> R) -> R;

    fn splat(self, x: f32) -> Self::F;
    unsafe fn load(self, from: *const f32) -> Self::F;
    unsafe fn store(self, v: Self::F, to: *mut f32);
    /// Widens `LANES` IEEE halves.
    unsafe fn load_f16(self, from: *const u16) -> Self::F;
    /// Rounds to IEEE halves, ties to even.
    unsafe fn store_f16(self, v: Self::F, to: *mut u16);
    /// Widens `LANES` bfloat16.
    unsafe fn load_bf16(self, from: *const u16) -> Self::F;
    /// Widens `LANES` signed bytes.
    unsafe fn load_i8(self, from: *const i8) -> Self::F;
    /// The half in two bytes to single.
    #[inline(always)]
    unsafe fn half_at(self, from: *const u8) -> f32 {
        // SAFETY: two bytes.
        f16_to_f32(u16::from_le(unsafe { from.cast::<u16>().read_unaligned() }))
    }

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` where one is not a number (on x86).
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` where one is not a number (on x86).
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, v: Self::F) -> Self::F;
    /// `2^n` of integers `-126..=127`.
    fn pow2(self, n: Self::F) -> Self::F;
    /// The sum of the lanes.
    fn sum(self, v: Self::F) -> f32;
    /// The largest lane.
    fn largest(self, v: Self::F) -> f32;

    /// The larger; not a number where one is not.
    fn maximum(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; not a number where one is not.
    fn minimum(self, a: Self::F, b: Self::F) -> Self::F;
    /// `x` where `a < b`, else `y`.
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// Of the bits.
    fn and(self, a: Self::F, b: Self::F) -> Self::F;
    /// Of the bits.
    fn or(self, a: Self::F, b: Self::F) -> Self::F;
    #[inline(always)]
    fn abs(self, v: Self::F) -> Self::F {
        self.and(v, self.splat(f32::from_bits(0x7fff_ffff)))
    }
    /// `magnitude`, which is not negative, with the sign of `sign`.
    #[inline(always)]
    fn with_sign(self, magnitude: Self::F, sign: Self::F) -> Self::F {
        self.or(magnitude, self.and(sign, self.splat(-0.0)))
    }

    /// `to[j][i] = from[i][j]` of `LANES` rows and columns, rows `from_row` and `to_row` numbers apart. With `STREAM` the
    /// results, aligned to a vector, go to memory past the caches (where the set has such a store); see [`Simd::fence`].
    unsafe fn transpose<const STREAM: bool>(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize);
    /// Orders streaming stores before what follows.
    fn fence(self) {}

    fn zero_i(self) -> Self::I;
    /// i32 lanes to f32.
    fn to_f32(self, v: Self::I) -> Self::F;
    unsafe fn load_bytes(self, from: *const u8) -> Self::I;
    /// `(byte >> shift) & mask` of each byte; `shift` a constant after inlining.
    fn bits(self, v: Self::I, shift: usize, mask: u8) -> Self::I;
    /// `low | high << 4` of each byte, `high` below 16.
    fn join(self, low: Self::I, high: Self::I) -> Self::I;
    /// To i32 lane `j` adds the products of unsigned bytes `4j..4j + 4` with x, `[BYTES]` in [`interleave`] order.
    unsafe fn dot_u8(self, acc: Self::I, w: Self::I, x: *const i16) -> Self::I;
    /// The same for signed bytes.
    unsafe fn dot_i8(self, acc: Self::I, w: Self::I, x: *const i16) -> Self::I;
    /// `(w - offset) * scale` of unsigned bytes, in 16 bits, a scale for each 16 of them: those of even index, then the odd ones.
    unsafe fn scaled_16(self, w: Self::I, offset: i16, scales: *const i8) -> [Self::I; 2];
    /// As [`Simd::dot_u8`], for weights of 16 bits.
    unsafe fn dot_i16(self, acc: Self::I, w: [Self::I; 2], x: *const i16) -> Self::I;
    /// One number for each 8 lanes (32 weights), or one for all: `max(LANES / 8, 1)` numbers.
    unsafe fn spread_32(self, from: *const f32) -> Self::F;

    // Codes of `BYTES` consecutive weights, the `chunk`-th of their kind.

    /// Of 128 weights of Q6_K: 64 bytes of nibbles and 32 of the top bits. Codes 0 to 63.
    #[inline(always)]
    unsafe fn q6_k(self, low: *const u8, high: *const u8, chunk: usize) -> Self::I {
        let at = chunk * Self::BYTES;
        // SAFETY: within the 64 and the 32 bytes, a vector being 16 or 32.
        let (low, high) = unsafe { (self.load_bytes(low.add(at % 64)), self.load_bytes(high.add(at % 32))) };
        self.join(self.bits(low, at / 64 * 4, 15), self.bits(high, at / 32 * 2, 3))
    }

    /// Of 64 weights of Q4_K in 32 bytes. Codes 0 to 15.
    #[inline(always)]
    unsafe fn q4_k(self, nibbles: *const u8, chunk: usize) -> Self::I {
        let at = chunk * Self::BYTES;
        // SAFETY: within the 32 bytes, a vector being 16 or 32.
        self.bits(unsafe { self.load_bytes(nibbles.add(at % 32)) }, at / 32 * 4, 15)
    }

    /// Of `max(BYTES / 32, 1)` blocks of Q4_0. Codes 0 to 15.
    unsafe fn q4_0(self, blocks: *const u8, chunk: usize) -> Self::I;

    /// Of `max(BYTES / 32, 1)` blocks of Q8_0, as signed bytes.
    #[inline(always)]
    unsafe fn q8_0(self, blocks: *const u8, chunk: usize) -> Self::I {
        // SAFETY: within the block, a vector being 16 or 32 bytes.
        unsafe { self.load_bytes(blocks.add(2 + chunk * Self::BYTES)) }
    }

    /// `e^x` within 1 unit in the last place: `2^n e^r` with `|r| <= ln(2) / 2`, `e^r` by a polynomial of degree 6
    /// (minimax, relative error 5e-9).
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        // Beyond these the result is 0 or infinite. The constant comes first, so that NaN stays NaN.
        let x = self.min(self.splat(89.0), self.max(self.splat(-104.0), x));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        // ln(2) in two parts, the first short enough that its products with n are exact.
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.381_314_5e-3);
        for k in [8.369_419e-3, 4.166_845_6e-2, 1.666_651_5e-1, 4.999_999_4e-1] {
            p = self.fma(p, r, self.splat(k));
        }
        let e = self.add(self.fma(p, self.mul(r, r), r), self.splat(1.0));
        // In two factors, as 2^n alone may be out of range where the result is not.
        let half = self.round(self.mul(n, self.splat(0.5)));
        self.mul(self.mul(e, self.pow2(half)), self.pow2(self.sub(n, half)))
    }
}

/// Asks for a line that will be read; any address will do.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; no address faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Where number `i` of 16-bit activations goes: in each `bytes` numbers first those of even index, then the odd ones,
/// as the even and odd bytes of a vector of weights are taken apart into 16-bit lanes.
#[inline(always)]
pub(crate) fn interleave(i: usize, bytes: usize) -> usize {
    let within = i % bytes;
    i - within + within % 2 * (bytes / 2) + within / 2
}

/// A float of a weight or a cache entry, converted when it is loaded.
pub(crate) trait Element: Copy + Sync {
    fn widen(self) -> f32;
    /// Loads `LANES` elements.
    ///
    /// # Safety
    /// They must be readable; they need no alignment.
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F;
}

/// The bits of an IEEE half.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F16(pub(crate) u16);

impl F16 {
    pub(crate) fn slice(bits: &[u16]) -> &[F16] {
        // SAFETY: F16 is a transparent u16.
        unsafe { std::slice::from_raw_parts(bits.as_ptr().cast(), bits.len()) }
    }
}

/// The bits of a bfloat16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct BF16(pub(crate) u16);

impl BF16 {
    pub(crate) fn slice(bits: &[u16]) -> &[BF16] {
        // SAFETY: BF16 is a transparent u16.
        unsafe { std::slice::from_raw_parts(bits.as_ptr().cast(), bits.len()) }
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f32) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load(from) }
    }
}

impl Element for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self as f32
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const i8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_i8(from) }
    }
}

impl Element for F16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f16_to_f32(self.0)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const F16) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(from.cast()) }
    }
}

impl Element for BF16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        bf16_to_f32(self.0)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const BF16) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16(from.cast()) }
    }
}
