//! Comparisons and choices.

use super::operand::{map, unsupported};
use super::wide::{Number, Wide, read, wide};
use bitnet_device::BitNetDType;
use bitnet_device::Result;
use bitnet_device::backend::{CompareOp, TensorMut, TensorRef};
use bitnet_kernels::ThreadPool;
use bitnet_kernels::dense::strided::CHUNK;

pub(super) fn compare(threads: &ThreadPool, op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) -> Result<()> {
    const OP: &str = "compare";
    let dtype = a.dtype;
    let f = match wide(dtype).ok_or_else(|| unsupported(OP, dtype))? {
        Wide::F32 => chunk::<f32>,
        Wide::F64 => chunk::<f64>,
        Wide::I64 => chunk::<i64>,
        Wide::U64 => chunk::<u64>,
    };
    map(OP, threads, &[a, b], out, &|x, out| f(op, dtype, x[0], x[1], out))
}

fn chunk<N: Number>(op: CompareOp, dtype: BitNetDType, a: &[u8], b: &[u8], out: &mut [u8]) {
    let (mut left, mut right) = ([N::default(); CHUNK], [N::default(); CHUNK]);
    let (a, b) = (read(dtype, a, &mut left), read(dtype, b, &mut right));
    match op {
        CompareOp::Eq => zip_map(a, b, out, |a, b| a == b),
        CompareOp::Ne => zip_map(a, b, out, |a, b| a != b),
        CompareOp::Lt => zip_map(a, b, out, |a, b| a < b),
        CompareOp::Le => zip_map(a, b, out, |a, b| a <= b),
        CompareOp::Gt => zip_map(a, b, out, |a, b| a > b),
        CompareOp::Ge => zip_map(a, b, out, |a, b| a >= b),
    }
}

fn zip_map<N: Copy>(a: &[N], b: &[N], out: &mut [u8], f: impl Fn(N, N) -> bool) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = f(a, b) as u8;
    }
}

pub(super) fn select(
    threads: &ThreadPool,
    condition: TensorRef,
    a: TensorRef,
    b: TensorRef,
    out: TensorMut,
) -> Result<()> {
    const OP: &str = "select";
    let f = match out.dtype.size() {
        1 => choose::<u8>,
        2 => choose::<u16>,
        4 => choose::<u32>,
        _ => choose::<u64>,
    };
    map(OP, threads, &[condition, a, b], out, &f)
}

fn choose<T: bytemuck::Pod>(x: &[&[u8]], out: &mut [u8]) {
    let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(x[1]), bytemuck::cast_slice(x[2]));
    let out: &mut [T] = bytemuck::cast_slice_mut(out);
    for (((out, &condition), &a), &b) in out.iter_mut().zip(x[0]).zip(a).zip(b) {
        *out = if condition != 0 { a } else { b };
    }
}
