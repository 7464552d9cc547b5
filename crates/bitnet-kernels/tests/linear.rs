//! Dense products with every block type and instruction set of this CPU against f64.

use bitnet_kernels::blocks::{BlockMatrix, BlockType, dequantize_row};
use bitnet_kernels::float::half;
use bitnet_kernels::{Isa, Kernels, ThreadPool};
use proptest::prelude::*;

/// A small generator of bits: xorshift.
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Uniform in -1..1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Random blocks with scales near 1.
fn blocks(kind: BlockType, count: usize, bits: &mut Bits) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count * kind.block_bytes()).map(|_| bits.next() as u8).collect();
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        let x = bits.float();
        let scales: &[usize] = match kind {
            BlockType::F32 => {
                block.copy_from_slice(&x.to_le_bytes());
                continue;
            }
            BlockType::BF16 => {
                block.copy_from_slice(&x.to_le_bytes()[2..]);
                continue;
            }
            BlockType::Q6_K => &[208],
            BlockType::Q4_K | BlockType::Q5_K | BlockType::Q4_1 | BlockType::Q5_1 => &[0, 2],
            BlockType::Q2_K => &[80, 82],
            BlockType::Q3_K => &[108],
            BlockType::MXFP4 => {
                block[0] = 120 + (bits.next() % 8) as u8;
                continue;
            }
            _ => &[0],
        };
        for &at in scales {
            block[at..at + 2].copy_from_slice(&half::f32_to_f16(bits.float()).to_le_bytes());
        }
    }
    bytes
}

/// `|out - W x| <= 2e-6 |W row| |x|` for f32 sums. Activations in 16 bits: twice that, for codes with an offset, and the rounding
/// of each 256 activations, `max|x| / 65534 * sum|w|` (as in `dot.rs`).
fn check(kind: BlockType, rows: usize, columns: usize, tokens: usize, outlier: f32, seed: u64) {
    let mut bits = Bits(seed | 1);
    // At an odd address, as a file may have it.
    let mut bytes = vec![0];
    bytes.extend(blocks(kind, rows * columns / kind.block_len(), &mut bits));
    let weights = BlockMatrix::new(kind, rows, columns, &bytes[1..]).unwrap();
    let mut x: Vec<f32> = (0..tokens * columns).map(|_| bits.float()).collect();
    for x in x.chunks_exact_mut(columns) {
        x[columns / 3] *= outlier;
    }
    let pool = ThreadPool::new(2);
    for isa in Isa::available() {
        let mut out = vec![f32::NAN; tokens * rows];
        Kernels::for_isa(isa).expect("available").float.linear(&pool, &weights, &x, &mut out);
        let in_16_bits = matches!(kind, BlockType::Q8_0 | BlockType::Q6_K | BlockType::Q4_0 | BlockType::Q4_K);
        // A token alone on one thread has the same bits.
        let mut alone = vec![f32::NAN; rows];
        for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact(rows)) {
            Kernels::for_isa(isa).expect("available").float.linear(&ThreadPool::new(1), &weights, x, &mut alone);
            assert!(alone.iter().zip(out).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa} {kind}: {alone:?} {out:?}");
        }
        let mut w = vec![0.0; columns];
        for r in 0..rows {
            dequantize_row(kind, weights.row(r), &mut w);
            let norm = |x: &[f32]| x.iter().map(|&v| v as f64 * v as f64).sum::<f64>().sqrt();
            for (t, x) in x.chunks_exact(columns).enumerate() {
                let exact: f64 = w.iter().zip(x).map(|(&w, &x)| w as f64 * x as f64).sum();
                let error = (out[t * rows + r] as f64 - exact).abs();
                let largest = |x: &[f32]| x.iter().fold(0f32, |top, v| top.max(v.abs())) as f64;
                let sum = |w: &[f32]| w.iter().map(|w| w.abs() as f64).sum::<f64>();
                let rounded: f64 = x.chunks(256).zip(w.chunks(256)).map(|(x, w)| largest(x) / 65534.0 * sum(w)).sum();
                let sums = 2e-6 * norm(&w) * norm(x);
                let bound = if in_16_bits { 2.0 * sums + rounded } else { sums };
                assert!(error <= bound, "{isa} {kind} [{t}, {r}]: {} {exact}, beyond {bound}", out[t * rows + r]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn odd_shapes(kind in 0..BlockType::ALL.len(), rows in 1..40usize, blocks in 1..12usize, tokens in 1..20usize, seed: u64) {
        let kind = BlockType::ALL[kind];
        let columns = blocks * if kind.block_len() == 1 { 29 } else { kind.block_len() };
        check(kind, rows, columns, tokens, 1.0, seed);
    }
}

#[test]
fn long_rows_and_outliers() {
    for kind in BlockType::ALL {
        for tokens in [1, 5, 9] {
            // More columns than are quantized or decoded at a time.
            check(kind, 21, 4096 + 256, tokens, 1.0, 1);
            check(kind, 21, 4096 + 256, tokens, 1000.0, 2);
        }
    }
}

#[test]
fn infinities_and_nan_reach_the_result() {
    let pool = ThreadPool::new(1);
    for kind in BlockType::ALL {
        let mut bits = Bits(5);
        let bytes = blocks(kind, 512 / kind.block_len(), &mut bits);
        let weights = BlockMatrix::new(kind, 1, 512, &bytes).unwrap();
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = [1.0; 512];
                x[300] = bad;
                let mut out = [0.0];
                Kernels::for_isa(isa).expect("available").float.linear(&pool, &weights, &x, &mut out);
                assert!(!out[0].is_finite(), "{isa} {kind} {bad}: {}", out[0]);
            }
        }
    }
}
