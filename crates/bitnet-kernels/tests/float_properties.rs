//! Float operations of every instruction set of this CPU against f64 and the scalar kernel, at odd sizes.

use bitnet_kernels::float::{AttentionShape, KvCache, half, inverse_frequencies, rope_tables};
use bitnet_kernels::{FloatKernel, Isa, Kernels, ThreadPool};
use proptest::prelude::*;

/// Every kernel of this CPU, the scalar one first.
fn kernels() -> Vec<&'static dyn FloatKernel> {
    Isa::available().into_iter().map(|isa| Kernels::for_isa(isa).expect("available").float).collect()
}

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    // Near normal, with some numbers ten times as large.
    (0..len).map(|i| (uniform() + uniform() + uniform()) * 2.0 * if i % 37 == 5 { 10.0 } else { 1.0 }).collect()
}

/// `|a - b| <= bound * max(|b|, scale)`.
#[track_caller]
fn close(kernel: &dyn FloatKernel, a: &[f32], b: &[f32], bound: f32, scale: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let near = (a - b).abs() <= bound * b.abs().max(scale);
        assert!(near || a == b || a.is_nan() && b.is_nan(), "{} {i}: {a} {b}", kernel.isa());
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    for kernel in kernels() {
        // Every 997th float, both signs.
        let x: Vec<f32> = (0..=0xff80_0000u32).step_by(997).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        let mut y = x.clone();
        kernel.exp(&mut y);
        for (x, y) in x.iter().zip(&y) {
            let exact = (*x as f64).exp();
            let unit = (exact as f32).abs().next_up() as f64 - (exact as f32).abs() as f64;
            let overflow = exact > f32::MAX as f64 && *y == f32::INFINITY;
            assert!(overflow || (*y as f64 - exact).abs() <= 2.0 * unit, "{} exp({x}) {y} {exact}", kernel.isa());
        }
        let mut special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
        kernel.exp(&mut special);
        assert!(special[0].is_nan());
        assert_eq!(special[1..], [f32::INFINITY, 0.0, 1.0, 1.0]);
    }
}

