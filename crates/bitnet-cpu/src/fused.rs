//! The fused operations of the CPU: checks shapes and calls the kernels with slices.

use super::{CpuBackend, dense};
use bitnet_device::Element;
use bitnet_device::backend::*;
use bitnet_device::{BitNetDType, BitNetError, CpuStorage, Result, TensorOpError, TensorShape, TensorStorage};
use bitnet_kernels::activation::{padded, quantize_rows};
use bitnet_kernels::blocks::{BlockMatrix, dequantize_row};
use bitnet_kernels::float::{AttentionShape, KvCache};
use bitnet_kernels::ternary;

/// The error for an operand with the wrong number of elements.
pub(super) fn length(op: &'static str, what: &'static str, got: usize, needed: usize) -> BitNetError {
    let shape = TensorShape::new(&[got]).unwrap_or_else(|_| TensorShape::new(&[]).expect("a scalar's shape"));
    TensorOpError::Shape { op, what, got: shape, needed: format!("{needed} elements") }.into()
}

fn wrong_shape(op: &'static str, what: &'static str, got: &TensorRef, needed: impl Into<String>) -> BitNetError {
    TensorOpError::Shape { op, what, got: *got.layout.shape(), needed: needed.into() }.into()
}

/// The elements of a contiguous operand.
pub(super) fn slice<'a, T: Element>(op: &'static str, what: &'static str, t: &TensorRef<'a>) -> Result<&'a [T]> {
    let range = contiguous::<T>(op, what, t)?;
    t.storage.cpu(op, t.dtype)?.elements().map(|all| &all[range])
}

/// The elements of a contiguous result.
pub(super) fn slice_mut<'a, T: Element>(op: &'static str, what: &'static str, t: TensorMut<'a>) -> Result<&'a mut [T]> {
    let range = contiguous::<T>(op, what, &t.as_ref())?;
    t.storage.cpu_mut(op, t.dtype)?.elements_mut().map(|all| &mut all[range])
}

fn contiguous<T: Element>(op: &'static str, what: &'static str, t: &TensorRef) -> Result<std::ops::Range<usize>> {
    if t.dtype != T::DTYPE {
        return Err(TensorOpError::DType { op, what, got: t.dtype, needed: T::DTYPE }.into());
    }
    if !t.layout.is_contiguous() {
        return Err(TensorOpError::NotContiguous { op, what }.into());
    }
    let (start, len) = (t.layout.offset(), t.layout.shape().elements());
    let have = t.storage.len_bytes() / size_of::<T>();
    if start.checked_add(len).is_none_or(|end| end > have) {
        return Err(length(op, what, have, start.saturating_add(len)));
    }
    Ok(start..start + len)
}

fn expect(fits: bool, op: &'static str, what: &'static str, got: &TensorRef, needed: &str) -> Result<()> {
    if fits { Ok(()) } else { Err(wrong_shape(op, what, got, needed)) }
}

pub(super) fn binary_assign(cpu: &CpuBackend, op: BinaryOp, mut y: TensorMut, x: TensorRef) -> Result<()> {
    let tail = x.layout.shape().elements() > 1 && y.layout.dims().ends_with(x.layout.dims());
    let rows = tail && y.layout.is_contiguous() && x.layout.is_contiguous();
    if op == BinaryOp::Add && y.dtype == BitNetDType::F32 && x.dtype == y.dtype && rows {
        return add_assign(cpu, y, x);
    }
    let whole = TensorRef { layout: x.layout.broadcast_to(y.layout.dims())?, ..x };
    if dense::binary_assign(cpu, op, y.reborrow(), &whole)? {
        return Ok(());
    }
    super::elementwise::binary_assign(&cpu.threads, op, y, x)
}

fn add_assign(cpu: &CpuBackend, y: TensorMut, x: TensorRef) -> Result<()> {
    const OP: &str = "add_assign";
    let (shape, tail) = (*y.layout.shape(), x.layout.dims());
    let dims = shape.dims();
    expect(dims.ends_with(tail), OP, "x", &x, "the last dimensions of y")?;
    let x = slice::<f32>(OP, "x", &x)?;
    let kernel = cpu.kernels()?.float;
    let width = dims.last().copied().unwrap_or(1);
    let whole = x.len() == dims.iter().product::<usize>();
    let narrow = x.len() / width.max(1);
    rows(cpu, slice_mut::<f32>(OP, "y", y)?, width, |first, y| {
        if whole {
            return kernel.add_assign(y, &x[first * width..][..y.len()]);
        }
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            kernel.add_assign(y, &x[(first + row) % narrow * width..][..width]);
        }
    });
    Ok(())
}

