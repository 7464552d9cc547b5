//! Speed of the float operations that cost the most in a 2B4T model: the head's product and attention.
//!
//! `cargo bench -p bitnet-kernels --bench float`, with `BITNET_ISA` for another instruction set. Each figure is the best
//! of some runs on one thread; the first two lines are the limits that the others are to be held against.

use std::hint::black_box;
use std::time::Instant;

use bitnet_device::backend::GateActivation;
use bitnet_kernels::blocks::{BlockMatrix, BlockType};
use bitnet_kernels::dense::Half;
use bitnet_kernels::float::{KvPages, KvRows, PagedShape};
use bitnet_kernels::{Kernels, ThreadPool};

fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    (0..runs).fold(f64::INFINITY, |best, _| {
        let start = Instant::now();
        f();
        best.min(start.elapsed().as_secs_f64())
    })
}

fn main() {
    let kernels = Kernels::select().expect("BITNET_ISA");
    let (float, dense) = (kernels.float, kernels.dense);
    let pool = ThreadPool::new(1);
    println!("{}, 1 thread", float.isa());

    let mut bytes: Vec<u8> = (0..1usize << 28).map(|i| (i * 7 + i / 255) as u8 & 0x3f).collect();
    let seconds = best(5, || {
        let words = bytes.as_chunks::<8>().0;
        black_box(words.iter().fold(0u64, |sum, w| sum ^ u64::from_le_bytes(*w)));
    });
    println!("read {:28.1} GB/s", bytes.len() as f64 / seconds / 1e9);
    let small = vec![1.0f32; 64 * 1024];
    let weights: Vec<u8> = vec![0; 64 * 1024 * 4];
    let matrix = BlockMatrix::new(BlockType::F32, 64, 1024, &weights).unwrap();
    let mut out = vec![0.0; 64 * 64];
    let seconds = best(20, || float.linear(&pool, &matrix, &small, &mut out));
    println!("product in the cache {:12.1} GFLOP/s", 2.0 * 64.0 * 64.0 * 1024.0 / seconds / 1e9);

    // The head: 2560 columns, as many rows as the buffer has.
    let columns = 2560;
    for kind in BlockType::ALL {
        let row = kind.row_bytes(columns).unwrap();
        let rows = (bytes.len() / row).min(64_000);
        let matrix = BlockMatrix::new(kind, rows, columns, &bytes[..rows * row]).unwrap();
        let x: Vec<f32> = (0..16 * columns).map(|i| (i % 113) as f32 / 113.0 - 0.5).collect();
        let mut out = vec![0.0; 16 * rows];
        let mut seconds =
            |tokens: usize| best(5, || float.linear(&pool, &matrix, &x[..tokens * columns], &mut out[..tokens * rows]));
        let one = seconds(1);
        let [two, four, eight] = [2, 4, 8].map(|tokens| seconds(tokens) / one);
        println!(
            "{:5} 1 token {:19.1} GB/s; 2, 4, 8 tokens {two:.2}, {four:.2}, {eight:.2} times as long; 16 tokens {:7.1} GFLOP/s",
            kind.name(),
            (rows * row) as f64 / one / 1e9,
            2.0 * 16.0 * (rows * columns) as f64 / seconds(16) / 1e9
        );
    }
    bytes.clear();

    for (tokens, start) in [(128, 0), (512, 0), (512, 1536), (1, 511), (1, 4095)] {
        let (heads, kv_heads, head_dim) = (20, 5, 128);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = PagedShape { heads, kv_heads, head_dim, page_len: 64, scale, window: None };
        let q: Vec<f32> = (0..tokens * heads * head_dim).map(|i| (i % 113) as f32 / 113.0 - 0.5).collect();
        let cache: Vec<f32> = (0..kv_heads * 4096 * head_dim).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
        let mut halves = vec![0; cache.len()];
        dense.narrow(Half::F16, &cache, &mut halves);
        let bytes: Vec<i8> = cache.iter().map(|v| (v * 254.0) as i8).collect();
        let scales = vec![1.0 / 254.0; kv_heads * 4096];
        let mut out = vec![0.0; q.len()];
        let table: Vec<u32> = (0..64).collect();
        let positions: Vec<u32> = (start as u32..).take(tokens).collect();
        let rows = KvRows { table: &table, table_width: 64, sequences: &vec![0; tokens], positions: &positions };
        let caches = [
            KvPages::F32 { keys: &cache, values: &cache },
            KvPages::F16 { keys: &halves, values: &halves },
            KvPages::BF16 { keys: &halves, values: &halves },
            KvPages::I8 { keys: &bytes, values: &bytes, key_scales: &scales, value_scales: &scales },
        ];
        for (name, cache) in ["f32", "f16", "bf16", "i8"].into_iter().zip(caches) {
            let seconds = best(if start > 1000 { 10 } else { 50 }, || {
                float.paged_attention(&pool, &shape, &q, &cache, &rows, &mut out);
            });
            let products =
                tokens as f64 * (start as f64 + (tokens as f64 + 1.0) / 2.0) * (heads * head_dim) as f64 * 2.0;
            println!(
                "attention {tokens:4} tokens after {start:4}, {name} {:9.3} ms {:7.1} GFLOP/s",
                seconds * 1e3,
                2.0 * products / seconds / 1e9
            );
        }
    }

    let (rows, columns) = (512, 6912);
    let mut x = vec![0.5f32; rows * columns];
    let y = vec![4.0f32; rows * columns];
    let mut out = vec![0.0f32; rows * columns];
    let mut line = |name: &str, f: &mut dyn FnMut(&mut [f32], &mut [f32])| {
        let seconds = best(10, || f(&mut x, &mut out));
        println!("{name:10} {rows} x {columns} {:11.3} ns a number", seconds * 1e9 / (rows * columns) as f64);
    };
    line("rms_norm", &mut |x, out| float.rms_norm(x, &y[..columns], 1e-5, out));
    line("relu2_gated", &mut |x, _| float.gated(GateActivation::Relu2, x, &y));
    line("silu_gated", &mut |x, _| float.gated(GateActivation::Silu, x, &y));
}
