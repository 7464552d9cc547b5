//! Activations by every rule and products with scales for groups of columns: equal on every kernel that this CPU can run, in any
//! batch and on any number of threads, and right.

mod common;

use bitnet_device::backend::ActivationRule::{self, Block32, Block256, Float, Token};
use bitnet_device::backend::FLOAT_STEPS;
use bitnet_kernels::activation::{padded, quantize_rows, sums_of};
use bitnet_kernels::ternary::{Activations, PANEL, TernaryMatrix, matmul, pack, packed_len};
use bitnet_kernels::{Kernels, ThreadPool};
use common::{kernels, numbers, uniform};

/// Quantized rows: `q`, scales, sums.
type Quantized = (Vec<i8>, Vec<f32>, Vec<i32>);

fn quantized(kernels: &Kernels, pool: &ThreadPool, rule: ActivationRule, x: &[f32], cols: usize) -> Quantized {
    let tokens = x.len() / cols;
    let rows = tokens * rule.digits();
    let (mut q, mut scales) = (vec![99; rows * padded(cols)], vec![0.0; tokens * rule.blocks(cols)]);
    let mut sums = vec![0; rows * sums_of(cols)];
    quantize_rows(kernels.ternary, pool, rule, x, cols, &mut q, &mut scales, &mut sums);
    (q, scales, sums)
}

/// What `q` and its scales stand for, in f64: `[T, cols]`.
fn values(rule: ActivationRule, (q, scales, _): &Quantized, cols: usize) -> Vec<f64> {
    let (tokens, blocks, stride) = (scales.len() / rule.blocks(cols), rule.blocks(cols), padded(cols));
    let at = |t: usize, c: usize| {
        let digit = |d: usize| f64::from(q[(t * rule.digits() + d) * stride + c]) * 256f64.powi(d as i32);
        let sum: f64 = (0..rule.digits()).map(digit).sum();
        let scale = f64::from(scales[t * blocks + rule.block().map_or(0, |block| c / block)]);
        if rule == Token { sum / scale } else { sum * scale }
    };
    (0..tokens * cols).map(|i| at(i / cols, i % cols)).collect()
}

#[test]
fn blocks_are_rounded_as_llama_cpp_rounds_them() {
    let pool = ThreadPool::new(1);
    for kernels in kernels() {
        // q8_K: the signed maximum becomes -127; 63.5 goes to the even 64.
        for (sign, q_of, scale) in [(1.0, [64, -127, 32, 48], 0.015748), (-1.0, [64, -127, 32, 48], -0.015748)] {
            let x: Vec<f32> = [1.0, -2.0, 0.5, 0.75].iter().map(|v| v * sign).chain([0.0; 252]).collect();
            let (q, scales, sums) = quantized(&kernels, &pool, Block256, &x, 256);
            assert_eq!((&q[..4], sums[0]), (&q_of[..], 17), "{kernels:?}");
            assert!((scales[0] - scale).abs() < 1e-6 && q[4..].iter().all(|&q| q == 0), "{kernels:?}");
        }
        // The first of the largest magnitude decides, of a block that is not whole too.
        let (q, scales, _) = quantized(&kernels, &pool, Block256, &[-2.0, 2.0, 1.0], 3);
        assert_eq!((&q[..3], scales[0].signum()), (&[-127, 127, 64][..], 1.0), "{kernels:?}");
        // q8_0: ties go away from zero, and so do their predecessors not.
        let mut x = vec![0.0; 64];
        x[..6].copy_from_slice(&[127.0, 2.5, -2.5, 0.5, 0.499_999_97, -0.499_999_97]);
        x[32..34].copy_from_slice(&[100.0, 33.0]);
        let (q, scales, sums) = quantized(&kernels, &pool, Block32, &x, 64);
        assert_eq!((&q[..6], scales[0], sums[0]), (&[127, 3, -3, 1, 0, 0][..], 1.0, 128), "{kernels:?}");
        assert_eq!((q[32], q[33], sums[1]), (127, 42, 169), "{kernels:?}");
        assert_eq!(scales[1], half::f16::from_f32(100.0 / 127.0).to_f32(), "{kernels:?}");
    }
}