/// Whether the kernels accept an operand.
fn plain(x: &TensorRef) -> bool {
    x.dtype == BitNetDType::F32 && x.layout.is_contiguous()
}

pub(super) fn rms_norm(cpu: &CpuBackend, x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) -> Result<()> {
    const OP: &str = "rms_norm";
    if !(plain(&x) && plain(&weight) && plain(&out.as_ref())) {
        return bitnet_device::backend::fused::rms_norm(cpu, x, weight, eps, out);
    }
    expect(weight.layout.dims() == [x.layout.shape().last()], OP, "weight", &weight, "[H], the last dimension of x")?;
    expect(x.layout.dims() == out.layout.dims(), OP, "out", &out.as_ref(), "that of x")?;
    let width = x.layout.shape().last();
    let (x, weight) = (slice::<f32>(OP, "x", &x)?, slice::<f32>(OP, "weight", &weight)?);
    let kernel = cpu.kernels()?.float;
    rows(cpu, slice_mut(OP, "out", out)?, width, |first, out| {
        kernel.rms_norm(&x[first * width..][..out.len()], weight, eps, out);
    });
    Ok(())
}

/// Runs `f(first row, rows)` over parts of `out` `[rows, width]` on all threads; small ones on the caller.
fn rows(cpu: &CpuBackend, out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    const SMALL: usize = 1 << 14;
    if width == 0 {
        return;
    }
    let parts = (out.len() / SMALL).clamp(1, 4 * cpu.threads.threads());
    let rows = (out.len() / width).div_ceil(parts).max(1);
    cpu.threads.for_each_chunk(out, rows * width, &|index, part| f(index * rows, part));
}

pub(super) fn rope(cpu: &CpuBackend, x: TensorMut, cos: TensorRef, sin: TensorRef, start: usize) -> Result<()> {
    const OP: &str = "rope";
    let &[tokens, heads, width] = x.layout.dims() else {
        return Err(wrong_shape(OP, "x", &x.as_ref(), "[T, heads, D]"));
    };
    let half = width / 2;
    let positions = cos.layout.dims().first().copied().unwrap_or(0);
    for (what, table) in [("cos", &cos), ("sin", &sin)] {
        expect(table.layout.dims() == [positions, half] && width % 2 == 0, OP, what, table, "[positions, D / 2]")?;
    }
    if start.checked_add(tokens).is_none_or(|end| end > positions) {
        let shape = *cos.layout.shape();
        return Err(TensorOpError::OutOfRange { op: OP, index: start.saturating_add(tokens), axis: 0, shape }.into());
    }
    let (cos, sin) = (slice::<f32>(OP, "cos", &cos)?, slice::<f32>(OP, "sin", &sin)?);
    let kernel = cpu.kernels()?.float;
    rows(cpu, slice_mut(OP, "x", x)?, heads * width, |first, x| {
        let angles = (start + first) * half..(start + first + x.len() / (heads * width)) * half;
        kernel.rope(x, heads, half, &cos[angles.clone()], &sin[angles]);
    });
    Ok(())
}

pub(super) fn attention(
    cpu: &CpuBackend,
    q: TensorRef,
    keys: TensorRef,
    values: TensorRef,
    start: usize,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "attention";
    let &[tokens, heads, head_dim] = q.layout.dims() else {
        return Err(wrong_shape(OP, "q", &q, "[T, heads, D]"));
    };
    let &[kv_heads, capacity, width] = keys.layout.dims() else {
        return Err(wrong_shape(OP, "keys", &keys, "[kv_heads, capacity, D]"));
    };
    let grouped = kv_heads > 0 && heads.is_multiple_of(kv_heads) && width == head_dim;
    expect(grouped, OP, "keys", &keys, "[a divisor of heads, capacity, D]")?;
    let supported = (1..=bitnet_kernels::float::MAX_HEAD_DIM).contains(&head_dim);
    expect(supported, OP, "q", &q, "a head dimension of at most 256")?;
    expect(values.layout.dims() == keys.layout.dims(), OP, "values", &values, "that of keys")?;
    expect(out.layout.dims() == q.layout.dims(), OP, "out", &out.as_ref(), "that of q")?;
    let fits = start.checked_add(tokens).is_some_and(|end| end <= capacity);
    expect(fits, OP, "keys", &keys, "room for start + T positions")?;
    let shape = AttentionShape { tokens, start, heads, kv_heads, head_dim, capacity };
    let cache = match keys.dtype {
        BitNetDType::F16 => KvCache::F16 {
            keys: bytemuck::cast_slice(slice::<half::f16>(OP, "keys", &keys)?),
            values: bytemuck::cast_slice(slice::<half::f16>(OP, "values", &values)?),
        },
        _ => KvCache::F32 { keys: slice(OP, "keys", &keys)?, values: slice(OP, "values", &values)? },
    };
    let q = slice(OP, "q", &q)?;
    cpu.kernels()?.float.attention(&cpu.threads, &shape, q, cache, slice_mut(OP, "out", out)?);
    Ok(())
}

