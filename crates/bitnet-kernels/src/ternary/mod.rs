//! Products of packed ternary weights with 8-bit activations.
//!
//! A weight `w` of -1, 0, +1 is stored as the 2-bit code `w + 1`, so `sum(w * q) = sum(code * q) - sum(q)`: the kernels
//! multiply unsigned codes and subtract the sum of the activations, which quantization gives. All of it is exact in i32.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod dotprod;
pub mod layout;
pub mod matmul;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod scalar;
#[cfg(target_arch = "x86_64")]
pub mod sse41;

pub use layout::{pack, packed_len, unpack};
pub use matmul::{Activations, TernaryMatrix, matmul, matmul_i32};

use crate::Isa;
use crate::lengths::elements;

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
/// [`scalar::Scalar`] bit for bit.
pub trait TernaryKernel: Send + Sync {
    /// The instruction set.
    fn isa(&self) -> Isa;

    /// Quantizes one row `x` `[K]` to `q` `[K rounded up to 16]`, the padding set to 0; gives the scale and the sum of `q`.
    /// See [`crate::activation`] for the arithmetic.
    ///
    /// # Panics
    /// When `q` has another length.
    fn quantize(&self, x: &[f32], q: &mut [i8]) -> (f32, i32);

    /// The integer products of some panels with some activation rows: `acc[t][r] = sum over k of w[r][k] * q[t][k]`.
    ///
    /// `panels` `[P, tiles, 64]` in the layout of [`layout`], `q` `[T, tiles * 16]`, `sums` `[T]` the sum of each row
    /// of `q`, `acc` `[T, P * 16]`. `tiles` is at most `MAX_COLS / 16`.
    ///
    /// # Panics
    /// When the lengths contradict each other.
    fn dot(&self, tiles: usize, panels: &[u8], q: &[i8], sums: &[i32], acc: &mut [i32]);
}

/// The ternary kernel of `isa`, or `None` when this CPU cannot run it.
pub fn for_isa(isa: Isa) -> Option<&'static dyn TernaryKernel> {
    /// A kernel has no size, so its box allocates nothing.
    fn leak(kernel: impl TernaryKernel + 'static) -> &'static dyn TernaryKernel {
        Box::leak(Box::new(kernel))
    }
    match isa {
        Isa::Scalar => Some(leak(scalar::Scalar)),
        #[cfg(target_arch = "x86_64")]
        Isa::Sse41 => sse41::Sse41::new().map(leak),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::Avx2::new().map(leak),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::Avx512::new().map(leak),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::Neon::new().map(leak),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod => dotprod::NeonDotprod::new().map(leak),
        _ => None,
    }
}

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
