//! SSE4.1: a quarter of a tile (4 rows) is one register; products of bytes add up in 16 bits and are widened before they overflow.

use std::arch::x86_64::*;

use super::{ActivationRule, Activations, PANEL, Segments, TILE, TILE_COLS, dot_of_panels, kernel};

kernel!(Sse41);
dot_of_panels!("ssse3,sse4.1", 2, 1);

/// Tiles whose sums fit 16 bits: each adds 4 pairs of at most `2 * 2 * 128`, and `16 * 4 * -512 = -32768`.
const NARROW: usize = 16;
/// How far ahead of its reads a stream asks for memory, in bytes.
const AHEAD: usize = 1024;

/// `T` tokens, one panel.
///
/// # Safety
/// `panel` `[tiles, 64]`, `q` `tiles * 16` every `q_stride`, `T` times, `sums` `[T]` or more, `acc` 16 every `stride`, `T` times.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
unsafe fn panel<const T: usize>(
    tiles: usize,
    panel: *const u8,
    q: *const i8,
    q_stride: usize,
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
                    let x = unsafe { q.add(t * q_stride + tile * TILE_COLS + 4 * k).cast::<i32>().read_unaligned() };
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
