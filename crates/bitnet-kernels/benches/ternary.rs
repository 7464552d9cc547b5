//! Ternary products of the shapes of BitNet b1.58 2B4T beside the limits of the machine, measured in the same run.
//!
//! `cargo bench -p bitnet-kernels --bench ternary [-- ISA...]`: decode in GB/s of weights read against the read
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
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut weights: Vec<u8> = Vec::with_capacity(BYTES);
    advise_huge_pages(weights.spare_capacity_mut());
    weights.resize(BYTES, 0b10_01_00_01);
    for threads in [1, 2] {
        let pool = ThreadPool::new(threads);
        for isa in Isa::available() {
            if !words.is_empty() && !words.iter().any(|word| word == isa.name()) {
                continue;
            }
            let kernels = Kernels::for_isa(isa).expect("it is available");
            println!("{isa}, {threads} thread{}", if threads == 1 { "" } else { "s" });
            for (rows, cols) in SHAPES {
                let len = packed_len(rows, cols).expect("a small matrix");
                let copies: Vec<_> = weights.chunks_exact(len).map(|w| TernaryMatrix::new(w, rows, cols)).collect();
                // The limits and the products take turns, and each is the best of many short parts, so that a noisy
                // neighbour spoils neither.
                let (mut limit, mut speed) = (0.0f64, 0.0f64);
                let some = copies.len() / 16; // what fits in a time slice
                for _ in 0..4 {
                    limit = limit.max(read_bandwidth(&pool, 0.2));
                    let bytes = (some * len) as f64;
                    speed = speed.max(bytes / best_seconds(&kernels, &pool, &copies, some, cols, 1) / 1e9);
                }
                let percent = 100.0 * speed / limit;
                let mut line = format!("  {rows:4} x {cols:4}  decode {speed:5.1} of {limit:5.1} GB/s {percent:3.0} %");
                let several = |tokens| {
                    (0..4).fold(f64::MAX, |least, _| {
                        least.min(best_seconds(&kernels, &pool, &copies, some, cols, tokens))
                    })
                };
                let one = several(1);
                let [two, four, eight] = [2, 4, 8].map(|tokens| several(tokens) / one);
                line += &format!("  2, 4, 8 tokens {two:.2}, {four:.2}, {eight:.2} times as long");
                for tokens in [128, 512] {
                    let (mut limit, mut speed) = (0.0f64, 0.0f64);
                    for _ in 0..4 {
                        limit = limit.max(int8_rate(&kernels, &pool, 0.1));
                        let ops = 2.0 * (rows * cols * tokens) as f64;
                        speed = speed.max(ops / best_seconds(&kernels, &pool, &copies, 1, cols, tokens) / 1e9);
                    }
                    let percent = 100.0 * speed / limit;
                    line += &format!("  prompt {tokens} {speed:6.1} of {limit:6.1} GOP/s {percent:3.0} %");
                }
                println!("{line}");
            }
        }
    }
}

/// The shortest time in which `tokens` rows went through `some` of the `matrices`, over about a quarter of a second.
fn best_seconds(
    kernels: &Kernels,
    pool: &ThreadPool,
    matrices: &[TernaryMatrix],
    some: usize,
    cols: usize,
    tokens: usize,
) -> f64 {
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 251) as f32 - 125.0).collect();
    let mut q = vec![0; tokens * padded(cols)];
    let (mut scales, mut sums) = (vec![0.0; tokens], vec![0; tokens]);
    quantize_rows(kernels.ternary, pool, &x, cols, &mut q, &mut scales, &mut sums);
    let activations = Activations { q: &q, scales: &scales, sums: &sums };
    let panels = matrices[0].panels();
    let panel_scales = vec![1.0; panels];
    let mut out = vec![0.0; tokens * panels * PANEL];
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    for part in matrices.chunks_exact(some).cycle() {
        let start = Instant::now();
        for matrix in part {
            matmul(kernels.ternary, pool, matrix, &activations, &panel_scales, &mut out, panels * PANEL);
            black_box(&mut out);
        }
        best = best.min(start.elapsed().as_secs_f64());
        if begin.elapsed().as_secs_f64() > 0.25 {
            break;
        }
    }
    best
}
