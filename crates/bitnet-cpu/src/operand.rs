//! Operands of the CPU's primitives: checked host memory for the strided engine.

use bitnet_device::Element;
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::{BitNetDType, BitNetError, Layout, Result, TensorOpError, TensorShape, TensorStorage};
use bitnet_kernels::ThreadPool;
use bitnet_kernels::dense::strided::{self, Operand, OperandMut};

pub(super) fn unsupported(op: &'static str, dtype: BitNetDType) -> BitNetError {
    BitNetError::Unsupported { op, dtype, device: "cpu".into() }
}

/// The elements of `t`, which must have the type `T`, and their layout.
pub(super) fn output<'a, T: Element>(op: &'static str, t: TensorMut<'a>) -> Result<(&'a mut [T], Layout)> {
    if t.dtype != T::DTYPE {
        return Err(unsupported(op, t.dtype));
    }
    Ok((t.storage.cpu_mut(op, t.dtype)?.elements_mut()?, t.layout))
}

/// An operand or a result.
pub(super) trait Operands {
    fn layout(&self) -> &Layout;
    fn dtype(&self) -> BitNetDType;
}

impl Operands for TensorRef<'_> {
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn dtype(&self) -> BitNetDType {
        self.dtype
    }
}

impl Operands for TensorMut<'_> {
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn dtype(&self) -> BitNetDType {
        self.dtype
    }
}

/// Whether the kernels accept it: contiguous f32.
pub(super) fn plain(x: &impl Operands) -> bool {
    x.dtype() == BitNetDType::F32 && x.layout().is_contiguous()
}

/// The error for an operand with the wrong number of elements.
pub(super) fn length(op: &'static str, what: &'static str, got: usize, needed: usize) -> BitNetError {
    let shape = TensorShape::new(&[got]).unwrap_or_else(|_| TensorShape::new(&[]).expect("a scalar's shape"));
    TensorOpError::Shape { op, what, got: shape, needed: format!("{needed} elements") }.into()
}

/// The elements of a contiguous operand.
pub(super) fn slice<'a, T: Element>(op: &'static str, what: &'static str, t: &TensorRef<'a>) -> Result<&'a [T]> {
    let range = contiguous::<T>(op, what, t.storage, &t.layout, t.dtype)?;
    t.storage.cpu(op, t.dtype)?.elements().map(|all| &all[range])
}

/// The elements of a contiguous result.
pub(super) fn slice_mut<'a, T: Element>(op: &'static str, what: &'static str, t: TensorMut<'a>) -> Result<&'a mut [T]> {
    let range = contiguous::<T>(op, what, t.storage, &t.layout, t.dtype)?;
    t.storage.cpu_mut(op, t.dtype)?.elements_mut().map(|all| &mut all[range])
}

#[inline]
fn contiguous<T: Element>(
    op: &'static str,
    what: &'static str,
    storage: &TensorStorage,
    layout: &Layout,
    dtype: BitNetDType,
) -> Result<std::ops::Range<usize>> {
    if dtype != T::DTYPE {
        return Err(TensorOpError::DType { op, what, got: dtype, needed: T::DTYPE }.into());
    }
    if !layout.is_contiguous() {
        return Err(TensorOpError::NotContiguous { op, what }.into());
    }
    let (start, len) = (layout.offset(), layout.shape().elements());
    let have = storage.len_bytes() / size_of::<T>();
    if start.checked_add(len).is_none_or(|end| end > have) {
        return Err(length(op, what, have, start.saturating_add(len)));
    }
    Ok(start..start + len)
}

/// Runs `f` over chunks of `inputs` and `out`, all of `out`'s shape and of unpacked dtypes; see [`strided::map`].
pub(super) fn map(
    op: &'static str,
    threads: &ThreadPool,
    inputs: &[TensorRef],
    out: TensorMut,
    f: strided::Map,
) -> Result<()> {
    walk(op, threads, inputs, out, strided::map, f)
}

/// As [`map`]; the result of `f` holds the present elements at first.
pub(super) fn update(
    op: &'static str,
    threads: &ThreadPool,
    inputs: &[TensorRef],
    out: TensorMut,
    f: strided::Map,
) -> Result<()> {
    walk(op, threads, inputs, out, strided::update, f)
}

type Walk = fn(&ThreadPool, &[usize], &[Operand], OperandMut, strided::Map);

fn walk(
    op: &'static str,
    threads: &ThreadPool,
    inputs: &[TensorRef],
    out: TensorMut,
    walk: Walk,
    f: strided::Map,
) -> Result<()> {
    const NONE: Operand = Operand { bytes: &[], size: 1, offset: 0, strides: &[] };
    let mut operands = [NONE; 3];
    for (operand, x) in operands.iter_mut().zip(inputs) {
        if x.dtype.is_packed() {
            return Err(unsupported(op, x.dtype));
        }
        let bytes = x.storage.cpu(op, x.dtype)?.bytes();
        *operand = Operand { bytes, size: x.dtype.size(), offset: x.layout.offset(), strides: x.layout.strides() };
    }
    if out.dtype.is_packed() {
        return Err(unsupported(op, out.dtype));
    }
    let layout = out.layout;
    let bytes = out.storage.cpu_mut(op, out.dtype)?.bytes_mut()?;
    let target = OperandMut { bytes, size: out.dtype.size(), offset: layout.offset(), strides: layout.strides() };
    walk(threads, layout.dims(), &operands[..inputs.len()], target, f);
    Ok(())
}