pub(super) fn gated(cpu: &CpuBackend, act: GateActivation, gate: TensorMut, up: TensorRef) -> Result<()> {
    const OP: &str = "gated";
    expect(gate.layout.dims() == up.layout.dims(), OP, "up", &up, "that of gate")?;
    let width = gate.layout.shape().last();
    let up = slice::<f32>(OP, "up", &up)?;
    let kernel = cpu.kernels()?.float;
    rows(cpu, slice_mut(OP, "gate", gate)?, width, |first, gate| {
        let up = &up[first * width..][..gate.len()];
        match act {
            GateActivation::Relu2 => kernel.relu2_gated(gate, up),
            GateActivation::Silu => kernel.silu_gated(gate, up),
        }
    });
    Ok(())
}

/// The bytes of a weight matrix `[N, K]` with contiguous rows, and its type.
fn weights<'a>(op: &'static str, w: &TensorRef<'a>) -> Result<BlockMatrix<'a>> {
    let &[rows, columns] = w.layout.dims() else {
        return Err(wrong_shape(op, "weights", w, "[N, K]"));
    };
    let kind =
        w.dtype.weight_type().ok_or_else(|| BitNetError::Unsupported { op, dtype: w.dtype, device: "cpu".into() })?;
    if !w.layout.is_contiguous() || w.layout.offset() != 0 {
        return Err(TensorOpError::NotContiguous { op, what: "weights" }.into());
    }
    let whole = kind.row_bytes(columns).is_some();
    expect(whole, op, "weights", w, "rows of whole blocks of their type")?;
    let bytes = w.storage.cpu(op, w.dtype)?.bytes();
    let needed = rows * w.dtype.row_bytes(columns);
    let bytes = bytes.get(..needed).ok_or_else(|| length(op, "weights", bytes.len(), needed))?;
    Ok(BlockMatrix::new(kind, rows, columns, bytes).expect("rows and bytes were checked"))
}

pub(super) fn embedding(ids: &[u32], table: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "embedding";
    let w = weights(OP, &table)?;
    expect(out.layout.dims() == [ids.len(), w.columns()], OP, "out", &out.as_ref(), "[T, H]")?;
    let width = w.columns();
    let out = slice_mut::<f32>(OP, "out", out)?;
    for (&id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
        if id as usize >= w.rows() {
            let shape = *table.layout.shape();
            return Err(TensorOpError::OutOfRange { op: OP, index: id as usize, axis: 0, shape }.into());
        }
        dequantize_row(w.kind(), w.row(id as usize), out);
    }
    Ok(())
}

pub(super) fn linear(cpu: &CpuBackend, x: TensorRef, w: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "linear";
    let weights = weights(OP, &w)?;
    let tokens = x.layout.dims().first().copied().unwrap_or(0);
    expect(x.layout.dims() == [tokens, weights.columns()], OP, "x", &x, "[T, K], K the columns of the weights")?;
    expect(out.layout.dims() == [tokens, weights.rows()], OP, "out", &out.as_ref(), "[T, N]")?;
    let x = slice(OP, "x", &x)?;
    cpu.kernels()?.float.linear(&cpu.threads, &weights, x, slice_mut(OP, "out", out)?);
    Ok(())
}

pub(super) fn quantize_activations(
    cpu: &CpuBackend,
    x: TensorRef,
    values: TensorMut,
    scales: TensorMut,
    sums: TensorMut,
) -> Result<()> {
    const OP: &str = "quantize_activations";
    let &[tokens, columns] = x.layout.dims() else {
        return Err(wrong_shape(OP, "x", &x, "[T, K]"));
    };
    expect(values.layout.dims() == [tokens, columns], OP, "values", &values.as_ref(), "that of x")?;
    expect(scales.layout.dims() == [tokens], OP, "scales", &scales.as_ref(), "[T]")?;
    expect(sums.layout.dims() == [tokens], OP, "sums", &sums.as_ref(), "[T]")?;
    let kernel = cpu.kernels()?.ternary;
    let q = {
        padded_rows(OP, &values.as_ref())?;
        &mut values.storage.cpu_mut(OP, values.dtype)?.elements_mut::<i8>()?[..tokens * padded(columns)]
    };
    let x = slice(OP, "x", &x)?;
    let (scales, sums) = (slice_mut(OP, "scales", scales)?, slice_mut(OP, "sums", sums)?);
    quantize_rows(kernel, &cpu.threads, x, columns, q, scales, sums);
    Ok(())
}

