//! Keys and values in pages: operands, and the operations on them composed of primitives.

use super::fused::temp::{self, Temp, cast};
use super::*;
use BinaryOp::*;
use BitNetDType::{Bool, F32, I8, U32};

/// Pages of keys and values of a layer.
#[derive(Debug, Clone, Copy)]
pub struct KvPages<'a> {
    /// `[pages, kv_heads, head_dim, page_len]`: transposed, so that neighbouring positions lie beside each other. f32, f16,
    /// bf16 or i8.
    pub keys: TensorRef<'a>,
    /// `[pages, kv_heads, page_len, head_dim]`, of the dtype of the keys.
    pub values: TensorRef<'a>,
    /// Of i8: the scale of each position of each head, of keys and of values, f32 `[pages, kv_heads, page_len]`.
    pub scales: Option<[TensorRef<'a>; 2]>,
}

/// Pages to be written, see [`KvPages`].
#[derive(Debug)]
#[allow(missing_docs)]
pub struct KvPagesMut<'a> {
    pub keys: TensorMut<'a>,
    pub values: TensorMut<'a>,
    pub scales: Option<[TensorMut<'a>; 2]>,
}

/// The sequence and position of each row of queries.
#[derive(Debug, Clone, Copy)]
pub struct KvRows<'a> {
    /// The pages of each sequence in the order of its positions, `U32` `[sequences, table width]`. Entries that no row sees must
    /// be pages as well.
    pub table: TensorRef<'a>,
    /// Row of the table, `U32` `[T]`.
    pub sequences: TensorRef<'a>,
    /// `U32` `[T]`.
    pub positions: TensorRef<'a>,
}

impl dyn Backend + '_ {
    /// Runs [`Op::StoreKv`].
    pub fn store_kv(&self, keys: TensorRef, values: TensorRef, slots: TensorRef, pages: KvPagesMut) -> Result<()> {
        let inputs = [keys, values, slots];
        match pages.scales {
            None => self.call(&Op::StoreKv, &inputs, &mut [pages.keys, pages.values]),
            Some([k, v]) => self.call(&Op::StoreKv, &inputs, &mut [pages.keys, pages.values, k, v]),
        }
    }

    /// Runs [`Op::PagedAttention`].
    pub fn paged_attention(
        &self,
        q: TensorRef,
        pages: KvPages,
        rows: KvRows,
        scale: f32,
        window: Option<u32>,
        out: TensorMut,
    ) -> Result<()> {
        let (KvPages { keys, values, scales }, KvRows { table, sequences, positions }) = (pages, rows);
        let op = Op::PagedAttention { scale, window };
        match scales {
            None => self.call(&op, &[q, keys, values, table, sequences, positions], &mut [out]),
            Some([k, v]) => self.call(&op, &[q, keys, values, table, sequences, positions, k, v], &mut [out]),
        }
    }
}

/// Where the rows of a call of [`Op::StoreKv`] go.
struct Slots<'b> {
    backend: &'b dyn Backend,
    /// `U32` `[T]`.
    page: Temp<'b>,
    /// Position in the page, `U32` `[T]`.
    at: Temp<'b>,
}

impl<'b> Slots<'b> {
    fn new(backend: &'b dyn Backend, slots: TensorRef, page_len: usize) -> Result<Self> {
        let (slots, len) = (Temp::copied(backend, slots)?, Temp::upload(backend, &[1], &[page_len as u32])?);
        let (page, at) = (slots.binary(FloorDiv, len.view())?, slots.binary(Remainder, len.view())?);
        Ok(Self { backend, page, at })
    }

