//! Causal attention over pages of keys and values, with the softmax computed as the keys go by (as in FlashAttention, arXiv
//! 2205.14135).
//!
//! Every output has one order of sums, whatever is computed beside it and on however many threads:
//! - A score is the sum over the head dimension in order. [`KEY_BLOCK`] positions, aligned, are a block: its largest score,
//!   the sum of its exponentials and the weighted sum of its values follow those of the blocks before.
//! - Blocks are joined so within a segment, whose length depends on the position of the query alone; segments are joined in
//!   their order. Segments may be computed by different threads.
//!
//! A task has some query heads of one key head, for some tokens: at most [`QUERIES`] queries.

use std::cell::RefCell;
use std::ops::Range;

use super::MAX_HEAD_DIM;
use super::kv_pages::{KEY_BLOCK, KvPages, KvRows, PagedShape};
use super::simd::{BF16, Element, F16, MAX_LANES, Simd, inlined};
use crate::ThreadPool;
use crate::threads::Parts;

/// Queries of a task.
const QUERIES: usize = 64;
/// Query heads of a task.
const HEADS: usize = 16;
/// The shortest segment, and how many a context has at most.
const SEGMENT: usize = 256;
const SEGMENTS: usize = 32;
/// Below every score that is a number: what is masked weighs nothing beside it.
const LOWEST: f32 = -1e30;
/// Numbers of the results of segments that are kept until they are joined.
const KEPT: usize = 1 << 22;

/// Positions of a segment in the sums of a query at `position`.
fn segment_len(position: usize) -> usize {
    ((position + 1).next_power_of_two() / SEGMENTS).max(SEGMENT)
}

/// See [`super::FloatKernel::paged_attention`].
pub(super) fn paged_attention<S: Simd>(
    s: S,
    pool: &ThreadPool,
    shape: &PagedShape,
    q: &[f32],
    pages: &KvPages<'_>,
    rows: &KvRows<'_>,
    out: &mut [f32],
) {
    shape.check_read(q, pages, rows, out);
    let call = Call { shape, q, rows };
    match *pages {
        KvPages::F32 { keys, values } => call.run(s, pool, Pages { keys, values, scales: None }, out),
        KvPages::F16 { keys, values } => {
            call.run(s, pool, Pages { keys: F16::slice(keys), values: F16::slice(values), scales: None }, out);
        }
        KvPages::BF16 { keys, values } => {
            call.run(s, pool, Pages { keys: BF16::slice(keys), values: BF16::slice(values), scales: None }, out);
        }
        KvPages::I8 { keys, values, key_scales, value_scales } => {
            call.run(s, pool, Pages { keys, values, scales: Some((key_scales, value_scales)) }, out);
        }
    }
}

#[derive(Clone, Copy)]
struct Pages<'a, T> {
    keys: &'a [T],
    values: &'a [T],
    /// Of keys and of values.
    scales: Option<(&'a [f32], &'a [f32])>,
}

#[derive(Clone, Copy)]
struct Call<'a> {
    shape: &'a PagedShape,
    q: &'a [f32],
    rows: &'a KvRows<'a>,
}

/// Query heads of one key head for consecutive positions of one sequence.
struct Task {
    rows: Range<usize>,
    heads: Range<usize>,
    kv_head: usize,
}

impl Task {
    fn queries(&self) -> usize {
        self.rows.len() * self.heads.len()
    }

    /// Row and head of a query.
    fn query(&self, i: usize) -> (usize, usize) {
        (self.rows.start + i / self.heads.len(), self.heads.start + i % self.heads.len())
    }
}

/// The results of queries over some keys.
struct Sums {
    /// Weighted sums of values, `[QUERIES][head_dim in whole vectors]`.
    values: Vec<f32>,
    /// Largest scores.
    top: [f32; QUERIES],
    /// Sums of exponentials.
    total: [f32; QUERIES],
}

/// Scratch of a task; each thread keeps its own.
struct Scratch {
    /// Queries, scaled: `[QUERIES][head_dim]`.
    q: Vec<f32>,
    /// Scores, then their exponentials: `[QUERIES][KEY_BLOCK]`.
    scores: Vec<f32>,
    /// Values of a block whose rows are not whole vectors: `[KEY_BLOCK][head_dim in whole vectors]`.
    packed: Vec<f32>,
    /// Of a segment.
    segment: Sums,
    /// Of all segments so far.
    all: Sums,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
    /// Results of segments, kept from call to call so that a decode step allocates nothing.
    static KEPT_SUMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    fn new() -> Scratch {
        let sums = || Sums { values: vec![0.0; QUERIES * MAX_HEAD_DIM], top: [0.0; QUERIES], total: [0.0; QUERIES] };
        let (q, packed) = (vec![0.0; QUERIES * MAX_HEAD_DIM], vec![0.0; KEY_BLOCK * MAX_HEAD_DIM]);
        Scratch { q, scores: vec![0.0; QUERIES * KEY_BLOCK], packed, segment: sums(), all: sums() }
    }
}