#[test]
fn to_f16_rounds_as_the_standard_says() {
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(99_991).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
    // Ties and their neighbours.
    for bits in (0..0x7c00u16).step_by(7) {
        let tie = (half::f16_to_f32(bits) + half::f16_to_f32(bits + 1)) / 2.0;
        x.extend([tie, tie.next_up(), -tie.next_down()]);
    }
    for kernel in kernels() {
        let mut y = vec![0; x.len()];
        kernel.to_f16(&x, &mut y);
        for (x, y) in x.iter().zip(&y) {
            assert_eq!(half::f32_to_f16(*x), *y, "{} {x}", kernel.isa());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// All sums have at most a few hundred terms a lane, so 1e-6 leaves room for their rounding.
    #[test]
    fn elementwise_operations_equal_scalar(rows in 1..4usize, columns in 1..300usize, seed: u64) {
        let scalar = kernels()[0];
        let (x, weight) = (numbers(rows * columns, seed), numbers(columns, !seed));
        let y = numbers(rows * columns, seed ^ 7);
        for kernel in kernels() {
            let (mut a, mut b) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            kernel.rms_norm(&x, &weight, 1e-5, &mut a);
            scalar.rms_norm(&x, &weight, 1e-5, &mut b);
            close(kernel, &a, &b, 1e-6, 0.0);

            for f in [FloatKernel::add_assign, FloatKernel::silu_gated, FloatKernel::relu2_gated] {
                (a, b) = (x.clone(), x.clone());
                f(kernel, &mut a, &y);
                f(scalar, &mut b, &y);
                close(kernel, &a, &b, 1e-6, 0.0);
            }

            (a, b) = (x.clone(), x.clone());
            kernel.softmax(&mut a, columns);
            scalar.softmax(&mut b, columns);
            close(kernel, &a, &b, 1e-6, 1e-30);
        }
    }

    #[test]
    fn rope_equals_scalar(tokens in 0..4usize, heads in 1..4usize, pairs in 1..70usize, seed: u64) {
        let (cos, sin) = rope_tables(&inverse_frequencies(10_000.0, 2 * pairs), 20);
        let (cos, sin) = (&cos[3 * pairs..][..tokens * pairs], &sin[3 * pairs..][..tokens * pairs]);
        let x = numbers(tokens * heads * 2 * pairs, seed);
        for kernel in kernels() {
            let (mut a, mut b) = (x.clone(), x.clone());
            kernel.rope(&mut a, heads, pairs, cos, sin);
            kernels()[0].rope(&mut b, heads, pairs, cos, sin);
            close(kernel, &a, &b, 1e-6, 10.0); // of numbers up to 30, with cancellation
        }
    }
}

/// Scores, softmax and weighted sums in f64, the values of f16 caches being exact in it.
fn naive_attention(shape: &AttentionShape, q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
    let dim = shape.head_dim;
    let mut out = Vec::new();
    for (i, query) in q.chunks_exact(dim).enumerate() {
        let (token, head) = (i / shape.heads, i % shape.heads);
        let first = head / (shape.heads / shape.kv_heads) * shape.capacity;
        let row = |cache: &[f32], n: usize| cache[(first + n) * dim..][..dim].to_vec();
        let scores = (0..=shape.start + token).map(|n| {
            let dot: f64 = row(keys, n).iter().zip(query).map(|(&k, &q)| k as f64 * q as f64).sum();
            dot / (dim as f64).sqrt()
        });
        let scores: Vec<f64> = scores.collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        let mut sums = vec![0.0; dim];
        for (n, score) in scores.iter().enumerate() {
            for (sum, v) in sums.iter_mut().zip(row(values, n)) {
                *sum += (score - top).exp() / total * v as f64;
            }
        }
        out.extend(sums.iter().map(|&v| v as f32));
    }
    out
}

#[test]
fn attention_equals_f64() {
    let pool = ThreadPool::new(3);
    // tokens, start, heads, kv_heads, head_dim
    let shapes = [
        (1, 0, 4, 4, 64),
        (1, 1, 20, 5, 128),
        (1, 700, 20, 5, 128), // split over threads
        (1, 130, 6, 1, 80),
        (1, 65, 34, 2, 256), // more heads in a group than a task takes
        (1, 50, 3, 3, 20),
        (1, 9, 2, 1, 1),
        (130, 0, 20, 5, 128),
        (17, 100, 8, 2, 80),
        (70, 3, 4, 4, 64),
        (3, 200, 34, 2, 256),
        (66, 1, 3, 1, 20),
        (5, 61, 2, 2, 37),
    ];
    for (i, (tokens, start, heads, kv_heads, head_dim)) in shapes.into_iter().enumerate() {
        let capacity = start + tokens + i % 3;
        let shape = AttentionShape { tokens, start, heads, kv_heads, head_dim, capacity };
        let q: Vec<f32> = numbers(tokens * heads * head_dim, i as u64).iter().map(|q| q / 5.0).collect();
        // What is beyond the last position must not be read as a number.
        let spoil = |mut cache: Vec<f32>| {
            for head in cache.chunks_exact_mut(capacity * head_dim) {
                head[(start + tokens) * head_dim..].fill(f32::NAN);
            }
            cache
        };
        let keys = spoil(numbers(kv_heads * capacity * head_dim, 100 + i as u64));
        let values = spoil(numbers(kv_heads * capacity * head_dim, 200 + i as u64));
        let halves = |x: &[f32]| -> Vec<u16> { x.iter().map(|&x| half::f32_to_f16(x)).collect() };
        let rounded = |x: &[u16]| -> Vec<f32> { x.iter().map(|&x| half::f16_to_f32(x)).collect() };
        let (keys_16, values_16) = (halves(&keys), halves(&values));
        let expected = naive_attention(&shape, &q, &keys, &values);
        let expected_16 = naive_attention(&shape, &q, &rounded(&keys_16), &rounded(&values_16));
        for kernel in kernels() {
            let mut out = vec![f32::NAN; q.len()];
            kernel.attention(&pool, &shape, &q, KvCache::F32 { keys: &keys, values: &values }, &mut out);
            // Scores reach 30, where f32 rounds by 2e-6: weights change by as much of themselves, and values reach 30.
            close(kernel, &out, &expected, 2e-6, 30.0);
            out.fill(f32::NAN);
            kernel.attention(&pool, &shape, &q, KvCache::F16 { keys: &keys_16, values: &values_16 }, &mut out);
            close(kernel, &out, &expected_16, 2e-6, 30.0);
        }
    }
}

#[test]
fn scores_far_apart_do_not_overflow() {
    let pool = ThreadPool::new(1);
    let (tokens, head_dim) = (70, 16);
    let shape = AttentionShape { tokens, start: 0, heads: 1, kv_heads: 1, head_dim, capacity: tokens };
    // The score of key n is 10^4 (n - 35): each token attends to the newest key alone.
    let q = vec![1e2; tokens * head_dim];
    let keys: Vec<f32> = (0..tokens * head_dim).map(|i| ((i / head_dim) as f32 - 35.0) * 25.0).collect();
    let values: Vec<f32> = (0..tokens * head_dim).map(|i| (i / head_dim) as f32).collect();
    for kernel in kernels() {
        let mut out = vec![f32::NAN; q.len()];
        kernel.attention(&pool, &shape, &q, KvCache::F32 { keys: &keys, values: &values }, &mut out);
        assert_eq!(out, values, "{}", kernel.isa());
    }
}