    /// Writes x `[T, ..]` to pages of `page_size` numbers, number `i` of a row to `at * step + offsets[i]`.
    fn store(
        &self,
        x: TensorRef,
        page_size: usize,
        step: usize,
        offsets: Vec<usize>,
        out: &mut TensorMut,
    ) -> Result<()> {
        let number = |x: usize| Temp::upload(self.backend, &[1], &[x as u32]);
        let first = self.page.binary(Mul, number(page_size)?.view())?;
        let first = first.binary(Add, self.at.binary(Mul, number(step)?.view())?.view())?;
        let offsets: Vec<u32> = offsets.into_iter().map(|offset| offset as u32).collect();
        let dims = [first.layout.dims()[0], offsets.len()];
        let offsets = Temp::upload(self.backend, &[1, offsets.len()], &offsets)?;
        let first = TensorRef { layout: first.layout.unsqueeze(1)?.broadcast_to(&dims)?, ..first.view() };
        let places = temp::binary(self.backend, Add, first, offsets.view())?;
        let flat = |l: &Layout| l.reshape(&[l.shape().elements()]);
        let x = if x.dtype == out.dtype { Temp::copied(self.backend, x)? } else { cast(self.backend, x, out.dtype)? };
        let source = TensorRef { layout: flat(&x.layout)?, ..x.view() };
        let places = TensorRef { layout: flat(&places.layout)?, ..places.view() };
        let layout = flat(&out.layout)?;
        self.backend.scatter(ScatterOp::Assign, source, 0, places, TensorMut { layout, ..out.reborrow() })
    }
}

/// See [`Op::StoreKv`].
pub(super) fn store_kv(
    backend: &dyn Backend,
    [keys, values, slots]: [TensorRef; 3],
    outputs: &mut [TensorMut],
) -> Result<()> {
    let (&[_, heads, dim], [key_pages, value_pages, scales @ ..]) = (keys.layout.dims(), outputs) else {
        return Err(unsupported(backend, "store_kv", keys.dtype));
    };
    let page_len = key_pages.layout.shape().last();
    let slots = Slots::new(backend, slots, page_len)?;
    let page = heads * dim * page_len;
    // Of number `i` of a row: its place in a page of keys, and of values.
    let in_keys: Vec<usize> = (0..heads * dim).map(|i| i * page_len).collect();
    let in_values: Vec<usize> = (0..heads * dim).map(|i| i / dim * page_len * dim + i % dim).collect();
    let parts = [(keys, 1, in_keys, key_pages), (values, dim, in_values, value_pages)];
    for (i, (x, step, places, pages)) in parts.into_iter().enumerate() {
        let Some(scales) = scales.get_mut(i) else {
            slots.store(x, page, step, places, pages)?;
            continue;
        };
        let scale = Temp::copied(backend, x)?.unary(UnaryOp::Abs)?.reduce_last(ReduceOp::Max)?.scalar(Div, 127.)?;
        let inverse = scale.scalar(Maximum, f32::MIN_POSITIVE.into())?.unary(UnaryOp::Reciprocal)?;
        let rounded = temp::binary(backend, Mul, x, inverse.view())?.unary(UnaryOp::Round)?;
        let bytes = rounded.scalar(Maximum, -127.)?.scalar(Minimum, 127.)?.cast(I8)?;
        slots.store(bytes.view(), page, step, places, pages)?;
        slots.store(scale.view(), heads * page_len, 1, (0..heads).map(|head| head * page_len).collect(), scales)?;
    }
    Ok(())
}