impl<'a> Call<'a> {
    /// Runs of at most `limit` rows of one sequence at consecutive positions with equal segments.
    fn blocks(&self, limit: usize) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let KvRows { sequences, positions, .. } = *self.rows;
        let mut end = 0;
        std::iter::from_fn(move || {
            let start = end;
            let first = *positions.get(start)? as usize;
            let follows = |row: usize| {
                let position = first + (row - start);
                sequences[row] == sequences[start]
                    && positions[row] as usize == position
                    && segment_len(position) == segment_len(first)
            };
            end = (start + 1..positions.len().min(start + limit))
                .find(|&row| !follows(row))
                .unwrap_or(positions.len().min(start + limit));
            Some(start..end)
        })
    }

    /// The segments that a run of rows sees.
    fn segments(&self, rows: &Range<usize>) -> Range<usize> {
        let (first, last) = (self.rows.positions[rows.start] as usize, self.rows.positions[rows.end - 1] as usize);
        let len = segment_len(last);
        self.shape.first_seen(first) / len..last / len + 1
    }

    fn run<S: Simd, T: Element>(self, s: S, pool: &ThreadPool, pages: Pages<'a, T>, out: &mut [f32]) {
        let (group, dim) = (self.shape.group(), self.shape.head_dim);
        // The heads of a group, in parts of at most HEADS.
        let parts = group.div_ceil(HEADS);
        let limit = QUERIES / group.min(HEADS);
        let (blocks, longest) =
            self.blocks(limit).fold((0, 0), |(n, most), rows| (n + 1, most.max(self.segments(&rows).len())));
        let heads = self.shape.kv_heads * parts;
        let task = |index: usize| {
            // The last rows have the most keys: they come first.
            let rows = self.blocks(limit).nth(blocks - 1 - index / heads).expect("one of the blocks");
            let (kv_head, part) = (index % heads / parts, index % parts);
            let first = kv_head * group + part * HEADS;
            Task { rows, heads: first..(kv_head * group + group).min(first + HEADS), kv_head }
        };
        let tasks = blocks * heads;
        // Few tasks: each segment is one of its own.
        let record = dim + 2;
        let kept = self.rows.positions.len() * self.shape.heads * longest * record;
        let split = longest > 1 && pool.threads() > 1 && tasks < 4 * pool.threads() && kept <= KEPT;
        if !split {
            let out = Parts::new(out);
            pool.run(tasks, &|index| {
                let task = task(index);
                SCRATCH.with_borrow_mut(|scratch| {
                    self.fill_queries(&task, &mut scratch.q);
                    s.enter(inlined!(|| self.whole(s, pages, &task, scratch, &out)));
                });
            });
            return;
        }
        KEPT_SUMS.with_borrow_mut(|sums| {
            if sums.len() < kept {
                sums.resize(kept, 0.0);
            }
            // Of each row, head and segment: weighted sums of values [dim], largest score, sum of exponentials.
            let kept = Parts::new(sums);
            let at = |row: usize, head: usize, n: usize| ((row * self.shape.heads + head) * longest + n) * record;
            pool.run(tasks * longest, &|index| {
                let (task, n) = (task(index / longest), index % longest);
                let Some(segment) = self.segments(&task.rows).nth(n) else { return };
                SCRATCH.with_borrow_mut(|scratch| {
                    self.fill_queries(&task, &mut scratch.q);
                    s.enter(inlined!(|| self.segment(s, pages, &task, segment, scratch)));
                    let (sums, wide) = (&scratch.segment, dim.next_multiple_of(S::LANES));
                    for i in 0..task.queries() {
                        let (row, head) = task.query(i);
                        // SAFETY: each task has its own rows, heads and segment.
                        let kept = unsafe { kept.part(at(row, head, n), record) };
                        kept[..dim].copy_from_slice(&sums.values[i * wide..][..dim]);
                        (kept[dim], kept[dim + 1]) = (sums.top[i], sums.total[i]);
                    }
                });
            });
            let out = Parts::new(out);
            pool.run(tasks, &|index| {
                let task = task(index);
                let segments = self.segments(&task.rows).len();
                for (row, head) in (0..task.queries()).map(|i| task.query(i)) {
                    // SAFETY: each task has its own rows and heads; what other threads wrote is complete.
                    let (out, kept) = unsafe {
                        (
                            out.part((row * self.shape.heads + head) * dim, dim),
                            kept.part(at(row, head, 0), segments * record),
                        )
                    };
                    s.enter(inlined!(|| {
                        let (mut top, mut total, mut sums) = (LOWEST, 0.0, [0.0; MAX_HEAD_DIM]);
                        for kept in kept.chunks_exact(record) {
                            join(s, (&mut top, &mut total, &mut sums[..dim]), (kept[dim], kept[dim + 1], &kept[..dim]));
                        }
                        finish(out, &sums, total);
                    }));
                }
            });
        });
    }

    /// All segments of a task.
    #[inline(always)]
    fn whole<S: Simd, T: Element>(
        &self,
        s: S,
        pages: Pages<'_, T>,
        task: &Task,
        scratch: &mut Scratch,
        out: &Parts<'_, f32>,
    ) {
        let dim = self.shape.head_dim;
        let wide = dim.next_multiple_of(S::LANES);
        clear(&mut scratch.all, task.queries(), wide);
        for segment in self.segments(&task.rows) {
            self.segment(s, pages, task, segment, scratch);
            let (part, all) = (&scratch.segment, &mut scratch.all);
            for i in 0..task.queries() {
                let sums = (&mut all.top[i], &mut all.total[i], &mut all.values[i * wide..][..dim]);
                join(s, sums, (part.top[i], part.total[i], &part.values[i * wide..][..dim]));
            }
        }
        for i in 0..task.queries() {
            let (row, head) = task.query(i);
            // SAFETY: each task has its own rows and heads.
            let out = unsafe { out.part((row * self.shape.heads + head) * dim, dim) };
            finish(out, &scratch.all.values[i * wide..], scratch.all.total[i]);
        }
    }

    /// The queries of a task, scaled, `[queries][head_dim]`.
    fn fill_queries(&self, task: &Task, to: &mut [f32]) {
        let (dim, scale) = (self.shape.head_dim, self.shape.scale);
        for (i, to) in to.chunks_exact_mut(dim).take(task.queries()).enumerate() {
            let (row, head) = task.query(i);
            let q = &self.q[(row * self.shape.heads + head) * dim..][..dim];
            to.iter_mut().zip(q).for_each(|(to, q)| *to = q * scale);
        }
    }

    /// The results of a task's queries over one segment.
    #[inline(always)]
    fn segment<S: Simd, T: Element>(
        &self,
        s: S,
        pages: Pages<'_, T>,
        task: &Task,
        segment: usize,
        Scratch { q, scores, packed, segment: sums, .. }: &mut Scratch,
    ) {
        let PagedShape { kv_heads, head_dim: dim, page_len, .. } = *self.shape;
        let KvRows { table, table_width, sequences, positions } = *self.rows;
        let wide = dim.next_multiple_of(S::LANES);
        let count = task.queries();
        clear(sums, count, wide);
        let (first, last) = (positions[task.rows.start] as usize, positions[task.rows.end - 1] as usize);
        let len = segment_len(last);
        let start = (segment * len).max(self.shape.first_seen(first) / KEY_BLOCK * KEY_BLOCK);
        let end = ((segment + 1) * len).min(last + 1);
        let table = &table[sequences[task.rows.start] as usize * table_width..][..table_width];
        let mut keep = [0.0f32; QUERIES];
        for block in (start..end).step_by(KEY_BLOCK) {
            let height = KEY_BLOCK.min(end - block);
            let lanes = height.next_multiple_of(S::LANES);
            let (page, at) = (table[block / page_len] as usize * kv_heads + task.kv_head, block % page_len);
            let keys = &pages.keys[page * dim * page_len + at..][..(dim - 1) * page_len + KEY_BLOCK];
            let values = &pages.values[(page * page_len + at) * dim..][..height * dim];
            let scales = pages.scales.map(|(k, v)| {
                let scales = page * page_len + at..page * page_len + at + KEY_BLOCK;
                (&k[scales.clone()], &v[scales])
            });
            // SAFETY: count <= QUERIES rows of q [dim] and of scores [KEY_BLOCK], lanes <= KEY_BLOCK; a page has KEY_BLOCK
            // positions from `at` on, for it and `at` are multiples of them. The scores are written before they are read.
            unsafe {
                // scores [count][lanes] = q [count][dim] keys [dim][lanes]
                let (a, b) = ((q.as_ptr(), dim, 1), (keys.as_ptr(), page_len));
                product(s, (count, lanes, dim), a, b, (scores.as_mut_ptr(), KEY_BLOCK), None);
                for i in 0..count {
                    let position = first + task.query(i).0 - task.rows.start;
                    let seen = self.shape.first_seen(position)..position + 1;
                    let row = &mut scores[i * KEY_BLOCK..][..lanes];
                    if let Some((keys, _)) = scales {
                        scale(s, row, keys);
                    }
                    if block < seen.start || block + lanes > seen.end {
                        mask(s, row, block, &seen);
                    }
                    (sums.top[i], sums.total[i], keep[i]) = softmax(s, row, sums.top[i], sums.total[i]);
                    if let Some((_, values)) = scales {
                        scale(s, row, values);
                    }
                }
                // sums [count][wide] = keep sums + scores [count][height] values [height][wide]
                let (a, c) = ((scores.as_ptr(), KEY_BLOCK, 1), (sums.values.as_mut_ptr(), wide));
                if wide == dim {
                    product(s, (count, wide, height), a, (values.as_ptr(), dim), c, Some(&keep));
                } else {
                    pack(values, dim, packed, wide);
                    product(s, (count, wide, height), a, (packed.as_ptr(), wide), c, Some(&keep));
                }
            }
        }
    }
}

