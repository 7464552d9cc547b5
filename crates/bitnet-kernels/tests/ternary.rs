//! Every kernel that this CPU can run equals the scalar one bit for bit, and that one a plain loop over the weights.

mod common;

use bitnet_device::backend::ActivationRule::Token;
use bitnet_kernels::ThreadPool;
use bitnet_kernels::activation::{padded, quantize_rows};
use bitnet_kernels::ternary::{Activations, MAX_COLS, TernaryMatrix, matmul, matmul_i32, pack, packed_len, unpack};
use common::kernels;
use proptest::prelude::*;

/// Weights `[rows, cols]` as codes `[rows, ceil(cols / 4)]`.
fn codes_of(weights: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let stride = cols.div_ceil(4);
    let mut codes = vec![0b01_01_01_01; rows * stride];
    for (i, &w) in weights.iter().enumerate() {
        let (row, col) = (i / cols, i % cols);
        let shift = 2 * (col % 4);
        let byte = &mut codes[row * stride + col / 4];
        *byte = *byte & !(3 << shift) | ((w + 1) as u8) << shift;
    }
    codes
}

/// A slice that begins `offset` elements into its allocation, so that its alignment is odd.
fn shifted<T: Copy + Default>(values: &[T], offset: usize) -> Vec<T> {
    let mut all = vec![T::default(); offset];
    all.extend_from_slice(values);
    all
}

fn packed(weights: &[i8], rows: usize, cols: usize, pool: &ThreadPool) -> Vec<u8> {
    let mut tiles = vec![0xff; packed_len(rows, cols).unwrap()];
    pack(&codes_of(weights, rows, cols), rows, cols, &mut tiles, pool);
    tiles
}

/// `[T, cols]` to `[T, padded(cols)]`, with the sums of every 32 columns.
fn padded_rows(q: &[i8], cols: usize) -> (Vec<i8>, Vec<i32>) {
    let mut rows = Vec::new();
    let mut sums = Vec::new();
    for row in q.chunks(cols) {
        rows.extend_from_slice(row);
        rows.resize(rows.len() + padded(cols) - cols, 0);
        sums.extend(row.chunks(32).map(|q| q.iter().map(|&v| i32::from(v)).sum::<i32>()));
    }
    (rows, sums)
}

fn naive(weights: &[i8], q: &[i8], cols: usize) -> Vec<i32> {
    let dot = |x: &[i8], w: &[i8]| x.iter().zip(w).map(|(&x, &w)| i64::from(x) * i64::from(w)).sum::<i64>();
    let rows = |x| weights.chunks(cols).map(move |w| i32::try_from(dot(x, w)).unwrap());
    q.chunks(cols).flat_map(rows).collect()
}

/// Every kernel against the plain loop, with odd alignments.
fn check(weights: &[i8], q: &[i8], rows: usize, cols: usize, offset: usize, pool: &ThreadPool) {
    let tiles = shifted(&packed(weights, rows, cols, pool), offset);
    let (x, sums) = padded_rows(q, cols);
    let x = shifted(&x, offset);
    let matrix = TernaryMatrix::new(&tiles[offset..], rows, cols);
    let (expected, tokens) = (naive(weights, q, cols), q.len() / cols);
    for kernels in kernels() {
        let stride = rows + 3;
        let mut out = vec![i32::MIN; offset + tokens * stride];
        matmul_i32(kernels.ternary, pool, &matrix, &x[offset..], &sums, tokens, &mut out[offset..], stride);
        for (got, expected) in out[offset..].chunks(stride).zip(expected.chunks(rows)) {
            assert_eq!(&got[..rows], expected, "{kernels:?} {rows} x {cols}, {tokens} tokens");
            assert!(got[rows..].iter().all(|&v| v == i32::MIN), "{kernels:?} wrote past a row");
        }
    }
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), 1..20usize, 1..300usize, Just(64), Just(256)]
}

