//! Reductions over one dimension and cumulative ones along it.

use super::operand::unsupported;
use super::wide::Number;
use bitnet_device::Element;
use bitnet_device::backend::{ReduceOp, ScanOp, TensorMut, TensorRef};
use bitnet_device::{Layout, Result, TensorOpError, by_dtype};
use bitnet_kernels::ThreadPool;
use half::{bf16, f16};

/// Results that a task computes together: a row of them shares the cache lines it reads.
const BLOCK: usize = 64;

/// Element types of reductions, and their value in the accumulation type.
pub(super) trait Value: Element {
    type Wide: Number;
    fn wide(self) -> Self::Wide;
    fn is_nan(self) -> bool {
        false
    }
}

macro_rules! values {
    ($($t:ty => $wide:ty, $widen:expr, $nan:expr);*) => { $(impl Value for $t {
        type Wide = $wide;
        fn wide(self) -> $wide { let widen: fn($t) -> $wide = $widen; widen(self) }
        fn is_nan(self) -> bool { let nan: fn($t) -> bool = $nan; nan(self) }
    })* };
}
values! {
    f64 => f64, |x| x, f64::is_nan; f32 => f64, f64::from, f32::is_nan;
    f16 => f64, f16::to_f64, f16::is_nan; bf16 => f64, bf16::to_f64, bf16::is_nan;
    i64 => i64, |x| x, |_| false; i32 => i64, i64::from, |_| false; i16 => i64, i64::from, |_| false;
    i8 => i64, i64::from, |_| false; u8 => i64, i64::from, |_| false; u16 => i64, i64::from, |_| false;
    u32 => i64, i64::from, |_| false; u64 => u64, |x| x, |_| false
}

/// Sums and products in a wide type.
trait Arithmetic: Number {
    const ZERO: Self;
    const ONE: Self;
    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
}
macro_rules! arithmetic {
    ($($t:ty, $zero:expr, $one:expr, $plus:expr, $times:expr);*) => { $(impl Arithmetic for $t {
        const ZERO: $t = $zero;
        const ONE: $t = $one;
        fn plus(self, other: $t) -> $t { $plus(self, other) }
        fn times(self, other: $t) -> $t { $times(self, other) }
    })* };
}
arithmetic! {
    f64, 0., 1., |a: f64, b: f64| a + b, |a: f64, b: f64| a * b;
    i64, 0, 1, i64::wrapping_add, i64::wrapping_mul;
    u64, 0, 1, u64::wrapping_add, u64::wrapping_mul
}

pub(super) fn reduce(threads: &ThreadPool, op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
    const OP: &str = "reduce";
    if op == ReduceOp::Norm || x.dtype.is_packed() {
        return Err(unsupported(OP, x.dtype));
    }
    if out.layout.shape().elements() == 0 {
        return Ok(());
    }
    // Bool is read as u8, which holds 0 or 1.
    by_dtype!(x.dtype, T => reduce_typed::<T>(threads, op, x, axis, out), bool => reduce_typed::<u8>(threads, op, x, axis, out))
}

fn reduce_typed<T: Value<Wide: Arithmetic>>(
    threads: &ThreadPool,
    op: ReduceOp,
    x: TensorRef,
    axis: usize,
    out: TensorMut,
) -> Result<()> {
    let lanes = Lanes::<T>::new("reduce", &x, axis)?;
    let (zero, one) = (T::Wide::ZERO, T::Wide::ONE);
    match op {
        ReduceOp::Sum => lanes.fold(threads, out, |_| zero, |sum, _, v| sum.plus(v.wide()), |sum| sum),
        ReduceOp::Prod => lanes.fold(threads, out, |_| one, |product, _, v| product.times(v.wide()), |product| product),
        ReduceOp::Max => lanes.fold(threads, out, |v| v, |a, _, v| if better(v, a, true) { v } else { a }, T::wide),
        ReduceOp::Min => lanes.fold(threads, out, |v| v, |a, _, v| if better(v, a, false) { v } else { a }, T::wide),
        ReduceOp::Any => lanes.fold(threads, out, |_| 0i64, |a, _, v| a | (v.wide() != zero) as i64, |a| a),
        ReduceOp::All => lanes.fold(threads, out, |_| 1i64, |a, _, v| a & (v.wide() != zero) as i64, |a| a),
        ReduceOp::Norm => Err(unsupported("reduce", x.dtype)),
        ReduceOp::ArgMax | ReduceOp::ArgMin => {
            let largest = op == ReduceOp::ArgMax;
            let step = |(a, at): (T, i64), k, v| if better(v, a, largest) { (v, k) } else { (a, at) };
            lanes.fold(threads, out, |v| (v, 0), step, |(_, at)| at)
        }
    }
}

/// Whether `v` replaces `a` as the maximum or minimum: beyond it, or the first NaN.
fn better<T: Value>(v: T, a: T, largest: bool) -> bool {
    let beyond = if largest { v.wide() > a.wide() } else { v.wide() < a.wide() };
    !a.is_nan() && (beyond || v.is_nan())
}

