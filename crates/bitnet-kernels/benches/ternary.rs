//! Ternary products of the shapes of BitNet b1.58 2B4T beside the limits of the machine, measured in the same run.
//!
//! `cargo bench -p bitnet-kernels --bench ternary [-- ISA]`: decode in GB/s of weights read against the read
//! bandwidth, prompts in GOP/s against the rate of the instruction set's 8-bit products.

use std::hint::black_box;
use std::time::Instant;

use bitnet_kernels::activation::{padded, quantize_rows};
use bitnet_kernels::probe::{advise_huge_pages, int8_rate, read_bandwidth};
use bitnet_kernels::ternary::{Activations, PANEL, TernaryMatrix, matmul, packed_len};
use bitnet_kernels::{Isa, Kernels, ThreadPool};

const SHAPES: [(usize, usize); 3] = [(2560, 2560), (6912, 2560), (2560, 6912)];
/// Weights that decode walks through before it comes back to the first: more than the caches hold.
const BYTES: usize = 512 << 20;

fn main() {
    let only = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let mut weights: Vec<u8> = Vec::with_capacity(BYTES);
    advise_huge_pages(weights.spare_capacity_mut());
    weights.resize(BYTES, 0b10_01_00_01);
    for threads in [1, 2] {
        let pool = ThreadPool::new(threads);
        for isa in Isa::available() {
            if only.as_ref().is_some_and(|only| only != isa.name()) {
                continue;
            }
            let kernels = Kernels::for_isa(isa).expect("it is available");
            println!("{isa}, {threads} thread{}", if threads == 1 { "" } else { "s" });
            for (rows, cols) in SHAPES {
                let len = packed_len(rows, cols).expect("a small matrix");
                let copies: Vec<_> = weights.chunks_exact(len).map(|w| TernaryMatrix::new(w, rows, cols)).collect();
                let slow = isa == Isa::Scalar;
                let decode = if slow { copies.len() / 8 } else { copies.len() };
                let mut line = format!("  {rows:4} x {cols:4}");
                // The limits and the products take turns, so that a noisy neighbour meets both.
                let (mut limit, mut speed) = (0.0f64, 0.0f64);
                for _ in 0..3 {
                    limit = limit.max(read_bandwidth(&pool, 0.0));
                    speed =
                        speed.max((decode * len) as f64 / seconds(&kernels, &pool, &copies[..decode], cols, 1) / 1e9);
                }
                line += &format!("  decode {speed:5.1} of {limit:5.1} GB/s {:3.0} %", 100.0 * speed / limit);
                for tokens in [128, 512] {
                    let (mut limit, mut speed) = (0.0f64, 0.0f64);
                    for _ in 0..3 {
                        limit = limit.max(int8_rate(&kernels, &pool, 0.05));
                        let count = if slow { 1 } else { 1024 / tokens };
                        let ops = 2.0 * (count * rows * cols * tokens) as f64;
                        speed = speed.max(ops / seconds(&kernels, &pool, &copies[..count], cols, tokens) / 1e9);
                    }
                    let percent = 100.0 * speed / limit;
                    line += &format!("  prompt {tokens} {speed:6.1} of {limit:6.1} GOP/s {percent:3.0} %");
                }
                println!("{line}");
            }
        }
    }
}

/// The time to take `tokens` rows through each of `matrices`.
fn seconds(kernels: &Kernels, pool: &ThreadPool, matrices: &[TernaryMatrix], cols: usize, tokens: usize) -> f64 {
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 251) as f32 - 125.0).collect();
    let mut q = vec![0; tokens * padded(cols)];
    let (mut scales, mut sums) = (vec![0.0; tokens], vec![0; tokens]);
    quantize_rows(kernels.ternary, pool, &x, cols, &mut q, &mut scales, &mut sums);
    let activations = Activations { q: &q, scales: &scales, sums: &sums };
    let rows = matrices[0].panels() * PANEL;
    let panel_scales = vec![1.0; matrices[0].panels()];
    let mut out = vec![0.0; tokens * rows];
    let start = Instant::now();
    for matrix in matrices {
        matmul(kernels.ternary, pool, matrix, &activations, &panel_scales, &mut out, rows);
        black_box(&mut out);
    }
    start.elapsed().as_secs_f64()
}
