//! Attention over pages: against f64, and equal to the last bit whatever is computed beside it.

mod common;

use bitnet_kernels::float::{KvPages, KvPagesMut, KvRows, PagedShape, half, store_kv};
use bitnet_kernels::{FloatKernel, ThreadPool};
use common::uniform;
use proptest::prelude::*;

fn kernels() -> Vec<&'static dyn FloatKernel> {
    common::kernels().map(|kernels| kernels.float).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    F32,
    F16,
    BF16,
    I8,
}

const KINDS: [Kind; 4] = [Kind::F32, Kind::F16, Kind::BF16, Kind::I8];

/// Keys and values of sequences, `[tokens, kv_heads, head_dim]` each.
struct Text {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Pages of any type; what has not been written is not a number.
struct Cache {
    kind: Kind,
    shape: PagedShape,
    floats: [Vec<f32>; 2],
    halves: [Vec<u16>; 2],
    bytes: [Vec<i8>; 2],
    scales: [Vec<f32>; 2],
    /// `[sequences, width]`
    table: Vec<u32>,
    width: usize,
}

impl Cache {
    /// The texts, their pages in an order of no meaning.
    fn new(kind: Kind, shape: PagedShape, pool: &ThreadPool, texts: &[&Text]) -> Cache {
        let row = shape.kv_heads * shape.head_dim;
        let pages_of = |text: &Text| (text.keys.len() / row).div_ceil(shape.page_len);
        let width = texts.iter().map(|text| pages_of(text)).max().unwrap();
        let pages = texts.len() * width + 1;
        let (page, positions) = (row * shape.page_len, pages * shape.kv_heads * shape.page_len);
        let when = |kinds: &[Kind], len| if kinds.contains(&kind) { len } else { 0 };
        let mut cache = Cache {
            kind,
            shape,
            floats: [(); 2].map(|()| vec![f32::NAN; when(&[Kind::F32], pages * page)]),
            halves: [(); 2].map(|()| vec![0x7fff; when(&[Kind::F16, Kind::BF16], pages * page)]),
            bytes: [(); 2].map(|()| vec![-128; when(&[Kind::I8], pages * page)]),
            scales: [(); 2].map(|()| vec![f32::NAN; when(&[Kind::I8], positions)]),
            table: (0..texts.len() * width).map(|i| ((i * 7 + 3) % (texts.len() * width)) as u32 + 1).collect(),
            width,
        };
        if (texts.len() * width).is_multiple_of(7) {
            cache.table = (1..=texts.len() * width).rev().map(|page| page as u32).collect();
        }
        for (i, text) in texts.iter().enumerate() {
            let slot = |n: usize| {
                cache.table[i * width + n / shape.page_len] * shape.page_len as u32 + (n % shape.page_len) as u32
            };
            let slots: Vec<u32> = (0..text.keys.len() / row).map(slot).collect();
            store_kv(pool, &shape, &text.keys, &text.values, &slots, cache.pages_mut());
        }
        cache
    }

    fn pages_mut(&mut self) -> KvPagesMut<'_> {
        let ([f, g], [h, i], [b, c], [s, t]) = (&mut self.floats, &mut self.halves, &mut self.bytes, &mut self.scales);
        match self.kind {
            Kind::F32 => KvPagesMut::F32 { keys: f, values: g },
            Kind::F16 => KvPagesMut::F16 { keys: h, values: i },
            Kind::BF16 => KvPagesMut::BF16 { keys: h, values: i },
            Kind::I8 => KvPagesMut::I8 { keys: b, values: c, key_scales: s, value_scales: t },
        }
    }

    fn attend(&self, kernel: &dyn FloatKernel, pool: &ThreadPool, q: &[f32], rows: &[(usize, usize)]) -> Vec<f32> {
        let ([f, g], [h, i], [b, c], [s, t]) = (&self.floats, &self.halves, &self.bytes, &self.scales);
        let pages = match self.kind {
            Kind::F32 => KvPages::F32 { keys: f, values: g },
            Kind::F16 => KvPages::F16 { keys: h, values: i },
            Kind::BF16 => KvPages::BF16 { keys: h, values: i },
            Kind::I8 => KvPages::I8 { keys: b, values: c, key_scales: s, value_scales: t },
        };
        let sequences: Vec<u32> = rows.iter().map(|row| row.0 as u32).collect();
        let positions: Vec<u32> = rows.iter().map(|row| row.1 as u32).collect();
        let rows = KvRows { table: &self.table, table_width: self.width, sequences: &sequences, positions: &positions };
        let mut out = vec![f32::NAN; q.len()];
        kernel.paged_attention(pool, &self.shape, q, &pages, &rows, &mut out);
        out
    }
}