fn problem() -> impl Strategy<Value = (usize, usize, Vec<i8>, Vec<i8>)> {
    (size(), size(), 1..40usize).prop_flat_map(|(rows, cols, tokens)| {
        let weights = prop::collection::vec(-1..=1i8, rows * cols);
        let q = prop::collection::vec(any::<i8>(), tokens * cols);
        (Just(rows), Just(cols), weights, q)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(target_arch = "x86_64") { 200 } else { 40 }, ..Default::default() })]

    #[test]
    fn products_are_exact((rows, cols, weights, q) in problem(), offset in 0..5usize, threads in 1..4usize) {
        check(&weights, &q, rows, cols, offset, &ThreadPool::new(threads));
    }

    #[test]
    fn packing_is_lossless(rows in 1..70usize, cols in 1..70usize, seed in any::<u64>()) {
        let pool = ThreadPool::new(2);
        let weights: Vec<i8> = Random(seed).weights(rows * cols);
        let codes = codes_of(&weights, rows, cols);
        let tiles = packed(&weights, rows, cols, &pool);
        let mut back = vec![0xff; codes.len()];
        unpack(&tiles, rows, cols, &mut back, &pool);
        prop_assert_eq!(&back, &codes);
        // What is past the last column does not matter.
        if cols % 4 != 0 {
            let mut dirty = codes;
            for row in dirty.chunks_mut(cols.div_ceil(4)) {
                *row.last_mut().unwrap() |= 0xff << (2 * (cols % 4));
            }
            let mut again = vec![0; tiles.len()];
            pack(&dirty, rows, cols, &mut again, &pool);
            prop_assert_eq!(again, tiles);
        }
    }

    #[test]
    fn quantization_is_the_same(
        rows in prop::collection::vec(prop::collection::vec(value(), 1..100), 1..5),
        offset in 0..5usize,
    ) {
        for x in rows {
            same_quantization(&shifted(&x, offset)[offset..]);
        }
    }
}

/// Activations of all kinds: ordinary, halves (ties), tiny, huge, not finite.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        200 => -10.0..10.0f32,
        50 => (-254..=254i32).prop_map(|v| v as f32 / 2.0),
        20 => prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO,
        1 => prop_oneof![Just(f32::NAN), Just(-f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ]
}

/// All kernels quantize `x` as the formula does.
fn same_quantization(x: &[f32]) {
    let finite = x.iter().all(|v| v.is_finite());
    let max = x.iter().fold(1e-5f32, |max, v| max.max(v.abs()));
    let scale = if finite { 127.0 / max } else { f32::NAN };
    let round = |v: &f32| if finite { (v * scale).round_ties_even().clamp(-128.0, 127.0) as i8 } else { 0 };
    let mut expected: Vec<i8> = x.iter().map(round).collect();
    expected.resize(padded(x.len()), 0);
    let expected_sums: Vec<i32> = expected.chunks(32).map(|q| q.iter().map(|&v| i32::from(v)).sum()).collect();
    for kernels in kernels() {
        let (mut q, mut got, mut sums) = (vec![99; padded(x.len())], [0.0], vec![0; expected_sums.len()]);
        kernels.ternary.quantize(Token, x, &mut q, &mut got, &mut sums);
        assert_eq!(q, expected, "{kernels:?} {x:?}");
        assert_eq!((got[0].to_bits(), &sums), (scale.to_bits(), &expected_sums), "{kernels:?} {x:?}");
    }
}

/// A small generator (xorshift64*), enough for bulk data.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 |= 1;
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn weights(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| (self.next() % 3) as i8 - 1).collect()
    }
}

/// With all weights +1 and all activations 127 the codes alone sum to 650240 over 2560 columns: too much for i16.
#[test]
fn worst_cases_are_exact() {
    let pool = ThreadPool::new(2);
    for cols in [2560, 6912, 6927, MAX_COLS] {
        for (weight, x) in [(1, 127), (1, -128), (-1, 127), (-1, -128)] {
            for tokens in [1, 2, 8] {
                check(&vec![weight; 17 * cols], &vec![x; tokens * cols], 17, cols, 1, &pool);
            }
        }
    }
}

#[test]
fn shapes_of_models_are_exact() {
    let (pool, mut random) = (ThreadPool::new(2), Random(1));
    for (rows, cols, tokens) in [(640, 2560, 1), (640, 2560, 13), (200, 6912, 1), (96, 6912, 17)] {
        let weights = random.weights(rows * cols);
        let q: Vec<i8> = (0..tokens * cols).map(|_| random.next() as i8).collect();
        check(&weights, &q, rows, cols, 0, &pool);
    }
}

