//! Ternary products of the shapes of BitNet b1.58 2B4T beside the limits of the machine, measured in the same run.
//!
//! `cargo bench -p bitnet-kernels --bench ternary [-- ISA...]`: decode in GB/s of weights read against the read
//! bandwidth, prompts in GOP/s against the rate of the instruction set's 8-bit products.

use std::hint::black_box;
use std::time::Instant;

use bitnet_kernels::activation::ActivationRule::{self, Block32, Float, Token};
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
            for (rows, cols, rule, group) in SHAPES.into_iter().flat_map(|(rows, cols)| {
                [(rows, cols, Token, cols), (rows, cols, Block32, 128), (rows, cols, Float, 128)]
            }) {
                let len = packed_len(rows, cols).expect("a small matrix");
                let copies: Vec<_> = weights.chunks_exact(len).map(|w| TernaryMatrix::new(w, rows, cols)).collect();
                // The limits and the products take turns, and each is the best of many short parts, so that a noisy
                // neighbour spoils neither.
                let (mut limit, mut speed) = (0.0f64, 0.0f64);
                let some = copies.len() / 16; // what fits in a time slice
                for _ in 0..4 {
                    limit = limit.max(read_bandwidth(&pool, 0.2));
                    let scales = if group == cols { 0 } else { rows * (cols / group) * size_of::<f32>() };
                    let bytes = (some * (len + scales)) as f64;
                    speed =
                        speed.max(bytes / best_seconds(&kernels, &pool, &copies, some, (cols, rule, group), 1) / 1e9);
                }
                let percent = 100.0 * speed / limit;
                let mut line =
                    format!("  {rows:4} x {cols:4} {rule:7} decode {speed:5.1} of {limit:5.1} GB/s {percent:3.0} %");
                let several = |tokens| {
                    (0..4).fold(f64::MAX, |least, _| {
                        least.min(best_seconds(&kernels, &pool, &copies, some, (cols, rule, group), tokens))
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
                        speed = speed
                            .max(ops / best_seconds(&kernels, &pool, &copies, 1, (cols, rule, group), tokens) / 1e9);
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
    (cols, rule, group): (usize, ActivationRule, usize),
    tokens: usize,
) -> f64 {
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 251) as f32 - 125.0).collect();
    let rows = tokens * rule.digits();
    let mut q = vec![0; rows * padded(cols)];
    let (mut scales, mut sums) = (vec![0.0; tokens * rule.blocks(cols)], vec![0; rows * cols.div_ceil(32)]);
    quantize_rows(kernels.ternary, pool, rule, &x, cols, &mut q, &mut scales, &mut sums);
    let activations = Activations { rule, q: &q, scales: &scales, sums: &sums };
    let panels = matrices[0].panels();
    // Beside each matrix its own, so that they come from memory too.
    let count = if group == cols { panels } else { panels * (cols / group) * PANEL };
    let all_scales = vec![1.0; count * matrices.len()];
    let mut out = vec![0.0; tokens * panels * PANEL];
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let pairs: Vec<_> = matrices.iter().zip(all_scales.chunks_exact(count)).collect();
    for part in pairs.chunks_exact(some).cycle() {
        let start = Instant::now();
        for (matrix, scales) in part {
            matmul(kernels.ternary, pool, matrix, &activations, scales, &mut out, panels * PANEL);
            black_box(&mut out);
        }
        best = best.min(start.elapsed().as_secs_f64());
        if begin.elapsed().as_secs_f64() > 0.25 {
            break;
        }
    }
    best
}
