//! SSE4.1: a quarter of a tile (4 rows) is one register; products of bytes add up in 16 bits and are widened before they overflow.

use std::arch::x86_64::*;

use super::{PANEL, TILE, TILE_COLS, TernaryKernel, check_dot, scalar};
use crate::Isa;
use crate::activation::{INFINITY_BITS, scale_of};

/// SSE4.1 with SSSE3.
pub struct Sse41(());

impl Sse41 {
    /// `None` on a CPU without the instructions.
    pub fn new() -> Option<Sse41> {
        Isa::Sse41.is_available().then_some(Sse41(()))
    }
}

impl TernaryKernel for Sse41 {
    fn isa(&self) -> Isa {
        Isa::Sse41
    }

    fn quantize(&self, x: &[f32], q: &mut [i8]) -> (f32, i32) {
        assert_eq!(q.len(), x.len().next_multiple_of(TILE_COLS), "quantized row");
        // SAFETY: the instructions are there (`new`), the lengths agree.
        unsafe { quantize(x, q) }
    }

    fn dot(&self, tiles: usize, panels: &[u8], q: &[i8], sums: &[i32], acc: &mut [i32]) {
        let count = check_dot(tiles, panels, q, sums, acc);
        // SAFETY: the instructions are there (`new`), the lengths agree (`check_dot`).
        unsafe { dot(tiles, count, panels.as_ptr(), q.as_ptr(), sums, acc.as_mut_ptr()) }
    }
}

/// # Safety
/// `q` has `x`'s length rounded up to 16.
#[target_feature(enable = "ssse3,sse4.1")]
unsafe fn quantize(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    let (fours, rest) = x.as_chunks::<4>();
    // SAFETY: four floats.
    let load = |v: &[f32; 4]| unsafe { _mm_loadu_ps(v.as_ptr()) };
    let magnitude = _mm_set1_epi32(0x7fff_ffff);
    let mut max = _mm_setzero_si128();
    for v in fours {
        max = _mm_max_epi32(max, _mm_and_si128(_mm_castps_si128(load(v)), magnitude));
    }
    // SAFETY: the same size; every bit pattern is a value.
    let lanes: [u32; 4] = unsafe { std::mem::transmute(max) };
    let max = lanes.into_iter().fold(scalar::max_bits(rest), u32::max);
    let scale = scale_of(max);
    if max >= INFINITY_BITS {
        q.fill(0);
        return (scale, 0);
    }
    let factor = _mm_set1_ps(scale);
    let mut sum = _mm_setzero_si128();
    let (main, tail) = q.split_at_mut(fours.len() * 4);
    for (v, q) in fours.iter().zip(main.as_chunks_mut::<4>().0) {
        // To the nearest, ties to even: the rounding mode that Rust programs run in. |x * scale| is below 128.
        let rounded = _mm_cvtps_epi32(_mm_mul_ps(load(v), factor));
        sum = _mm_add_epi32(sum, rounded);
        let words = _mm_packs_epi32(rounded, rounded);
        let bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
        *q = bytes.to_le_bytes().map(|b| b as i8);
    }
    // SAFETY: as above.
    let lanes: [i32; 4] = unsafe { std::mem::transmute(sum) };
    let (last, padding) = tail.split_at_mut(rest.len());
    padding.fill(0);
    (scale, lanes.iter().sum::<i32>() + scalar::round(rest, scale, last))
}

/// `panels` `[count, tiles, 64]`, `q` `[T, tiles * 16]`, `sums` `[T]`, `acc` `[T, count * 16]`.
///
/// # Safety
/// The pointers are valid for these sizes.
#[target_feature(enable = "ssse3,sse4.1")]
unsafe fn dot(tiles: usize, count: usize, panels: *const u8, q: *const i8, sums: &[i32], acc: *mut i32) {
    for p in 0..count {
        let mut token = 0;
        while token < sums.len() {
            let tokens = (sums.len() - token).min(2);
            let kernel = match tokens {
                2 => panel::<2>,
                _ => panel::<1>,
            };
            let stride = count * PANEL;
            // SAFETY: parts of the buffers, within them.
            unsafe {
                let to = acc.add(token * stride + p * PANEL);
                kernel(
                    tiles,
                    panels.add(p * tiles * TILE),
                    q.add(token * tiles * TILE_COLS),
                    &sums[token..],
                    to,
                    stride,
                );
            }
            token += tokens;
        }
    }
}

/// Tiles whose sums fit 16 bits: each adds 4 pairs of at most `2 * 2 * 128`, and `16 * 4 * -512 = -32768`.
const NARROW: usize = 16;
/// How far ahead of its reads a stream asks for memory, in bytes.
const AHEAD: usize = 1024;

/// `T` tokens, one panel.
///
/// # Safety
/// `panel` `[tiles, 64]`, `q` `[T, tiles * 16]`, `sums` `[T]` or more, `acc` 16 every `stride`, `T` times.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
unsafe fn panel<const T: usize>(
    tiles: usize,
    panel: *const u8,
    q: *const i8,
    sums: &[i32],
    acc: *mut i32,
    stride: usize,
) {
    let mask = _mm_set1_epi8(3);
    let ones = _mm_set1_epi16(1);
    let mut wide = [[_mm_setzero_si128(); 4]; T];
    let mut begin = 0;
    while begin < tiles {
        let end = (begin + NARROW).min(tiles);
        let mut narrow = [[_mm_setzero_si128(); 4]; T];
        for tile in begin..end {
            let at = panel.wrapping_add(tile * TILE);
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
            // SAFETY: the four quarters of a tile of the panel.
            let mut codes = [0, 16, 32, 48].map(|quarter| unsafe { _mm_loadu_si128(at.add(quarter).cast()) });
            for k in 0..4 {
                let plane = codes.map(|c| _mm_and_si128(c, mask));
                for t in 0..T {
                    // SAFETY: four activations of token t in this tile.
                    let x = unsafe { q.add((t * tiles + tile) * TILE_COLS + 4 * k).cast::<i32>().read_unaligned() };
                    let x = _mm_set1_epi32(x);
                    for quarter in 0..4 {
                        narrow[t][quarter] = _mm_add_epi16(narrow[t][quarter], _mm_maddubs_epi16(plane[quarter], x));
                    }
                }
                codes = codes.map(|c| _mm_srli_epi16::<2>(c));
            }
        }
        for t in 0..T {
            for quarter in 0..4 {
                wide[t][quarter] = _mm_add_epi32(wide[t][quarter], _mm_madd_epi16(narrow[t][quarter], ones));
            }
        }
        begin = end;
    }
    for t in 0..T {
        let sum = _mm_set1_epi32(sums[t]);
        for quarter in 0..4 {
            // SAFETY: 4 of the 16 rows of token t.
            unsafe {
                let to = acc.add(t * stride + 4 * quarter);
                _mm_storeu_si128(to.cast(), _mm_sub_epi32(wide[t][quarter], sum));
            }
        }
    }
}