#[test]
fn every_rule_is_the_same_everywhere_and_near_its_input() {
    for (cols, tokens) in [(1, 1), (31, 2), (32, 1), (300, 3), (512, 17), (1000, 5)] {
        let mut x = numbers(cols * tokens, cols as u64);
        x[cols / 2] = 0.0;
        for rule in ActivationRule::ALL {
            let expected = quantized(&kernels().next().unwrap(), &ThreadPool::new(1), rule, &x, cols);
            for kernels in kernels() {
                for threads in [1, 3] {
                    let got = quantized(&kernels, &ThreadPool::new(threads), rule, &x, cols);
                    assert_eq!(got, expected, "{kernels:?} {rule} {cols}");
                }
            }
            let block = rule.block().unwrap_or(cols);
            let error = match rule {
                // Half a step, and the rounding of factor, product and scale, half a step each at the most.
                Float => 2.0 / f64::from(FLOAT_STEPS),
                // f16 rounds the scale by up to one part in 2048.
                Block32 => 0.5 / 127.0 + 1.0 / 2048.0,
                _ => 0.501 / 127.0,
            };
            let back = values(rule, &expected, cols);
            for (x, back) in x.chunks(cols).zip(back.chunks(cols)) {
                for (x, back) in x.chunks(block).zip(back.chunks(block)) {
                    let max = x.iter().fold(0f64, |max, &v| max.max(f64::from(v).abs()));
                    assert!(x.iter().zip(back).all(|(&x, b)| (f64::from(x) - b).abs() <= error * max), "{rule} {cols}");
                }
            }
        }
    }
}

#[test]
fn blocks_without_numbers_are_nan_and_zeros_are_zero() {
    let pool = ThreadPool::new(1);
    for kernels in kernels() {
        for rule in ActivationRule::ALL {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![0.0; 512];
                x[300] = bad;
                let (q, scales, _) = quantized(&kernels, &pool, rule, &x, 512);
                assert!(q.iter().all(|&q| q == 0), "{kernels:?} {rule}");
                assert_eq!(scales.iter().filter(|s| s.is_nan()).count(), 1, "{kernels:?} {rule}");
            }
        }
    }
}

/// A matrix with groups, packed: weights -1, 0, +1, scales `[rows, groups]`.
struct Matrix {
    weights: Vec<i8>,
    scales: Vec<f32>,
    tiles: Vec<u8>,
    packed_scales: Vec<f32>,
    rows: usize,
    cols: usize,
    groups: usize,
}

impl Matrix {
    fn new(rows: usize, cols: usize, groups: usize, scale: impl Fn(usize) -> f32) -> Matrix {
        let weights: Vec<i8> = uniform(rows * cols, 5).iter().map(|v| (v * 1.5).round() as i8).collect();
        let stride = cols.div_ceil(4);
        let mut codes = vec![0b01_01_01_01u8; rows * stride];
        for (i, &w) in weights.iter().enumerate() {
            let shift = 2 * (i % cols % 4);
            let byte = &mut codes[i / cols * stride + i % cols / 4];
            *byte = *byte & !(3 << shift) | ((w + 1) as u8) << shift;
        }
        let mut tiles = vec![0; packed_len(rows, cols).unwrap()];
        pack(&codes, rows, cols, &mut tiles, &ThreadPool::new(1));
        let scales: Vec<f32> = (0..rows * groups).map(scale).collect();
        let mut packed_scales = vec![0.0; rows.div_ceil(PANEL) * groups * PANEL];
        for (i, scale) in scales.iter().enumerate() {
            let (row, group) = (i / groups, i % groups);
            packed_scales[(row / PANEL * groups + group) * PANEL + row % PANEL] = *scale;
        }
        Matrix { weights, scales, tiles, packed_scales, rows, cols, groups }
    }

    fn product(&self, kernels: &Kernels, pool: &ThreadPool, rule: ActivationRule, x: &Quantized) -> Vec<f32> {
        let (q, scales, sums) = x;
        let tokens = scales.len() / rule.blocks(self.cols);
        let mut out = vec![f32::NAN; tokens * self.rows];
        let matrix = TernaryMatrix::new(&self.tiles, self.rows, self.cols);
        let x = Activations { rule, q, scales, sums };
        matmul(kernels.ternary, pool, &matrix, &x, &self.packed_scales, &mut out, self.rows);
        out
    }

