//! Dense products on the kernels, one for each matrix of a batch.

use super::CpuBackend;
use super::operand::unsupported;
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::{BitNetDType, BitNetError, Layout, Result, TensorOpError};
use bitnet_kernels::ThreadPool;
use bitnet_kernels::dense::matmul::{self as kernel, MatmulShape, Matrix, MatrixMut};
use bytemuck::Pod;

/// Multiply-adds of a product below which a batch is divided between the threads, not each product.
const SMALL: usize = 1 << 20;

/// See [`Op::Matmul`](bitnet_device::backend::Op::Matmul).
pub(super) fn matmul(cpu: &CpuBackend, a: &TensorRef, b: &TensorRef, out: TensorMut) -> Result<()> {
    let (&[.., m, k], &[.., n]) = (a.layout.dims(), b.layout.dims()) else {
        return Err(unsupported("matmul", a.dtype));
    };
    let shape = MatmulShape { m, n, k };
    let (isa, pool) = (cpu.kernels()?.isa, &cpu.threads);
    macro_rules! kernel {
        ($f:ident) => {
            batched(pool, shape, a, b, out, |pool, shape, a, b, out| kernel::$f(isa, pool, shape, a, b, out))
        };
    }
    match a.dtype {
        BitNetDType::F32 => kernel!(matmul_f32),
        BitNetDType::F64 => kernel!(matmul_f64),
        BitNetDType::F16 => kernel!(matmul_f16),
        BitNetDType::BF16 if out.dtype == BitNetDType::F32 => kernel!(matmul_bf16_f32),
        BitNetDType::BF16 => kernel!(matmul_bf16),
        BitNetDType::I8 => kernel!(matmul_i8),
        BitNetDType::U8 => batched(pool, shape, a, b, out, plain::<u8>),
        BitNetDType::I16 => batched(pool, shape, a, b, out, plain::<i16>),
        BitNetDType::U16 => batched(pool, shape, a, b, out, plain::<u16>),
        BitNetDType::I32 => batched(pool, shape, a, b, out, plain::<i32>),
        BitNetDType::U32 => batched(pool, shape, a, b, out, plain::<u32>),
        BitNetDType::I64 => batched(pool, shape, a, b, out, plain::<i64>),
        BitNetDType::U64 => batched(pool, shape, a, b, out, plain::<u64>),
        dtype => Err(unsupported("matmul", dtype)),
    }
}

/// Runs `product` for every matrix of the batch. `T` and `O` are elements of the dtypes, or their bits.
fn batched<T: Pod + Sync, O: Pod + Send>(
    pool: &ThreadPool,
    shape: MatmulShape,
    a: &TensorRef,
    b: &TensorRef,
    out: TensorMut,
    product: impl Fn(&ThreadPool, MatmulShape, Matrix<T>, Matrix<T>, MatrixMut<O>) + Sync,
) -> Result<()> {
    let (left, right) = (elements::<T>(a)?, elements::<T>(b)?);
    let (dtype, layout) = (out.dtype, out.layout);
    let to = out.storage.cpu_mut("matmul", dtype)?.bytes_mut()?;
    let whole = to.len() / size_of::<O>() * size_of::<O>();
    let to = bytemuck::try_cast_slice_mut::<u8, O>(&mut to[..whole]).map_err(|_| TensorOpError::Unaligned { dtype })?;
    let MatmulShape { m, n, k } = shape;
    if layout.shape().elements() == 0 {
        return Ok(());
    }
    let rank = layout.shape().rank();
    let starts =
        |l: &Layout| Ok::<_, BitNetError>(l.narrow(rank - 2, 0, 1)?.narrow(rank - 1, 0, 1)?.indices().collect());
    let strides = |l: &Layout| (l.strides()[rank - 2], l.strides()[rank - 1]);
    let ((ra, ca), (rb, cb), (ro, co)) = (strides(&a.layout), strides(&b.layout), strides(&layout));
    if k == 0 {
        for i in layout.indices() {
            to[i] = O::zeroed();
        }
        return Ok(());
    }
    if rank == 2 {
        let a = Matrix { data: left, start: a.layout.offset(), row_stride: ra, col_stride: ca };
        let b = Matrix { data: right, start: b.layout.offset(), row_stride: rb, col_stride: cb };
        let start = layout.offset();
        product(pool, shape, a, b, MatrixMut { data: to, start, row_stride: ro, col_stride: co });
        return Ok(());
    }
    let (starts_a, starts_b): (Vec<usize>, Vec<usize>) = (starts(&a.layout)?, starts(&b.layout)?);
    let one = |pool: &ThreadPool, i: usize, out: &mut [O], start: usize| {
        let a = Matrix { data: left, start: starts_a[i], row_stride: ra, col_stride: ca };
        let b = Matrix { data: right, start: starts_b[i], row_stride: rb, col_stride: cb };
        product(pool, shape, a, b, MatrixMut { data: out, start, row_stride: ro, col_stride: co });
    };
    if starts_a.len() > 1 && layout.is_contiguous() && m * n * k < SMALL {
        let out = &mut to[layout.offset()..][..layout.shape().elements()];
        let together = (SMALL / 16 / (m * n * k)).clamp(1, starts_a.len().div_ceil(pool.threads()));
        pool.for_each_chunk(out, together * m * n, &|task, chunk| {
            for (i, out) in chunk.chunks_exact_mut(m * n).enumerate() {
                one(pool, task * together + i, out, 0);
            }
        });
        return Ok(());
    }
    let starts_out: Vec<usize> = starts(&layout)?;
    for (i, &start) in starts_out.iter().enumerate() {
        one(pool, i, to, start);
    }
    Ok(())
}

fn elements<'a, T: Pod>(x: &TensorRef<'a>) -> Result<&'a [T]> {
    let bytes = x.storage.cpu("matmul", x.dtype)?.bytes();
    let whole = bytes.len() / size_of::<T>() * size_of::<T>();
    bytemuck::try_cast_slice(&bytes[..whole]).map_err(|_| TensorOpError::Unaligned { dtype: x.dtype }.into())
}

/// Integers without a kernel: wrapping sums, row by row.
fn plain<T>(pool: &ThreadPool, shape: MatmulShape, a: Matrix<T>, b: Matrix<T>, out: MatrixMut<T>)
where
    T: Wrapping,
{
    let _ = pool;
    let at = |start: usize, i: usize, row: isize, j: usize, column: isize| {
        start.wrapping_add_signed(row * i as isize + column * j as isize)
    };
    let mut sums = vec![T::zeroed(); shape.n];
    for i in 0..shape.m {
        sums.fill(T::zeroed());
        for l in 0..shape.k {
            let x = a.data[at(a.start, i, a.row_stride, l, a.col_stride)];
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = sum.multiply_add(x, b.data[at(b.start, l, b.row_stride, j, b.col_stride)]);
            }
        }
        for (j, &sum) in sums.iter().enumerate() {
            out.data[at(out.start, i, out.row_stride, j, out.col_stride)] = sum;
        }
    }
}

/// Integers that wrap.
trait Wrapping: Pod {
    fn multiply_add(self, a: Self, b: Self) -> Self;
}

macro_rules! wrapping {
    ($($t:ty)*) => {
        $(impl Wrapping for $t {
            fn multiply_add(self, a: $t, b: $t) -> $t {
                self.wrapping_add(a.wrapping_mul(b))
            }
        })*
    };
}
wrapping!(u8 i16 u16 i32 u32 i64 u64);
