//! Keys and values of many sequences in pages, and the sizes of attention over them.
//!
//! Keys lie transposed, `[pages, kv_heads, head_dim, page_len]`, so that a vector holds one component of neighbouring
//! positions; values `[pages, kv_heads, page_len, head_dim]`. In 8 bits each position of each head has a scale of its own.

use super::MAX_HEAD_DIM;
use super::half::{f32_to_bf16, f32_to_f16};
use crate::ThreadPool;
use crate::lengths::elements;
use crate::threads::Parts;

/// Positions that attention takes together; the length of a page is a multiple of it.
pub const KEY_BLOCK: usize = 64;

/// Sizes of one call of [`FloatKernel::paged_attention`](super::FloatKernel::paged_attention).
#[derive(Clone, Copy, Debug)]
pub struct PagedShape {
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Dimension of a head, at most [`MAX_HEAD_DIM`].
    pub head_dim: usize,
    /// Positions of a page, a multiple of [`KEY_BLOCK`].
    pub page_len: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// How many positions a token sees, itself included; `None` for all up to itself.
    pub window: Option<usize>,
}

/// Pages of keys and values; see the module for their layout.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the module explains the fields
pub enum KvPages<'a> {
    /// In f32.
    F32 { keys: &'a [f32], values: &'a [f32] },
    /// In the bits of IEEE f16.
    F16 { keys: &'a [u16], values: &'a [u16] },
    /// In the bits of bfloat16.
    BF16 { keys: &'a [u16], values: &'a [u16] },
    /// In 8 bits, the scales `[pages, kv_heads, page_len]`.
    I8 { keys: &'a [i8], values: &'a [i8], key_scales: &'a [f32], value_scales: &'a [f32] },
}

/// Pages to be written.
#[derive(Debug)]
#[allow(missing_docs)] // as in KvPages
pub enum KvPagesMut<'a> {
    F32 { keys: &'a mut [f32], values: &'a mut [f32] },
    F16 { keys: &'a mut [u16], values: &'a mut [u16] },
    BF16 { keys: &'a mut [u16], values: &'a mut [u16] },
    I8 { keys: &'a mut [i8], values: &'a mut [i8], key_scales: &'a mut [f32], value_scales: &'a mut [f32] },
}

/// Which sequence and position each row of queries belongs to, and the pages of the sequences.
#[derive(Clone, Copy, Debug)]
pub struct KvRows<'a> {
    /// Pages of each sequence in the order of its positions, `[sequences, table_width]`.
    pub table: &'a [u32],
    /// Columns of the table.
    pub table_width: usize,
    /// The sequence of each row, `[T]`.
    pub sequences: &'a [u32],
    /// The position of each row, `[T]`.
    pub positions: &'a [u32],
}

impl PagedShape {
    /// Query heads that share a key/value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The first position that a token at `position` sees.
    pub(super) fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    fn check(&self) {
        let PagedShape { heads, kv_heads, head_dim, page_len, .. } = *self;
        assert!((1..=MAX_HEAD_DIM).contains(&head_dim), "head dimension {head_dim} is not 1 to {MAX_HEAD_DIM}");
        let grouped = kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads);
        assert!(grouped, "{heads} query heads for {kv_heads} key heads");
        assert!(page_len > 0 && page_len.is_multiple_of(KEY_BLOCK), "pages of {page_len} positions");
    }

    /// Numbers of a page; panics when they cannot be counted.
    fn page(&self) -> usize {
        elements([self.kv_heads, self.head_dim, self.page_len]).expect("a page that can be counted")
    }

    /// Panics unless everything fits together and every page that is seen exists.
    pub(super) fn check_read(&self, q: &[f32], pages: &KvPages<'_>, rows: &KvRows<'_>, out: &[f32]) {
        self.check();
        let (keys, values, scales) = match *pages {
            KvPages::F32 { keys, values } => (keys.len(), values.len(), None),
            KvPages::F16 { keys, values } | KvPages::BF16 { keys, values } => (keys.len(), values.len(), None),
            KvPages::I8 { keys, values, key_scales, value_scales } => {
                (keys.len(), values.len(), Some((key_scales.len(), value_scales.len())))
            }
        };
        let count = self.check_pages(keys, values, scales);
        let KvRows { table, table_width, sequences, positions } = *rows;
        assert_eq!(sequences.len(), positions.len(), "a sequence and a position for each row");
        assert_eq!(Some(q.len()), elements([positions.len(), self.heads, self.head_dim]), "length of q");
        assert_eq!(out.len(), q.len(), "length of out");
        for (&sequence, &position) in sequences.iter().zip(positions) {
            let start = sequence as usize * table_width;
            let seen = self.first_seen(position as usize) / self.page_len..position as usize / self.page_len + 1;
            assert!(seen.end <= table_width, "position {position} of a table of {table_width} pages");
            let exist = table[start..][seen].iter().all(|&page| (page as usize) < count);
            assert!(exist, "sequence {sequence} has pages that do not exist");
        }
    }

    /// The number of pages.
    fn check_pages(&self, keys: usize, values: usize, scales: Option<(usize, usize)>) -> usize {
        let count = keys / self.page();
        assert!(keys == count * self.page() && values == keys, "{keys} keys and {values} values are not whole pages");
        let positions = count * self.kv_heads * self.page_len;
        assert!(scales.is_none_or(|scales| scales == (positions, positions)), "a scale for each position");
        count
    }
}

