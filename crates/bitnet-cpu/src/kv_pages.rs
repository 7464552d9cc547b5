//! Keys and values in pages: calls of the kernels with slices.

use super::CpuBackend;
use super::operand::{slice, slice_mut};
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::{BitNetDType, BitNetError, Element, Result, TensorOpError};
use bitnet_kernels::float::{self, KEY_BLOCK, KvPagesMut, MAX_HEAD_DIM, PagedShape};
use half::{bf16, f16};

/// The sizes of a call, and the number of pages; `None` where the kernels do not take them.
fn sizes(heads: usize, keys: &TensorRef, scale: f32, window: Option<u32>) -> Option<(PagedShape, usize)> {
    let &[pages, kv_heads, head_dim, page_len] = keys.layout.dims() else { return None };
    let fits = (1..=MAX_HEAD_DIM).contains(&head_dim) && heads > 0 && page_len.is_multiple_of(KEY_BLOCK);
    let window = window.map(|window| window as usize);
    fits.then_some((PagedShape { heads, kv_heads, head_dim, page_len, scale, window }, pages))
}

pub(super) fn store_kv(
    cpu: &CpuBackend,
    keys: &TensorRef,
    values: &TensorRef,
    slots: &TensorRef,
    outputs: &mut [TensorMut],
) -> Result<bool> {
    const OP: &str = "store_kv";
    let kv_heads = keys.layout.dims()[1];
    let Some((shape, pages)) = sizes(kv_heads, &outputs[0].as_ref(), 1., None) else { return Ok(false) };
    let (keys, values, slots) =
        (slice::<f32>(OP, "keys", keys)?, slice::<f32>(OP, "values", values)?, slice::<u32>(OP, "slots", slots)?);
    outside(OP, "position of the pages", slots, pages * shape.page_len)?;
    let store = |pages| float::store_kv(&cpu.threads, &shape, keys, values, slots, pages);
    match outputs {
        [k, v] => match k.dtype {
            BitNetDType::F32 => {
                let (keys, values) = (pages_mut::<f32>(k)?, pages_mut::<f32>(v)?);
                store(KvPagesMut::F32 { keys, values });
            }
            BitNetDType::F16 => {
                let (keys, values) = (pages_mut::<f16>(k)?, pages_mut::<f16>(v)?);
                store(KvPagesMut::F16 { keys: bits_mut(keys), values: bits_mut(values) });
            }
            _ => {
                let (keys, values) = (pages_mut::<bf16>(k)?, pages_mut::<bf16>(v)?);
                store(KvPagesMut::BF16 { keys: bits_mut(keys), values: bits_mut(values) });
            }
        },
        [k, v, k_scales, v_scales] => store(KvPagesMut::I8 {
            keys: pages_mut(k)?,
            values: pages_mut(v)?,
            key_scales: pages_mut(k_scales)?,
            value_scales: pages_mut(v_scales)?,
        }),
        _ => return Ok(false),
    }
    Ok(true)
}

fn pages_mut<'a, T: Element>(pages: &'a mut TensorMut) -> Result<&'a mut [T]> {
    slice_mut("store_kv", "pages", pages.reborrow())
}

/// The bits of 16-bit floats.
fn bits<'a>(x: &TensorRef<'a>) -> Result<&'a [u16]> {
    Ok(match x.dtype {
        BitNetDType::F16 => bytemuck::cast_slice(slice::<f16>("paged_attention", "pages", x)?),
        _ => bytemuck::cast_slice(slice::<bf16>("paged_attention", "pages", x)?),
    })
}

fn bits_mut<T: bytemuck::Pod>(x: &mut [T]) -> &mut [u16] {
    bytemuck::cast_slice_mut(x)
}

/// An error for the first index that is not below `count`.
fn outside(op: &'static str, what: &str, indices: &[u32], count: usize) -> Result<()> {
    match indices.iter().find(|&&index| index as usize >= count) {
        Some(index) => Err(argument(op, format!("{index} is not a {what}: there are {count}"))),
        None => Ok(()),
    }
}

fn argument(op: &'static str, message: String) -> BitNetError {
    TensorOpError::Argument { op, message }.into()
}

pub(super) fn paged_attention(
    cpu: &CpuBackend,
    (scale, window): (f32, Option<u32>),
    inputs: &[TensorRef],
    out: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "paged_attention";
    let [q, keys, values, table, sequences, positions, scales @ ..] = inputs else { return Ok(false) };
    let Some((shape, pages)) = sizes(q.layout.dims()[1], keys, scale, window) else { return Ok(false) };
    let &[count, table_width] = table.layout.dims() else { return Ok(false) };
    let rows = float::KvRows {
        table: slice(OP, "table", table)?,
        table_width,
        sequences: slice(OP, "sequences", sequences)?,
        positions: slice(OP, "positions", positions)?,
    };
    outside(OP, "sequence", rows.sequences, count)?;
    outside(OP, "position of the table", rows.positions, table_width * shape.page_len)?;
    outside(OP, "page", rows.table, pages)?;
    let pages = match (keys.dtype, scales) {
        (BitNetDType::I8, [k, v]) => float::KvPages::I8 {
            keys: slice(OP, "key pages", keys)?,
            values: slice(OP, "value pages", values)?,
            key_scales: slice(OP, "key scales", k)?,
            value_scales: slice(OP, "value scales", v)?,
        },
        (BitNetDType::F16, _) => float::KvPages::F16 { keys: bits(keys)?, values: bits(values)? },
        (BitNetDType::BF16, _) => float::KvPages::BF16 { keys: bits(keys)?, values: bits(values)? },
        _ => float::KvPages::F32 { keys: slice(OP, "key pages", keys)?, values: slice(OP, "value pages", values)? },
    };
    let (q, out) = (slice(OP, "q", q)?, slice_mut(OP, "out", out.reborrow())?);
    cpu.kernels()?.float.paged_attention(&cpu.threads, &shape, q, &pages, &rows, out);
    Ok(true)
}
