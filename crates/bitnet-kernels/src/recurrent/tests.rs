use super::*;

#[test]
fn the_delta_rule_by_hand() {
    // e^g = 1, then 0.5; beta = 1, then 0.5.
    let shape = DeltaShape { key_heads: 1, value_heads: 1, key_dim: 2, value_dim: 2, tiled: false };
    let half = (0.5f32).ln();
    // With decay -1 and bias 0, softplus(a) is 0 and ln 2.
    let (a, b) = ([-200.0, half.abs().exp_m1().ln()], [200.0, 0.0]);
    let qkv = [3.0, 4.0, 1.0, 0.0, 1.0, 2.0, 0.0, 1.0, 0.6, 0.8, 3.0, -1.0];
    let x = Delta { shape, qkv: &qkv, a: &a, b: &b, decay: &[-1.0], bias: &[0.0] };
    let rows = StateRows { sequences: &[0, 0], positions: &[0, 1], slots: &[1] };
    let pool = ThreadPool::new(2);
    for isa in Isa::available() {
        let (mut state, mut out) = ([9.0; 12], [0.0; 4]);
        gated_delta(isa, &pool, &x, &rows, &mut state, &mut out);
        let close = |got: &[f32], want: &[f32]| got.iter().zip(want).all(|(g, w)| (g - w).abs() < 2e-5);
        assert!(close(&out, &[0.424264, 0.848528, 0.763675, -0.452548]), "{isa}: {out:?}");
        assert!(close(&state[4..8], &[1.31, 0.52, 1.08, -0.64]), "{isa}: {state:?}");
        assert!(state[..4].iter().chain(&state[8..]).all(|x| *x == 9.0), "other states");
    }
}

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let one = |i| crate::philox::philox([[i], [0], [0], [0]], [seed, 0])[0][0] as f32 / 2f32.powi(31) - 1.0;
    (0..count as u32).map(one).collect()
}

/// Rows of sequences in one call, or in several: the bits of the scalar form, one row after the other.
#[test]
fn a_sequence_does_not_depend_on_the_batch() {
    let shape = DeltaShape { key_heads: 2, value_heads: 6, key_dim: 9, value_dim: 21, tiled: true };
    let (channels, taps, lengths) = (shape.row(), 4, [7usize, 1, 5]);
    let total: usize = lengths.iter().sum();
    let (x, weights) = (numbers(total * channels, 1), numbers(taps * channels, 2));
    let (a, b) = (numbers(total * 6, 3), numbers(total * 6, 4));
    let (decay, bias): (Vec<f32>, Vec<f32>) = (numbers(6, 5).iter().map(|x| -x.abs()).collect(), numbers(6, 6));
    let width = shape.value_heads * shape.value_dim;
    let run = |isa, threads, parts: &[&[(u32, Range<usize>)]]| {
        let pool = ThreadPool::new(threads);
        let mut conv_state = vec![f32::NAN; 4 * (taps - 1) * channels];
        let mut state = vec![f32::NAN; 4 * shape.state()];
        let mut all = vec![0.0; total * width];
        for part in parts {
            let rows: Vec<(u32, usize)> = part.iter().flat_map(|(s, r)| r.clone().map(|p| (*s, p))).collect();
            let place = |(s, p): (u32, usize)| lengths[..s as usize].iter().sum::<usize>() + p;
            let take = |from: &[f32], width: usize| -> Vec<f32> {
                rows.iter().flat_map(|&row| from[place(row) * width..][..width].to_vec()).collect()
            };
            let sequences: Vec<u32> = rows.iter().map(|(s, _)| *s).collect();
            let positions: Vec<u32> = rows.iter().map(|(_, p)| *p as u32).collect();
            let slots = StateRows { sequences: &sequences, positions: &positions, slots: &[2, 0, 3] };
            let (mut mixed, mut out) = (vec![0.0; rows.len() * channels], vec![0.0; rows.len() * width]);
            short_conv(isa, &pool, &take(&x, channels), &weights, &slots, &mut conv_state, &mut mixed);
            let delta = Delta { shape, qkv: &mixed, a: &take(&a, 6), b: &take(&b, 6), decay: &decay, bias: &bias };
            gated_delta(isa, &pool, &delta, &slots, &mut state, &mut out);
            for (&row, out) in rows.iter().zip(out.chunks_exact(width)) {
                all[place(row) * width..][..width].copy_from_slice(out);
            }
        }
        all.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let whole: &[(u32, Range<usize>)] = &[(0, 0..7), (1, 0..1), (2, 0..5)];
    let expected = run(Isa::Scalar, 1, &[whole]);
    assert!(expected.iter().all(|x| f32::from_bits(*x).is_finite()));
    for isa in Isa::available() {
        for threads in [1, 4] {
            assert_eq!(run(isa, threads, &[whole]), expected, "{isa}, {threads} threads");
            let parts: [&[(u32, Range<usize>)]; 4] =
                [&[(2, 0..2)], &[(0, 0..3), (2, 2..3)], &[(2, 3..5), (0, 3..4), (1, 0..1)], &[(0, 4..7)]];
            assert_eq!(run(isa, threads, &parts), expected, "{isa}, {threads} threads, in parts");
        }
    }
}
