//! Float operations of every instruction set of this CPU against PyTorch (`golden/float_ops.py`).

use bitnet_kernels::float::{AttentionShape, KvCache, inverse_frequencies, rope_tables};
use bitnet_kernels::{FloatKernel, Isa, Kernels, ThreadPool};

struct Golden(&'static [u8]);

impl Golden {
    fn take(&mut self, len: usize) -> Vec<f32> {
        let bytes = self.0.split_off(..4 * len).expect("the golden file is whole");
        let floats = bytes.as_chunks::<4>().0;
        floats.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

/// `|ours - expected| <= 4e-7 * max(|expected|, scale)`: a few units in the last place.
#[track_caller]
fn close(ours: &[f32], expected: &[f32], scale: f32) {
    assert_eq!(ours.len(), expected.len());
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 4e-7 * b.abs().max(scale), "{i}: {a} {b}");
    }
}

fn check(kernel: &dyn FloatKernel) {
    let pool = ThreadPool::new(2);
    let mut golden = Golden(include_bytes!("golden/float_ops.bin"));

    let (x, weight) = (golden.take(3 * 75), golden.take(75));
    let mut y = vec![0.0; x.len()];
    kernel.rms_norm(&x, &weight, 1e-5, &mut y);
    close(&y, &golden.take(3 * 75), 0.0);

    let mut x = golden.take(4 * 37);
    kernel.softmax(&mut x, 37);
    // Scores near 60 round by 4e-6 before the exponential, in the reference as well as here.
    for (a, b) in x.iter().zip(golden.take(4 * 37)) {
        assert!((a - b).abs() <= 1e-6 * b + 1e-30, "{a} {b}");
    }

    let (gate, up) = (golden.take(101), golden.take(101));
    for gated in [FloatKernel::silu_gated, FloatKernel::relu2_gated] {
        let mut y = gate.clone();
        gated(kernel, &mut y, &up);
        close(&y, &golden.take(101), 0.0);
    }

    let frequencies = [10_000.0, 500_000.0].map(|theta| inverse_frequencies(theta, 32));
    close(&frequencies[0], &golden.take(16), 0.0);
    close(&frequencies[1], &golden.take(16), 0.0);
    let mut x = golden.take(5 * 3 * 32);
    let (cos, sin) = rope_tables(&frequencies[0], 12);
    let (pairs, angles) = (frequencies[0].len(), 7 * frequencies[0].len()..);
    kernel.rope(&mut x, 3, pairs, &cos[angles.clone()], &sin[angles]);
    // A frequency off by one unit in the last place turns angles up to 11 by 1e-6.
    for (a, b) in x.iter().zip(golden.take(5 * 3 * 32)) {
        assert!((a - b).abs() <= 4e-6, "{a} {b}");
    }

    let q = golden.take(3 * 6 * 20);
    let (keys, values) = (golden.take(2 * 7 * 20), golden.take(2 * 7 * 20));
    let mut y = vec![0.0; q.len()];
    let shape = AttentionShape { tokens: 3, start: 4, heads: 6, kv_heads: 2, head_dim: 20, capacity: 7 };
    let cache = KvCache::F32 { keys: &keys, values: &values };
    kernel.attention(&pool, &shape, &q, cache, &mut y);
    close(&y, &golden.take(q.len()), 1.0);
    assert!(golden.0.is_empty());
}

#[test]
fn equal_to_pytorch() {
    for isa in Isa::available() {
        check(Kernels::for_isa(isa).expect("available").float);
    }
}
