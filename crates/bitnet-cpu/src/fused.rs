//! The fused operations of inference: calls of the kernels with slices.

use super::operand::{length, plain, slice, slice_mut, unsupported};
use super::{CpuBackend, dense};
use bitnet_device::backend::*;
use bitnet_device::{BitNetDType, BitNetError, CpuStorage, Layout, Result, TensorOpError, TensorShape, TensorStorage};
use bitnet_kernels::activation::{padded, quantize_rows};
use bitnet_kernels::blocks::{BlockMatrix, dequantize_row};
use bitnet_kernels::ternary;

fn wrong_shape(op: &'static str, what: &'static str, got: &TensorRef, needed: impl Into<String>) -> BitNetError {
    TensorOpError::Shape { op, what, got: *got.layout.shape(), needed: needed.into() }.into()
}

pub(super) fn binary_assign(cpu: &CpuBackend, op: BinaryOp, y: &mut TensorMut, x: &TensorRef) -> Result<()> {
    let whole = TensorRef { layout: x.layout.broadcast_to(y.layout.dims())?, ..*x };
    if dense::binary_assign(cpu, op, y.reborrow(), &whole)? {
        return Ok(());
    }
    super::elementwise::binary_assign(&cpu.threads, op, y.reborrow(), *x)
}

pub(super) fn rms_norm(
    cpu: &CpuBackend,
    x: &TensorRef,
    weight: &TensorRef,
    eps: f32,
    out: &mut TensorMut,
) -> Result<bool> {
    const OP: &str = "rms_norm";
    if !(plain(x) && plain(weight) && plain(out)) {
        return Ok(false);
    }
    let width = x.layout.shape().last();
    let (x, weight) = (slice::<f32>(OP, "x", x)?, slice::<f32>(OP, "weight", weight)?);
    let kernel = cpu.kernels()?.float;
    rows(cpu, slice_mut(OP, "out", out.reborrow())?, width, |first, out| {
        kernel.rms_norm(&x[first * width..][..out.len()], weight, eps, out);
    });
    Ok(true)
}

/// Runs `f(first row, rows)` over parts of `out` `[rows, width]` on all threads; small ones on the caller.
pub(super) fn rows(cpu: &CpuBackend, out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    const SMALL: usize = 1 << 14;
    if width == 0 {
        return;
    }
    let parts = (out.len() / SMALL).clamp(1, 4 * cpu.threads.threads());
    let rows = (out.len() / width).div_ceil(parts).max(1);
    cpu.threads.for_each_chunk(out, rows * width, &|index, part| f(index * rows, part));
}

pub(super) fn rope(
    cpu: &CpuBackend,
    x: TensorMut,
    cos: &TensorRef,
    sin: &TensorRef,
    positions: &TensorRef,
) -> Result<()> {
    const OP: &str = "rope";
    let &[_, heads, width] = x.layout.dims() else { return Err(unsupported(OP, x.dtype)) };
    let half = width / 2;
    let positions = inside(OP, positions, &cos.layout)?;
    let (cos, sin) = (slice::<f32>(OP, "cos", cos)?, slice::<f32>(OP, "sin", sin)?);
    let kernel = cpu.kernels()?.float;
    rows(cpu, slice_mut(OP, "x", x)?, heads * width, |first, x| {
        for (x, &position) in x.chunks_exact_mut(heads * width).zip(&positions[first..]) {
            let angles = position as usize * half..(position as usize + 1) * half;
            kernel.rope(x, heads, half, &cos[angles.clone()], &sin[angles]);
        }
    });
    Ok(())
}

/// Indices of rows of `table`.
fn inside<'a>(op: &'static str, ids: &TensorRef<'a>, table: &Layout) -> Result<&'a [u32]> {
    let rows = table.dims()[0];
    let ids = slice::<u32>(op, "indices", ids)?;
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(&id) => Err(TensorOpError::OutOfRange { op, index: id as usize, axis: 0, shape: *table.shape() }.into()),
        None => Ok(ids),
    }
}

