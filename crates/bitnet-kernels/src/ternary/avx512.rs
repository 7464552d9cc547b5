//! AVX-512 with VNNI: one tile is one register, one instruction multiplies 4 columns of 16 rows.

use std::arch::x86_64::*;

use super::{PANEL, TILE, TILE_COLS, kernel};

kernel!(Avx512);

/// `panels` `[count, tiles, 64]`, `q` `[T, tiles * 16]`, `sums` `[T]`, `acc` `[T, count * 16]`.
///
/// # Safety
/// The pointers are valid for these sizes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn dot(tiles: usize, count: usize, panels: *const u8, q: *const i8, sums: &[i32], acc: *mut i32) {
    let panel = |p: usize| panels.wrapping_add(p * tiles * TILE);
    let rows = count * PANEL;
    // SAFETY: parts of the buffers, within them.
    unsafe {
        if let [sum] = *sums {
            let mut p = 0;
            while p + 4 <= count {
                one::<4>(tiles, panel(p), q, sum, acc.add(p * PANEL));
                p += 4;
            }
            while p < count {
                one::<1>(tiles, panel(p), q, sum, acc.add(p * PANEL));
                p += 1;
            }
            return;
        }
        let mut token = 0;
        while token < sums.len() {
            let tokens = (sums.len() - token).min(8);
            let (q, sums) = (q.add(token * tiles * TILE_COLS), &sums[token..]);
            // More panels side by side where registers are left: as many streams from memory.
            let (kernel, wide): (unsafe fn(_, _, _, _, _, _, _), _) = match tokens {
                8 => (some::<8, 2>, 2),
                7 => (some::<7, 2>, 2),
                6 => (some::<6, 2>, 2),
                5 => (some::<5, 2>, 2),
                4 => (some::<4, 4>, 4),
                3 => (some::<3, 4>, 4),
                2 => (some::<2, 4>, 4),
                _ => (some::<1, 4>, 4),
            };
            for p in (0..count).step_by(wide) {
                kernel(tiles, panel(p), count - p, q, sums, acc.add(token * rows + p * PANEL), rows);
            }
            token += tokens;
        }
    }
}

/// One token, `P` panels side by side: as many streams from memory. The codes stay where they are in their bytes
/// (worth 1, 4, 16 or 64 times as much, an accumulator for each), which saves the shifts.
///
/// # Safety
/// `panels` `[P, tiles, 64]`, `q` `[tiles * 16]`, `acc` `[P * 16]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn one<const P: usize>(tiles: usize, panels: *const u8, q: *const i8, sum: i32, acc: *mut i32) {
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm512_set1_epi8(m as i8));
    let mut sums = [[_mm512_setzero_si512(); 4]; P];
    for tile in 0..tiles {
        // SAFETY: 16 activations of this tile.
        let x: [__m512i; 4] = std::array::from_fn(|k| unsafe { four(q.add(tile * TILE_COLS + 4 * k)) });
        // At the end of its panel a stream goes on with the one that is its own next.
        let ahead = (tile + AHEAD) * TILE + if tile + AHEAD < tiles { 0 } else { (P - 1) * tiles * TILE };
        for p in 0..P {
            let at = panels.wrapping_add((p * tiles + tile) * TILE);
            _mm_prefetch::<_MM_HINT_T0>(panels.wrapping_add(p * tiles * TILE + ahead).cast());
            // SAFETY: a tile of the panel.
            let codes = unsafe { _mm512_loadu_si512(at.cast()) };
            for k in 0..4 {
                sums[p][k] = _mm512_dpbusd_epi32(sums[p][k], _mm512_and_si512(codes, masks[k]), x[k]);
            }
        }
    }
    for (p, [s0, s1, s2, s3]) in sums.into_iter().enumerate() {
        // Exact: each is a multiple of its factor, and fits by `MAX_COLS`.
        let low = _mm512_add_epi32(s0, _mm512_srai_epi32::<2>(s1));
        let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(s2), _mm512_srai_epi32::<6>(s3));
        let dot = _mm512_sub_epi32(_mm512_add_epi32(low, high), _mm512_set1_epi32(sum));
        // SAFETY: 16 rows of panel p.
        unsafe { _mm512_storeu_si512(acc.add(p * PANEL).cast(), dot) };
    }
}

/// How far ahead of its reads a stream asks for memory, in tiles.
const AHEAD: usize = 16;

/// `T` tokens, `P` panels or the `count` that are left: each code is unpacked once for all tokens, each activation is loaded
/// once for all panels. Where there are fewer panels the last is computed again, rather than in code of its own.
///
/// # Safety
/// `panels` `[count, tiles, 64]`, `q` `[T, tiles * 16]`, `sums` `[T]` or more, `acc` `[count * 16]` every `stride`, `T` times.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn some<const T: usize, const P: usize>(
    tiles: usize,
    panels: *const u8,
    count: usize,
    q: *const i8,
    sums: &[i32],
    acc: *mut i32,
    stride: usize,
) {
    let mask = _mm512_set1_epi8(3);
    let index: [usize; P] = std::array::from_fn(|p| p.min(count - 1));
    let streams = index.map(|p| panels.wrapping_add(p * tiles * TILE));
    let mut dots = [[_mm512_setzero_si512(); P]; T];
    for tile in 0..tiles {
        // At the end of its panel a stream goes on with the one that is its own next.
        let ahead = (tile + AHEAD) * TILE + if tile + AHEAD < tiles { 0 } else { (P - 1) * tiles * TILE };
        let codes = streams.map(|stream| {
            _mm_prefetch::<_MM_HINT_T0>(stream.wrapping_add(ahead).cast());
            // SAFETY: a tile of the panel.
            unsafe { _mm512_loadu_si512(stream.add(tile * TILE).cast()) }
        });
        for k in 0..4 {
            let codes = codes.map(|c| {
                let c = match k {
                    0 => c,
                    1 => _mm512_srli_epi16::<2>(c),
                    2 => _mm512_srli_epi16::<4>(c),
                    _ => _mm512_srli_epi16::<6>(c),
                };
                _mm512_and_si512(c, mask)
            });
            for t in 0..T {
                // SAFETY: activations of token t in this tile.
                let x = unsafe { four(q.add((t * tiles + tile) * TILE_COLS + 4 * k)) };
                for p in 0..P {
                    dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], codes[p], x);
                }
            }
        }
    }
    for t in 0..T {
        let sum = _mm512_set1_epi32(sums[t]);
        for p in 0..P {
            // SAFETY: 16 rows of token t.
            let to = unsafe { acc.add(t * stride + index[p] * PANEL).cast() };
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(to, _mm512_sub_epi32(dots[t][p], sum)) };
        }
    }
}

/// Four activations, in every lane.
///
/// # Safety
/// Four bytes can be read at `q`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn four(q: *const i8) -> __m512i {
    // SAFETY: the caller's promise.
    _mm512_set1_epi32(unsafe { q.cast::<i32>().read_unaligned() })
}