/// The elements of a tensor as lanes along a dimension, one for each result.
pub(super) struct Lanes<'a, T> {
    elements: &'a [T],
    /// The first element of each lane.
    pub starts: Layout,
    extent: usize,
    stride: isize,
}

impl<'a, T: Value> Lanes<'a, T> {
    pub fn new(op: &'static str, x: &TensorRef<'a>, axis: usize) -> Result<Self> {
        let (extent, stride) = (x.layout.dims()[axis], x.layout.strides()[axis]);
        let elements = bytemuck::try_cast_slice(x.storage.cpu(op, x.dtype)?.bytes());
        let elements = elements.map_err(|_| TensorOpError::Unaligned { dtype: x.dtype })?;
        let starts =
            if extent == 0 { Layout::contiguous(one_less(&x.layout, axis)?) } else { x.layout.narrow(axis, 0, 1)? };
        Ok(Self { elements, starts, extent, stride })
    }

    /// Folds every lane: `begin` gets its first element (any value where the lane is empty), `step` the position of
    /// each.
    fn fold<A: Copy + Send + Sync, R: Number>(
        &self,
        threads: &ThreadPool,
        out: TensorMut,
        begin: impl Fn(T) -> A + Sync,
        step: impl Fn(A, i64, T) -> A + Sync,
        end: impl Fn(A) -> R + Sync,
    ) -> Result<()> {
        let starts: Vec<usize> = self.starts.indices().collect();
        let first = |start: usize| if self.extent == 0 { T::zeroed() } else { self.elements[start] };
        let mut sums: Vec<A> = starts.iter().map(|&start| begin(first(start))).collect();
        let block = |task: usize, sums: &mut [A]| {
            let starts = &starts[task * BLOCK..][..sums.len()];
            if self.stride.unsigned_abs() == 1 {
                // A lane is contiguous: one after the other.
                for (sum, &start) in sums.iter_mut().zip(starts) {
                    *sum = (0..self.extent).fold(*sum, |a, k| step(a, k as i64, self.at(start, k)));
                }
            } else {
                for k in 0..self.extent {
                    for (sum, &start) in sums.iter_mut().zip(starts) {
                        *sum = step(*sum, k as i64, self.at(start, k));
                    }
                }
            }
        };
        if starts.len() * self.extent < 32 << 10 {
            sums.chunks_mut(BLOCK).enumerate().for_each(|(task, sums)| block(task, sums));
        } else {
            threads.for_each_chunk(&mut sums, BLOCK, &block);
        }
        write_all(out, sums.into_iter().map(end))
    }

    /// The elements of the lane that begins at `start`.
    pub fn lane(&self, start: usize) -> impl Iterator<Item = T> + Clone {
        (0..self.extent).map(move |k| self.at(start, k))
    }

    fn at(&self, start: usize, k: usize) -> T {
        self.elements[start.wrapping_add_signed(self.stride * k as isize)]
    }
}

fn one_less(layout: &Layout, axis: usize) -> Result<bitnet_device::TensorShape> {
    bitnet_device::TensorShape::new(&[&layout.dims()[..axis], &[1], &layout.dims()[axis + 1..]].concat())
}

/// Writes results in row-major order as elements of `out`'s dtype.
fn write_all<R: Number>(out: TensorMut, results: impl Iterator<Item = R>) -> Result<()> {
    let (layout, dtype) = (out.layout, out.dtype);
    let size = dtype.size();
    let bytes = out.storage.cpu_mut("reduce", dtype)?.bytes_mut()?;
    for (i, result) in layout.indices().zip(results) {
        R::store(dtype, &[result], &mut bytes[i * size..][..size]);
    }
    Ok(())
}

pub(super) fn scan(op: ScanOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
    if x.dtype.is_packed() {
        return Err(unsupported("scan", x.dtype));
    }
    if out.layout.shape().elements() == 0 {
        return Ok(());
    }
    by_dtype!(x.dtype, T => scan_typed::<T>(op, x, axis, out), bool => scan_typed::<u8>(op, x, axis, out))
}

fn scan_typed<T: Value<Wide: Arithmetic>>(op: ScanOp, x: TensorRef, axis: usize, out: TensorMut) -> Result<()> {
    let lanes = Lanes::<T>::new("scan", &x, axis)?;
    let (layout, dtype, size) = (out.layout, out.dtype, out.dtype.size());
    let stride = layout.strides()[axis];
    let bytes = out.storage.cpu_mut("scan", dtype)?.bytes_mut()?;
    let begin = if op == ScanOp::Sum { T::Wide::ZERO } else { T::Wide::ONE };
    let step = if op == ScanOp::Sum { T::Wide::plus } else { T::Wide::times };
    for (start, to) in lanes.starts.indices().zip(layout.narrow(axis, 0, 1)?.indices()) {
        let mut sum = begin;
        for k in 0..lanes.extent {
            sum = step(sum, lanes.at(start, k).wide());
            let to = to.wrapping_add_signed(stride * k as isize);
            T::Wide::store(dtype, &[sum], &mut bytes[to * size..][..size]);
        }
    }
    Ok(())
}