pub(super) fn gated(cpu: &CpuBackend, act: GateActivation, gate: TensorMut, up: &TensorRef) -> Result<()> {
    const OP: &str = "gated";
    let width = gate.layout.shape().last();
    let up = slice::<f32>(OP, "up", up)?;
    let kernel = cpu.kernels()?.float;
    rows(cpu, slice_mut(OP, "gate", gate)?, width, |first, gate| {
        kernel.gated(act, gate, &up[first * width..][..gate.len()]);
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
    if kind.row_bytes(columns).is_none() {
        return Err(wrong_shape(op, "weights", w, "rows of whole blocks of their type"));
    }
    let bytes = w.storage.cpu(op, w.dtype)?.bytes();
    let needed = rows * w.dtype.row_bytes(columns);
    let bytes = bytes.get(..needed).ok_or_else(|| length(op, "weights", bytes.len(), needed))?;
    Ok(BlockMatrix::new(kind, rows, columns, bytes).expect("rows and bytes were checked"))
}

pub(super) fn embedding(table: &TensorRef, ids: &TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "embedding";
    let (w, ids) = (weights(OP, table)?, inside(OP, ids, &table.layout)?);
    let out = slice_mut::<f32>(OP, "out", out)?;
    for (&id, out) in ids.iter().zip(out.chunks_exact_mut(w.columns().max(1))) {
        dequantize_row(w.kind(), w.row(id as usize), out);
    }
    Ok(())
}

pub(super) fn linear(cpu: &CpuBackend, x: &TensorRef, w: &TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "linear";
    let (weights, x) = (weights(OP, w)?, slice(OP, "x", x)?);
    cpu.kernels()?.float.linear(&cpu.threads, &weights, x, slice_mut(OP, "out", out)?);
    Ok(())
}

pub(super) fn expert_linear(
    cpu: &CpuBackend,
    x: &TensorRef,
    w: &TensorRef,
    experts: &TensorRef,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "expert_linear";
    let (all, x, outputs) = (weights(OP, w)?, slice::<f32>(OP, "x", x)?, out.layout.shape().last());
    let (inputs, count) = (all.columns(), all.rows() / outputs);
    let experts = slice::<u32>(OP, "experts", experts)?;
    if let Some(&id) = experts.iter().find(|&&id| id as usize >= count) {
        let shape = TensorShape::new(&[count])?;
        return Err(TensorOpError::OutOfRange { op: OP, index: id as usize, axis: 0, shape }.into());
    }
    let (bytes, row) = (w.storage.cpu(OP, w.dtype)?.bytes(), w.dtype.row_bytes(inputs));
    let matrix = |expert: u32| {
        let bytes = &bytes[expert as usize * outputs * row..][..outputs * row];
        BlockMatrix::new(all.kind(), outputs, inputs, bytes).expect("a part of a matrix that was checked")
    };
    let (kernel, out) = (cpu.kernels()?.float, slice_mut::<f32>(OP, "out", out)?);
    let each = experts.len() * inputs / x.len().max(1);
    let input = |row: usize| &x[row / each * inputs..][..inputs];
    if x.len() == inputs {
        // One token: its experts are different.
        for (r, (&expert, out)) in experts.iter().zip(out.chunks_exact_mut(outputs)).enumerate() {
            kernel.linear(&cpu.threads, &matrix(expert), input(r), out);
        }
        return Ok(());
    }
    // Rows of one expert together: its weights are read once.
    let mut order: Vec<usize> = (0..experts.len()).collect();
    order.sort_by_key(|&row| experts[row]);
    let (mut gathered, mut products) = (Vec::new(), Vec::new());
    for same in order.chunk_by(|&a, &b| experts[a] == experts[b]) {
        gathered.clear();
        same.iter().for_each(|&row| gathered.extend_from_slice(input(row)));
        products.resize(same.len() * outputs, 0f32);
        kernel.linear(&cpu.threads, &matrix(experts[same[0]]), &gathered, &mut products);
        for (&row, product) in same.iter().zip(products.chunks_exact(outputs)) {
            out[row * outputs..][..outputs].copy_from_slice(product);
        }
    }
    Ok(())
}

pub(super) fn quantize_activations(
    cpu: &CpuBackend,
    rule: ActivationRule,
    x: &TensorRef,
    values: TensorMut,
    scales: TensorMut,
    sums: TensorMut,
) -> Result<()> {
    const OP: &str = "quantize_activations";
    let (rows, columns) = padded_rows(OP, &values.as_ref())?;
    let kernel = cpu.kernels()?.ternary;
    let q = &mut values.storage.cpu_mut(OP, values.dtype)?.elements_mut::<i8>()?[..rows * padded(columns)];
    let x = slice(OP, "x", x)?;
    let (scales, sums) = (slice_mut(OP, "scales", scales)?, slice_mut(OP, "sums", sums)?);
    quantize_rows(kernel, &cpu.threads, rule, x, columns, q, scales, sums);
    Ok(())
}

/// The rows `T * D` and columns of `[T, D, K]`; an error unless its rows follow each other every `padded(K)` bytes from the start
/// of its storage.
fn padded_rows(op: &'static str, t: &TensorRef) -> Result<(usize, usize)> {
    let &[tokens, digits, columns] = t.layout.dims() else {
        return Err(wrong_shape(op, "values", t, "[T, D, K]"));
    };
    let (stride, strides) = (padded(columns), t.layout.strides());
    let fits = t.layout.offset() == 0
        && (tokens <= 1 || strides[0] == (digits * stride) as isize)
        && (digits <= 1 || strides[1] == stride as isize)
        && (columns <= 1 || strides[2] == 1)
        && t.storage.len_bytes() >= tokens * digits * stride;
    if !fits {
        return Err(wrong_shape(op, "values", t, "rows padded to padded_columns() elements"));
    }
    Ok((tokens * digits, columns))
}

pub(super) fn pack_ternary(cpu: &CpuBackend, parts: &[TernarySource]) -> Result<PackedTernary> {
    const OP: &str = "pack_ternary";
    let (columns, groups) = parts.first().map_or((0, 1), |part| (part.columns, part.groups()));
    let mut bytes = 0usize;
    for (index, part) in parts.iter().enumerate() {
        part.check()?;
        let whole = index + 1 == parts.len() || part.rows.is_multiple_of(ternary::PANEL);
        let same = part.columns == columns && part.groups() == groups && columns <= ternary::MAX_COLS;
        let size = ternary::packed_len(part.rows, columns).and_then(|len| bytes.checked_add(len));
        let Some(sum) = size.filter(|_| whole && same) else {
            let got = TensorShape::new(&[part.rows, part.columns])?;
            let needed = format!("rows in groups of 16 (but for the last part), {columns} columns in {groups} groups");
            return Err(TensorOpError::Shape { op: OP, what: "part", got, needed }.into());
        };
        bytes = sum;
    }
    let mut storage = CpuStorage::allocate(&cpu.memory, bytes)?;
    storage.advise_huge_pages(true);
    let mut rest = storage.bytes_mut()?;
    let mut scales: Vec<f32> = Vec::new();
    let by_row = parts.iter().any(|part| part.group.is_some());
    for part in parts {
        let len = ternary::packed_len(part.rows, columns).unwrap_or(0);
        let (tiles, tail) = rest.split_at_mut(len);
        ternary::pack(part.codes, part.rows, columns, tiles, &cpu.threads);
        for panel in 0..part.rows.div_ceil(ternary::PANEL) {
            let rows = panel * ternary::PANEL..(panel + 1) * ternary::PANEL;
            let scale = |row: usize, group: usize| if row < part.rows { part.row_scales(row)[group] } else { 0. };
            match by_row {
                true => scales.extend((0..groups).flat_map(|group| rows.clone().map(move |row| scale(row, group)))),
                false => scales.extend(part.scales),
            }
        }
        rest = tail;
    }
    let rows = parts.iter().map(|part| part.rows).sum();
    let scales = cpu.upload(bytemuck::cast_slice(&scales))?;
    PackedTernary::new(TensorStorage::Cpu(storage), scales, groups, rows, columns)
}

pub(super) fn ternary_matmul(
    cpu: &CpuBackend,
    rule: ActivationRule,
    [values, scales, sums, w, row_scales]: &[TensorRef; 5],
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "ternary_matmul";
    let &[rows, columns] = w.layout.dims() else { return Err(wrong_shape(OP, "weights", w, "[rows, K]")) };
    let (digits, _) = padded_rows(OP, values)?;
    let q = &values.storage.cpu(OP, values.dtype)?.elements::<i8>()?[..digits * padded(columns)];
    let (scales, sums) = (slice(OP, "scales", scales)?, slice(OP, "sums", sums)?);
    let activations = ternary::Activations { rule, q, scales, sums };
    let tiles = w.storage.cpu(OP, BitNetDType::Ternary2)?.bytes();
    if Some(tiles.len()) != ternary::packed_len(rows, columns) {
        return Err(wrong_shape(OP, "weights", w, "what pack_ternary() made"));
    }
    let matrix = ternary::TernaryMatrix::new(tiles, rows, columns);
    let row_scales = slice(OP, "row scales", row_scales)?;
    let out = slice_mut(OP, "out", out)?;
    ternary::matmul(cpu.kernels()?.ternary, &cpu.threads, &matrix, &activations, row_scales, out, rows);
    Ok(())
}