/// Writes keys and values `[T, kv_heads, head_dim]` to pages: row `t` goes to position `slots[t] % page_len` of page
/// `slots[t] / page_len`. Narrower types are rounded to nearest, ties to even; 8 bits have the scale `max|x| / 127`.
///
/// # Panics
/// When lengths do not fit together or a slot is outside the pages.
pub fn store_kv(
    pool: &ThreadPool,
    shape: &PagedShape,
    keys: &[f32],
    values: &[f32],
    slots: &[u32],
    pages: KvPagesMut<'_>,
) {
    shape.check();
    assert_eq!(Some(keys.len()), elements([slots.len(), shape.kv_heads, shape.head_dim]), "length of the keys");
    assert_eq!(values.len(), keys.len(), "length of the values");
    let store = Store { pool, shape, slots };
    match pages {
        KvPagesMut::F32 { keys: k, values: v } => store.floats(keys, values, k, v, |x| x),
        KvPagesMut::F16 { keys: k, values: v } => store.floats(keys, values, k, v, f32_to_f16),
        KvPagesMut::BF16 { keys: k, values: v } => store.floats(keys, values, k, v, f32_to_bf16),
        KvPagesMut::I8 { keys: k, values: v, key_scales, value_scales } => {
            let count = shape.check_pages(k.len(), v.len(), Some((key_scales.len(), value_scales.len())));
            store.check_slots(count);
            let (k, v) = (Parts::new(k), Parts::new(v));
            let (k_scales, v_scales) = (Parts::new(key_scales), Parts::new(value_scales));
            store.each(&|row, block, at| {
                let (page, dim) = (shape.page_len * shape.head_dim, shape.head_dim);
                let (key, value) = (&keys[row * dim..][..dim], &values[row * dim..][..dim]);
                // SAFETY: a task has a head of its own, and so its own blocks of every page.
                let (k, v, k_scale, v_scale) = unsafe {
                    let scale = block * shape.page_len + at;
                    (
                        k.part(block * page, page),
                        v.part(block * page + at * dim, dim),
                        k_scales.part(scale, 1),
                        v_scales.part(scale, 1),
                    )
                };
                k_scale[0] = to_bytes(key, |i, byte| k[i * shape.page_len + at] = byte);
                v_scale[0] = to_bytes(value, |i, byte| v[i] = byte);
            });
        }
    }
}

struct Store<'a> {
    pool: &'a ThreadPool,
    shape: &'a PagedShape,
    slots: &'a [u32],
}

impl Store<'_> {
    fn check_slots(&self, pages: usize) {
        let positions = pages * self.shape.page_len;
        let inside = self.slots.iter().all(|&slot| (slot as usize) < positions);
        assert!(inside, "a slot outside of {positions} positions");
    }

    /// Calls `f(row of [T, kv_heads], block of [pages, kv_heads], position in the page)`; each head in one task.
    fn each(&self, f: &(impl Fn(usize, usize, usize) + Sync)) {
        let (heads, page_len) = (self.shape.kv_heads, self.shape.page_len);
        let task = |head: usize| {
            for (t, &slot) in self.slots.iter().enumerate() {
                let (page, at) = (slot as usize / page_len, slot as usize % page_len);
                f(t * heads + head, page * heads + head, at);
            }
        };
        // Waking threads costs more than to write a few rows.
        if self.slots.len() < 16 {
            (0..heads).for_each(task);
        } else {
            self.pool.run(heads, &task);
        }
    }

    fn floats<T: Copy + Send>(
        &self,
        keys: &[f32],
        values: &[f32],
        k: &mut [T],
        v: &mut [T],
        round: impl Fn(f32) -> T + Sync,
    ) {
        let (page_len, dim) = (self.shape.page_len, self.shape.head_dim);
        self.check_slots(self.shape.check_pages(k.len(), v.len(), None));
        let (k, v) = (Parts::new(k), Parts::new(v));
        self.each(&|row, block, at| {
            // SAFETY: a task has a head of its own, and so its own blocks of every page.
            let (k, v) =
                unsafe { (k.part(block * page_len * dim, page_len * dim), v.part((block * page_len + at) * dim, dim)) };
            for (column, &x) in k.chunks_exact_mut(page_len).zip(&keys[row * dim..][..dim]) {
                column[at] = round(x);
            }
            for (v, &x) in v.iter_mut().zip(&values[row * dim..][..dim]) {
                *v = round(x);
            }
        });
    }
}

/// Rounds x to 8 bits and gives the scale: `x = scale * byte`. What is not finite makes the scale so.
fn to_bytes(x: &[f32], mut store: impl FnMut(usize, i8)) -> f32 {
    let bits = x.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    let scale = f32::from_bits(bits) / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (i, v) in x.iter().enumerate() {
        store(i, (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8);
    }
    scale
}
