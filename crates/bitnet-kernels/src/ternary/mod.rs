//! Products of packed ternary weights with 8-bit activations.
//!
//! A weight `w` of -1, 0, +1 is stored as the 2-bit code `w + 1`, so `sum(w * q) = sum(code * q) - sum(q)`: the kernels
//! multiply unsigned codes and subtract the sum of the activations, which quantization gives. All of it is exact in i32.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod dotprod;
pub mod layout;
pub mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
pub mod segments;
#[cfg(target_arch = "x86_64")]
mod sse41;

pub use layout::{pack, packed_len, unpack};
pub use matmul::{Activations, TernaryMatrix, matmul, matmul_i32};
pub use segments::Segments;

use crate::Isa;
use crate::lengths::elements;
use bitnet_device::backend::ActivationRule;

/// Rows of a panel, and of the tiles that it is made of.
pub const PANEL: usize = 16;
/// Columns of a tile; activations are padded with zeros to a multiple of it.
pub const TILE_COLS: usize = 16;
/// Bytes of a tile: 16 rows of 16 two-bit codes.
pub const TILE: usize = 64;
/// The most columns a matrix may have. A kernel may add `64 * code * q` over a quarter of them: 2^18 keep that in i32.
pub const MAX_COLS: usize = 1 << 18;

/// Activation quantization and ternary products of one instruction set.
///
/// Implementations are types that can be constructed only on a CPU that has the instructions; each equals
/// that of [`Scalar`](crate::isa::Scalar) bit for bit.
pub trait TernaryKernel: Send + Sync {
    /// The instruction set.
    fn isa(&self) -> Isa;

    /// Quantizes one row `x` `[K]` to `q` `[D, K rounded up to 16]`, the padding set to 0, with its `scales` `[blocks]`, and
    /// `sums` `[D, ceil(K / 32)]` of every 32 columns of `q`. See [`ActivationRule`] for the arithmetic.
    ///
    /// # Panics
    /// When the results have other lengths.
    fn quantize(&self, rule: ActivationRule, x: &[f32], q: &mut [i8], scales: &mut [f32], sums: &mut [i32]);

    /// The integer products of some panels with some activation rows: `acc[t][r] = sum over k of w[r][k] * q[t][k]`.
    ///
    /// `panels` `[P, tiles, 64]` in the layout of [`layout`], `q` `[T, tiles * 16]`, `sums` `[T]` the sum of each row
    /// of `q`, `acc` `[T, P * 16]`. `tiles` is at most `MAX_COLS / 16`.
    ///
    /// # Panics
    /// When the lengths contradict each other.
    fn dot(&self, tiles: usize, panels: &[u8], q: &[i8], sums: &[i32], acc: &mut [i32]);

    /// The products of some panels with some activation rows that have a scale for each stretch of columns, see [`segments`].
    ///
    /// `panels` `[P, tiles, 64]`, `scales` `[P, groups, 16]`, empty where there is one group, `out` `[T, P * 16]`.
    ///
    /// # Panics
    /// When the lengths contradict each other.
    fn dot_segments(&self, s: &Segments, panels: &[u8], scales: &[f32], x: &Activations, out: &mut [f32]);
}

/// [`TernaryKernel`] of a type of which a value proves that the instructions are there, by a function that needs them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernel {
    ($name:ident) => {
        impl super::TernaryKernel for crate::isa::$name {
            fn isa(&self) -> crate::Isa {
                crate::Isa::$name
            }

            fn quantize(&self, rule: ActivationRule, x: &[f32], q: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
                self.entered(crate::float::simd::inlined!(|| crate::activation::quantize_row(rule, x, q, scales, sums)))
            }

            fn dot(&self, tiles: usize, panels: &[u8], q: &[i8], sums: &[i32], acc: &mut [i32]) {
                let count = super::check_dot(tiles, panels, q, sums, acc);
                // SAFETY: the instructions are there, the lengths agree (`check_dot`).
                unsafe { dot(tiles, count, panels.as_ptr(), q.as_ptr(), sums, acc.as_mut_ptr()) }
            }

            fn dot_segments(&self, s: &Segments, panels: &[u8], scales: &[f32], x: &Activations, out: &mut [f32]) {
                self.entered(crate::float::simd::inlined!(|| segments(s, panels, scales, x, out)))
            }
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use kernel;

/// A function `dot` over all panels and tokens, of a function `panel` for one panel and `T` tokens.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! dot_of_panels {
    ($features:literal, $most:literal $(, $fewer:literal)*) => {
        /// `panels` `[count, tiles, 64]`, `q` `[T, tiles * 16]`, `sums` `[T]`, `acc` `[T, count * 16]`.
        ///
        /// # Safety
        /// The pointers are valid for these sizes.
        #[target_feature(enable = $features)]
        unsafe fn dot(tiles: usize, count: usize, panels: *const u8, q: *const i8, sums: &[i32], acc: *mut i32) {
            for p in 0..count {
                // SAFETY: parts of the buffers, within them.
                unsafe { rows(tiles, panels.add(p * tiles * TILE), q, tiles * TILE_COLS, sums, acc.add(p * PANEL), count * PANEL) }
            }
        }

        /// Any number of tokens, one panel; see `panel`.
        ///
        /// # Safety
        /// As `panel`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn rows(
            tiles: usize,
            tile: *const u8,
            q: *const i8,
            q_stride: usize,
            sums: &[i32],
            acc: *mut i32,
            stride: usize,
        ) {
            let mut token = 0;
            while token < sums.len() {
                let tokens = (sums.len() - token).min($most);
                let kernel = match tokens {
                    $($fewer => panel::<$fewer>,)*
                    _ => panel::<$most>,
                };
                // SAFETY: parts of the buffers, within them.
                unsafe { kernel(tiles, tile, q.add(token * q_stride), q_stride, &sums[token..], acc.add(token * stride), stride) };
                token += tokens;
            }
        }

        #[inline(always)]
        fn segments(s: &Segments, panels: &[u8], scales: &[f32], x: &Activations, out: &mut [f32]) {
            super::segments::by_segments(s, panels, scales, x, out, |tiles, q, q_stride, sums, acc| {
                assert!(acc.len() == sums.len() && q.len() >= (sums.len() - 1) * q_stride + tiles.len() / TILE * TILE_COLS);
                // SAFETY: the lengths agree, as asserted; it is called where the instructions are there.
                unsafe {
                    rows(tiles.len() / TILE, tiles.as_ptr(), q.as_ptr(), q_stride, sums, acc.as_mut_ptr().cast(), PANEL)
                }
            })
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use dot_of_panels;

/// Checks the lengths of [`TernaryKernel::dot`]; gives the number of panels.
fn check_dot(tiles: usize, panels: &[u8], q: &[i8], sums: &[i32], acc: &[i32]) -> usize {
    let tokens = sums.len();
    assert!(tiles <= MAX_COLS / TILE_COLS, "{tiles} tiles a panel");
    assert_eq!(Some(q.len()), elements([tokens, tiles, TILE_COLS]), "activations");
    if tokens == 0 {
        assert!(acc.is_empty(), "accumulators");
        return 0;
    }
    let count = acc.len() / tokens / PANEL;
    assert_eq!(Some(acc.len()), elements([tokens, count, PANEL]), "accumulators");
    assert_eq!(Some(panels.len()), elements([count, tiles, TILE]), "panels");
    count
}
