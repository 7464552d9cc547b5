//! The rows of dense tensor operations, f32, preallocated: `cargo bench -p bitnet-kernels --bench dense`.
//!
//! Microseconds, the best of some hundred runs, on 1 and 2 threads; beside each the time that reading its operands and
//! results once would take at the rate of the memory and of the last cache, probed in the same run.

use bitnet_device::backend::UnaryOp;
use bitnet_kernels::dense::Binary;
use bitnet_kernels::dense::parallel::{self, Reduction};
use bitnet_kernels::{Kernels, ThreadPool, probe};
use std::hint::black_box;
use std::time::Instant;

fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    (0..runs).fold(f64::INFINITY, |best, _| {
        let start = Instant::now();
        f();
        best.min(start.elapsed().as_secs_f64())
    })
}

fn main() {
    let kernels = Kernels::select().expect("BITNET_ISA");
    let (k, float) = (kernels.dense, kernels.float);
    let pools = [ThreadPool::new(1), ThreadPool::new(2)];
    let numbers = |n: usize| -> Vec<f32> { (0..n).map(|i| (i * 7919 % 10_007) as f32 / 5003.0 - 1.0).collect() };
    let (x, y, mut out) = (numbers(1_000_000), numbers(1_000_000), numbers(1_000_000));
    let (m, row, mut to) = (numbers(1 << 22), numbers(4096), numbers(1 << 22));
    let (square, mut turned) = (numbers(1 << 24), numbers(1 << 24));
    let memory: Vec<f64> = pools.iter().map(|pool| probe::read_bandwidth(pool, 0.5)).collect();
    let cached: Vec<f64> = pools
        .iter()
        .map(|pool| {
            let mut one = [0.0];
            4e6 / best(300, || parallel::reduce(k, pool, Reduction::Sum, &x, [1, 1_000_000, 1], &mut one)) / 1e9
        })
        .collect();
    println!("{}: memory {memory:.1?} GB/s, last cache (sum of 4 MB) {cached:.1?} GB/s", k.isa());
    println!("{:30} {:>8} {:>8}   of memory, 2 threads", "", "1", "2");
    let show = |name: &str, bytes: f64, runs: usize, f: &mut dyn FnMut(&ThreadPool)| {
        let times: Vec<f64> = pools.iter().map(|pool| best(runs, || f(pool)) * 1e6).collect();
        println!("{name:30} {:8.0} {:8.0} {:8.0}", times[0], times[1], bytes / memory[1] / 1e3);
    };
    show("add 1e6", 12e6, 300, &mut |p| parallel::binary(k, p, Binary::Add, &x, &y, &mut out));
    show("exp 1e6", 8e6, 300, &mut |p| parallel::unary(k, p, UnaryOp::Exp, &x, &mut out));
    show("gelu tanh 1e6", 8e6, 300, &mut |p| parallel::unary(k, p, UnaryOp::GeluTanh, &x, &mut out));
    show("gelu erf 1e6", 8e6, 300, &mut |p| parallel::unary(k, p, UnaryOp::GeluErf, &x, &mut out));
    let (a, b) = (&m[..1 << 20], &row[..1024]);
    show("broadcast add 1024x1024 + 1024", 8.4e6, 300, &mut |p| {
        parallel::binary(k, p, Binary::Add, a, b, &mut to[..1 << 20]);
    });
    let mut one = [0.0];
    show("sum 1e6", 4e6, 300, &mut |p| parallel::reduce(k, p, Reduction::Sum, &x, [1, 1_000_000, 1], &mut one));
    show("max 1e6", 4e6, 300, &mut |p| parallel::reduce(k, p, Reduction::Max, &x, [1, 1_000_000, 1], &mut one));
    let mut sums = vec![0.0; 4096];
    for (axis, extents) in [[1, 1024, 4096], [1024, 4096, 1]].into_iter().enumerate() {
        let results = extents[0] * extents[2];
        show(&format!("sum over axis {axis} 1024x4096"), 16.8e6, 100, &mut |p| {
            parallel::reduce(k, p, Reduction::Sum, &m, extents, &mut sums[..results]);
        });
        show(&format!("var over axis {axis} 1024x4096"), 16.8e6, 100, &mut |p| {
            parallel::moments(k, p, &m, extents, |i, all| sums[i] = (all.squares / (all.count - 1.0)) as f32);
        });
    }
    show("softmax 1024x4096", 33.6e6, 100, &mut |p| parallel::softmax(k, p, &m, 4096, false, &mut to));
    show("layer norm 1024x4096", 33.6e6, 100, &mut |p| {
        parallel::layer_norm(k, p, &m, 4096, [&row, &row], 1e-5, &mut to);
    });
    show("RMS norm 1024x4096", 33.6e6, 100, &mut |p| {
        p.for_each_chunk(&mut to, 64 * 4096, &|i, to| {
            float.rms_norm(&m[i * 64 * 4096..][..to.len()], &row, 1e-5, to);
        });
    });
    show("transpose copy 1024", 8.4e6, 300, &mut |p| parallel::transpose(k, p, a, 1024, 1024, &mut to[..1 << 20]));
    show("transpose copy 4096", 134e6, 20, &mut |p| parallel::transpose(k, p, &square, 4096, 4096, &mut turned));
    black_box((&out, &to, &turned, &sums, one));
}