/// See [`Op::PagedAttention`]: the pages of every row gathered, one after the other.
pub(super) fn paged_attention(
    backend: &dyn Backend,
    (scale, window): (f32, Option<u32>),
    q: TensorRef,
    pages: KvPages,
    rows: KvRows,
    out: TensorMut,
) -> Result<()> {
    let (&[tokens, heads, dim], &[_, kv_heads, _, page_len]) = (q.layout.dims(), pages.keys.layout.dims()) else {
        return Err(unsupported(backend, "paged_attention", q.dtype));
    };
    let (width, group) = (rows.table.layout.shape().last(), heads / kv_heads);
    let (seen, dims) = (width * page_len, [tokens, kv_heads, group, dim]);
    if tokens == 0 || heads == 0 {
        return Ok(());
    }
    // The pages of each row, [T * width].
    let mut table = Temp::new(backend, &[tokens, width], U32)?;
    let layout = rows.sequences.layout.unsqueeze(1)?.broadcast_to(&[tokens, width])?;
    backend.gather(rows.table, 0, TensorRef { layout, ..rows.sequences }, table.view_mut())?;
    // Pages [P, ..] to f32 [T, width, ..].
    let gathered = |x: TensorRef| -> Result<Temp> {
        let (count, size) = (x.layout.dims()[0], x.layout.dims()[1..].iter().product());
        let mut out = Temp::new(backend, &[tokens * width, size], x.dtype)?;
        let layout = table.layout.reshape(&[tokens * width, 1])?.broadcast_to(&[tokens * width, size])?;
        let pages = TensorRef { layout: x.layout.reshape(&[count, size])?, ..x };
        backend.gather(pages, 0, TensorRef { layout, ..table.view() }, out.view_mut())?;
        let mut out = if x.dtype == F32 { out } else { out.cast(F32)? };
        out.layout = out.layout.reshape(&[&[tokens, width], &x.layout.dims()[1..]].concat())?;
        Ok(out)
    };
    // Whether position n, [width * L], is seen from a row, [T].
    let column: Vec<f32> = (0..seen).map(|n| n as f32).collect();
    let column = Temp::upload(backend, &[1, seen], &column)?;
    let last = cast(backend, rows.positions, F32)?;
    let compare = |op, limit: &Temp| -> Result<Temp> {
        let mut out = Temp::new(backend, &[tokens, seen], Bool)?;
        let limit = TensorRef { layout: limit.layout.unsqueeze(1)?.broadcast_to(&[tokens, seen])?, ..limit.view() };
        let column = TensorRef { layout: column.layout.broadcast_to(&[tokens, seen])?, ..column.view() };
        backend.compare(op, column, limit, out.view_mut())?;
        Ok(out)
    };
    let mut live = compare(CompareOp::Le, &last)?;
    if let Some(window) = window {
        live = live.binary(Mul, compare(CompareOp::Gt, &last.scalar(Sub, window.into())?)?.view())?;
    }
    let choose = |x: TensorRef, condition: Layout, other: f32| -> Result<Temp> {
        let other = Temp::upload(backend, &[1], &[other])?;
        let other = TensorRef { layout: other.layout.broadcast_to(x.layout.dims())?, ..other.view() };
        let condition = TensorRef { layout: condition.broadcast_to(x.layout.dims())?, ..live.view() };
        let mut out = Temp::new(backend, x.layout.dims(), F32)?;
        backend.select(condition, x, other, out.view_mut())?;
        Ok(out)
    };
    // [T, 1, 1, width * L]
    let by_position = live.layout.reshape(&[tokens, 1, 1, seen])?;
    // What is not seen may be anything, and 0 times NaN would be NaN.
    let keys = {
        // [T, width, H, D, L] -> [T, H, D, width, L]
        let all = gathered(pages.keys)?;
        let layout = all.layout.transpose(1, 2)?.transpose(2, 3)?;
        let mut keys = Temp::copied(backend, TensorRef { layout, ..all.view() })?;
        keys.layout = keys.layout.reshape(&[tokens, kv_heads, dim, seen])?;
        choose(keys.view(), by_position, 0.)?
    };
    let values = {
        // [T, width, H, L, D] -> [T, H, width, L, D]
        let all = gathered(pages.values)?;
        let mut values = Temp::copied(backend, TensorRef { layout: all.layout.transpose(1, 2)?, ..all.view() })?;
        values.layout = values.layout.reshape(&[tokens, kv_heads, seen, dim])?;
        choose(values.view(), by_position.transpose(2, 3)?, 0.)?
    };
    // [T, width, H, L] -> [T, H, 1, width * L]
    let scales = |x: TensorRef| -> Result<Temp> {
        let all = gathered(x)?;
        let mut scales = Temp::copied(backend, TensorRef { layout: all.layout.transpose(1, 2)?, ..all.view() })?;
        scales.layout = scales.layout.reshape(&[tokens, kv_heads, 1, seen])?;
        choose(scales.view(), by_position, 0.)
    };
    let mut scores = Temp::new(backend, &[tokens, kv_heads, group, seen], F32)?;
    let q = TensorRef { layout: q.layout.reshape(&dims)?, ..q };
    backend.matmul(q, keys.view(), scores.view_mut())?;
    let mut scores = scores.scalar(Mul, scale.into())?;
    if let Some([keys, _]) = pages.scales {
        scores = scores.binary(Mul, scales(keys)?.view())?;
    }
    let masked = choose(scores.view(), by_position, f32::NEG_INFINITY)?;
    let mut weights = Temp::new(backend, masked.layout.dims(), F32)?;
    backend.softmax(masked.view(), weights.view_mut())?;
    if let Some([_, values]) = pages.scales {
        weights = weights.binary(Mul, scales(values)?.view())?;
    }
    let layout = out.layout.reshape(&dims)?;
    backend.matmul(weights.view(), values.view(), TensorMut { layout, ..out })
}