/// What a type makes of a row of one head.
fn rounded(kind: Kind, x: &[f32]) -> Vec<f64> {
    let scale = x.iter().fold(0f32, |top, v| top.max(v.abs())) / 127.0;
    let round = |&v: &f32| match kind {
        Kind::F32 => v as f64,
        Kind::F16 => half::f16_to_f32(half::f32_to_f16(v)) as f64,
        Kind::BF16 => half::bf16_to_f32(half::f32_to_bf16(v)) as f64,
        Kind::I8 => (v * (1.0 / scale)).round_ties_even() as f64 * scale as f64,
    };
    x.iter().map(round).collect()
}

/// Scores, softmax and weighted sums of a row in f64, `[heads, head_dim]`.
fn naive(kind: Kind, shape: &PagedShape, text: &Text, q: &[f32], position: usize) -> Vec<f32> {
    let dim = shape.head_dim;
    let first = shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let mut out = Vec::new();
    for (head, q) in q.chunks_exact(dim).enumerate() {
        let kv_head = head / (shape.heads / shape.kv_heads);
        let row = |x: &[f32], n: usize| rounded(kind, &x[(n * shape.kv_heads + kv_head) * dim..][..dim]);
        let score = |n| {
            let dot: f64 = row(&text.keys, n).iter().zip(q).map(|(k, &q)| k * q as f64).sum();
            dot * shape.scale as f64
        };
        let scores: Vec<f64> = (first..=position).map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        let mut sums = vec![0.0; dim];
        for (n, score) in scores.iter().enumerate() {
            for (sum, v) in sums.iter_mut().zip(row(&text.values, first + n)) {
                *sum += (score - top).exp() / total * v;
            }
        }
        out.extend(sums.iter().map(|&v| v as f32));
    }
    out
}

