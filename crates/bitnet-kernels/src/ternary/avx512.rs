//! AVX-512 with VNNI: one tile is one register, one instruction multiplies 4 columns of 16 rows.

use std::arch::x86_64::*;

use super::{ActivationRule, Activations, PANEL, Segments, TILE, TILE_COLS, kernel};

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
            let codes = codes.map(|c| plane(c, k, mask));
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

/// See [`super::segments`]; the integers of a segment stay in registers.
fn segments(s: &Segments, panels: &[u8], scales: &[f32], x: &Activations, out: &mut [f32]) {
    let count = s.check(panels, scales, x, out);
    let tokens = x.tokens(s.blocks);
    let mut token = 0;
    while token < tokens {
        let left = tokens - token;
        // Rows of `q`, of as many tokens as digits allow, and panels side by side.
        let (kernel, now, wide): (unsafe fn(_, _, _, _, _, _, _, _), _, _) = match (s.digits, left) {
            (1, 1) => (cut::<1, 4, 1>, 1, 4),
            (1, 2) => (cut::<2, 4, 1>, 2, 4),
            (1, 3) => (cut::<3, 4, 1>, 3, 4),
            (1, 4) => (cut::<4, 4, 1>, 4, 4),
            (1, 5) => (cut::<5, 2, 1>, 5, 2),
            (1, 6) => (cut::<6, 2, 1>, 6, 2),
            (1, 7) => (cut::<7, 2, 1>, 7, 2),
            (1, _) => (cut::<8, 2, 1>, 8, 2),
            (_, 1) => (cut::<3, 4, 3>, 1, 4),
            _ => (cut::<6, 2, 3>, 2, 2),
        };
        for panel in (0..count).step_by(wide) {
            // SAFETY: the lengths agree (`check`), and it is called where the instructions are there.
            unsafe { kernel(s, panels, scales, x, token, panel, count, out.as_mut_ptr()) };
        }
        token += now;
    }
}

/// `R / D` tokens from `token` on, `P` panels from `panel` on or those of the `count` that are left.
///
/// # Safety
/// The lengths are those that [`Segments::check`] asserts, the tokens are there.
#[allow(clippy::too_many_arguments)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn cut<const R: usize, const P: usize, const D: usize>(
    s: &Segments,
    panels: &[u8],
    scales: &[f32],
    x: &Activations,
    token: usize,
    panel: usize,
    count: usize,
    out: *mut f32,
) {
    let (mask, tiles, tokens) = (_mm512_set1_epi8(3), s.tiles, R / D);
    let index: [usize; P] = std::array::from_fn(|p| (panel + p).min(count - 1));
    let streams = index.map(|p| panels.as_ptr().wrapping_add(p * tiles * TILE));
    let q = x.q.as_ptr().wrapping_add(token * D * tiles * TILE_COLS);
    let (mut total, mut inner) = ([[_mm512_setzero_ps(); P]; R], [[_mm512_setzero_ps(); P]; R]);
    // Counted, for a division takes as long as many products.
    let (mut in_group, mut group, mut in_block, mut block) = (0, 0, 0, 0);
    for segment in 0..s.count() {
        let (first, end) = s.range(segment);
        let mut dots = [[_mm512_setzero_si512(); P]; R];
        for r in 0..R {
            dots[r] = [_mm512_set1_epi32(-s.sum(x.sums, token * D + r, (first, end))); P];
        }
        for tile in first..end {
            // At the end of its panel a stream goes on with the one that is its own next.
            let ahead = (tile + AHEAD) * TILE + if tile + AHEAD < tiles { 0 } else { (P - 1) * tiles * TILE };
            let codes = streams.map(|stream| {
                _mm_prefetch::<_MM_HINT_T0>(stream.wrapping_add(ahead).cast());
                // SAFETY: a tile of the panel.
                unsafe { _mm512_loadu_si512(stream.add(tile * TILE).cast()) }
            });
            for k in 0..4 {
                let codes = codes.map(|c| plane(c, k, mask));
                for r in 0..R {
                    // SAFETY: activations of row r in this tile.
                    let x = unsafe { four(q.add((r * tiles + tile) * TILE_COLS + 4 * k)) };
                    for p in 0..P {
                        dots[r][p] = _mm512_dpbusd_epi32(dots[r][p], codes[p], x);
                    }
                }
            }
        }
        for t in 0..tokens {
            let scale = if s.block.is_some() { x.scales[(token + t) * s.blocks + block] } else { 1.0 };
            for p in 0..P {
                let mut sum = dots[t * D][p];
                if D == 3 {
                    sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<8>(dots[t * D + 1][p]));
                    sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<16>(dots[t * D + 2][p]));
                }
                let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale));
                inner[t][p] = _mm512_add_ps(inner[t][p], product);
            }
        }
        in_block += 1;
        if Some(in_block) == s.block {
            (in_block, block) = (0, block + 1);
        }
        in_group += 1;
        if in_group == s.group {
            for p in 0..P {
                let at = (index[p] * s.groups + group) * PANEL;
                // SAFETY: the 16 scales of a group of the panel.
                let scale = unsafe { _mm512_loadu_ps(scales.as_ptr().add(at)) };
                for t in 0..tokens {
                    total[t][p] = _mm512_add_ps(total[t][p], _mm512_mul_ps(inner[t][p], scale));
                    inner[t][p] = _mm512_setzero_ps();
                }
            }
            (in_group, group) = (0, group + 1);
        }
    }
    let results = if s.groups > 1 { &total } else { &inner };
    for t in 0..tokens {
        for p in 0..P {
            // SAFETY: 16 rows of token t.
            unsafe { _mm512_storeu_ps(out.add(((token + t) * count + index[p]) * PANEL), results[t][p]) };
        }
    }
}

/// The codes of columns `4 k ..` of a tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn plane(codes: __m512i, k: usize, mask: __m512i) -> __m512i {
    let codes = match k {
        0 => codes,
        1 => _mm512_srli_epi16::<2>(codes),
        2 => _mm512_srli_epi16::<4>(codes),
        _ => _mm512_srli_epi16::<6>(codes),
    };
    _mm512_and_si512(codes, mask)
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
