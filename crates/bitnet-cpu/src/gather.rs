//! Reading by index along one dimension.

use super::operand::unsupported;
use bitnet_device::BitNetDType::{I64, U32};
use bitnet_device::Element;
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::{BitNetError, Layout, Result, TensorOpError};
use bitnet_kernels::ThreadPool;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

/// Elements per task.
const PER_TASK: usize = 1 << 15;

/// An element of an index tensor. Negative ones become too large for any extent.
pub(super) trait Position: Element {
    fn place(self) -> usize;
    fn value(self) -> i64;
}

impl Position for i64 {
    fn place(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }

    fn value(self) -> i64 {
        self
    }
}

impl Position for u32 {
    fn place(self) -> usize {
        self as usize
    }

    fn value(self) -> i64 {
        self.into()
    }
}

/// `$body` with `$U` as the unsigned type of the size of an element and `$I` as the type of the indices.
macro_rules! by_size_and_index {
    ($op:expr, $dtype:expr, $indices:expr, ($U:ident, $I:ident) => $body:expr) => {{
        macro_rules! with {
            ($u:ty, $i:ty) => {{
                type $U = $u;
                type $I = $i;
                $body
            }};
        }
        match ($dtype.size(), $indices) {
            (1, I64) => with!(u8, i64),
            (2, I64) => with!(u16, i64),
            (4, I64) => with!(u32, i64),
            (8, I64) => with!(u64, i64),
            (1, U32) => with!(u8, u32),
            (2, U32) => with!(u16, u32),
            (4, U32) => with!(u32, u32),
            (8, U32) => with!(u64, u32),
            (_, other) => Err(unsupported($op, other)),
        }
    }};
}

/// How `indexed`, the tensor with the dimension that is indexed, and `plain`, in the shape of the indices, are walked:
/// rows outside, and inside a row `len` elements in steps.
pub(super) struct Walk {
    /// The first element of each row: where index 0 would lead, of the plain tensor, and of the indices.
    pub rows: [Layout; 3],
    /// Steps inside a row, in the order of `rows`.
    pub steps: [isize; 3],
    /// Elements of a row.
    pub len: usize,
    /// Stride of the indexed dimension.
    pub stride: isize,
    /// Extent of the dimension indexed.
    pub extent: usize,
    /// Whether a row has one index and its elements are adjacent in both tensors.
    pub run: bool,
}

impl Walk {
    pub fn new(indexed: &Layout, plain: &Layout, indices: &Layout, axis: usize) -> Result<Self> {
        let rank = plain.dims().len();
        let mut strides = indexed.strides().to_vec();
        strides[axis] = 0;
        let origin = Layout::strided(plain.dims(), &strides, indexed.offset())?;
        // The dimensions after the axis merged, if they share one index and are contiguous in both tensors.
        let one_index = (axis + 1..rank).all(|d| indices.strides()[d] == 0 || indices.dims()[d] == 1);
        let run = axis + 1 < rank
            && one_index
            && origin.tail(axis + 1)?.is_contiguous()
            && plain.tail(axis + 1)?.is_contiguous();
        let split = if run { axis + 1 } else { rank - 1 };
        let all = [origin, *plain, *indices];
        Ok(Self {
            rows: [all[0].head(split)?, all[1].head(split)?, all[2].head(split)?],
            steps: if run { [1, 1, 0] } else { all.map(|layout| layout.strides()[rank - 1]) },
            len: plain.dims()[split..].iter().product(),
            stride: indexed.strides()[axis],
            extent: indexed.dims()[axis],
            run,
        })
    }

    /// The position of `index` from `origin`; `None` out of range.
    pub fn place(&self, origin: usize, index: impl Position) -> Option<usize> {
        let index = index.place();
        (index < self.extent).then(|| origin.wrapping_add_signed(self.stride * index as isize))
    }

    /// The error for an index out of range.
    pub fn out_of_range(&self, op: &'static str, index: i64, axis: usize, indexed: &Layout) -> BitNetError {
        TensorOpError::IndexOutOfRange { op, index, axis, shape: *indexed.shape() }.into()
    }
}

/// See [`Op::Gather`](bitnet_device::backend::Op::Gather).
pub(super) fn gather(
    threads: &ThreadPool,
    source: TensorRef,
    axis: usize,
    indices: TensorRef,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "gather";
    if source.dtype.is_packed() {
        return Err(unsupported(OP, source.dtype));
    }
    let walk = Walk::new(&source.layout, &out.layout, &indices.layout, axis)?;
    if out.layout.shape().elements() == 0 {
        return Ok(());
    }
    let bad = by_size_and_index!(OP, source.dtype, indices.dtype, (U, I) => {
        let from = source.storage.cpu(OP, source.dtype)?.elements::<U>()?;
        let ids = indices.storage.cpu(OP, indices.dtype)?.elements::<I>()?;
        let to = out.storage.cpu_mut(OP, out.dtype)?.elements_mut::<U>()?;
        Ok(gather_elements(threads, &walk, from, ids, to, &out.layout))
    })?;
    match bad {
        Some(index) => Err(walk.out_of_range(OP, index, axis, &source.layout)),
        None => Ok(()),
    }
}

/// An index out of range, if any.
fn gather_elements<U: Element, I: Position>(
    threads: &ThreadPool,
    walk: &Walk,
    from: &[U],
    ids: &[I],
    to: &mut [U],
    out: &Layout,
) -> Option<i64> {
    let (failed, bad) = (AtomicBool::new(false), AtomicI64::new(0));
    // Rows `first..first + count`, where `to` begins at place `base` of the storage.
    let part = |first: usize, count: usize, to: &mut [U], base: usize| {
        let [origins, plains, indices] = walk.rows.each_ref().map(|rows| rows.indices_from(first));
        for ((origin, plain), index) in origins.zip(plains).zip(indices).take(count) {
            if let Some(index) = gather_row(walk, from, origin, ids, index, to, plain - base) {
                bad.store(index, Relaxed);
                failed.store(true, Relaxed);
            }
        }
    };
    let rows = walk.rows[0].shape().elements();
    if out.is_contiguous() {
        let (start, rows_per_task) = (out.offset(), (PER_TASK / walk.len).max(1));
        let chunk = rows_per_task * walk.len;
        threads.for_each_chunk(&mut to[start..start + rows * walk.len], chunk, &|task, to| {
            part(task * rows_per_task, to.len() / walk.len, to, start + task * chunk);
        });
    } else {
        part(0, rows, to, 0);
    }
    failed.load(Relaxed).then(|| bad.load(Relaxed))
}

fn gather_row<U: Element, I: Position>(
    walk: &Walk,
    from: &[U],
    origin: usize,
    ids: &[I],
    index: usize,
    to: &mut [U],
    plain: usize,
) -> Option<i64> {
    if walk.run {
        let Some(start) = walk.place(origin, ids[index]) else { return Some(ids[index].value()) };
        to[plain..plain + walk.len].copy_from_slice(&from[start..start + walk.len]);
        return None;
    }
    let [across, along, between] = walk.steps;
    for j in 0..walk.len as isize {
        let id = ids[index.wrapping_add_signed(between * j)];
        let Some(place) = walk.place(origin.wrapping_add_signed(across * j), id) else { return Some(id.value()) };
        to[plain.wrapping_add_signed(along * j)] = from[place];
    }
    None
}
