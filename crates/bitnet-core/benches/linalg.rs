//! Decompositions and batched products: `cargo bench -p bitnet-core --bench linalg`, f32.

use bitnet_core::{BitNetTensor, Device};
use criterion::{BenchmarkId, Criterion};
use std::hint::black_box;

fn numbers(n: usize) -> BitNetTensor {
    let mut x = 1u64;
    let data: Vec<f32> = (0..n * n)
        .map(|_| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    BitNetTensor::from_slice(&data, &[n, n], &Device::cpu()).expect("memory")
}

fn main() {
    let mut c = Criterion::default().sample_size(10).configure_from_args();
    for n in [256, 1024] {
        let x = numbers(n);
        let eye = BitNetTensor::eye(n, x.dtype(), x.device()).expect("memory");
        let product = x.t().and_then(|xt| x.matmul(&xt)).expect("square");
        let positive = product.add(&eye).expect("equal shapes");
        let mut group = c.benchmark_group(format!("{n}"));
        let mut bench = |name: &str, f: &dyn Fn()| {
            group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(f));
        };
        bench("svd", &|| drop(black_box(x.svd(false).expect("svd"))));
        bench("qr", &|| drop(black_box(x.qr().expect("qr"))));
        bench("cholesky", &|| drop(black_box(positive.cholesky().expect("cholesky"))));
        bench("lu", &|| drop(black_box(x.lu().expect("lu"))));
        bench("solve", &|| drop(black_box(x.solve(&eye).expect("solve"))));
        bench("eigh", &|| drop(black_box(positive.eigh().expect("eigh"))));
        group.finish();
    }
    c.final_summary();
}