#[test]
fn empty_problems_are_fine() {
    let pool = ThreadPool::new(2);
    for kernels in kernels() {
        let none = TernaryMatrix::new(&[], 0, 32);
        matmul_i32(kernels.ternary, &pool, &none, &[0; 64], &[0; 2], 2, &mut [], 0);
        let no_columns = TernaryMatrix::new(&[], 5, 0);
        let mut out = [7; 10];
        matmul_i32(kernels.ternary, &pool, &no_columns, &[], &[], 2, &mut out, 5);
        assert_eq!(out, [0; 10]);
        let no_tokens = TernaryMatrix::new(&[0x55; 64], 3, 3);
        matmul_i32(kernels.ternary, &pool, &no_tokens, &[], &[], 0, &mut [], 3);
    }
}

/// Two matrices of different scales as one product, from f32 to f32, against the formula in f64.
#[test]
fn scales_go_with_their_panels() {
    let (cols, tokens, pool, mut random) = (100, 11, ThreadPool::new(3), Random(7));
    let (first, second) = (random.weights(21 * cols), random.weights(10 * cols));
    let mut tiles = packed(&first, 21, cols, &pool);
    tiles.extend(packed(&second, 10, cols, &pool));
    let (rows, panel_scales) = (32 + 10, [0.5f32, 0.5, 3.0]);
    let x: Vec<f32> = (0..tokens * cols).map(|_| random.next() as i32 as f32 * 1e-9).collect();
    let mut q = vec![0; tokens * padded(cols)];
    let (mut scales, mut sums) = (vec![0.0; tokens], vec![0; tokens * cols.div_ceil(32)]);
    let mut first_out = None;
    for kernels in kernels() {
        quantize_rows(kernels.ternary, &pool, Token, &x, cols, &mut q, &mut scales, &mut sums);
        let activations = Activations { rule: Token, q: &q, scales: &scales, sums: &sums };
        let matrix = TernaryMatrix::new(&tiles, rows, cols);
        let mut out = vec![0.0; tokens * rows];
        matmul(kernels.ternary, &pool, &matrix, &activations, &panel_scales, &mut out, rows);
        for t in 0..tokens {
            let dot = |w: &[i8]| -> f64 {
                let q = &q[t * padded(cols)..];
                let sum: i32 = w.iter().zip(q).map(|(&w, &q)| i32::from(w) * i32::from(q)).sum();
                f64::from(sum) / f64::from(scales[t])
            };
            for r in 0..21 {
                let expected = 0.5 * dot(&first[r * cols..][..cols]);
                assert!((f64::from(out[t * rows + r]) - expected).abs() <= 1e-6 * expected.abs());
            }
            assert!(out[t * rows + 21..t * rows + 32].iter().all(|&v| v == 0.0), "padding rows");
            for r in 0..10 {
                let expected = 3.0 * dot(&second[r * cols..][..cols]);
                assert!((f64::from(out[t * rows + 32 + r]) - expected).abs() <= 1e-6 * expected.abs());
            }
        }
        let first_out = first_out.get_or_insert_with(|| out.clone());
        assert_eq!(*first_out, out, "{kernels:?}: every path gives the same f32");
    }
}

#[test]
fn a_row_that_is_not_finite_gives_nan() {
    let pool = ThreadPool::new(1);
    let tiles = packed(&[1; 40], 2, 20, &pool);
    for kernels in kernels() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 40]; // the second of two rows is sound
            x[17] = bad;
            let (mut q, mut scales, mut sums) = ([0; 64], [0.0; 2], [0; 2]);
            quantize_rows(kernels.ternary, &pool, Token, &x, 20, &mut q, &mut scales, &mut sums);
            let activations = Activations { rule: Token, q: &q, scales: &scales, sums: &sums };
            let mut out = [0.0; 4];
            matmul(kernels.ternary, &pool, &TernaryMatrix::new(&tiles, 2, 20), &activations, &[1.0], &mut out, 2);
            assert!(out[0].is_nan() && out[1].is_nan(), "{kernels:?} {bad} {out:?}");
            assert_eq!(out[2..], [20.0; 2], "{kernels:?}");
        }
    }
}