/// No keys yet.
#[inline(always)]
fn clear(sums: &mut Sums, queries: usize, wide: usize) {
    sums.values[..queries * wide].fill(0.0);
    sums.top[..queries].fill(LOWEST);
    sums.total[..queries].fill(0.0);
}

/// The first lane of `e^x`.
#[inline(always)]
fn exp<S: Simd>(s: S, x: f32) -> f32 {
    let mut lanes = [0.0; MAX_LANES];
    // SAFETY: a vector has at most MAX_LANES lanes.
    unsafe { s.store(s.exp(s.splat(x)), lanes.as_mut_ptr()) };
    lanes[0]
}

/// Adds the results over some keys (largest score, sum of exponentials, weighted sums) to those over the keys before.
#[inline(always)]
fn join<S: Simd>(s: S, (top, total, sums): (&mut f32, &mut f32, &mut [f32]), (t, n, v): (f32, f32, &[f32])) {
    let new = top.max(t);
    let (before, after) = (exp(s, *top - new), exp(s, t - new));
    *total = *total * before + n * after;
    sums.iter_mut().zip(v).for_each(|(sum, v)| *sum = *sum * before + v * after);
    *top = new;
}

#[inline(always)]
fn finish(out: &mut [f32], sums: &[f32], total: f32) {
    let scale = 1.0 / total;
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * scale);
}

