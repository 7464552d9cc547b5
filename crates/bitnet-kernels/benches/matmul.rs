//! Dense products of ANCHORS' table: `cargo bench -p bitnet-kernels --bench matmul`, with `BITNET_ISA` for another
//! instruction set. The first lines are the limits of the machine, probed in the same process.

use bitnet_kernels::dense::matmul::*;
use bitnet_kernels::{Kernels, ThreadPool, probe};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;

/// `(m, n, k, whether b is the transpose of rows of k)`; the last is a linear layer, one token and many.
const SQUARES: [(usize, usize, usize, bool); 3] =
    [(512, 512, 512, false), (1024, 1024, 1024, false), (2048, 2048, 2048, false)];
const LINEAR: [(usize, usize, usize, bool); 2] = [(1, 6912, 2560, true), (128, 6912, 2560, true)];

fn small(i: usize) -> f32 {
    (i * 7 % 113) as f32 / 113.0 - 0.5
}

fn bench<T: Copy, O: Copy + Default>(
    c: &mut Criterion,
    name: &str,
    pools: &[ThreadPool],
    shapes: &[(usize, usize, usize, bool)],
    element: impl Fn(usize) -> T,
    product: impl Fn(&ThreadPool, MatmulShape, Matrix<T>, Matrix<T>, MatrixMut<O>),
) {
    let mut group = c.benchmark_group(name);
    for &(m, n, k, transposed) in shapes {
        let a: Vec<T> = (0..m * k).map(&element).collect();
        let b: Vec<T> = (0..k * n).map(&element).collect();
        let mut out = vec![O::default(); m * n];
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        for pool in pools {
            let id = BenchmarkId::new(format!("{m}x{n}x{k}"), format!("{} threads", pool.threads()));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let b = if transposed { Matrix::row_major(&b, k).t() } else { Matrix::row_major(&b, n) };
                    let (a, out) = (Matrix::row_major(&a, k), MatrixMut::row_major(&mut out, n));
                    product(pool, MatmulShape { m, n, k }, a, b, black_box(out));
                });
            });
        }
    }
    group.finish();
}

fn main() {
    let kernels = Kernels::select().expect("BITNET_ISA");
    let isa = kernels.isa;
    let pools = [ThreadPool::new(1), ThreadPool::new(2)];
    for pool in &pools {
        let (f32, i8) = (probe::f32_rate(isa, pool, 0.3), probe::int8_rate(&kernels, pool, 0.3));
        println!("{isa}, {} threads: f32 {f32:.0} GFLOP/s, int8 {i8:.0} GOP/s", pool.threads());
    }
    let mut c = Criterion::default().sample_size(10).configure_from_args();
    let bf16 = |i| half::bf16::from_f32(small(i)).to_bits();
    let f16 = |i| half::f16::from_f32(small(i)).to_bits();
    let i8 = |i: usize| (i * 7 % 255) as u8 as i8;
    bench(&mut c, "f32", &pools, &SQUARES, small, |p, s, a, b, o| matmul_f32(isa, p, s, a, b, o));
    bench(&mut c, "f32 linear", &pools, &LINEAR, small, |p, s, a, b, o| matmul_f32(isa, p, s, a, b, o));
    bench(&mut c, "f64", &pools, &SQUARES[..2], |i| small(i) as f64, |p, s, a, b, o| matmul_f64(isa, p, s, a, b, o));
    bench(&mut c, "bf16", &pools, &SQUARES, bf16, |p, s, a, b, o| matmul_bf16(isa, p, s, a, b, o));
    bench(&mut c, "bf16 linear", &pools, &LINEAR, bf16, |p, s, a, b, o| matmul_bf16(isa, p, s, a, b, o));
    bench(&mut c, "f16", &pools, &SQUARES[..2], f16, |p, s, a, b, o| matmul_f16(isa, p, s, a, b, o));
    bench(&mut c, "int8", &pools, &SQUARES, i8, |p, s, a, b, o| matmul_i8(isa, p, s, a, b, o));
    bench(&mut c, "int8 linear", &pools, &LINEAR, i8, |p, s, a, b, o| matmul_i8(isa, p, s, a, b, o));
    c.final_summary();
}