/// An error unless `t` is i8 `[T, K]` whose rows follow each other every `padded(K)` bytes from the start of its
/// storage.
fn padded_rows(op: &'static str, t: &TensorRef) -> Result<()> {
    let &[tokens, columns] = t.layout.dims() else {
        return Err(wrong_shape(op, "values", t, "[T, K]"));
    };
    if t.dtype != BitNetDType::I8 {
        return Err(TensorOpError::DType { op, what: "values", got: t.dtype, needed: BitNetDType::I8 }.into());
    }
    let stride = padded(columns);
    let fits = t.layout.offset() == 0
        && (tokens <= 1 || t.layout.strides()[0] == stride as isize)
        && (columns <= 1 || t.layout.strides()[1] == 1)
        && t.storage.len_bytes() >= tokens * stride;
    expect(fits, op, "values", t, "rows padded to padded_columns() elements")
}

pub(super) fn pack_ternary(cpu: &CpuBackend, parts: &[TernarySource]) -> Result<PackedTernary> {
    const OP: &str = "pack_ternary";
    let columns = parts.first().map_or(0, |part| part.columns);
    let mut bytes = 0usize;
    for (index, part) in parts.iter().enumerate() {
        let whole = index + 1 == parts.len() || part.rows.is_multiple_of(ternary::PANEL);
        let codes = part.rows.checked_mul(columns.div_ceil(4));
        let size = ternary::packed_len(part.rows, columns).and_then(|len| bytes.checked_add(len));
        match size {
            Some(sum)
                if whole
                    && part.columns == columns
                    && codes == Some(part.codes.len())
                    && columns <= ternary::MAX_COLS =>
            {
                bytes = sum;
            }
            _ => {
                let got = TensorShape::new(&[part.rows, part.columns])?;
                let needed = format!("rows in groups of 16 (but for the last part), {columns} columns and their codes");
                return Err(TensorOpError::Shape { op: OP, what: "part", got, needed }.into());
            }
        }
    }
    let mut storage = CpuStorage::allocate(&cpu.memory, bytes)?;
    storage.advise_huge_pages(true);
    let mut rest = storage.bytes_mut()?;
    let mut scales = Vec::new();
    for part in parts {
        let len = ternary::packed_len(part.rows, columns).unwrap_or(0);
        let (tiles, tail) = rest.split_at_mut(len);
        ternary::pack(part.codes, part.rows, columns, tiles, &cpu.threads);
        scales.extend(std::iter::repeat_n(part.scale, part.rows.div_ceil(ternary::PANEL)));
        rest = tail;
    }
    let rows = parts.iter().map(|part| part.rows).sum();
    Ok(PackedTernary { storage: TensorStorage::Cpu(storage), rows, columns, scales })
}

pub(super) fn ternary_matmul(
    cpu: &CpuBackend,
    x: QuantizedActivations,
    w: &PackedTernary,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "ternary_matmul";
    let tokens = x.scales.layout.shape().elements();
    expect(x.values.layout.dims() == [tokens, w.columns], OP, "values", &x.values, "[T, K], K the weights' columns")?;
    expect(x.sums.layout.dims() == [tokens], OP, "sums", &x.sums, "[T]")?;
    expect(out.layout.dims() == [tokens, w.rows], OP, "out", &out.as_ref(), "[T, rows of the weights]")?;
    padded_rows(OP, &x.values)?;
    let q = &x.values.storage.cpu(OP, x.values.dtype)?.elements::<i8>()?[..tokens * padded(w.columns)];
    let activations =
        ternary::Activations { q, scales: slice(OP, "scales", &x.scales)?, sums: slice(OP, "sums", &x.sums)? };
    let tiles = w.storage.cpu(OP, BitNetDType::Ternary2)?.bytes();
    let matrix = ternary::TernaryMatrix::new(tiles, w.rows, w.columns);
    let kernel = cpu.kernels()?.ternary;
    let stride = w.rows;
    ternary::matmul(kernel, &cpu.threads, &matrix, &activations, &w.scales, slice_mut(OP, "out", out)?, stride);
    Ok(())
}