/// Multiplies whole vectors of scores by the scale of each position.
///
/// # Safety
/// There must be as many scales as scores, a multiple of the lanes.
#[inline(always)]
unsafe fn scale<S: Simd>(s: S, scores: &mut [f32], scales: &[f32]) {
    for i in (0..scores.len()).step_by(S::LANES) {
        let at = scores.as_mut_ptr().wrapping_add(i);
        // SAFETY: the caller's promise.
        unsafe { s.store(s.mul(s.load(at), s.load(scales.as_ptr().add(i))), at) };
    }
}

/// Scores of positions from `block` on that are not seen become negative infinity.
///
/// # Safety
/// The scores must be whole vectors.
#[inline(always)]
unsafe fn mask<S: Simd>(s: S, scores: &mut [f32], block: usize, seen: &Range<usize>) {
    let lanes: [f32; MAX_LANES] = std::array::from_fn(|lane| lane as f32);
    let (start, end) = (s.splat(seen.start as f32), s.splat(seen.end as f32));
    let never = s.splat(f32::NEG_INFINITY);
    for i in (0..scores.len()).step_by(S::LANES) {
        let at = scores.as_mut_ptr().wrapping_add(i);
        // SAFETY: the caller's promise; positions below 2^24 are exact.
        unsafe {
            let position = s.add(s.load(lanes.as_ptr()), s.splat((block + i) as f32));
            let score = s.select_lt(position, end, s.load(at), never);
            s.store(s.select_lt(position, start, never, score), at);
        }
    }
}

