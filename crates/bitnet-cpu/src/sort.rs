//! Sorting along one dimension: elements become order-preserving integers with their position in the low bits, so that
//! an unstable integer sort is a stable sort of elements.

use super::operand::unsupported;
use bitnet_device::BitNetDType::I64;
use bitnet_device::Element;
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::by_dtype;
use bitnet_device::{Layout, Result};
use bitnet_kernels::ThreadPool;
use half::{bf16, f16};

/// Elements per task.
const PER_TASK: usize = 1 << 12;

/// See [`Op::Sort`](bitnet_device::backend::Op::Sort).
pub(super) fn sort(
    threads: &ThreadPool,
    x: TensorRef,
    axis: usize,
    descending: bool,
    values: TensorMut,
    indices: TensorMut,
) -> Result<()> {
    const OP: &str = "sort";
    if x.dtype.is_packed() {
        return Err(unsupported(OP, x.dtype));
    }
    let last = x.layout.dims().len().wrapping_sub(1);
    let lanes = x.layout.movedim(axis, last)?;
    if lanes.shape().elements() == 0 {
        return Ok(());
    }
    let lanes = Lanes { starts: lanes.head(last)?, len: lanes.dims()[last], stride: lanes.strides()[last] };
    let (index_layout, value_layout) = (indices.layout.movedim(axis, last)?, values.layout.movedim(axis, last)?);
    let to_indices = indices.storage.cpu_mut(OP, I64)?.elements_mut::<i64>()?;
    let (from, to) = (x.storage.cpu(OP, x.dtype)?, values.storage.cpu_mut(OP, x.dtype)?);
    macro_rules! run {
        ($t:ty) => {{
            let (from, to) = (from.elements::<$t>()?, to.elements_mut::<$t>()?);
            in_place(threads, &index_layout, to_indices, &|rows, part| {
                positions(from, &lanes, rows, descending, part)
            })?;
            let order = index_layout;
            let to_indices = &*to_indices;
            in_place(threads, &value_layout, to, &|rows, part| pick(from, &lanes, rows, &order, to_indices, part))?;
        }};
    }
    by_dtype!(x.dtype, T => run!(T), bool => run!(u8));
    Ok(())
}

/// The lanes to sort: the start of each, and the stride of its elements.
struct Lanes {
    starts: Layout,
    len: usize,
    stride: isize,
}

/// Calls `f(first row, rows)` for parts of `to`, row-major `[rows, lane]`, on all threads; if `to` is not row-major, on
/// a temporary that is then copied to it.
fn in_place<T: Element>(
    threads: &ThreadPool,
    layout: &Layout,
    to: &mut [T],
    f: &(dyn Fn(usize, &mut [T]) + Sync),
) -> Result<()> {
    let (lane, elements) = (layout.shape().last(), layout.shape().elements());
    let rows = (PER_TASK / lane).max(1);
    if layout.is_contiguous() {
        let part = &mut to[layout.offset()..layout.offset() + elements];
        threads.for_each_chunk(part, rows * lane, &|task, part| f(task * rows, part));
    } else {
        let mut made = vec![T::zeroed(); elements];
        threads.for_each_chunk(&mut made, rows * lane, &|task, part| f(task * rows, part));
        layout.indices().zip(made).for_each(|(place, value)| to[place] = value);
    }
    Ok(())
}

/// The positions of the elements of the lanes from `first` on, in their order.
fn positions<T: Ordered>(from: &[T], lanes: &Lanes, first: usize, descending: bool, to: &mut [i64]) {
    let Lanes { ref starts, len: lane, stride } = *lanes;
    let starts = starts.indices_from(first);
    let flip = if descending { u64::MAX } else { 0 };
    let small = size_of::<T>() <= 4 && lane <= u32::MAX as usize;
    let (mut keys, mut wide) = (Vec::<u64>::new(), Vec::<u128>::new());
    for (start, to) in starts.zip(to.chunks_exact_mut(lane)) {
        let key = |i: usize| from[start.wrapping_add_signed(stride * i as isize)].order() ^ flip;
        if small {
            keys.clear();
            keys.extend((0..lane).map(|i| key(i) << 32 | i as u64));
            keys.sort_unstable();
            to.iter_mut().zip(&keys).for_each(|(to, &key)| *to = i64::from(key as u32));
        } else {
            wide.clear();
            wide.extend((0..lane).map(|i| u128::from(key(i)) << 64 | i as u128));
            wide.sort_unstable();
            to.iter_mut().zip(&wide).for_each(|(to, &key)| *to = key as i64);
        }
    }
}

/// The elements at the positions in `indices`, for the lanes from `first` on.
fn pick<T: Element>(from: &[T], lanes: &Lanes, first: usize, order: &Layout, indices: &[i64], to: &mut [T]) {
    let Lanes { ref starts, len: lane, stride } = *lanes;
    let starts = starts.indices_from(first);
    let mut places = order.indices_from(first * lane);
    for (start, to) in starts.zip(to.chunks_exact_mut(lane)) {
        for (to, place) in to.iter_mut().zip(&mut places) {
            *to = from[start.wrapping_add_signed(stride * indices[place] as isize)];
        }
    }
}

/// Elements as integers of the same order: zeros are equal, NaN is the largest. 32 bits are enough for elements of 4
/// bytes.
trait Ordered: Element {
    fn order(self) -> u64;
}

impl Ordered for f64 {
    fn order(self) -> u64 {
        let bits = (self + 0.).to_bits();
        match self {
            _ if self.is_nan() => u64::MAX,
            _ if bits >> 63 == 1 => !bits,
            _ => bits | 1 << 63,
        }
    }
}

impl Ordered for f32 {
    fn order(self) -> u64 {
        // Adding zero makes +0 of -0.
        let bits = (self + 0.).to_bits();
        let key = match self {
            _ if self.is_nan() => u32::MAX,
            _ if bits >> 31 == 1 => !bits,
            _ => bits | 1 << 31,
        };
        key.into()
    }
}

macro_rules! ordered {
    ($($t:ty => $key:expr),* $(,)?) => { $(
        impl Ordered for $t {
            fn order(self) -> u64 {
                $key(self)
            }
        }
    )* };
}
ordered! {
    f16 => |v: f16| v.to_f32().order(), bf16 => |v: bf16| v.to_f32().order(),
    i8 => |v| v as u8 as u64 ^ 1 << 7, i16 => |v| v as u16 as u64 ^ 1 << 15,
    i32 => |v| v as u32 as u64 ^ 1 << 31, i64 => |v| v as u64 ^ 1 << 63,
    u8 => u64::from, u16 => u64::from, u32 => u64::from, u64 => |v| v,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_keep_the_order_of_floats() {
        let order = [f32::NEG_INFINITY, f32::MIN, -1., -1e-40, 0., 1e-40, 1., f32::MAX, f32::INFINITY, f32::NAN];
        assert!(order.windows(2).all(|pair| pair[0].order() < pair[1].order()));
        assert!(order.windows(2).all(|pair| f64::from(pair[0]).order() < f64::from(pair[1]).order()));
        assert_eq!((-0f32).order(), 0f32.order());
        assert_eq!((-f64::NAN).order(), f64::NAN.order());
        assert!([i8::MIN, -1, 0, 1, i8::MAX].windows(2).all(|pair| pair[0].order() < pair[1].order()));
    }
}