    /// The largest error of a product against f64, relative to the sum of the magnitudes of its terms.
    fn error(&self, x: &[f64], out: &[f32]) -> f64 {
        let group = self.cols / self.groups;
        let of = |t: usize, r: usize| {
            let term = |c: usize| {
                let scale = f64::from(self.scales[r * self.groups + c / group]);
                f64::from(self.weights[r * self.cols + c]) * scale * x[t * self.cols + c]
            };
            let (sum, all) = (0..self.cols).map(term).fold((0.0, 0.0), |(sum, all), v| (sum + v, all + v.abs()));
            (f64::from(out[t * self.rows + r]) - sum).abs() / all.max(1e-30)
        };
        (0..out.len()).map(|i| of(i / self.rows, i % self.rows)).fold(0.0, f64::max)
    }
}

/// Rows, columns, groups.
const SHAPES: [(usize, usize, usize); 8] = [
    (1, 32, 1),
    (37, 50, 1),
    (16, 64, 2),
    (40, 768, 3),
    (65, 1024, 8),
    (33, 192, 2), // groups of 96: segments of 32
    (130, 512, 8),
    (48, 1000, 1),
];

#[test]
fn integers_of_groups_are_exact_on_every_path() {
    for (rows, cols, groups) in SHAPES {
        let matrix = Matrix::new(rows, cols, groups, |i| [1.0, 2.0, 0.5, -1.0][i % 4]);
        // Whole numbers with 127 in every block of 32: scales are powers of two times 1, and f32 holds all sums.
        let x: Vec<f32> =
            (0..3 * cols).map(|i| if i % cols % 32 == 7 { -127.0 } else { (i * 37 % 255) as f32 - 127.0 }).collect();
        let wide: Vec<f64> = x.iter().map(|&v| v.into()).collect();
        for kernels in kernels() {
            for rule in [Token, Block32, Block256] {
                let pool = ThreadPool::new(2);
                let quantized = quantized(&kernels, &pool, rule, &x, cols);
                let out = matrix.product(&kernels, &pool, rule, &quantized);
                let exact = matrix.error(&wide, &out);
                let bound = if rule == Block256 { 2e-7 } else { 0.0 }; // 1 / (127 / 127) is exact, 1 / (-127 / m) nearly
                assert!(exact <= bound, "{kernels:?} {rule} {rows} x {cols} in {groups}: {exact:e}");
            }
        }
    }
}

#[test]
fn products_have_the_same_bits_everywhere_and_in_any_batch() {
    for (rows, cols, groups) in SHAPES {
        let scales = uniform(rows * groups, 9);
        let matrix = Matrix::new(rows, cols, groups, |i| scales[i] + 1.1);
        let x = numbers(17 * cols, 3);
        for rule in ActivationRule::ALL {
            let scalar = kernels().next().unwrap();
            let one = ThreadPool::new(1);
            let rows_of = |kernels: &Kernels, tokens: usize, pool: &ThreadPool| {
                let quantized = quantized(kernels, pool, rule, &x[..tokens * cols], cols);
                (matrix.product(kernels, pool, rule, &quantized), quantized)
            };
            let (expected, quantized) = rows_of(&scalar, 17, &one);
            let error = matrix.error(&values(rule, &quantized, cols), &expected);
            assert!(error <= 1e-6, "{rule} {rows} x {cols} in {groups}: {error:e}");
            if rule == Float {
                let wide: Vec<f64> = x.iter().map(|&v| v.into()).collect();
                let error = matrix.error(&wide, &expected);
                assert!(error <= 1e-6, "{rule} {rows} x {cols} in {groups}: {error:e}");
            }
            let bits = |out: &[f32]| out.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            for kernels in kernels() {
                for (threads, batches) in [(1, 1..=17), (16, 1..=17)] {
                    let pool = ThreadPool::new(threads);
                    for tokens in batches {
                        let (out, _) = rows_of(&kernels, tokens, &pool);
                        assert_eq!(
                            bits(&out),
                            bits(&expected[..tokens * rows]),
                            "{kernels:?} {rule} {rows} x {cols} in {groups}"
                        );
                    }
                }
            }
        }
    }
}
