use super::select::{Cut, Scratch};
use super::*;
use crate::philox::philox;
use proptest::prelude::*;

/// Numbers in [0, 1) of a seed.
fn uniform(seed: u32, count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| philox([[i], [0], [0], [0]], [seed, 0])[0][0] as f32 / 2f32.powi(32)).collect()
}

/// [`Scratch::cut`] by sorting.
fn sorted_cut(keys: &[f32], weights: &[u32], mut need: u64, value: impl Fn(u32) -> u64) -> Cut {
    let mut order: Vec<usize> = (0..keys.len()).filter(|&i| keys[i] > f32::NEG_INFINITY).collect();
    order.sort_by(|&a, &b| keys[b].total_cmp(&keys[a]).then(a.cmp(&b)));
    for index in order {
        if value(weights[index]) >= need {
            return Cut { key: keys[index], index };
        }
        need -= value(weights[index]);
    }
    panic!("the sum is not reached");
}

/// Keys of every kind: spread, nearly equal, equal, few far from many, too near for a quotient, some cut.
fn keys(kind: usize, seed: u32, count: usize) -> Vec<f32> {
    let x = uniform(seed, count);
    let one = |(i, x): (usize, f32)| match kind {
        0 => -20.0 * x,
        1 => -1e-4 * x - 3.0,
        2 => (-4.0 * x).round(),
        3 if i % 1000 == 7 => -20.0 * x,
        3 => -1e-5 * x - 20.0,
        4 => -1e-38 * x,
        5 if x < 0.3 => f32::NEG_INFINITY,
        5 => -5.0 * x,
        _ => -1.0,
    };
    x.into_iter().enumerate().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_cut_falls_where_sorting_says(kind in 0..7usize, seed: u32, count in 1..60_000usize, part in 0.0..1.0f64) {
        let keys = keys(kind, seed, count);
        let weights: Vec<u32> =
            keys.iter().zip(uniform(!seed, count)).map(|(k, w)| if k.is_finite() { 1 + (w * 1e9) as u32 } else { 0 }).collect();
        let (kept, total) = sums(&weights);
        prop_assume!(kept > 0);
        let mut scratch = Scratch::new(keys.len());
        let need = 1 + (part * total as f64) as u64;
        let need = need.min(total);
        let isa = Isa::available()[seed as usize % Isa::available().len()];
        prop_assert_eq!(scratch.cut(isa, &keys, &weights, [need, total], u64::from), sorted_cut(&keys, &weights, need, u64::from));
        let need = (1 + (part * kept as f64) as u64).min(kept as u64);
        let one = |weight| u64::from(weight > 0);
        prop_assert_eq!(scratch.cut(isa, &keys, &weights, [need, kept as u64], one), sorted_cut(&keys, &weights, need, one));
    }
}

#[test]
fn weights_are_powers_of_e() {
    for i in 0..=100_000 {
        let key = LOWEST * i as f32 / 100_000.0;
        let want = f64::from(key).exp() * 2f64.powi(30);
        assert!((f64::from(weight_of(key)) - want).abs() <= want * 2f64.powi(-22) + 0.51, "{key}");
    }
    assert_eq!((weight_of(0.0), weight_of(LOWEST)), (1 << 30, 1));
}

#[test]
fn a_draw_reaches_each_token_as_often_as_its_weight_says() {
    let mut candidates = Candidates::new(3000);
    let logits = uniform(5, 3000);
    candidates.load(&logits);
    assert!(candidates.weigh(0.5, 0.0));
    let all: Vec<_> = candidates.probabilities().collect();
    let mut below = 0.0;
    for &(token, probability) in &all {
        let at = |part: f64| candidates.draw(((below + part * probability) * 2f64.powi(48)) as u64);
        assert_eq!((at(0.01).0, at(0.99).0), (token, token));
        assert_eq!(at(0.5).1, probability);
        below += probability;
    }
    assert_eq!(candidates.draw(0).0, 0);
    assert_eq!(candidates.draw((1 << 48) - 1).0, 2999);
}

#[test]
fn candidates_that_are_moved_together_keep_their_tokens() {
    let mut candidates = Candidates::new(5000);
    let logits: Vec<f32> = uniform(9, 5000).iter().map(|x| 8.0 * x).collect();
    let mut order: Vec<u32> = (0..5000).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    candidates.load(&logits);
    assert!(candidates.weigh(1.0, 0.0));
    for k in [4000, 600, 60, 7, 1] {
        candidates.top_k(k);
        let mut want = order[..k].to_vec();
        want.sort_unstable();
        assert_eq!(candidates.probabilities().map(|(token, _)| token).collect::<Vec<_>>(), want, "{k}");
        assert_eq!(candidates.compact, k <= 600);
    }
}

#[test]
fn what_is_not_a_number_is_no_candidate() {
    let mut candidates = Candidates::new(3);
    candidates.load(&[f32::NAN, -0.0, 0.0]);
    assert!(candidates.weigh(f32::from_bits(1), 0.0), "the least temperature");
    assert_eq!(candidates.probabilities().collect::<Vec<_>>(), [(1, 0.5), (2, 0.5)]);
    candidates.top_k(1);
    assert_eq!(candidates.probabilities().collect::<Vec<_>>(), [(1, 1.0)]);
    for damaged in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [0.0, f32::INFINITY, 0.0]] {
        candidates.load(&damaged);
        assert!(!candidates.weigh(1.0, 0.0));
        assert_eq!(most_likely(&damaged), None);
    }
    assert_eq!(most_likely(&[1.0, f32::NAN, 3.0, 3.0]), Some(2));
}

#[test]
fn every_instruction_set_gives_the_same_candidates() {
    let logits: Vec<f32> = uniform(3, 9001).iter().map(|x| 30.0 * x).collect();
    let bits = |isa| {
        let mut candidates = Candidates::with_isa(logits.len(), isa);
        candidates.load(&logits);
        assert!(candidates.weigh(1.3, 2.0));
        let weighed = candidates.clone();
        candidates.top_p(0.7);
        candidates.typical(0.8);
        let bits = |x: &Candidates| x.keys[..x.len].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        (bits(&weighed), weighed.weights, bits(&candidates), candidates.weights, candidates.total)
    };
    for isa in Isa::available() {
        assert!(bits(isa) == bits(Isa::Scalar), "{isa}");
    }
}
