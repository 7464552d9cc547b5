//! Writing by index along one dimension.

use super::gather::{Position, Walk};
use super::operand::unsupported;
use bitnet_device::BitNetDType::{I64, U32};
use bitnet_device::Element;
use bitnet_device::Result;
use bitnet_device::backend::{ScatterOp, TensorMut, TensorRef};
use bitnet_device::by_dtype;
use half::{bf16, f16};

/// See [`Op::Scatter`](bitnet_device::backend::Op::Scatter). On one thread, so that several writes to one element happen in row-major order.
pub(super) fn scatter(op: ScatterOp, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut) -> Result<()> {
    if source.dtype.is_packed() {
        return Err(unsupported(OP, source.dtype));
    }
    match indices.dtype {
        I64 => scatter_by::<i64>(op, source, axis, indices, out),
        U32 => scatter_by::<u32>(op, source, axis, indices, out),
        other => Err(unsupported(OP, other)),
    }
}

const OP: &str = "scatter";

fn scatter_by<I: Position>(
    op: ScatterOp,
    source: TensorRef,
    axis: usize,
    indices: TensorRef,
    out: TensorMut,
) -> Result<()> {
    let walk = Walk::new(&out.layout, &source.layout, &indices.layout, axis)?;
    let ids = indices.storage.cpu(OP, indices.dtype)?.elements::<I>()?;
    // A broadcast index is checked once.
    let mut distinct = indices.layout;
    for axis in 0..distinct.dims().len() {
        if distinct.strides()[axis] == 0 && distinct.dims()[axis] > 1 {
            distinct = distinct.narrow(axis, 0, 1)?;
        }
    }
    if let Some(bad) = distinct.indices().map(|i| ids[i]).find(|id| id.place() >= walk.extent) {
        return Err(walk.out_of_range(OP, bad.value(), axis, &out.layout));
    }
    if source.layout.shape().elements() == 0 {
        return Ok(());
    }
    let from = source.storage.cpu(OP, source.dtype)?;
    let to = out.storage.cpu_mut(OP, out.dtype)?;
    macro_rules! put {
        ($t:ty, $add:expr) => {
            match op {
                ScatterOp::Assign => put(&walk, ids, from.elements::<$t>()?, to.elements_mut::<$t>()?, |_, new| new),
                ScatterOp::Add => put(&walk, ids, from.elements::<$t>()?, to.elements_mut::<$t>()?, $add),
            }
        };
    }
    by_dtype!(source.dtype, T => put!(T, T::plus), bool => put!(u8, |old, new| old | new));
    Ok(())
}

/// Every indexed element becomes `f(element, source element)`; indices are already checked.
fn put<I: Position, T: Element>(walk: &Walk, ids: &[I], from: &[T], to: &mut [T], f: impl Fn(T, T) -> T) {
    let place = |origin, index: usize| walk.place(origin, ids[index]).expect("checked");
    let [origins, plains, indices] = walk.rows.each_ref().map(|rows| rows.indices());
    for ((origin, plain), index) in origins.zip(plains).zip(indices) {
        if walk.run {
            let start = place(origin, index);
            for (to, &from) in to[start..start + walk.len].iter_mut().zip(&from[plain..plain + walk.len]) {
                *to = f(*to, from);
            }
            continue;
        }
        let [across, along, between] = walk.steps;
        for j in 0..walk.len as isize {
            let at = place(origin.wrapping_add_signed(across * j), index.wrapping_add_signed(between * j));
            to[at] = f(to[at], from[plain.wrapping_add_signed(along * j)]);
        }
    }
}

/// Sums of elements: floats rounded once, integers wrapping.
trait Plus {
    fn plus(self, other: Self) -> Self;
}

macro_rules! plus {
    ($($t:ty => |$a:ident, $b:ident| $sum:expr),* $(,)?) => { $(
        impl Plus for $t {
            fn plus(self, other: Self) -> Self {
                let ($a, $b) = (self, other);
                $sum
            }
        }
    )* };
}
plus! {
    f64 => |a, b| a + b, f32 => |a, b| a + b,
    f16 => |a, b| f16::from_f32(a.to_f32() + b.to_f32()), bf16 => |a, b| bf16::from_f32(a.to_f32() + b.to_f32()),
    i8 => |a, b| a.wrapping_add(b), i16 => |a, b| a.wrapping_add(b),
    i32 => |a, b| a.wrapping_add(b), i64 => |a, b| a.wrapping_add(b),
    u8 => |a, b| a.wrapping_add(b), u16 => |a, b| a.wrapping_add(b),
    u32 => |a, b| a.wrapping_add(b), u64 => |a, b| a.wrapping_add(b),
}
