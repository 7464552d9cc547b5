//! Quantization of activations to 8 bits, one scale a row (a token).
//!
//! For a row `x`: `scale = 127 / max(max |x|, 1e-5)`, `q = clamp(round(x * scale), -128, 127)`, ties to even, as in
//! Hugging Face transformers (`integrations/bitnet.py`). `x` is about `q / scale`.
//!
//! A row that holds a NaN or an infinity gets the scale NaN and all `q` 0, on every instruction set: each product with
//! it is NaN, as in the reference, so that a broken model is seen and not hidden.

use crate::TernaryKernel;
use crate::lengths::elements;
use crate::ternary::TILE_COLS;
use crate::threads::{Parts, ThreadPool};

/// The bits of `f32::INFINITY`; a magnitude with these bits or more is not finite.
pub(crate) const INFINITY_BITS: u32 = 0x7f80_0000;

/// Numbers that are worth a task.
const GROUP: usize = 16 << 10;

/// Columns of a quantized row of `cols` activations: rounded up to whole tiles.
pub const fn padded(cols: usize) -> usize {
    cols.next_multiple_of(TILE_COLS)
}

/// The scale of a row whose largest magnitude has the bits `max`; NaN when that is not finite.
pub(crate) fn scale_of(max: u32) -> f32 {
    if max >= INFINITY_BITS {
        return f32::NAN;
    }
    127.0 / f32::from_bits(max).max(1e-5)
}

/// Quantizes the rows of `x` `[T, cols]` to `q` `[T, padded(cols)]` (the padding set to 0), `scales` `[T]` and
/// `sums` `[T]`, the sum of each row of `q`. `T` is the length of `scales`. One row runs on the caller alone.
///
/// # Panics
/// When the lengths contradict each other.
pub fn quantize_rows(
    kernel: &dyn TernaryKernel,
    pool: &ThreadPool,
    x: &[f32],
    cols: usize,
    q: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let tokens = scales.len();
    assert_eq!(Some(x.len()), elements([tokens, cols]), "activations");
    if tokens == 0 {
        return assert!(q.is_empty() && sums.is_empty(), "results of no activations");
    }
    let stride = padded(cols);
    assert_eq!(Some(q.len()), elements([tokens, stride]), "quantized activations");
    assert_eq!(sums.len(), tokens, "sums");
    let (q, scales, sums) = (Parts::new(q), Parts::new(scales), Parts::new(sums));
    // Short rows in groups: a task of its own costs more than such a row.
    let group = (GROUP / cols.max(1)).clamp(1, tokens.div_ceil(4 * pool.threads()).max(1));
    pool.run(tokens.div_ceil(group), &|task| {
        for t in task * group..((task + 1) * group).min(tokens) {
            // SAFETY: each task takes the parts of its own rows.
            let (q, scale, sum) = unsafe { (q.part(t * stride, stride), scales.part(t, 1), sums.part(t, 1)) };
            (scale[0], sum[0]) = kernel.quantize(&x[t * cols..][..cols], q);
        }
    });
}