fn text(shape: &PagedShape, tokens: usize, seed: u64) -> Text {
    let len = tokens * shape.kv_heads * shape.head_dim;
    let times = |x: Vec<f32>, by: f32| x.iter().map(|v| v * by).collect();
    Text { keys: times(uniform(len, seed), 4.0), values: times(uniform(len, seed + 1), 30.0) }
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> PagedShape {
    PagedShape { heads, kv_heads, head_dim, page_len: 64, scale: 1.0 / (head_dim as f32).sqrt(), window: None }
}

#[test]
fn equal_to_f64() {
    let pool = ThreadPool::new(3);
    // tokens, start, heads, kv_heads, head_dim, window
    let cases = [
        (1, 0, 4, 4, 64, None),
        (1, 1, 20, 5, 128, None),
        (1, 700, 20, 5, 128, None), // split over threads
        (1, 700, 4, 2, 64, Some(130)),
        (1, 130, 6, 1, 80, None),
        (1, 65, 34, 2, 256, None), // more heads in a group than a task takes
        (1, 50, 3, 3, 20, None),
        (1, 9, 2, 1, 1, None),
        (130, 0, 20, 5, 128, None),
        (130, 190, 4, 2, 64, Some(70)), // over the end of a segment
        (17, 100, 8, 2, 80, None),
        (70, 3, 4, 4, 64, Some(1)),
        (3, 200, 34, 2, 256, None),
        (66, 1, 3, 1, 20, None),
        (5, 61, 2, 2, 37, None),
    ];
    for (i, (tokens, start, heads, kv_heads, head_dim, window)) in cases.into_iter().enumerate() {
        let shape = PagedShape { window, ..shape(heads, kv_heads, head_dim) };
        let text = text(&shape, start + tokens, 10 * i as u64);
        let q: Vec<f32> = uniform(tokens * heads * head_dim, i as u64).iter().map(|q| q * 2.0).collect();
        let rows: Vec<_> = (start..start + tokens).map(|position| (0, position)).collect();
        for kind in KINDS {
            let cache = Cache::new(kind, shape, &pool, &[&text]);
            let row = |(t, q)| naive(kind, &shape, &text, q, start + t);
            let expected: Vec<f32> = q.chunks_exact(heads * head_dim).enumerate().flat_map(row).collect();
            for kernel in kernels() {
                let out = cache.attend(kernel, &pool, &q, &rows);
                // A score is a sum of `dim` products of at most 2 and 4, in order: its error grows with the root of
                // their number (Higham and Mary 2019, here with 2 deviations). Weights change by as much of themselves
                // as scores, above and below the line; values reach 30.
                let sum = 2.0 * 4.0 * head_dim as f32 * shape.scale / 4.0;
                let bound =
                    30.0 * (2.0 * 2.0 * (head_dim as f32).sqrt() * sum * f32::EPSILON / 2.0 + 4.0 * f32::EPSILON);
                for (j, (a, b)) in out.iter().zip(&expected).enumerate() {
                    let isa = kernel.isa();
                    assert!((a - b).abs() <= bound, "{isa} {kind:?} case {i}, {j}: {a} is not {b}");
                }
            }
        }
    }
}

#[test]
fn scores_far_apart_do_not_overflow() {
    let pool = ThreadPool::new(1);
    let (tokens, dim) = (70, 16);
    let shape = PagedShape { scale: 0.25, ..shape(1, 1, dim) };
    // The score of key n is 10^4 (n - 35): each token attends to the newest key alone.
    let q = vec![1e2; tokens * dim];
    let keys = (0..tokens * dim).map(|i| ((i / dim) as f32 - 35.0) * 25.0).collect();
    let values: Vec<f32> = (0..tokens * dim).map(|i| (i / dim) as f32).collect();
    let cache = Cache::new(Kind::F32, shape, &pool, &[&Text { keys, values: values.clone() }]);
    let rows: Vec<_> = (0..tokens).map(|position| (0, position)).collect();
    for kernel in kernels() {
        assert_eq!(cache.attend(kernel, &pool, &q, &rows), values, "{}", kernel.isa());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// A row has the same bits alone, in any batch, on any number of threads and with pages of any length.
    #[test]
    fn a_row_has_one_order_of_sums(
        ends in prop::collection::vec(prop::sample::select(vec![1usize, 63, 64, 65, 127, 128, 129, 300, 520, 1100]), 1..4),
        counts in prop::collection::vec(prop::sample::select(vec![1usize, 2, 3, 8, 16, 17, 65]), 4),
        (group, kv_heads, head_dim) in prop::sample::select(vec![(4usize, 2usize, 64usize), (1, 3, 20), (3, 1, 80), (18, 1, 16)]),
        window in prop::option::of(1..400usize),
        kind in prop::sample::select(KINDS.to_vec()),
        threads in prop::sample::select(vec![2usize, 16]),
        page_len in prop::sample::select(vec![128usize, 256]),
        seed in 0..1000u64,
    ) {
        let shape = PagedShape { window, ..shape(group * kv_heads, kv_heads, head_dim) };
        let (one, many) = (ThreadPool::new(1), ThreadPool::new(threads));
        let texts: Vec<Text> = ends.iter().enumerate().map(|(i, &end)| text(&shape, end, seed + 10 * i as u64)).collect();
        let texts: Vec<&Text> = texts.iter().collect();
        let alone = Cache::new(kind, shape, &one, &texts);
        let batch = Cache::new(kind, PagedShape { page_len, ..shape }, &many, &texts);
        let mut rows = Vec::new();
        for (i, &end) in ends.iter().enumerate() {
            rows.extend((end - counts[i].min(end)..end).map(|position| (i, position)));
        }
        let row = shape.heads * head_dim;
        let q = uniform(rows.len() * row, seed);
        for kernel in kernels() {
            let together = batch.attend(kernel, &many, &q, &rows);
            for (t, &at) in rows.iter().enumerate() {
                let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                let by_itself = alone.attend(kernel, &one, &q[t * row..][..row], &[at]);
                prop_assert_eq!(bits(&by_itself), bits(&together[t * row..][..row]), "{} row {:?}", kernel.isa(), at);
            }
        }
    }
}