/// Exponentials of the scores below the largest so far: gives it, the sum so far, and the factor of what came before.
///
/// # Safety
/// The scores must be whole vectors.
#[inline(always)]
unsafe fn softmax<S: Simd>(s: S, scores: &mut [f32], top: f32, total: f32) -> (f32, f32, f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut max = s.splat(top);
        for i in (0..scores.len()).step_by(S::LANES) {
            max = s.max(max, s.load(scores.as_ptr().add(i)));
        }
        let max = s.largest(max);
        let mut sum = s.splat(0.0);
        for i in (0..scores.len()).step_by(S::LANES) {
            let p = s.exp(s.sub(s.load(scores.as_ptr().add(i)), s.splat(max)));
            s.store(p, scores.as_mut_ptr().add(i));
            sum = s.add(sum, p);
        }
        let keep = exp(s, top - max);
        (max, total * keep + s.sum(sum), keep)
    }
}

/// Rows of `dim` elements to rows of `wide` f32, padded with zeros.
#[inline(always)]
fn pack<T: Element>(from: &[T], dim: usize, to: &mut [f32], wide: usize) {
    for (row, to) in from.chunks_exact(dim).zip(to.chunks_exact_mut(wide)) {
        let (values, padding) = to.split_at_mut(dim);
        values.iter_mut().zip(row).for_each(|(to, v)| *to = v.widen());
        padding.fill(0.0);
    }
}

/// `C [m, n] = A [m, k] B [k, n]`, or `keep[row] * C + A B`; n is a multiple of the lanes. Each sum is over k in order.
///
/// A is given with the strides of m and k, B and C with those of their rows.
///
/// # Safety
/// The matrices must be readable, C writable, `keep` `[m]`.
#[inline(always)]
unsafe fn product<S: Simd, T: Element>(
    s: S,
    (m, n, k): (usize, usize, usize),
    (a, a_m, a_k): (*const f32, usize, usize),
    b: (*const T, usize),
    (c, c_row): (*mut f32, usize),
    keep: Option<&[f32]>,
) {
    let mut row = 0;
    while row < m {
        let keep = keep.map(|keep| &keep[row..]);
        // SAFETY: rows `row..` of A and C.
        unsafe {
            let (a, c) = ((a.add(row * a_m), a_m, a_k), (c.add(row * c_row), c_row));
            row += match m - row {
                8.. if S::MANY_REGISTERS => rows::<S, T, 8, 2>(s, (n, k), a, b, c, keep),
                4.. => rows::<S, T, 4, 2>(s, (n, k), a, b, c, keep),
                2.. => rows::<S, T, 2, 4>(s, (n, k), a, b, c, keep),
                _ => rows::<S, T, 1, 4>(s, (n, k), a, b, c, keep),
            };
        }
    }
}

/// M rows of [`product`], N vectors at a time; gives M.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn rows<S: Simd, T: Element, const M: usize, const N: usize>(
    s: S,
    (n, k): (usize, usize),
    a: (*const f32, usize, usize),
    (b, b_row): (*const T, usize),
    (c, c_row): (*mut f32, usize),
    keep: Option<&[f32]>,
) -> usize {
    let mut column = 0;
    while column < n {
        // SAFETY: the tile is within the matrices.
        unsafe {
            let (b, c) = ((b.add(column), b_row), (c.add(column), c_row));
            column += S::LANES
                * match n - column >= N * S::LANES {
                    true => tile::<S, T, M, N>(s, k, a, b, c, keep),
                    false => tile::<S, T, M, 1>(s, k, a, b, c, keep),
                };
        }
    }
    M
}

/// A tile of M rows and N vectors of [`product`]; gives N.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn tile<S: Simd, T: Element, const M: usize, const N: usize>(
    s: S,
    k: usize,
    (a, a_m, a_k): (*const f32, usize, usize),
    (b, b_row): (*const T, usize),
    (c, c_row): (*mut f32, usize),
    keep: Option<&[f32]>,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[s.splat(0.0); N]; M];
        for i in 0..k {
            let mut row = [s.splat(0.0); N];
            for j in 0..N {
                row[j] = T::load(s, b.add(i * b_row + j * S::LANES));
            }
            for r in 0..M {
                let a = s.splat(*a.add(r * a_m + i * a_k));
                for j in 0..N {
                    acc[r][j] = s.fma(a, row[j], acc[r][j]);
                }
            }
        }
        for r in 0..M {
            for j in 0..N {
                let c = c.add(r * c_row + j * S::LANES);
                let sum = match keep {
                    Some(keep) => s.fma(s.splat(keep[r]), s.load(c), acc[r][j]),
                    None => acc[r][j],
                };
                s.store(sum, c);
            }
        }
    }
    N
}
