//! Float operations of every instruction set of this CPU against PyTorch (`golden/float_ops.py`).

mod common;

use bitnet_device::backend::GateActivation;
use bitnet_kernels::float::{KvPages, KvPagesMut, KvRows, PagedShape, inverse_frequencies, rope_tables, store_kv};
use bitnet_kernels::{Kernels, ThreadPool};

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

fn check(kernels: Kernels) {
    let (kernel, dense) = (kernels.float, kernels.dense);
    let pool = ThreadPool::new(2);
    let mut golden = Golden(include_bytes!("golden/float_ops.bin"));

    let (x, weight) = (golden.take(3 * 75), golden.take(75));
    let mut y = vec![0.0; x.len()];
    kernel.rms_norm(&x, &weight, 1e-5, &mut y);
    close(&y, &golden.take(3 * 75), 0.0);

    let mut x = vec![0.0; 4 * 37];
    dense.softmax(&golden.take(4 * 37), 37, false, &mut x);
    // Scores near 60 round by 4e-6 before the exponential, in the reference as well as here.
    for (a, b) in x.iter().zip(golden.take(4 * 37)) {
        assert!((a - b).abs() <= 1e-6 * b + 1e-30, "{a} {b}");
    }

    let (gate, up) = (golden.take(101), golden.take(101));
    for act in [GateActivation::Silu, GateActivation::Relu2] {
        let mut y = gate.clone();
        kernel.gated(act, &mut y, &up);
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
    // [2, 7, 20] to [7, 2, 20].
    let by_token =
        |x: Vec<f32>| -> Vec<f32> { (0..7 * 2 * 20).map(|i| x[(i / 20 % 2 * 7 + i / 40) * 20 + i % 20]).collect() };
    let (new_keys, new_values) = (by_token(golden.take(2 * 7 * 20)), by_token(golden.take(2 * 7 * 20)));
    let shape =
        PagedShape { heads: 6, kv_heads: 2, head_dim: 20, page_len: 64, scale: 1.0 / 20f32.sqrt(), window: None };
    let (mut keys, mut values) = (vec![0.0; 2 * 20 * 64], vec![0.0; 2 * 64 * 20]);
    let pages = KvPagesMut::F32 { keys: &mut keys, values: &mut values };
    store_kv(&pool, &shape, &new_keys, &new_values, &[0, 1, 2, 3, 4, 5, 6], pages);
    let mut y = vec![0.0; q.len()];
    let rows = KvRows { table: &[0], table_width: 1, sequences: &[0; 3], positions: &[4, 5, 6] };
    let pages = KvPages::F32 { keys: &keys, values: &values };
    kernel.paged_attention(&pool, &shape, &q, &pages, &rows, &mut y);
    close(&y, &golden.take(q.len()), 1.0);
    assert!(golden.0.is_empty());
}

#[test]
fn equal_to_pytorch() {
    common::kernels().for_each(check);
}
