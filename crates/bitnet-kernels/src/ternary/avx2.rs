//! AVX2: half a tile (8 rows) is one register; products of bytes add up in 16 bits and are widened before they overflow.

use std::arch::x86_64::*;

use super::{PANEL, TILE, TILE_COLS, TernaryKernel, check_dot, scalar};
use crate::Isa;
use crate::activation::{INFINITY_BITS, scale_of};

/// AVX2 with FMA and F16C.
pub struct Avx2(());

impl Avx2 {
    /// `None` on a CPU without the instructions.
    pub fn new() -> Option<Avx2> {
        Isa::Avx2.is_available().then_some(Avx2(()))
    }
}

impl TernaryKernel for Avx2 {
    fn isa(&self) -> Isa {
        Isa::Avx2
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
#[target_feature(enable = "avx2")]
unsafe fn quantize(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    let (eights, rest) = x.as_chunks::<8>();
    // SAFETY: eight floats.
    let load = |v: &[f32; 8]| unsafe { _mm256_loadu_ps(v.as_ptr()) };
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let mut max = _mm256_setzero_si256();
    for v in eights {
        max = _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(load(v)), magnitude));
    }
    // SAFETY: the same size; every bit pattern is a value.
    let lanes: [u32; 8] = unsafe { std::mem::transmute(max) };
    let max = lanes.into_iter().fold(scalar::max_bits(rest), u32::max);
    let scale = scale_of(max);
    if max >= INFINITY_BITS {
        q.fill(0);
        return (scale, 0);
    }
    let factor = _mm256_set1_ps(scale);
    let mut sum = _mm256_setzero_si256();
    let (main, tail) = q.split_at_mut(eights.len() * 8);
    for (v, q) in eights.iter().zip(main.as_chunks_mut::<8>().0) {
        // To the nearest, ties to even: the rounding mode that Rust programs run in. |x * scale| is below 128.
        let rounded = _mm256_cvtps_epi32(_mm256_mul_ps(load(v), factor));
        sum = _mm256_add_epi32(sum, rounded);
        let words = _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256::<1>(rounded));
        // SAFETY: eight bytes.
        unsafe { _mm_storel_epi64(q.as_mut_ptr().cast(), _mm_packs_epi16(words, words)) };
    }
    // SAFETY: as above.
    let lanes: [i32; 8] = unsafe { std::mem::transmute(sum) };
    let (last, padding) = tail.split_at_mut(rest.len());
    padding.fill(0);
    (scale, lanes.iter().sum::<i32>() + scalar::round(rest, scale, last))
}

/// `panels` `[count, tiles, 64]`, `q` `[T, tiles * 16]`, `sums` `[T]`, `acc` `[T, count * 16]`.
///
/// # Safety
/// The pointers are valid for these sizes.
#[target_feature(enable = "avx2")]
unsafe fn dot(tiles: usize, count: usize, panels: *const u8, q: *const i8, sums: &[i32], acc: *mut i32) {
    for p in 0..count {
        let mut token = 0;
        while token < sums.len() {
            let tokens = (sums.len() - token).min(4);
            let kernel = match tokens {
                4 => panel::<4>,
                3 => panel::<3>,
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
#[target_feature(enable = "avx2")]
unsafe fn panel<const T: usize>(
    tiles: usize,
    panel: *const u8,
    q: *const i8,
    sums: &[i32],
    acc: *mut i32,
    stride: usize,
) {
    let mask = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    let mut wide = [[_mm256_setzero_si256(); 2]; T];
    let mut begin = 0;
    while begin < tiles {
        let end = (begin + NARROW).min(tiles);
        let mut narrow = [[_mm256_setzero_si256(); 2]; T];
        for tile in begin..end {
            let at = panel.wrapping_add(tile * TILE);
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
            // SAFETY: the two halves of a tile of the panel.
            let mut codes = [0, 32].map(|half| unsafe { _mm256_loadu_si256(at.add(half).cast()) });
            for k in 0..4 {
                let plane = codes.map(|c| _mm256_and_si256(c, mask));
                for t in 0..T {
                    // SAFETY: four activations of token t in this tile.
                    let x = unsafe { q.add((t * tiles + tile) * TILE_COLS + 4 * k).cast::<i32>().read_unaligned() };
                    let x = _mm256_set1_epi32(x);
                    for half in 0..2 {
                        narrow[t][half] = _mm256_add_epi16(narrow[t][half], _mm256_maddubs_epi16(plane[half], x));
                    }
                }
                codes = codes.map(|c| _mm256_srli_epi16::<2>(c));
            }
        }
        for t in 0..T {
            for half in 0..2 {
                wide[t][half] = _mm256_add_epi32(wide[t][half], _mm256_madd_epi16(narrow[t][half], ones));
            }
        }
        begin = end;
    }
    for t in 0..T {
        let sum = _mm256_set1_epi32(sums[t]);
        for half in 0..2 {
            // SAFETY: 8 of the 16 rows of token t.
            unsafe {
                let to = acc.add(t * stride + 8 * half);
                _mm256_storeu_si256(to.cast(), _mm256_sub_epi32(wide[t][half], sum));
            }
        }
    }
}
